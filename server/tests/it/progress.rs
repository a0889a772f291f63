//! Live progress over a WebSocket, spoken by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::{act, check, released, step};
use crate::http::{connect, post_json, send};
use crate::rig::Server;

pub(crate) fn upgrade(server: &Server, target: &str, headers: &str) -> (TcpStream, String) {
    upgrade_at(server.address, target, headers)
}

pub(crate) fn upgrade_at(address: SocketAddr, target: &str, headers: &str) -> (TcpStream, String) {
    let mut stream = connect(address);
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

/// The next frame with text; servers do not mask theirs (RFC 6455, section 5.1).
pub(crate) fn frame(stream: &mut TcpStream) -> Value {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x81, "one whole text frame");
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            usize::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length).unwrap();
            usize::try_from(u64::from_be_bytes(length)).unwrap()
        }
        length => usize::from(length),
    };
    let mut text = vec![0; length];
    stream.read_exact(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn say(server: &Server, device: &str, phase: &str, percent: u8) {
    let body = json!({ "device": device, "phase": phase, "percent": percent, "boot_id": "b1" });
    assert_eq!(post_json(server.address, "/device/v1/progress", &body).status, 204);
}

/// W7: at most one frame per half second, the latest word of each device in it, and always the last one.
#[test]
fn w7_the_latest_word_in_one_frame_per_tick() {
    let (server, _) = released(json!({ "staging_percent": 100, "promote": false }), |_| {});
    act(&server, "start");
    let old = "version=1.0.0&sequence=1&state=idle&boot_id=b1";
    for device in ["a", "b"] {
        assert_eq!(check(&server, device, old), 200);
    }
    let (mut all, head) = upgrade(&server, "/api/v1/progress", "");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let (mut only_b, _) = upgrade(&server, "/api/v1/progress?device=b", "");
    let first = frame(&mut all);
    assert_eq!(first["devices"].as_array().unwrap().len(), 2, "what is known of everybody: {first}");
    frame(&mut only_b);

    let begin = Instant::now();
    let mut frames = 0;
    let mut last = Value::Null;
    for percent in 1..=100 {
        say(&server, "a", "writing", percent);
    }
    while last["percent"] != 100 {
        last = frame(&mut all)["devices"][0].clone();
        frames += 1;
    }
    let ticks = begin.elapsed().as_millis() / 500 + 2;
    assert!(u128::from(frames as u64) <= ticks, "{frames} frames in {ticks} ticks");
    assert_eq!(
        (&last["device"], &last["release"], &last["step"], &last["phase"]),
        (&json!("a"), &json!("r"), &json!("installing"), &json!("writing"))
    );
    assert_eq!(step(&server, "a"), "installing", "a phase is a step of the release, too");
    say(&server, "b", "verifying", 1);
    let heard = frame(&mut only_b);
    assert_eq!(
        (heard["devices"].as_array().unwrap().len(), &heard["devices"][0]["device"]),
        (1, &json!("b"))
    );
    // What nobody knows fills no memory.
    say(&server, "stranger", "writing", 1);
    say(&server, "b", "verifying", 2);
    assert_eq!(frame(&mut only_b)["devices"][0]["percent"], 2);
}

/// W3: whoever is no operator any more hears nothing more, however much there is to hear.
#[test]
fn w3_a_revoked_operator_is_cut_off() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let server = Server::with(|options| {
        options.token = Some(TOKEN.into());
        options.limits.listener_ping = Duration::from_millis(300);
    });
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("Authorization", authorization.as_str())];
    let viewer = json!({ "name": "v", "role": "viewer" }).to_string();
    let made = send(server.address, "POST", "/api/v1/operators", &headers, viewer.as_bytes()).json();
    let protocol = format!("Sec-WebSocket-Protocol: bearer.{}\r\n", made["token"].as_str().unwrap());
    let (mut revoked, head) = upgrade(&server, "/api/v1/progress", &protocol);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let (mut other, head) =
        upgrade(&server, "/api/v1/progress", &format!("Authorization: {authorization}\r\n"));
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(send(server.address, "DELETE", "/api/v1/operators/v", &headers, b"").status, 204);
    drop(revoked.set_read_timeout(Some(Duration::from_secs(10))));
    // Pings (RFC 6455, section 5.5.2) may come before the end (section 5.5.1).
    let mut head = [0; 2];
    loop {
        revoked.read_exact(&mut head).expect("a frame");
        if head != [0x89, 0] {
            break;
        }
    }
    let mut code = [0; 2];
    revoked.read_exact(&mut code).unwrap();
    assert_eq!((head[0], u16::from_be_bytes(code)), (0x88, 1008));
    // Who still may goes on.
    check(&server, "d", "version=1.0.0&sequence=1");
    say(&server, "d", "writing", 7);
    loop {
        other.read_exact(&mut head).unwrap();
        if head != [0x89, 0] {
            break;
        }
    }
    assert_eq!(head[0], 0x81, "a frame with text");
}

/// W7: strangers, foreign pages and giants get nothing; as many listen as there are places.
#[test]
fn w7_who_may_listen_and_what_is_refused() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let server = Server::with(|options| {
        options.token = Some(TOKEN.into());
        options.limits.max_listeners = 2;
    });
    let viewer = json!({ "name": "v", "role": "viewer" }).to_string();
    let authorization = format!("Bearer {TOKEN}");
    let made = send(
        server.address,
        "POST",
        "/api/v1/operators",
        &[("Authorization", &authorization)],
        viewer.as_bytes(),
    );
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let protocol = |token: &str| format!("Sec-WebSocket-Protocol: otad.progress, bearer.{token}\r\n");
    let status = |headers: &str| upgrade(&server, "/api/v1/progress", headers).1[9..12].to_owned();
    assert_eq!(status(""), "401");
    assert_eq!(status(&protocol("wrong")), "401");
    assert_eq!(status(&(protocol(&token) + "Origin: http://evil.example\r\n")), "403");
    let (one, head) = upgrade(&server, "/api/v1/progress", &protocol(&token));
    assert!(
        head.contains("101") && head.to_lowercase().contains("sec-websocket-protocol: otad.progress\r\n"),
        "{head}"
    );
    let (mut two, head) =
        upgrade(&server, "/api/v1/progress", &(protocol(&token) + "Origin: http://localhost\r\n"));
    assert!(head.contains("101"), "{head}");
    assert_eq!(status(&protocol(&token)), "429", "the places are taken");
    // A frame of a gigabyte is announced: the connection ends, its place is free again.
    two.write_all(&[0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]).unwrap();
    drop(two.set_read_timeout(Some(Duration::from_secs(5))));
    let mut rest = Vec::new();
    drop(two.read_to_end(&mut rest));
    drop(one);
    let begin = Instant::now();
    while status(&protocol(&token)) != "101" {
        assert!(begin.elapsed() < Duration::from_secs(5), "places come back");
    }
    let plain = send(server.address, "GET", "/api/v1/progress", &[("Authorization", &authorization)], b"");
    assert_eq!((plain.status, plain.code().as_str()), (426, "INVALID_REQUEST"));
}
