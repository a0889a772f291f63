//! Rows V3 and T of the trust model over HTTP: a real otad and a real otaserver, in whose data directory somebody else writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use otad::trust::freshness::COUNTER_STEP_LIMIT;
use otad_bundle::{
    Bundle, Channel, FileInput, NamedRelease, Role, Root, SignedChannel, Signer as _, SigningKey,
};
use otad_demo::device::Reboot;
use otad_demo::{Binaries, Server};

use super::shelf::{Rig, said, shelf};

const MODEL: &str = "demo-board";
const DAY_SECONDS: u64 = 24 * 3600;
/// No question is asked but by hand.
const NEVER_SECONDS: u32 = 24 * 3600;

fn online() -> SigningKey {
    SigningKey::from_seed([77; 32]).unwrap()
}

/// A release of the shelf.
fn release(number: u64) -> NamedRelease {
    let root = Root::read(&shelf().path("root.toml")).unwrap();
    let bundle = Bundle::open(FileInput::open(&shelf().bundle(number)).unwrap(), &root).unwrap();
    NamedRelease { release: bundle.release(), sequence: bundle.manifest().update.sequence }
}

/// A document that holds for a day.
fn document(counter: u64, latest: u64, also: &[u64]) -> Channel {
    let issued = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let NamedRelease { release: digest, sequence } = release(latest);
    Channel {
        compatible: MODEL.to_owned(),
        counter,
        issued,
        expires: issued + DAY_SECONDS,
        release: digest,
        sequence,
        also: also.iter().copied().map(release).collect(),
    }
}

fn signed(channel: &Channel) -> String {
    let mut signed = SignedChannel::draft(channel).unwrap();
    signed.sign(&online()).unwrap();
    signed.to_text()
}

/// A server whose data a thief can write, and what it is asked with.
struct Shop {
    server: Server,
    dir: PathBuf,
}

impl Shop {
    fn open(dir: &Path) -> Shop {
        let release_key = shelf().key().public_key();
        let root = Root::with_release_keys(&[release_key]).with_key(Role::Online, online().public_key());
        fs::write(dir.join("root.toml"), root.to_toml()).unwrap();
        let data = dir.join("server");
        let server = Server::start(&data, &dir.join("root.toml"), &Binaries::find().unwrap()).unwrap();
        Shop { server, dir: data }
    }

    /// An operator with rights: status and what the server says to it.
    fn post(&self, path: &str, body: &str) -> String {
        let url = format!("{}{path}", self.server.url());
        let arguments = ["--silent", "-w", "%{http_code}", "-X", "POST", "--data-binary", body, &url];
        String::from_utf8(Command::new("curl").args(arguments).output().unwrap().stdout).unwrap()
    }

    /// A thief: what the server itself would refuse lies where it serves from.
    fn plant(&self, channel: &Channel) {
        let act = "import sqlite3, sys; base = sqlite3.connect(sys.argv[1], timeout=20); \
                   base.execute('INSERT OR REPLACE INTO channels (compatible, counter, document) VALUES (?, ?, ?)', sys.argv[2:]); \
                   base.commit()";
        let database = self.dir.join("otaserver.db");
        let (counter, text) = (channel.counter.to_string(), signed(channel));
        let mut python = Command::new("python3");
        let planted = python.args(["-c", act]).arg(database).args([MODEL, &counter, &text]).output().unwrap();
        assert!(planted.status.success(), "{}", said(&planted));
    }
}

/// What a check by hand says.
fn check(rig: &Rig) -> String {
    let output = rig.otactl(&["check"]);
    format!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output))
}

/// V3: freeze, replay, mix and match and fast-forward, each by its own code; nothing is fetched, and what is right is taken.
#[test]
fn v3_a_server_in_strange_hands_is_seen_through() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let rig = Rig::start(|device| {
        let device = device.trust_root(dir.path().join("root.toml")).reboot(Reboot::Immediate);
        device.server(shop.server.url(), NEVER_SECONDS)
    });
    let refused = |what: &str, code: &str, words: &str| {
        let answer = check(&rig);
        assert!(answer.contains(code) && answer.contains(words), "{what}: {answer}");
    };
    refused("no document", "METADATA_STALE", "no channel document");
    assert_eq!(shop.post("/api/v1/channels", &signed(&document(5, 2, &[]))), "204");
    refused("freeze: the new release is withheld", "METADATA_STALE", "withheld");

    shop.server.upload(&shelf().bundle(2)).unwrap();
    shop.plant(&document(4, 2, &[]));
    refused("replay", "METADATA_REPLAY", "5 was seen before");
    shop.plant(&document(5, 2, &[1]));
    refused("another one of the same number", "METADATA_REPLAY", "another document");
    let right = document(6, 2, &[]);
    shop.plant(&Channel { issued: right.issued - 100, expires: right.issued - 1, ..right });
    refused("freeze: it has ended", "METADATA_STALE", "it ended");
    shop.plant(&document(6, 3, &[]));
    refused("mix and match", "METADATA_MISMATCH", "the server offers release");
    shop.plant(&Channel { compatible: "other".to_owned(), ..document(7, 2, &[]) });
    refused("another model's", "METADATA_MISMATCH", "it is for other");
    shop.plant(&document(7 + COUNTER_STEP_LIMIT, 2, &[]));
    refused("fast-forward", "METADATA_JUMP", "leads");
    assert_eq!(rig.device.status().unwrap().version, "1.0.0");
    assert!(!rig.holds("b", 2), "nothing was installed");

    shop.plant(&document(8, 2, &[]));
    assert!(check(&rig).contains("has an update"));
    rig.wait("version 2", |status| status.rests_in("b") && status.last_outcome() == "committed");
    assert!(rig.holds("b", 2));
}

/// A release in stages is no freeze for those outside: what the document names beside the latest one may stay, and nothing else.
#[test]
fn v3_stages_of_a_release_are_no_freeze() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path());
    let artifact = shop.server.upload(&shelf().bundle(2)).unwrap();
    let declared = format!(
        "{{\"name\":\"r2\",\"artifact\":\"{}\",\"policy\":{{\"staging_percent\":100,\"min_confirmed\":1}}}}",
        artifact.sha256
    );
    let answer = shop.post("/api/v1/releases", &declared);
    assert!(answer.ends_with("201"), "{answer}");
    let rig = Rig::start(|device| {
        let device = device.trust_root(dir.path().join("root.toml")).reboot(Reboot::Immediate);
        device.server(shop.server.url(), NEVER_SECONDS)
    });
    // The release is in no stage that this device is in.
    assert_eq!(shop.post("/api/v1/channels", &signed(&document(1, 2, &[]))), "204");
    assert!(check(&rig).contains("METADATA_STALE"), "without a word about release 1 it is withheld");
    assert_eq!(shop.post("/api/v1/channels", &signed(&document(2, 2, &[1]))), "204");
    let outside = check(&rig);
    assert!(outside.contains("nothing new"), "{outside}");
    let answer = shop.post("/api/v1/releases/r2/start", "");
    assert!(answer.ends_with("200"), "{answer}");
    let inside = check(&rig);
    assert!(inside.contains("has an update"), "{inside}");
    rig.wait("version 2", |status| status.rests_in("b") && status.last_outcome() == "committed");
    // The stage has passed; whoever is shown nothing but release 1 now is withheld something.
    assert_eq!(shop.post("/api/v1/channels", &signed(&document(3, 3, &[1]))), "204");
    assert!(check(&rig).contains("METADATA_STALE"));
}
