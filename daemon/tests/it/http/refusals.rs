//! Answers that a bundle is not taken from, and the code and the words that say so.

use std::time::Duration;

use otad::failure::Code;
use otad::ports::{Fetch, Stop};

use super::script::{After, Answer, Request, Served, Server};
use super::{assert_code, fetcher, open, quick, read_all, refusal, rest, within};

/// Makes a right answer wrong.
type Spoil = fn(Answer) -> Answer;

/// A server whose n-th answer (and those after it) is spoilt.
fn spoilt_from(
    first: usize,
    file: Served,
    spoil: impl Fn(Answer, &Request) -> Answer + Send + Sync + 'static,
) -> Server {
    Server::start(move |number, request, wire| {
        let answer = file.answer(request);
        wire.send(&if number < first { answer } else { spoil(answer, request) })
    })
}

/// N3: the length of a body is announced, once, in digits, and fits the range.
#[test]
fn n3_lengths_that_are_not_lengths() {
    let cases: [(&str, Spoil); 8] = [
        ("two that differ", |answer| answer.add("Content-Length", "7")),
        ("negative", |answer| answer.set("Content-Length", "-5")),
        ("not a number", |answer| answer.set("Content-Length", "0x10")),
        ("none", |answer| answer.without("Content-Length").set("Connection", "close")),
        ("chunked", |answer| answer.without("Content-Length").set("Transfer-Encoding", "chunked")),
        ("chunked and counted", |answer| answer.set("Transfer-Encoding", "chunked")),
        ("too small for the range", |answer| answer.set("Content-Length", "10")),
        ("too big for the range", |answer| answer.set("Content-Length", "5000")),
    ];
    for (name, spoil) in cases {
        let server = spoilt_from(0, Served::new(3000), move |answer, _| spoil(answer));
        let failure = refusal(&server);
        assert_eq!(failure.code, Code::NetLength, "{name}: {failure}");
        assert_eq!(server.requests().len(), 1, "{name}: it would be the same again");
    }
}

/// N3: a server that announces more than it has is found out, with or without ranges.
#[test]
fn n3_bytes_that_never_come() {
    let file = Served::new(3000);
    let ranges = Server::start(move |_, request, wire| {
        let (first, last) = request.range().unwrap();
        let last = last.min(3999);
        let answer = Answer::new("206 Partial Content", &file.bytes[first.min(3000)..]);
        let answer = answer.set("Content-Range", &format!("bytes {first}-{last}/4000"));
        wire.send(&answer.set("Content-Length", &(last - first + 1).to_string()))?;
        Ok(After::Close)
    });
    assert_code(&refusal(&ranges), Code::NetLength, "at byte 3000, 1000 bytes early");

    let whole = Served::new(3000).whole().set("Content-Length", "4000");
    let no_ranges = Server::start(move |_, _, wire| wire.send(&whole).map(|_| After::Close));
    assert_code(&refusal(&no_ranges), Code::NetFailed, "at byte 3000, 1000 bytes early");
}

/// N3, N10: what follows the announced end is not read, let alone handed out.
#[test]
fn n10_endless_data_ends_where_it_was_announced() {
    let file = Served::new(3000);
    let served = file.clone();
    let server = Server::start(move |_, request, wire| {
        wire.send(&served.answer(request))?;
        loop {
            wire.raw(&[b'x'; 4096])?;
        }
    });
    assert_eq!(within(Duration::from_secs(3), || read_all(&server, quick())).unwrap(), file.bytes);
}

