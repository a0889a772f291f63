//! Channel documents: who may bring which, and what devices get.

use otad_bundle::{Channel, Digest, NamedRelease, Role, Root, SignedChannel, Signer, SigningKey};

use crate::http::{Answer, get, send};
use crate::process::{Process, directory};
use crate::rig::Server;

const TARGET: &str = "/device/v1/channel?compatible=acme%20one";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32]).unwrap()
}

fn server() -> Server {
    let root = Root::with_release_keys(&[key(1).public_key()]).with_key(Role::Online, key(2).public_key());
    Server::with(|options| options.root = Some(root.to_toml()))
}

fn document(counter: u64, signer: u8) -> String {
    staged_document(counter, signer, Vec::new())
}

fn staged_document(counter: u64, signer: u8, also: Vec<NamedRelease>) -> String {
    let channel = Channel {
        compatible: "acme one".into(),
        counter,
        issued: 1_800_000_000,
        expires: 1_800_100_000,
        release: Digest([7; 32]),
        sequence: 42,
        also,
    };
    let mut signed = SignedChannel::draft(&channel).unwrap();
    signed.sign(&key(signer)).unwrap();
    signed.to_text()
}

fn bring(server: &Server, document: &str) -> Answer {
    send(server.address, "POST", "/api/v1/channels", &[], document.as_bytes())
}

#[test]
fn the_newest_document_is_served_as_it_is() {
    let server = server();
    assert_eq!(get(server.address, TARGET).status, 204);
    for counter in [17, 18] {
        assert_eq!(bring(&server, &document(counter, 2)).status, 204);
        assert_eq!(bring(&server, &document(counter, 2)).status, 204, "again is fine");
        assert!(get(server.address, TARGET).body == document(counter, 2).as_bytes());
    }
    let old = bring(&server, &document(17, 2));
    assert_eq!((old.status, old.code().as_str()), (409, "METADATA_REPLAY"));
    assert!(get(server.address, TARGET).body == document(18, 2).as_bytes());
    assert_eq!(get(server.address, "/device/v1/channel?compatible=other").status, 204);
    assert_eq!(get(server.address, "/device/v1/channel").status, 400);
}

/// While the latest release is on its way in stages, its document names what is fine as well; that is signed like the rest.
#[test]
fn a_document_for_stages_is_served_as_it_is() {
    let server = server();
    let staged = staged_document(17, 2, vec![NamedRelease { release: Digest([6; 32]), sequence: 41 }]);
    assert_eq!(bring(&server, &staged).status, 204);
    assert!(get(server.address, TARGET).body == staged.as_bytes());
    let changed = bring(
        &server,
        &staged.replace("sequence = 41", "sequence = 40").replace("counter = 17", "counter = 18"),
    );
    assert_eq!((changed.status, changed.code().as_str()), (422, "SIG_INVALID"));
}

#[test]
fn what_the_online_role_did_not_sign_is_refused() {
    let server = server();
    let changed = document(17, 2).replace("sequence = 42", "sequence = 43");
    for (what, document, code) in [
        ("a release key", document(17, 1), "SIG_UNTRUSTED"),
        ("changed", changed, "SIG_INVALID"),
        ("unsigned", "schema = 1\n".to_owned(), "SIG_MISSING"),
        ("another form", document(17, 2).replace("schema = 1", "schema=1"), "METADATA_INVALID"),
    ] {
        let refused = bring(&server, &document);
        assert_eq!((refused.status, refused.code().as_str()), (422, code), "{what}");
    }
    assert_eq!(get(server.address, TARGET).status, 204);
    assert_eq!(bring(&server, &"x".repeat(10 << 20)).status, 413);
}

/// W8: documents that an earlier version kept as files are served, and hold off older ones; a newer one in the database stays.
#[test]
fn w8_documents_of_an_earlier_version_are_taken_over() {
    let data = directory();
    let root = Root::with_release_keys(&[key(1).public_key()]).with_key(Role::Online, key(2).public_key());
    std::fs::write(data.path().join("root.toml"), root.to_toml()).unwrap();
    let file = data.path().join(format!("channels/{}.toml", Digest::of(b"acme one")));
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, document(18, 2)).unwrap();
    std::fs::write(file.with_file_name("stray"), "x").unwrap();
    let bring = |process: &Process, counter| {
        send(process.address, "POST", "/api/v1/channels", &[], document(counter, 2).as_bytes()).status
    };
    let mut process = Process::start(data.path());
    assert!(get(process.address, TARGET).body == document(18, 2).as_bytes());
    assert_eq!([17, 18, 19].map(|counter| bring(&process, counter)), [409, 204, 204]);
    process.signal(nix::sys::signal::Signal::SIGKILL);
    let process = Process::start(data.path());
    assert!(get(process.address, TARGET).body == document(19, 2).as_bytes());
}
