//! How the update server and the device prove who they are: own authorities, pinned keys, certificates of devices, and clocks.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use otad::adapters::http::{HttpFetch, Security, Times};
use otad::config::{self, Identity};
use otad::failure::{Code, Failure};
use otad::ports::{Answer as Verdict, Fetch as _, Receipt, Stop};
use otad_bundle::Digest;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::papers::{Acceptor, Authority, anywhere, authority, subject, trusted};
use super::script::{Answer, Served, read_request};
use super::{AGENT, assert_code, polling::question, quick};

/// A certificate for 127.0.0.1 with its key.
struct Papers {
    chain: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Papers {
    fn of(issuer: &Authority, adjust: impl FnOnce(&mut CertificateParams)) -> Papers {
        let (mut params, key) =
            (subject("somebody", vec!["127.0.0.1".to_owned()]), KeyPair::generate().unwrap());
        adjust(&mut params);
        let certificate = params.signed_by(&key, issuer).unwrap();
        Papers { chain: certificate.der().clone(), pem: certificate.pem(), key }
    }

    fn pin(&self) -> Digest {
        Digest::of(&self.key.subject_public_key_info())
    }

    /// Writes what a device keeps in two files.
    fn files(&self, dir: &Path) -> Identity {
        let identity = Identity { certificate: dir.join("device.pem"), key: dir.join("device.key") };
        fs::write(&identity.certificate, &self.pem).unwrap();
        fs::write(&identity.key, self.key.serialize_pem()).unwrap();
        fs::set_permissions(&identity.key, fs::Permissions::from_mode(0o600)).unwrap();
        identity
    }
}

/// Whom a server lets in.
#[derive(Clone, Copy)]
enum Guests<'a> {
    Everybody,
    /// It asks for a certificate of this authority, and serves those as well who have none.
    Asked(&'a Authority),
    Known(&'a Authority),
}

/// An encrypted update server that has nothing new, and a file at any other place.
struct UpdateServer {
    acceptor: Acceptor,
    /// Whether each connection came with a certificate.
    guests: Arc<Mutex<Vec<bool>>>,
    /// The token of each request.
    tokens: Arc<Mutex<Vec<Option<String>>>>,
}

impl UpdateServer {
    fn start(papers: &Papers, guests: Guests<'_>) -> UpdateServer {
        UpdateServer::answering(papers, guests, Answer::new("204 No Content", b"").without("Content-Length"))
    }

    /// One that sends every question on to another.
    fn sending_on(papers: &Papers, other: &UpdateServer) -> UpdateServer {
        let answer =
            Answer::new("307 Temporary Redirect", b"").set("Location", &other.url("/device/v1/update"));
        UpdateServer::answering(papers, Guests::Everybody, answer)
    }

    fn answering(papers: &Papers, guests: Guests<'_>, to_questions: Answer) -> UpdateServer {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let verifier = |issuer: &Authority| {
            let mut roots = RootCertStore::empty();
            roots.add(issuer.der().clone()).unwrap();
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        };
        let builder = match guests {
            Guests::Everybody => builder.unwrap().with_no_client_auth(),
            Guests::Asked(issuer) => {
                let verifier = verifier(issuer).allow_unauthenticated().build().unwrap();
                builder.unwrap().with_client_cert_verifier(verifier)
            }
            Guests::Known(issuer) => {
                builder.unwrap().with_client_cert_verifier(verifier(issuer).build().unwrap())
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(papers.key.serialize_der()));
        let config = Arc::new(builder.with_single_cert(vec![papers.chain.clone()], key).unwrap());
        let (file, guests) = (Served::new(20_000), Arc::new(Mutex::new(Vec::new())));
        let seen = guests.clone();
        let tokens = Arc::new(Mutex::new(Vec::new()));
        let shown = tokens.clone();
        let acceptor = Acceptor::start(move |socket, number| {
            let connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            let mut stream = StreamOwned::new(connection, socket);
            let served = (|| {
                while let Some(request) = read_request(&mut stream, number)? {
                    // A body comes with what stands before it.
                    if request.header("content-length").is_none() {
                        stream.read_exact(&mut [0])?;
                    }
                    seen.lock().unwrap().push(stream.conn.peer_certificates().is_some());
                    shown.lock().unwrap().push(request.header("authorization").map(str::to_owned));
                    let answer = match request.target.starts_with("/device/v1/") {
                        true => to_questions.clone(),
                        false => file.answer(&request),
                    };
                    stream.write_all(&answer.bytes())?;
                    stream.flush()?;
                }
                Ok(())
            })();
            // A refusal is heard by whoever has not been cut off while still speaking.
            let _ = stream.sock.set_read_timeout(Some(std::time::Duration::from_millis(200)));
            let _ = io::copy(&mut stream.sock, &mut io::sink());
            served
        });
        UpdateServer { acceptor, guests, tokens }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.acceptor.address)
    }
}

/// A device's files, and what it says of the server.
struct Device {
    dir: TempDir,
    server: config::Server,
    /// What its clock says, and the earliest that it can be.
    times: Times,
}

impl Device {
    /// A device that believes the authority of the fleet.
    fn new(server: &UpdateServer) -> Device {
        let dir = tempfile::tempdir().unwrap();
        let mut device = Device { dir, server: anywhere(&server.url("")), times: Times::bounded(|| 0) };
        device.server.ca = Some(device.file("ca.pem", &trusted().pem()));
        device
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn with(mut self, adjust: impl FnOnce(&mut config::Server)) -> Device {
        adjust(&mut self.server);
        self
    }

    /// A device whose clock says this, and that knows that it is not earlier than that.
    fn at(mut self, clock: u64, earliest: u64) -> Device {
        self.times = Times { clock: Arc::new(move || clock), earliest: Arc::new(move || earliest) };
        self
    }

    fn fetch(&self) -> HttpFetch {
        let fetch = HttpFetch::with_limits(Some(&self.server.url), AGENT, quick()).unwrap();
        fetch.secured(Security::of(&self.server, self.times.clone()))
    }

    fn ask(&self) -> Result<Verdict, Failure> {
        self.fetch().check(&question())
    }

    fn succeeds(&self) {
        assert_eq!(self.ask().unwrap(), Verdict::Nothing);
    }

    fn fails(&self, code: Code, words: &str) -> String {
        let failure = self.ask().unwrap_err();
        assert_code(&failure, code, words);
        failure.message
    }
}

fn good() -> Papers {
    Papers::of(trusted(), |_| {})
}

/// N11: a server of the fleet's own authority is believed by its devices, and by nobody else.
#[test]
fn n11_own_authorities() {
    let server = UpdateServer::start(&good(), Guests::Everybody);
    let device = Device::new(&server);
    device.succeeds();
    let stranger = authority("a stranger").pem();
    let file = device.file("stranger.pem", &stranger);
    let device = device.with(|server| server.ca = Some(file));
    device.fails(Code::NetTls, "UnknownIssuer");
    // Two in one file: the way to another authority.
    let file = device.file("both.pem", &format!("{stranger}{}", trusted().pem()));
    let device = device.with(|server| server.ca = Some(file));
    device.succeeds();
    device.with(|server| server.ca = None).fails(Code::NetTls, "UnknownIssuer");
    // A file that is of no use leads to no connection at all, and not to one that believes others.
    for (name, text) in
        [("none.pem", None), ("empty.pem", Some("")), ("torn.pem", Some("-----BEGIN CERTIFICATE-----\nMII"))]
    {
        let device = Device::new(&server);
        let file = device.dir.path().join(name);
        if let Some(text) = text {
            device.file(name, text);
        }
        let device = device.with(|server| server.ca = Some(file));
        device.fails(Code::Config, "[server] ca: cannot use");
        let opened = device.fetch().open(&server.url("/x.otab"), &Stop::default());
        assert_eq!(opened.err().unwrap().code, Code::Config);
    }
}

const Y2000: u64 = 946_684_800;
const Y2020: u64 = 1_577_836_800;
const Y2025: u64 = 1_735_689_600;
const Y2040: u64 = 2_208_988_800;

/// N11, N12: certificates from 2024 to 2030, at clocks that are right, behind, ahead and turned back.
#[test]
fn n11_a_wrong_clock_is_told_from_a_wrong_certificate() {
    let papers = Papers::of(trusted(), |leaf| {
        leaf.not_before = date_time_ymd(2024, 1, 1);
        leaf.not_after = date_time_ymd(2030, 1, 1);
    });
    let server = UpdateServer::start(&papers, Guests::Everybody);
    let at = |clock, earliest| Device::new(&server).at(clock, earliest);
    at(Y2025, 0).succeeds();
    at(Y2025, Y2020).succeeds();
    // A clock that starts at 1970 does no harm where signed times are newer.
    at(0, Y2025).succeeds();
    let message =
        at(0, Y2000).fails(Code::NetClock, "not valid yet: it begins Mon, 01 Jan 2024 00:00:00 GMT");
    assert!(message.contains("clock says Thu, 01 Jan 1970 00:00:00 GMT"), "{message}");
    assert!(message.contains("it is Sat, 01 Jan 2000 00:00:00 GMT at the least; set the clock"), "{message}");
    at(Y2020, 0).fails(Code::NetClock, "clock says Wed, 01 Jan 2020");
    at(Y2040, Y2025).fails(
        Code::NetTls,
        "expired Tue, 01 Jan 2030 00:00:00 GMT; this device's clock says Sun, 01 Jan 2040",
    );
    let message = at(Y2040, Y2025).fails(Code::NetTls, "it has to be renewed, if the clock is right");
    assert!(message.contains("it is Wed, 01 Jan 2025 00:00:00 GMT at the least"), "{message}");
    // A signed time opens, and shuts nothing: one that is far off, by a thief of the online key or a wrong clock where it was
    // signed, must not cut devices off from the root that replaces the key.
    at(Y2025, Y2040).succeeds();
    let message = at(Y2040, Y2040).fails(Code::NetTls, "expired");
    assert!(message.ends_with("it has to be renewed"), "{message}");
    at(u64::MAX, 0).fails(Code::NetTls, "18446744073709551615 seconds after 1970");
}

/// N11: a pinned key is needed beside a valid certificate, of the update server and of no other.
#[test]
fn n11_pinned_keys() {
    let (papers, other) = (good(), good());
    let server = UpdateServer::start(&papers, Guests::Everybody);
    let pinned = |pins: &[Digest]| Device::new(&server).with(|server| server.pins = pins.to_vec());
    pinned(&[papers.pin()]).succeeds();
    pinned(&[other.pin(), papers.pin()]).succeeds();
    let message = pinned(&[other.pin()]).fails(Code::NetTls, "none that `pin` names");
    assert!(message.contains(&papers.pin().to_string()), "{message}");
    let stranger = Device::new(&server);
    let file = stranger.file("ca.pem", &authority("a stranger").pem());
    stranger
        .with(|server| (server.ca, server.pins) = (Some(file), vec![papers.pin()]))
        .fails(Code::NetTls, "UnknownIssuer");

    let elsewhere = UpdateServer::start(&other, Guests::Everybody);
    let fetch = pinned(&[papers.pin()]).fetch();
    assert!(fetch.open(&elsewhere.url("/x.otab"), &Stop::default()).is_ok());
    assert!(fetch.open(&server.url("/x.otab"), &Stop::default()).is_ok());
    let fetch = pinned(&[other.pin()]).fetch();
    assert_eq!(fetch.open(&server.url("/x.otab"), &Stop::default()).err().unwrap().code, Code::NetTls);
}

/// A server that knows its devices lets in those with a certificate of the right authority, also one that was renewed since otad
/// started, and a device shows it to nobody else.
#[test]
fn devices_show_certificates() {
    let (fleet, stranger) = (authority("the devices"), authority("a stranger"));
    let server = UpdateServer::start(&good(), Guests::Known(&fleet));
    let device = Device::new(&server);
    device.fails(Code::NetTls, "the server wants another certificate of this device");

    let files = Papers::of(&stranger, |_| {}).files(device.dir.path());
    let device = device.with(|server| server.identity = Some(files.clone()));
    let fetch = device.fetch();
    assert_code(&fetch.check(&question()).unwrap_err(), Code::NetTls, "another certificate of this device");
    Papers::of(&fleet, |_| {}).files(device.dir.path());
    assert_eq!(fetch.check(&question()).unwrap(), Verdict::Nothing);
    assert!(fetch.open(&server.url("/x.otab"), &Stop::default()).is_ok());
    assert!(server.guests.lock().unwrap().iter().all(|known| *known));

    let curious = UpdateServer::start(&good(), Guests::Asked(&fleet));
    assert!(fetch.open(&curious.url("/x.otab"), &Stop::default()).is_ok());
    assert_eq!(*curious.guests.lock().unwrap(), [false]);

    // What is wrong with the files is said before anybody is asked.
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    device.fails(Code::Config, "[server] client-key: mode 0644 lets everybody use");
    Papers::of(&fleet, |_| {}).files(device.dir.path());
    device.file("device.pem", &Papers::of(&fleet, |_| {}).pem);
    device.fails(Code::Config, "[server] client-key: cannot use");
    fs::remove_file(&files.certificate).unwrap();
    device.fails(Code::Config, "[server] client-certificate: cannot use");
}

/// W3: the token goes with every question and report to the update server, as the file has it now, and to nobody else.
#[test]
fn devices_show_tokens() {
    let server = UpdateServer::start(&good(), Guests::Everybody);
    let device = Device::new(&server);
    let file = device.file("token", "first-token-of-16\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let device = device.with(|server| server.token_file = Some(file.clone()));
    let fetch = device.fetch();
    assert_eq!(fetch.check(&question()).unwrap(), Verdict::Nothing);
    fs::write(&file, "second-token-of-16").unwrap();
    assert_eq!(fetch.report("{}").unwrap(), Receipt::Taken);
    // Bundles are public, and other servers are strangers.
    assert!(fetch.open(&server.url("/x.otab"), &Stop::default()).is_ok());
    let elsewhere = UpdateServer::start(&good(), Guests::Everybody);
    assert!(fetch.open(&elsewhere.url("/x.otab"), &Stop::default()).is_ok());
    let tokens = server.tokens.lock().unwrap().clone();
    let [first, second, rest @ ..] = tokens.as_slice() else { panic!("{tokens:?}") };
    assert_eq!(first.as_deref(), Some("Bearer first-token-of-16"));
    assert_eq!(second.as_deref(), Some("Bearer second-token-of-16"));
    assert!(!rest.is_empty() && rest.iter().all(Option::is_none), "{rest:?}");
    let others = elsewhere.tokens.lock().unwrap().clone();
    assert!(!others.is_empty() && others.iter().all(Option::is_none), "{others:?}");

    for (text, words) in
        [("", "a token is one line"), ("two\nlines", "a token is one line"), ("sp ace", "a token is")]
    {
        fs::write(&file, text).unwrap();
        device.fails(Code::Config, words);
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    device.fails(Code::Config, "[server] token-file: mode 0644 lets everybody use");
    fs::remove_file(&file).unwrap();
    device.fails(Code::Config, "[server] token-file: cannot use");
}

/// A redirect takes the question elsewhere, and the token stays here.
#[test]
fn redirects_take_no_token_along() {
    let elsewhere = UpdateServer::start(&good(), Guests::Everybody);
    let server = UpdateServer::sending_on(&good(), &elsewhere);
    let device = Device::new(&server);
    let file = device.file("token", "a-token-of-16-bytes");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    device.with(|server| server.token_file = Some(file)).succeeds();
    assert_eq!(server.tokens.lock().unwrap().as_slice(), [Some("Bearer a-token-of-16-bytes".to_owned())]);
    assert_eq!(elsewhere.tokens.lock().unwrap().as_slice(), [None]);
}