/// N5: any range but the one that was asked for.
#[test]
fn n5_another_range_than_asked_for() {
    for text in [
        "bytes 0-8191/30000",
        "bytes 8191-24574/30000",
        "bytes 8193-24576/30000",
        "bytes 8192-24576/30000",
        "bytes 8192-24575/*",
        "bytes 24575-8192/30000",
        "bytes 8192-8300/30000",
        "bytes=8192-24575/30000",
        "bytes */30000",
        "items 8192-24575/30000",
        "garbage",
        "",
    ] {
        let server = spoilt_from(1, Served::new(30_000), move |answer, _| {
            let body = if text.contains("8300") { vec![0; 109] } else { answer.body.clone() };
            let tagged = Answer::new("206 Partial Content", &body).set("ETag", "\"v1\"");
            tagged.set("Content-Range", text)
        });
        let failure = refusal(&server);
        assert_eq!(failure.code, Code::NetRange, "{text:?}: {failure}");
        assert_eq!(server.requests().len(), 2, "{text:?}");
    }
}

/// N5: no range at all, two of them, several parts.
#[test]
fn n5_missing_double_and_multiple_ranges() {
    let cases: [Spoil; 3] = [
        |answer| answer.without("Content-Range"),
        |answer| answer.add("Content-Range", "bytes 0-1/2"),
        |answer| answer.set("Content-Type", "Multipart/byteranges; boundary=x"),
    ];
    for spoil in cases {
        let server = spoilt_from(0, Served::new(3000), move |answer, _| spoil(answer));
        assert_eq!(refusal(&server).code, Code::NetRange);
    }
}

/// N6: the file is replaced between two ranges, in each way that a server can show it.
#[test]
fn n6_a_replaced_file_is_not_mixed_with_the_old_one() {
    let new = |tag, length| Served { tag, ..Served::new(length) };
    let cases: Vec<(&str, Server)> = vec![
        (
            "200 with another tag",
            spoilt_from(1, new(Some("\"v1\""), 30_000), |answer, _| {
                Answer::new("200 OK", &answer.body).set("ETag", "\"v2\"")
            }),
        ),
        (
            "200 with the tag gone weak",
            spoilt_from(1, new(Some("\"v1\""), 30_000), move |_, _| new(Some("W/\"v1\""), 30_000).whole()),
        ),
        (
            "200 with no tag any more",
            spoilt_from(1, new(Some("\"v1\""), 30_000), move |_, _| new(None, 30_000).whole()),
        ),
        (
            "206 with another tag",
            spoilt_from(1, new(Some("\"v1\""), 30_000), |answer, _| answer.set("ETag", "\"v2\"")),
        ),
        (
            "206 of another weak tag",
            spoilt_from(1, new(Some("W/\"1\""), 30_000), |answer, _| answer.set("ETag", "W/\"2\"")),
        ),
        (
            "206 of another length",
            spoilt_from(1, new(None, 30_000), move |_, request| new(None, 29_000).answer(request)),
        ),
        (
            "412",
            spoilt_from(1, new(Some("\"v1\""), 30_000), |_, _| Answer::new("412 Precondition Failed", b"")),
        ),
        (
            "416 of a shorter file",
            spoilt_from(1, new(None, 30_000), move |_, request| new(None, 4000).answer(request)),
        ),
    ];
    for (name, server) in cases {
        let failure = refusal(&server);
        assert_eq!(failure.code, Code::SourceChanged, "{name}: {failure}");
        assert_eq!(server.requests().len(), 2, "{name}");
    }
}

/// N6: only a strong tag goes into `If-Range`; without one the hashes alone guard the content.
#[test]
fn n6_weak_and_malformed_tags_are_not_insisted_on() {
    for tag in [None, Some("W/\"v1\""), Some("no quotes")] {
        let file = Served { tag, ..Served::new(20_000) };
        let served = file.clone();
        let server = Server::start(move |_, request, wire| {
            assert_eq!(request.header("if-range"), None);
            wire.send(&served.answer(request))
        });
        assert_eq!(read_all(&server, quick()).unwrap(), file.bytes, "{tag:?}");
    }
}

/// N7: an hour or a million is too long for an install; the message says when to come back.
#[test]
fn n7_a_server_that_is_busy_for_long_is_not_waited_for() {
    for wait in ["1000000000", "2", "Sat, 06 Nov 2094 08:49:37 GMT"] {
        let busy = Answer::new("503 Service Unavailable", b"").set("Retry-After", wait);
        let server = Server::always(busy.set("Date", "Sun, 06 Nov 1994 08:49:37 GMT"));
        let failure = within(Duration::from_secs(1), || refusal(&server));
        assert_code(&failure, Code::NetStatus, if wait == "2" { "in 2 s" } else { "in 3600 s" });
    }
}

