//! Uploads: what is taken, what is refused and why, and that a refused one leaves nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::http::{connect, get, parse, receive, send};
use crate::rig::{Server, Spec, noise, sha256};

const UPLOAD: &str = "/api/v1/artifacts";

fn nothing_is_left(server: &Server, name: &str) {
    assert_eq!(server.files("artifacts"), [""; 0], "{name}");
    assert_eq!(server.files("incoming"), [""; 0], "{name}");
    assert_eq!(get(server.address, UPLOAD).json()["artifacts"], json!([]), "{name}");
}

/// The answer is what a build system reads; the second upload of the same file must not look like another release.
#[test]
fn a_verified_bundle_is_on_offer() {
    let server = Server::start();
    let bundle = Spec { compatible: &["acme", "acme,gateway"], ..Spec::default() }.bundle();
    let first = server.upload(&bundle);
    assert_eq!(first.status, 201);
    let body = first.json();
    assert_eq!((&body["sha256"], &body["size"]), (&json!(sha256(&bundle)), &json!(bundle.len())));
    assert_eq!((&body["version"], &body["sequence"]), (&json!("2.0.0"), &json!(2)));
    assert_eq!(body["compatible"], json!(["acme", "acme,gateway"]));
    assert_eq!(body["url"], format!("/artifacts/{}.otab", sha256(&bundle)));
    assert_eq!(body["release"].as_str().unwrap().len(), 64);

    let again = server.upload(&bundle);
    assert_eq!((again.status, again.body), (200, first.body));
    assert_eq!(server.files("artifacts"), [format!("{}.otab", sha256(&bundle))]);
    assert_eq!(server.files("incoming"), [""; 0]);
    assert!(get(server.address, body["url"].as_str().unwrap()).body == bundle);
}

/// With a client that other people wrote, with and without a length.
#[test]
fn a_usual_http_client_can_upload_and_download() {
    let server = Server::start();
    let bundle = Spec { random_bytes: 3 << 20, ..Spec::default() }.bundle();
    let base = format!("http://{}", server.address);
    let mut answer = ureq::post(format!("{base}{UPLOAD}")).send(&bundle[..]).expect("201");
    assert_eq!(answer.status(), 201);
    let url = serde_json::from_slice::<serde_json::Value>(&answer.body_mut().read_to_vec().unwrap()).unwrap();
    let mut got = ureq::get(format!("{base}{}", url["url"].as_str().unwrap())).call().unwrap();
    assert!(got.body_mut().with_config().limit(8 << 20).read_to_vec().unwrap() == bundle);
    let chunked =
        ureq::post(format!("{base}{UPLOAD}")).send(ureq::SendBody::from_reader(&mut &bundle[..])).unwrap();
    assert_eq!(chunked.status(), 200);
}

/// The bundle with an empty `manifest.sig`: the header gets the size 0 and its new checksum, the content goes.
fn unsigned(bundle: &[u8]) -> Vec<u8> {
    let at = (0..bundle.len()).step_by(512).find(|&at| bundle[at..].starts_with(b"manifest.sig\0")).unwrap();
    let mut header = bundle[at..at + 512].to_vec();
    let size = std::str::from_utf8(&header[124..135]).unwrap();
    let blocks = usize::from_str_radix(size, 8).unwrap().div_ceil(512);
    header[124..135].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    [&bundle[..at], &header, &bundle[at + 512 + blocks * 512..]].concat()
}

