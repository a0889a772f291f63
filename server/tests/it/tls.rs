//! TLS in the process: who is let in with which certificate, and certificates that change or cannot be used.

#[path = "tls/papers.rs"]
mod papers;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use otad::adapters::http::{HttpFetch, Security, Times};
use otad::config;
use otad::failure::Code;
use otad::ports::{Fetch, Question};
use otaserver::tls::Files;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use crate::http::connect;
use crate::process::{Process, command, directory, fails};
use crate::rig::{Options, Server, Spec};
use papers::{Papers, Who};

const ADMIN: &str = "0123456789abcdef0123456789abcdef";
const CHECK: &str = "/device/v1/update?device=gw-1&compatible=acme";

fn guarded(papers: &Papers) -> impl FnOnce(&mut Options) {
    let files = papers.files();
    move |options| {
        options.token = Some(ADMIN.into());
        options.limits.require_device_certificates = files.device_ca.is_some();
        options.tls = Some(files);
    }
}

/// Asks with curl; 0 when no TLS connection came about.
fn curl(address: SocketAddr, papers: &Papers, target: &str, words: &[&str]) -> u16 {
    let mut command = Command::new("curl");
    command.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "20"]);
    command.arg("--cacert").arg(papers.path("ca.pem")).args(words);
    let output = command.arg(format!("https://{address}{target}")).output().unwrap();
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

/// W3, W4: every route of devices asks for the device's own certificate; nobody else's, and nothing that only looks like one.
#[test]
fn w3_w4_a_device_speaks_with_its_own_certificate_alone() {
    let papers = Papers::new();
    let server = Server::with(guarded(&papers));
    let report = crate::devices::report("gw-1", "r1").to_string();
    let progress = json!({ "device": "gw-1", "phase": "writing", "percent": 5 }).to_string();
    let channel = "/device/v1/channel?compatible=acme";
    // What is open without a device's name is for every device, so another one's certificate is as good there.
    for (who, own, any) in [
        (Who::OfDevice("gw-1"), 204, 204),
        (Who::ByOpenssl("gw-1"), 204, 204),
        (Who::OfDevice("gw-2"), 403, 204),
        (Who::OfDevice("gw-1x"), 403, 204),
        (Who::Nobody, 403, 403),
        (Who::WithoutName, 403, 403),
        (Who::OfTwo, 403, 403),
        (Who::Stranger, 0, 0),
        (Who::Expired, 0, 0),
    ] {
        let shown = papers.shown(&who);
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        let ask = |target, words: &[&str]| curl(server.address, &papers, target, &[&shown, words].concat());
        assert_eq!(ask(CHECK, &[]), own, "{who:?}");
        assert_eq!(ask("/device/v1/reports", &["--data", &report]), own, "{who:?}");
        assert_eq!(ask("/device/v1/progress", &["--data", &progress]), own, "{who:?}");
        assert_eq!(ask(channel, &[]), any, "{who:?}");
    }
    // What a proxy would say about a certificate means nothing here.
    for header in [
        "X-SSL-Client-Verify: SUCCESS",
        "X-Forwarded-Client-Cert: URI=otad:device:gw-1",
        "X-SSL-Client-S-DN: CN=gw-1",
    ] {
        assert_eq!(curl(server.address, &papers, CHECK, &["--header", header]), 403, "{header}");
    }
    // A certificate is no token: neither of an operator nor, where the device has one, of the device.
    let own = papers.shown(&Who::OfDevice("gw-1"));
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    assert_eq!(curl(server.address, &papers, "/api/v1/devices", &own), 401);
    let bearer = format!("Authorization: Bearer {ADMIN}");
    let admin = ["--header", bearer.as_str(), "--request", "POST"];
    assert_eq!(curl(server.address, &papers, "/api/v1/devices/gw-1/token", &admin), 201);
    assert_eq!(curl(server.address, &papers, CHECK, &own), 401);
}

#[test]
fn only_tls_1_3_is_spoken() {
    let papers = Papers::new();
    let server = Server::with(guarded(&papers));
    assert_eq!(curl(server.address, &papers, "/healthz", &[]), 200);
    assert_eq!(curl(server.address, &papers, "/healthz", &["--tls-max", "1.2"]), 0);
    let mut plain = connect(server.address);
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP is not answered");
}

/// W3, W4: otad itself, with its `client-certificate`.
#[test]
fn w3_w4_otad_shows_its_certificate() {
    let papers = Papers::new();
    let server = Server::with(guarded(&papers));
    let url = format!("https://{}", server.address);
    let bearer = format!("Authorization: Bearer {ADMIN}");
    let bundle = papers.path("release.otab");
    std::fs::write(&bundle, Spec::default().bundle()).unwrap();
    let upload =
        ["--header", bearer.as_str(), "--request", "POST", "--upload-file", bundle.to_str().unwrap()];
    assert_eq!(curl(server.address, &papers, "/api/v1/artifacts", &upload), 201);
    let ask = |who: &Who| {
        let server = config::Server {
            url: url.clone(),
            interval: Duration::from_secs(60),
            ca: Some(papers.path("ca.pem")),
            pins: Vec::new(),
            identity: papers.identity(who),
            token_file: None,
        };
        let security = Security::of(&server, Times::bounded(|| 0));
        let fetch = HttpFetch::new(Some(&url), "otad/test").unwrap().secured(security);
        let question = Question {
            device: "gw-1".into(),
            compatible: "acme".into(),
            version: "1.0.0".into(),
            sequence: 1,
            release: None,
            boot_id: "b".into(),
            state: "idle".to_owned(),
        };
        fetch.check(&question).map_err(|failure| failure.code)
    };
    assert!(matches!(ask(&Who::OfDevice("gw-1")), Ok(otad::ports::Answer::Offer(_))));
    for who in [Who::OfDevice("gw-2"), Who::Nobody] {
        assert_eq!(ask(&who).unwrap_err(), Code::NetStatus, "{who:?}");
    }
    assert_eq!(ask(&Who::Stranger).unwrap_err(), Code::NetTls);
}

