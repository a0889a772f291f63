//! The question for updates and the reports, against right and wrong answers.

use std::time::Duration;

use otad::adapters::http::HttpFetch;
use otad::failure::Code;
use otad::ports::{Answer as Verdict, Fetch, Offer, Question, Receipt};

use super::script::{Answer, Server};
use super::{AGENT, assert_code, quick, within};

fn fetcher(server: &Server, base: &str) -> HttpFetch {
    HttpFetch::with_limits(Some(&server.url(base)), AGENT, quick()).unwrap()
}

pub(super) fn question() -> Question {
    Question {
        device: "d41d8cd9".to_owned(),
        compatible: "acme gateway".to_owned(),
        version: "1.0.0+build&7".to_owned(),
        sequence: 41,
        release: None,
        boot_id: String::new(),
        state: String::new(),
    }
}

fn json(body: &str) -> Answer {
    Answer::new("200 OK", body.as_bytes()).set("Content-Type", "application/json")
}

const RELEASE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn a_question_is_asked_as_the_contract_says() {
    let server = Server::always(Answer::new("204 No Content", b"").without("Content-Length"));
    let fetch = fetcher(&server, "/base/");
    assert_eq!(fetch.check(&question()).unwrap(), Verdict::Nothing);
    assert_eq!(fetch.check(&question()).unwrap(), Verdict::Nothing);
    let requests = server.requests();
    let query = "device=d41d8cd9&compatible=acme%20gateway&version=1.0.0%2Bbuild%267&sequence=41";
    assert_eq!(requests[0].method, "GET");
    assert_eq!(requests[0].target, format!("/base/device/v1/update?{query}"));
    assert_eq!(requests[0].header("user-agent"), Some(AGENT));
    assert_eq!(requests[1].connection, 0, "the connection is kept");
}

#[test]
fn a_channel_document_is_fetched_as_it_is() {
    let answers = [
        Answer::new("200 OK", b"schema = 1\n").set("Content-Type", "application/toml"),
        Answer::new("204 No Content", b"").without("Content-Length"),
        Answer::new("404 Not Found", b"{}").set("Content-Type", "application/json"),
        Answer::new("503 Service Unavailable", b""),
        Answer::new("200 OK", b"<html>log in</html>").set("Content-Type", "text/html"),
        Answer::new("200 OK", &[b'x'; 100_000]),
    ];
    let server = Server::start(move |number, _, wire| wire.send(&answers[number]));
    let fetch = fetcher(&server, "/base/");
    let channel = || fetch.channel("acme gateway").map_err(|failure| failure.code);
    assert_eq!(channel(), Ok(Some(b"schema = 1\n".to_vec())));
    assert_eq!((channel(), channel()), (Ok(None), Ok(None)), "a server from before there were any");
    assert!((0..3).all(|_| channel().is_err()), "busy, a captive portal, endless data");
    assert_eq!(server.requests()[0].target, "/base/device/v1/channel?compatible=acme%20gateway");
}

#[test]
fn an_offer_is_understood_whatever_else_is_in_it() {
    let server = Server::start(|number, _, wire| {
        let url = ["/artifacts/ab.otab", "https://cdn.example/ab.otab?x=1", "ab.otab"][number];
        wire.send(&json(&format!(
            r#"{{"version":"2.0.0","sequence":42,"release":"{RELEASE}","sha256":"x","size":1,"url":"{url}",
                "description":"new","rollout":{{"group":[1,2,null]}}}}"#
        )))
    });
    let fetch = fetcher(&server, "/base/");
    for url in [
        server.url("/artifacts/ab.otab"),
        "https://cdn.example/ab.otab?x=1".to_owned(),
        server.url("/base/ab.otab"),
    ] {
        let offer =
            Offer { release: RELEASE.parse().unwrap(), version: "2.0.0".to_owned(), url, delta: None };
        assert_eq!(fetch.check(&question()).unwrap(), Verdict::Offer(offer));
    }
}