/// N7: a status that will not change is not asked for again, and one that may is not asked for without end.
#[test]
fn n7_statuses_are_final_or_not() {
    for (status, requests) in
        [("404 Not Found", 1), ("403 Forbidden", 1), ("304 Not Modified", 1), ("500 No", 3)]
    {
        let server = Server::always(Answer::new(status, b""));
        let failure = refusal(&server);
        assert_code(&failure, Code::NetStatus, &status[..3]);
        assert_eq!(server.requests().len(), requests, "{status}");
    }
    let server = spoilt_from(1, Served::new(30_000), |_, _| Answer::new("416 Range Not Satisfiable", b""));
    assert_code(&refusal(&server), Code::NetRange, "416");
}

/// N8: a loop, a sixth hop, and places that nobody is sent to.
#[test]
fn n8_redirects_that_are_not_followed() {
    let server = Server::always(Answer::new("302 Found", b"").set("Location", "/x.otab"));
    assert_code(&refusal(&server), Code::NetRedirect, "more than 5 times");
    assert_eq!(server.requests().len(), 6);

    for location in [
        "file:///etc/shadow",
        "ftp://127.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/x",
        "http://user:hunter2@127.0.0.1/x",
        "http://2130706433/x",
        "http://",
        "http://a b/",
    ] {
        let server = Server::always(Answer::new("301 Moved Permanently", b"").set("Location", location));
        let failure = within(Duration::from_secs(1), || refusal(&server));
        assert_code(&failure, Code::NetRedirect, "redirect from http://127.0.0.1");
        assert!(!failure.message.contains("hunter2"), "{failure}");
        assert_eq!(server.requests().len(), 1, "{location}");
    }
    let nowhere = Server::always(Answer::new("303 See Other", b""));
    assert_code(&refusal(&nowhere), Code::NetRedirect, "where to");
    let twice = Answer::new("307 Temporary Redirect", b"").set("Location", "/a").add("Location", "/b");
    assert_code(&refusal(&Server::always(twice)), Code::NetRedirect, "twice");
}

/// N9: nothing that would have to be unpacked first.
#[test]
fn n9_encoded_bodies_are_refused() {
    for coding in ["gzip", "br", "identity, gzip"] {
        let server =
            spoilt_from(0, Served::new(3000), move |answer, _| answer.set("Content-Encoding", coding));
        assert_code(&refusal(&server), Code::NetStatus, coding);
    }
    let plain = spoilt_from(0, Served::new(3000), |answer, _| answer.set("Content-Encoding", "identity"));
    assert_eq!(read_all(&plain, quick()).unwrap().len(), 3000);
}

/// N10: headers without end, in lines or in one line.
#[test]
fn n10_header_floods_are_cut_off() {
    for line in ["X-Flood: drop\r\n", "xxxxxxxxxxxxxxxx"] {
        let server = Server::start(move |_, _, wire| {
            wire.raw(b"HTTP/1.1 206 Partial Content\r\nX-Long: ")?;
            loop {
                wire.raw(line.repeat(64).as_bytes())?;
            }
        });
        let failure = within(Duration::from_secs(3), || refusal(&server));
        assert_code(&failure, Code::SizeExceeded, "32768");
    }
    for (length, taken) in [(30_000, true), (40_000, false), (1 << 20, false)] {
        let line = "x".repeat(length);
        let server = spoilt_from(0, Served::new(3000), move |answer, _| answer.set("X-Long", &line));
        match read_all(&server, quick()) {
            Ok(_) => assert!(taken, "{length}"),
            Err(failure) => {
                assert_code(&failure, Code::SizeExceeded, "32768");
                assert!(!taken, "{length}");
            }
        }
    }
}

