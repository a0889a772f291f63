//! Who may do what, listing, and withdrawing.

use crate::http::{get, send};
use crate::rig::{Server, Spec};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// W3: every operator route, in every method and spelling, is closed without the token.
#[test]
fn w3_every_operator_route_asks_for_the_token() {
    let server = Server::with(|options| options.token = Some(TOKEN.into()));
    let artifact = format!("/api/v1/artifacts/{}", "0".repeat(64));
    let delta = format!("/api/v1/deltas/{}", "0".repeat(64));
    let wrong = format!("Bearer {}x", &TOKEN[1..]);
    let right = format!("Bearer {TOKEN}");
    for target in [
        "/api/v1/artifacts",
        "/api/v1/deltas",
        "/api/v1/channels",
        "/api/v1/devices",
        "/api/v1/reports?device=d",
        &artifact,
        &delta,
        "/api/v1/none",
    ] {
        for method in ["GET", "POST", "DELETE", "PUT", "PATCH"] {
            for headers in
                [&[][..], &[("Authorization", wrong.as_str())], &[("X-HTTP-Method-Override", "GET")]]
            {
                let answer = send(server.address, method, target, headers, b"");
                assert_eq!(
                    (answer.status, answer.code().as_str()),
                    (401, "NOT_AUTHORIZED"),
                    "{method} {target}"
                );
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
            let answer = send(server.address, method, target, &[("Authorization", &right)], b"");
            assert_ne!(answer.status, 401, "{method} {target}");
        }
    }
    for target in [
        "/api/v1/",
        "//api/v1/devices",
        "/api//v1/devices",
        "/%61pi/v1/devices",
        "/api/v1/%64evices",
        "/./api/v1/devices",
    ] {
        let status = get(server.address, target).status;
        assert!(matches!(status, 400 | 401 | 404), "{target}: {status}");
    }
    // Devices need no token.
    assert_eq!(get(server.address, "/device/v1/update?device=d&compatible=m").status, 204);
    assert_eq!(get(server.address, "/healthz").status, 200);
}

#[test]
fn without_a_token_a_proxy_or_a_web_page_is_not_this_machine() {
    let server = Server::start();
    assert_eq!(get(server.address, "/api/v1/devices").status, 200);
    for header in
        [("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=_x"), ("Origin", "http://evil.example")]
    {
        let answer = send(server.address, "GET", "/api/v1/devices", &[header], b"");
        assert_eq!((answer.status, answer.code().as_str()), (403, "NOT_AUTHORIZED"), "{header:?}");
        let answer = send(server.address, "POST", "/api/v1/artifacts", &[header], &[0; 300_000]);
        assert_eq!(answer.status, 403, "the answer arrives although the body was not wanted");
    }
}

#[test]
fn a_withdrawn_release_is_offered_to_nobody() {
    let server = Server::start();
    let old = Spec { sequence: 1, ..Spec::default() }.bundle();
    let new = Spec { sequence: 2, ..Spec::default() }.bundle();
    server.upload(&old);
    let uploaded = server.upload(&new).json();
    let (url, sha256) = (uploaded["url"].as_str().unwrap(), uploaded["sha256"].as_str().unwrap());
    let update = "/device/v1/update?device=d&compatible=acme&sequence=0";
    assert_eq!(get(server.address, update).json()["sequence"], 2);

    let target = format!("/api/v1/artifacts/{sha256}");
    for _ in 0..2 {
        assert_eq!(send(server.address, "DELETE", &target, &[], b"").status, 204, "again is fine");
    }
    assert_eq!(get(server.address, update).json()["sequence"], 1);
    let answer = get(server.address, url);
    assert_eq!((answer.status, answer.code().as_str()), (410, "WITHDRAWN"));
    assert!(!server.data().join(&url[1..]).exists());
    let listed = get(server.address, "/api/v1/artifacts").json();
    assert!(listed["artifacts"][0]["withdrawn_at"].is_i64(), "the history stays");

    // Uploading it again is the way back.
    assert_eq!(server.upload(&new).status, 201);
    assert_eq!(get(server.address, update).json()["sequence"], 2);
    assert!(get(server.address, url).body == new);

    let unknown = send(server.address, "DELETE", &format!("/api/v1/artifacts/{}", "0".repeat(64)), &[], b"");
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "NOT_FOUND"));
    let name = send(server.address, "DELETE", "/api/v1/artifacts/..%2fx", &[], b"");
    assert_eq!((name.status, name.code().as_str()), (400, "INVALID_NAME"));
}

#[test]
fn lists_come_in_pages() {
    let server = Server::start();
    for sequence in 1..=5 {
        server.upload(&Spec { sequence, ..Spec::default() }.bundle());
        get(server.address, &format!("/device/v1/update?device=d{sequence}&compatible=m"));
    }
    let mut sequences = Vec::new();
    let mut target = "/api/v1/artifacts?limit=2".to_owned();
    loop {
        let page = get(server.address, &target).json();
        sequences.extend(
            page["artifacts"].as_array().unwrap().iter().map(|row| row["sequence"].as_u64().unwrap()),
        );
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/api/v1/artifacts?limit=2&after={next}");
    }
    assert_eq!(sequences, [5, 4, 3, 2, 1], "newest first, none twice, none lost");
    let page = get(server.address, "/api/v1/devices?limit=3").json();
    assert_eq!((page["devices"].as_array().unwrap().len(), &page["next"]), (3, &"d3".into()));
    let page = get(server.address, "/api/v1/devices?limit=3&after=d3").json();
    assert_eq!((page["devices"].as_array().unwrap().len(), &page["next"]), (2, &serde_json::Value::Null));
    for bad in ["limit=0", "limit=1001", "limit=-1", "limit=x", "after=..%2f"] {
        assert_eq!(get(server.address, &format!("/api/v1/devices?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn wrong_methods_say_which_are_right() {
    let server = Server::start();
    for (method, target, allowed) in [
        ("POST", "/healthz", "GET,HEAD"),
        ("GET", "/device/v1/reports", "POST"),
        ("PUT", "/api/v1/devices", "GET,HEAD"),
    ] {
        let answer = send(server.address, method, target, &[], b"");
        assert_eq!((answer.status, answer.code().as_str()), (405, "METHOD_NOT_ALLOWED"), "{method} {target}");
        assert_eq!(answer.header("allow"), Some(allowed));
    }
}