/// Whatever is wrong with a bundle: 4xx, its code, and nothing of it stays.
#[test]
fn bad_bundles_are_refused_and_leave_nothing() {
    let server = Server::start();
    let good = Spec::default().bundle();
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        bad
    };
    let manifest = good.windows(9).position(|window| window == b"[update]\n").unwrap();
    let signature = good.windows(9).position(|window| window == b"value = \"").unwrap() + 12;
    for (name, bundle, codes) in [
        ("unsigned", unsigned(&good), &["SIG_MISSING"][..]),
        (
            "signed by a stranger",
            Spec { signed_by: 9, ..Spec::default() }.bundle(),
            &["SIG_UNTRUSTED", "SIG_MISSING"],
        ),
        ("a bit of the manifest", flipped(manifest + 1), &["SIG_INVALID"]),
        ("a bit of the signature", flipped(signature), &["SIG_INVALID"]),
        ("a bit of the payload", flipped(good.len() - 2000), &["HASH_MISMATCH"]),
        ("a bit of the end", flipped(good.len() - 1), &["BUNDLE_FORMAT"]),
        ("truncated in the payload", good[..good.len() / 2].to_vec(), &["BUNDLE_TRUNCATED"]),
        ("without its last byte", good[..good.len() - 1].to_vec(), &["BUNDLE_TRUNCATED"]),
        ("one byte more", [&good[..], b"\0"].concat(), &["BUNDLE_FORMAT"]),
        ("twice", [&good[..], &good[..]].concat(), &["BUNDLE_FORMAT"]),
        (
            "a web page",
            b"<!DOCTYPE html><html>please log in</html>".to_vec(),
            &["NOT_A_BUNDLE", "BUNDLE_TRUNCATED"],
        ),
        ("a large web page", [&b"<!DOCTYPE html>"[..], &[b' '; 4096]].concat(), &["NOT_A_BUNDLE"]),
        ("noise", noise(100_000, 7), &["NOT_A_BUNDLE"]),
        ("nothing", Vec::new(), &["BUNDLE_TRUNCATED", "NOT_A_BUNDLE"]),
    ] {
        let answer = server.upload(&bundle);
        assert_eq!(answer.status, 422, "{name}");
        let code = answer.code();
        assert!(codes.contains(&code.as_str()), "{name}: {code}");
        nothing_is_left(&server, name);
    }
    assert_eq!(server.upload(&good).status, 201, "the good one is still taken");
}

/// W6: what is too large is refused before it is read when it says so, and while it is read when it does not.
#[test]
fn w6_too_large() {
    let server = Server::with(|options| options.limits.max_artifact_bytes = 200_000);
    let mut stream = connect(server.address);
    write!(stream, "POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 200001\r\n\r\n").unwrap();
    let answer = receive(&mut stream, "POST");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "SIZE_EXCEEDED"),
        "before a byte of it was sent"
    );

    let answer = server.upload(&noise(5_000_000, 1));
    assert_eq!((answer.status, answer.code().as_str()), (413, "SIZE_EXCEEDED"), "the client sees the answer");

    let mut stream = connect(server.address);
    write!(
        stream,
        "POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .unwrap();
    for _ in 0..10 {
        write!(stream, "8000\r\n").unwrap();
        stream.write_all(&[0; 0x8000]).unwrap();
        write!(stream, "\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(receive(&mut stream, "POST").code(), "SIZE_EXCEEDED");
    nothing_is_left(&server, "too large");
    assert_eq!(server.upload(&Spec::default().bundle()).status, 201);
}

/// W6: a disk with less room than has to stay free.
#[test]
fn w6_no_room() {
    let server = Server::with(|options| options.limits.keep_free_bytes = u64::MAX);
    let answer = server.upload(&Spec::default().bundle());
    assert_eq!((answer.status, answer.code().as_str()), (507, "QUOTA"));
    nothing_is_left(&server, "no room");
}

fn begin_upload(server: &Server, length: usize) -> TcpStream {
    let mut stream = connect(server.address);
    write!(
        stream,
        "POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\nx"
    )
    .unwrap();
    stream
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("{what}: not within 5 s");
}

/// W6: an upload that stops or trickles is cut off; its file goes.
#[test]
fn w6_silent_and_slow_uploads() {
    let server = Server::with(|options| {
        options.limits.upload_idle = Duration::from_millis(400);
        options.limits.upload_grace = Duration::from_millis(1100);
        options.limits.upload_min_bytes_per_second = 1000;
    });
    let answer = receive(&mut begin_upload(&server, 1000), "POST");
    assert_eq!((answer.status, answer.code().as_str()), (408, "NET_STALLED"));

    let mut slow = begin_upload(&server, 100_000);
    slow.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut answer = Vec::new();
    let mut window = [0; 4096];
    for _ in 0..100 {
        let _ = slow.write_all(b"x");
        match slow.read(&mut window) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&window[..count]),
            Err(_) => {}
        }
    }
    let answer = parse(&answer, "POST");
    assert_eq!((answer.status, answer.code().as_str()), (408, "NET_STALLED"));
    assert_eq!(server.files("incoming"), [""; 0]);
}