/// W2: malformed, mistyped and hostile answers are failures that say what is wrong.
#[test]
fn w2_answers_that_are_no_offers() {
    let offer = |release: &str, version: &str, url: &str| {
        format!(r#"{{"version":"{version}","release":"{release}","url":"{url}"}}"#)
    };
    for (body, part) in [
        (String::new(), "EOF"),
        ("[]".to_owned(), "invalid length"),
        ("null".to_owned(), "invalid type"),
        ("{".to_owned(), "EOF"),
        ("[".repeat(30_000), "of no use"),
        (r#"{"version":"1"}"#.to_owned(), "missing field"),
        (format!(r#"{{"version":2,"release":"{RELEASE}","url":"/x"}}"#), "invalid type"),
        (offer("abc", "1.0.0", "/x"), "release"),
        (offer(&RELEASE.to_uppercase(), "1.0.0", "/x"), "release"),
        (offer(RELEASE, &"9".repeat(200), "/x"), "version"),
        (offer(RELEASE, "1\\u001b[31m", "/x"), "version"),
        (offer(RELEASE, "1.0.0", "file:///etc/shadow"), "url"),
        (offer(RELEASE, "1.0.0", "http://u:p@h/x"), "url"),
        (offer(RELEASE, "1.0.0", "ssh://h/x"), "only http and https"),
    ] {
        let server = Server::always(json(&body));
        let failure = fetcher(&server, "").check(&question()).unwrap_err();
        assert_code(&failure, Code::NetStatus, part);
    }
}

/// N10: an answer without end, in size and in time.
#[test]
fn n10_an_endless_answer_is_cut_off() {
    let server = Server::start(|_, _, wire| {
        wire.raw(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            wire.raw(&[b' '; 4096])?;
        }
    });
    let failure = within(Duration::from_secs(2), || fetcher(&server, "").check(&question()).unwrap_err());
    assert_code(&failure, Code::SizeExceeded, "65536");

    for (piece, pause) in [("1;x=".to_owned(), 5), ("1\r\n \r\n".to_owned(), 5), (";x=y".repeat(1000), 0)] {
        let server = Server::start(move |_, _, wire| {
            wire.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                wire.raw(piece.as_bytes())?;
                std::thread::sleep(Duration::from_millis(pause));
            }
        });
        let failure = within(Duration::from_secs(4), || fetcher(&server, "").check(&question()).unwrap_err());
        let code = if pause > 0 { Code::NetStalled } else { Code::NetFailed };
        assert_eq!(failure.code, code, "{failure}");
    }
}

/// N7, N8, N13: statuses, redirects and portals of the update server.
#[test]
fn n13_a_question_gets_a_clear_failure() {
    let page = json("<html>").set("Content-Type", "text/html");
    for (answer, code, part) in [
        (page, Code::NotABundle, "captive portal"),
        (Answer::new("511 Network Authentication Required", b""), Code::NotABundle, "captive portal"),
        (Answer::new("404 Not Found", b""), Code::NetStatus, "404"),
        (Answer::new("503 Busy", b"").set("Retry-After", "1000000000"), Code::NetStatus, "in 3600 s"),
        (Answer::new("302 Found", b"").set("Location", "/device/v1/update"), Code::NetRedirect, "5 times"),
        (Answer::new("302 Found", b"").set("Location", "gopher://x/"), Code::NetRedirect, "only http"),
    ] {
        let server = Server::always(answer);
        assert_code(&fetcher(&server, "").check(&question()).unwrap_err(), code, part);
    }
    let silent = Server::start(|_, _, wire| wire.hold());
    let failure = within(Duration::from_secs(5), || fetcher(&silent, "").check(&question()).unwrap_err());
    assert_code(&failure, Code::NetStalled, "too long");
}

#[test]
fn a_report_is_handed_over_whole_or_fails() {
    let body = r#"{"device":"d","outcome":"committed"}"#;
    let refused = |why: &str| Some(Receipt::Refused(why.to_owned()));
    for (status, expected) in [
        ("204 No Content", Some(Receipt::Taken)),
        ("200 OK", Some(Receipt::Taken)),
        ("201 Created", Some(Receipt::Taken)),
        // The server will never want it: kept, it would stand in the way of every later report.
        ("400 Bad Request", refused("400 Bad Request")),
        ("413 Payload Too Large", refused("413 Payload Too Large")),
        ("401 Unauthorized", None),
        ("500 No", None),
    ] {
        let answer = Answer::new(status, b"");
        let server =
            Server::always(if status.starts_with("204") { answer.without("Content-Length") } else { answer });
        let outcome = fetcher(&server, "").report(body);
        assert_eq!(outcome.ok(), expected, "{status}");
        let requests = server.requests();
        assert_eq!(requests.len(), 1, "{status}");
        assert_eq!(
            (requests[0].method.as_str(), requests[0].target.as_str()),
            ("POST", "/device/v1/reports")
        );
        assert_eq!(requests[0].header("content-type"), Some("application/json"));
        assert_eq!(requests[0].body, body.as_bytes());
    }
}

/// N8: a redirect that turns a report into a question loses it; one that keeps the method does not.
#[test]
fn n8_reports_follow_only_redirects_that_keep_their_body() {
    for (status, followed) in [
        ("301 Moved Permanently", false),
        ("302 Found", false),
        ("303 See Other", false),
        ("307 Temporary Redirect", true),
        ("308 Permanent Redirect", true),
    ] {
        let server = Server::start(move |number, _, wire| match number {
            0 => wire.send(&Answer::new(status, b"").set("Location", "/elsewhere")),
            _ => wire.send(&Answer::new("204 No Content", b"").without("Content-Length")),
        });
        let outcome = fetcher(&server, "").report("{}");
        assert_eq!(outcome.is_ok(), followed, "{status}: {outcome:?}");
        let bodies: Vec<_> = server.requests().into_iter().map(|request| request.body).collect();
        assert_eq!(bodies, vec![b"{}".to_vec(); if followed { 2 } else { 1 }], "{status}");
    }
}

#[test]
fn the_server_must_be_configured_and_sound() {
    let nobody = HttpFetch::new(None, AGENT).unwrap();
    assert_code(&nobody.check(&question()).unwrap_err(), Code::Config, "[server]");
    assert_code(&nobody.report("{}").unwrap_err(), Code::Config, "[server]");
    for url in
        ["updates.example.com", "https://user:hunter2@updates.example.com", "ftp://updates.example.com"]
    {
        let failure = HttpFetch::new(Some(url), AGENT).unwrap_err();
        assert_code(&failure, Code::Config, "[server] url");
        assert!(!failure.message.contains("hunter2"), "{failure}");
    }
}