struct Talk(StreamOwned<ClientConnection, TcpStream>);

impl Talk {
    fn begin(address: SocketAddr, papers: &Papers) -> Talk {
        let mut roots = RootCertStore::empty();
        for certificate in rustls::pki_types::CertificateDer::pem_file_iter(papers.path("ca.pem")).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        Talk(StreamOwned::new(client, connect(address)))
    }

    /// Asks on this connection, and returns the server's certificate.
    fn ask(&mut self) -> Vec<u8> {
        self.0.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        let length = self.0.read(&mut answer).unwrap();
        assert!(
            answer[..length].starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer[..length])
        );
        if !answer[..length].ends_with(b"}") {
            let more = self.0.read(&mut answer).unwrap();
            assert!(answer[..more].ends_with(b"}"));
        }
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

fn process(papers: &Papers, data: &std::path::Path) -> Process {
    let mut command = command(data);
    let Files { certificate, key, .. } = papers.files();
    command.arg("--tls-certificate").arg(certificate).arg("--tls-key").arg(key);
    Process::of(command)
}

/// A renewed certificate is used for new connections, on SIGHUP or because the files changed, and nobody is cut off; one that cannot be
/// used changes nothing.
#[test]
fn a_certificate_changes_while_it_is_used() {
    let papers = Papers::new();
    let data = directory();
    let mut process = process(&papers, data.path());
    let mut first = Talk::begin(process.address, &papers);
    let before = first.ask();
    let until = |what: &str, wanted: &dyn Fn(&[u8]) -> bool| {
        let begin = Instant::now();
        loop {
            let seen = Talk::begin(process.address, &papers).ask();
            if wanted(&seen) {
                return seen;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    papers.renew_server();
    process.send(Signal::SIGHUP);
    let renewed = until("SIGHUP does nothing", &|seen| seen != before);
    assert_eq!(first.ask(), before, "the open connection goes on");

    std::fs::write(papers.path("server.pem"), "no certificate").unwrap();
    process.send(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(Talk::begin(process.address, &papers).ask(), renewed, "the one before stays");

    papers.renew_server();
    until("changed files are not noticed", &|seen| seen != renewed);
    assert_eq!(first.ask(), before);

    // A handshake that never comes does not hold up the end.
    let silent = connect(process.address);
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    assert!(process.signal(Signal::SIGTERM).success());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    drop(silent);
}

/// What no client would accept is refused at the start, by the file's name and with what to do.
#[test]
fn a_start_with_papers_that_cannot_work_says_why() {
    let papers = Papers::new();
    let data = directory();
    let path = |name: &str| papers.path(name);
    for (certificate, key, ca, says) in [
        ("missing.pem", "server.key", "ca.pem", "cannot read a certificate from"),
        ("server.key", "server.key", "ca.pem", "there is no certificate in it"),
        ("server.pem", "missing.key", "ca.pem", "cannot read a private key from"),
        ("server.pem", "server.pem", "ca.pem", "cannot read a private key from"),
        ("server.pem", "other.key", "ca.pem", "other.key is not the private key of the certificate in"),
        ("ended.pem", "ended.key", "ca.pem", "renew it"),
        ("later.pem", "later.key", "ca.pem", "set the clock"),
        ("gw-1.pem", "gw-1.key", "ca.pem", "serverAuth"),
        ("server.pem", "server.key", "server.key", "cannot read the authorities of devices from"),
    ] {
        let mut command = command(data.path());
        command.arg("--tls-certificate").arg(path(certificate)).arg("--tls-key").arg(path(key));
        let message = fails({
            command.arg("--device-ca").arg(path(ca));
            command
        });
        assert!(message.contains(says), "{certificate} {key} {ca}: {message}");
    }
    let alone = Command::new(env!("CARGO_BIN_EXE_otaserver"))
        .args(["--listen", "127.0.0.1:0", "--tls-certificate", "x", "--data"])
        .arg(data.path())
        .output()
        .unwrap();
    assert!(String::from_utf8(alone.stderr).unwrap().contains("--tls-key"));
}

/// W1: 200 connections that never speak hold all places, and give them back.
#[test]
fn w1_handshakes_that_never_come_are_bounded() {
    let papers = Papers::new();
    let server = Server::with(|options| {
        guarded(&papers)(options);
        options.limits.handshake = Duration::from_secs(2);
        options.limits.max_connections = 200;
    });
    let silent: Vec<_> = (0..200).map(|_| connect(server.address)).collect();
    // The last has been accepted, so every place is taken.
    std::thread::sleep(Duration::from_millis(200));
    let begin = Instant::now();
    assert_eq!(curl(server.address, &papers, "/healthz", &[]), 200);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(begin.elapsed() > Duration::from_millis(300), "the places were taken: {:?}", begin.elapsed());
    drop(silent);
}