/// N13: a login page in place of the bundle, at the start or in the middle, by status or by content.
#[test]
fn n13_captive_portals_are_recognised() {
    let page =
        || Answer::new("200 OK", b"<html>log in</html>").set("Content-Type", "text/html; charset=utf-8");
    let wall = || Answer::new("511 Network Authentication Required", b"<html>");
    assert_code(&refusal(&Server::always(page())), Code::NotABundle, "captive portal");
    assert_code(&refusal(&Server::always(wall())), Code::NotABundle, "captive portal");
    let later = spoilt_from(1, Served::new(30_000), move |_, _| page());
    assert_code(&refusal(&later), Code::NotABundle, "captive portal");
    let portal = Server::start(move |_, request, wire| match request.target.as_str() {
        "/login" => wire.send(&page()),
        _ => wire.send(&Answer::new("302 Found", b"").set("Location", "/login")),
    });
    assert_code(&refusal(&portal), Code::NotABundle, "/login gave a web page");
    let empty = Server::always(Answer::new("200 OK", b""));
    assert_code(&refusal(&empty), Code::NotABundle, "empty");
}

/// N11: https to something that does not speak TLS fails closed, at once.
#[test]
fn n11_no_tls_no_transfer() {
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/x", plain.local_addr().unwrap());
    let talker = std::thread::spawn(move || {
        let (mut stream, _) = plain.accept()?;
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")?;
        // Waits for the client to go, so that no reset hides what it was sent.
        std::io::copy(&mut stream, &mut std::io::sink())
    });
    let failure = open(&url, quick()).err().unwrap();
    assert_code(&failure, Code::NetTls, "no trusted connection");
    talker.join().unwrap().unwrap();
}

/// N12: a name that does not exist fails in time, with the name's URL in the message.
#[test]
fn n12_unknown_names_fail_in_time() {
    let failure =
        within(Duration::from_secs(9), || open("http://no-such-host.invalid/x", quick()).err().unwrap());
    assert!(matches!(failure.code, Code::NetFailed | Code::NetStalled), "{failure}");
    assert!(failure.message.contains("no-such-host.invalid"), "{failure}");
}

#[test]
fn urls_with_secrets_or_other_schemes_are_refused_without_repeating_them() {
    for url in
        ["http://user:hunter2@127.0.0.1/x", "ftp://127.0.0.1/hunter2", "/hunter2", "file:///hunter2", ""]
    {
        let failure = open(url, quick()).err().unwrap();
        assert_eq!(failure.code, Code::InvalidSource, "{url}: {failure}");
        assert!(!failure.message.contains("hunter2"), "{failure}");
    }
    let server = Server::always(Answer::new("404 Not Found", b""));
    let failure = open(&server.url("/x.otab?signature=hunter2"), quick()).err().unwrap();
    assert_code(&failure, Code::NetStatus, "/x.otab answered 404");
    assert!(!failure.message.contains("hunter2"), "{failure}");
}

#[test]
fn a_stop_before_the_start_makes_no_request() {
    let server = Server::always(Served::new(10).whole());
    let stop = Stop::default();
    stop.request();
    let failure = fetcher(quick()).open(&server.url("/x"), &stop).err().unwrap();
    assert_code(&failure, Code::Cancelled, "cancelled");
    assert!(server.requests().is_empty());
}

/// An error does not poison the input: the caller may seek elsewhere and read on.
#[test]
fn reading_can_go_on_after_a_failure() {
    let file = Served::new(30_000);
    let served = file.clone();
    let server = Server::start(move |number, request, wire| match number {
        1 => wire.send(&Answer::new("404 Not Found", b"")),
        _ => wire.send(&served.answer(request)),
    });
    let mut input = open(&server.url("/x"), quick()).unwrap();
    assert_code(&rest(&mut *input).unwrap_err(), Code::NetStatus, "404");
    input.seek_to(20_000).unwrap();
    assert_eq!(rest(&mut *input).unwrap(), file.bytes[20_000..]);
}