/// W6: an uploader that hangs up leaves nothing, and frees its place.
#[test]
fn w6_an_upload_that_is_given_up() {
    let server = Server::with(|options| options.limits.max_uploads = 1);
    let bundle = Spec::default().bundle();
    let mut stream = connect(server.address);
    write!(stream, "POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", bundle.len())
        .unwrap();
    stream.write_all(&bundle[..bundle.len() - 1]).unwrap();
    eventually("the upload begins", || !server.files("incoming").is_empty());
    drop(stream);
    eventually("the file is gone", || server.files("incoming").is_empty());
    assert_eq!(server.upload(&bundle).status, 201);
}

/// W6: more uploads at once than the server takes are asked to come back.
#[test]
fn w6_parallel_uploads() {
    let server = Server::with(|options| options.limits.max_uploads = 2);
    let held: Vec<_> = (0..2).map(|_| begin_upload(&server, 1000)).collect();
    eventually("both begin", || server.files("incoming").len() == 2);
    let bundle = Spec::default().bundle();
    let answer = server.upload(&bundle);
    assert_eq!((answer.status, answer.code().as_str()), (503, "BUSY"));
    assert!(answer.header("retry-after").is_some());
    drop(held);
    eventually("their places are free", || server.upload(&bundle).status != 503);
    assert_eq!(server.files("artifacts").len(), 1);
}

/// W6: the same bundle from many at once is one artifact, answered to all.
#[test]
fn w6_the_same_upload_in_parallel() {
    let server = Server::start();
    let bundle = Spec::default().bundle();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| server.upload(&bundle).status)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 3, "{statuses:?}");
    assert_eq!((server.files("artifacts").len(), server.files("incoming").len()), (1, 0));
}

#[test]
fn the_token_is_asked_for_before_the_body() {
    let token = "0123456789abcdef0123456789abcdef";
    let server = Server::with(|options| options.token = Some(token.into()));
    let bundle = Spec { random_bytes: 2 << 20, ..Spec::default() }.bundle();
    assert_eq!(server.upload(&bundle).status, 401);
    let right = format!("Bearer {token}");
    let answer = send(server.address, "POST", UPLOAD, &[("Authorization", &right)], &bundle);
    assert_eq!(answer.status, 201);
}

#[test]
fn a_compressed_body_is_refused() {
    let server = Server::start();
    let answer =
        send(server.address, "POST", UPLOAD, &[("Content-Encoding", "gzip")], &Spec::default().bundle());
    assert_eq!((answer.status, answer.code().as_str()), (415, "INVALID_REQUEST"));
}

/// A server without a trust root says so, and takes uploads as soon as there is one.
#[test]
fn without_a_trust_root_nothing_is_taken() {
    let bundle = Spec::default().bundle();
    for root in [None, Some("not a root".to_owned()), Some(String::new())] {
        let server = Server::with(|options| options.root = root);
        let answer = server.upload(&bundle);
        assert_eq!((answer.status, answer.code().as_str()), (503, "TRUST_INVALID"));
        nothing_is_left(&server, "no trust root");
        std::fs::write(server.data().join("root.toml"), crate::rig::root()).unwrap();
        assert_eq!(server.upload(&bundle).status, 201);
    }
}
