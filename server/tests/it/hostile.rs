//! Clients that mean harm or are broken: W2, W5, W10, and those that hold connections.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use otaserver::Limits;

use crate::http::{connect, get, receive, send};
use crate::rig::{Server, Spec};

const REPORT: &str = "/device/v1/reports";
const MINIMAL: &str = r#""device":"d","compatible":"m","report_id":"r","outcome":"failed""#;

/// W2: malformed, deep and huge JSON, wrong types, invalid UTF-8.
#[test]
fn w2_json_that_is_none() {
    let server = Server::start();
    let deep = format!("{{{MINIMAL},\"log\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_unknown = format!("{{{MINIMAL},\"future\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_objects = "{\"device\":".repeat(6000);
    let twice = format!("{{{MINIMAL},\"device\":\"e\"}}");
    for (name, body) in [
        ("empty", &b""[..]),
        ("no JSON", b"device=d"),
        ("cut off", b"{\"device\":\"d\""),
        ("null", b"null"),
        ("a list", b"[]"),
        ("a number", b"1e999"),
        ("wrong types", br#"{"device":1,"compatible":[],"report_id":{},"outcome":null}"#),
        ("missing fields", br#"{"device":"d"}"#),
        ("invalid UTF-8", b"{\"device\":\"\xff\xfe\"}"),
        ("lone surrogate", br#"{"device":"\ud800","compatible":"m","report_id":"r","outcome":"failed"}"#),
        ("a field twice", twice.as_bytes()),
        ("trailing bytes", b"{} {}"),
        ("UTF-16", b"{\x00\"\x00d\x00\"\x00:\x001\x00}\x00"),
        ("deep lists", deep.as_bytes()),
        ("deep objects", deep_objects.as_bytes()),
    ] {
        let answer = send(server.address, "POST", REPORT, &[], body);
        assert_eq!((answer.status, answer.code().as_str()), (400, "INVALID_JSON"), "{name}");
    }
    // A field of a newer device is skipped without recursion, or refused; never a crash.
    let status = send(server.address, "POST", REPORT, &[], deep_unknown.as_bytes()).status;
    assert!(matches!(status, 204 | 400), "{status}");
    assert_eq!(get(server.address, "/healthz").status, 200);
}

/// W2: a body beyond the limit is refused, by its length or by its bytes, and never collected.
#[test]
fn w2_huge_bodies() {
    let server = Server::start();
    let huge = format!("{{{MINIMAL},\"message\":\"{}\"}}", "x".repeat(1 << 20));
    let answer = send(server.address, "POST", REPORT, &[], huge.as_bytes());
    assert_eq!((answer.status, answer.code().as_str()), (413, "SIZE_EXCEEDED"));

    let mut stream = connect(server.address);
    let head = format!(
        "POST {REPORT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..20 {
        stream.write_all(format!("2000\r\n{}\r\n", "[".repeat(0x2000)).as_bytes()).unwrap();
    }
    assert_eq!(receive(&mut stream, "POST").status, 413);
}

/// W2: request heads beyond the limit. hyper answers these itself, without a body.
#[test]
fn w2_huge_heads() {
    let server = Server::start();
    let many: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
    for head in [
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nx: {}\r\n\r\n", "y".repeat(70_000)),
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "y".repeat(70_000)),
    ] {
        let mut stream = connect(server.address);
        // The server may hang up before it has read all of it.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    assert_eq!(get(server.address, "/healthz").status, 200);
}

/// W5: names that mean something to a file system, a terminal or a browser.
#[test]
fn w5_names_are_refused_everywhere() {
    let server = Server::start();
    let long = "a".repeat(4096);
    for name in
        ["../../x", "..%2f..%2fx", "a%00b", "%C3%A4", "%3Cscript%3E", "a%0d%0aSet-Cookie:x", "-x", &long]
    {
        let answer = get(server.address, &format!("/device/v1/update?device={name}&compatible=m"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "INVALID_NAME"), "{name}");
        let answer = get(server.address, &format!("/api/v1/reports?device={name}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "INVALID_NAME"), "{name}");
    }
    for (device, id) in
        [("../../x", "r"), ("a\u{0}b", "r"), ("d", "../x"), ("d", ""), (&long, "r"), ("d", &long)]
    {
        let body = crate::devices::report(device, id).to_string();
        assert_eq!(send(server.address, "POST", REPORT, &[], body.as_bytes()).code(), "INVALID_NAME");
    }
}

/// W5: artifacts are addressed by all 256 bits and by nothing else.
#[test]
fn w5_artifact_names_are_whole_digests() {
    let server = Server::start();
    let bundle = Spec::default().bundle();
    let url = server.upload(&bundle).json()["url"].as_str().unwrap().to_owned();
    let hex = url.strip_prefix("/artifacts/").unwrap().strip_suffix(".otab").unwrap();
    assert_eq!(get(server.address, &url).status, 200);
    for name in [
        format!("{}.otab", &hex[..12]),
        format!("{}.otab", &hex[..63]),
        format!("{hex}0.otab"),
        format!("{}.otab", hex.to_uppercase()),
        hex.to_owned(),
        format!("{hex}.otab.otab"),
        format!("{hex}.OTAB"),
        format!("%20{hex}.otab"),
        format!("{hex}%00.otab"),
        format!("..%2fartifacts%2f{hex}.otab"),
        "..%2f..%2f..%2fetc%2fpasswd".into(),
        "%ff.otab".into(),
        "otaserver.db".into(),
    ] {
        let answer = get(server.address, &format!("/artifacts/{name}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "INVALID_NAME"), "{name}");
    }
    for path in [
        "/artifacts/../otaserver.db",
        "//artifacts",
        "/artifacts//",
        "/artifacts",
        "/api",
        "/%2e%2e/x",
        &url[1..],
    ] {
        let status = get(server.address, path).status;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
}

/// W10: no answer repeats what the client sent, and none may be guessed to be a page.
#[test]
fn w10_nothing_is_reflected_and_nothing_is_sniffed() {
    let server = Server::start();
    let url = server.upload(&Spec::default().bundle()).json()["url"].as_str().unwrap().to_owned();
    let evil = "%3Cscript%3Ealert(1)%3C/script%3E";
    let evil_json =
        r#"{"device":"d","compatible":"m","report_id":"r","outcome":"<script>alert(1)</script>"}"#;
    let answers = [
        get(server.address, &format!("/{evil}")),
        get(server.address, &format!("/artifacts/{evil}")),
        get(server.address, &format!("/device/v1/update?device={evil}&compatible={evil}")),
        get(server.address, &format!("/device/v1/update?device=d&compatible=m&sequence={evil}")),
        get(server.address, &format!("/api/v1/devices?limit={evil}")),
        send(server.address, "POST", REPORT, &[], evil_json.as_bytes()),
        send(server.address, "POST", "/healthz", &[("X-HTTP-Method-Override", "GET")], b"x"),
        send(server.address, "BREW", "/healthz", &[], b""),
        get(server.address, "/healthz"),
        get(server.address, &url),
        get(server.address, "/api/v1/devices"),
    ];
    for answer in answers {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        assert!(!String::from_utf8_lossy(&answer.body).contains("<script>"));
        if answer.status >= 400 {
            answer.code();
        } else {
            assert!(
                ["application/json", "application/vnd.otad.bundle"]
                    .contains(&answer.header("content-type").unwrap())
            );
        }
    }
    // What a device says is shown as JSON text, never as anything else.
    let mut shown = crate::devices::report("d", "r");
    shown["message"] = "</script>\u{1b}[2J\"\\".into();
    send(server.address, "POST", REPORT, &[], shown.to_string().as_bytes());
    assert_eq!(
        get(server.address, "/api/v1/reports?device=d").json()["reports"][0]["message"],
        shown["message"]
    );
}

#[test]
fn a_head_that_never_ends_is_cut_off() {
    let server = Server::with(|options| options.limits.header_read = Duration::from_millis(300));
    let mut stream = connect(server.address);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").unwrap();
    let begin = Instant::now();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_report_that_never_ends_is_cut_off() {
    let server = Server::with(|options| options.limits.report_body = Duration::from_millis(300));
    let mut stream = connect(server.address);
    let head = format!(
        "POST {REPORT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let answer = receive(&mut stream, "POST");
    assert_eq!((answer.status, answer.code().as_str()), (408, "NET_STALLED"));
}

/// A client that asks for a large file and takes none of it gives its connection back.
#[test]
fn a_download_that_nobody_takes_is_cut_off() {
    let server = Server::with(|options| {
        options.limits =
            Limits { write_stall: Duration::from_millis(500), max_connections: 1, ..Limits::default() };
    });
    // More than the socket buffers of both ends hold.
    let spec = Spec { random_bytes: 24 << 20, ..Spec::default() };
    let url = server.upload(&spec.bundle()).json()["url"].as_str().unwrap().to_owned();
    let mut stream = connect(server.address);
    stream.write_all(format!("GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    // The only connection is taken; this one is answered when the first was cut off.
    let begin = Instant::now();
    assert_eq!(get(server.address, "/healthz").status, 200);
    assert!(begin.elapsed() >= Duration::from_millis(300), "the first connection was served to its end");
    let mut taken = Vec::new();
    let _ = stream.read_to_end(&mut taken);
    assert!(taken.len() < 24 << 20);
}
