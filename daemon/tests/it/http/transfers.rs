//! Transfers that succeed in the end, or that end in time.

use std::io::Read;
use std::thread;
use std::time::Duration;

use otad::adapters::http::Limits;
use otad::failure::Code;
use otad::failure::failure_of;
use otad::ports::{Fetch, Stop};

use super::script::{After, Answer, Served, Server};
use super::{AGENT, assert_code, fetcher, open, quick, read_all, refusal, rest, within};

#[test]
fn a_file_comes_in_growing_spans_over_few_connections() {
    let file = Served::new(200_000);
    let served = file.clone();
    let server = Server::start(move |_, request, wire| wire.send(&served.answer(request)));
    assert_eq!(read_all(&server, quick()).unwrap(), file.bytes);
    let requests = server.requests();
    let spans: Vec<_> = requests.iter().map(|request| request.range().unwrap()).collect();
    let expected =
        [(0, 8191), (8192, 24575), (24576, 57343), (57344, 122_879), (122_880, 188_415), (188_416, 199_999)];
    assert_eq!(spans, expected);
    // The last ones are fetched ahead, over a second connection if the first one is still busy.
    assert!(server.connections() <= 2, "{} connections", server.connections());
    for (number, request) in requests.iter().enumerate() {
        assert_eq!(request.header("user-agent"), Some(AGENT));
        assert_eq!(request.header("accept-encoding"), Some("identity"), "N9");
        assert_eq!(request.header("if-range"), (number > 0).then_some("\"v1\""));
    }
}

#[test]
fn seeks_read_on_when_near_and_jump_when_far() {
    let file = Served::new(200_000);
    let served = file.clone();
    let server = Server::start(move |_, request, wire| wire.send(&served.answer(request)));
    let mut input = open(&server.url("/x.otab"), quick()).unwrap();
    assert!(input.random_access());
    let mut expect = |offset: usize, length: usize, range: Option<(usize, usize)>| {
        let before = server.requests().len();
        let mut bytes = vec![0; length];
        input.seek_to(offset as u64).unwrap();
        input.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, file.bytes[offset..offset + length], "{length} bytes at {offset}");
        let asked: Vec<_> =
            server.requests()[before..].iter().map(|request| request.range().unwrap()).collect();
        assert_eq!(asked, Vec::from_iter(range), "{length} bytes at {offset}");
    };
    expect(0, 100, None);
    expect(4000, 100, None);
    expect(100_000, 100, Some((100_000, 108_191)));
    expect(50, 1000, Some((50, 8241)));
    expect(2000, 1000, None);
    expect(150_000, 20_000, Some((150_000, 169_999)));
    expect(199_000, 1000, Some((199_000, 199_999)));
    input.seek_to(200_000).unwrap();
    assert_eq!(input.read(&mut [0; 10]).unwrap(), 0);
    input.seek_to(u64::MAX).unwrap();
    assert_eq!(input.read(&mut [0; 10]).unwrap(), 0);
    // Only the two jumps out of a span with more than `skip` left cost a connection.
    assert_eq!(server.connections(), 3);
}

/// N1: a reset at the very start, in the header, before the first byte, in the middle and before the last byte.
#[test]
fn n1_a_reset_anywhere_is_resumed() {
    let file = Served::new(8000);
    let head = file.whole().head().len();
    for cut in [0, 1, 20, head - 1, head, head + 1, head + 4000, head + 7999] {
        let served = file.clone();
        let server = Server::start(move |number, request, wire| {
            let answer = served.answer(request);
            if number > 0 {
                return wire.send(&answer);
            }
            let bytes = [answer.head().as_bytes(), &answer.body].concat();
            wire.raw(&bytes[..cut])?;
            // What was written must leave before the reset does: a reset may overtake bytes in the client's buffer.
            thread::sleep(Duration::from_millis(30));
            Ok(After::Reset)
        });
        assert_eq!(read_all(&server, quick()).unwrap(), file.bytes, "cut at {cut}");
        let requests = server.requests();
        assert_eq!(requests.len(), 2, "cut at {cut}");
        let (first, _) = requests[1].range().unwrap();
        assert_eq!(requests[1].header("if-range").is_some(), first > 0, "cut at {cut}");
    }
}

/// N1: breaks without end are survived as long as each try brings something.
#[test]
fn n1_progress_gives_the_tries_back() {
    let file = Served::new(20_000);
    let served = file.clone();
    let server =
        Server::start(move |_, request, wire| wire.send_part(&served.answer(request), 1000, After::Close));
    assert_eq!(read_all(&server, quick()).unwrap(), file.bytes);
    assert_eq!(server.requests().len(), 20);
}

/// N1: tries without progress end, with the last reason and their number.
#[test]
fn n1_tries_without_progress_end() {
    let server = Server::start(|_, _, _| Ok(After::Close));
    assert_code(&refusal(&server), Code::NetFailed, "gave up after 3 tries");
    assert_eq!(server.requests().len(), 3);

    let url = server.url("/x.otab");
    drop(server);
    let failure = open(&url, quick()).err().unwrap();
    assert_code(&failure, Code::NetFailed, "refused");
}

/// N2: silence in the middle of a body ends the try, and the next one goes on from there.
#[test]
fn n2_silence_is_cut_short_and_resumed() {
    let file = Served::new(6000);
    let served = file.clone();
    let server = Server::start(move |number, request, wire| {
        let answer = served.answer(request);
        if number > 0 {
            return wire.send(&answer);
        }
        wire.send_part(&answer, 2500, After::Keep)?;
        wire.hold()
    });
    let limits = Limits { idle: Duration::from_millis(300), ..quick() };
    assert_eq!(read_all(&server, limits).unwrap(), file.bytes);
    assert_eq!(server.requests()[1].range(), Some((2500, 5999)));
}

/// N2: a server that never lets a read time out, yet sends next to nothing.
#[test]
fn n2_a_trickle_is_a_stall() {
    let file = Served::new(6000);
    let server = Server::start(move |_, request, wire| {
        let answer = file.answer(request);
        wire.raw(answer.head().as_bytes())?;
        for byte in answer.body {
            wire.raw(&[byte])?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(After::Keep)
    });
    let limits = Limits { window: Duration::from_millis(400), ..quick() };
    let failure = within(Duration::from_secs(6), || read_all(&server, limits).unwrap_err());
    assert_code(&failure, Code::NetStalled, "bytes in 0.4 s");
    assert_eq!(server.requests().len(), 3);
}

/// N2: a header that does not come, or comes a byte at a time.
#[test]
fn n2_a_header_has_its_time() {
    for pause in [None, Some(Duration::from_millis(20))] {
        let server = Server::start(move |_, _, wire| {
            let Some(pause) = pause else { return wire.hold() };
            wire.raw(b"HTTP/1.1 206 Partial Content\r\nX: ")?;
            loop {
                wire.raw(b"x")?;
                thread::sleep(pause);
            }
        });
        let limits = Limits { answer: Duration::from_millis(300), tries: 2, ..quick() };
        let failure = within(Duration::from_secs(4), || open(&server.url("/x"), limits).err().unwrap());
        assert_code(&failure, Code::NetStalled, "receive response");
    }
}

/// N2: whoever cancels does not wait for a timeout, neither of a silent server nor between two tries.
#[test]
fn n2_a_stop_wakes_every_wait() {
    let patient = Limits {
        idle: Duration::from_secs(60),
        answer: Duration::from_secs(60),
        backoff_first: Duration::from_secs(60),
        backoff_longest: Duration::from_secs(60),
        ..quick()
    };
    let file = Served::new(6000);
    let silent_body = Server::start(move |_, request, wire| {
        wire.send_part(&file.answer(request), 1000, After::Keep)?;
        wire.hold()
    });
    let silent = Server::start(|_, _, wire| wire.hold());
    let broken = Server::start(|_, _, _| Ok(After::Close));
    // With a single try, the broken connection must not be taken for the reason of the end.
    for (server, tries) in [(silent_body, 1), (silent, 1), (broken, 3)] {
        let limits = Limits { tries, ..patient.clone() };
        let stop = Stop::default();
        let signal = stop.clone();
        let asked = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            signal.request();
        });
        let outcome = within(Duration::from_secs(2), || {
            let mut input = fetcher(limits).open(&server.url("/x"), &stop)?;
            rest(&mut *input)
        });
        assert_code(&outcome.unwrap_err(), Code::Cancelled, "cancelled");
        asked.join().unwrap();
    }
}

/// N4: the whole file instead of a range is read from its start, and after a break its start is dropped.
#[test]
fn n4_a_server_without_ranges_is_read_front_to_back() {
    let file = Served::new(30_000);
    let served = file.clone();
    let server = Server::start(move |number, _, wire| match number {
        0 => wire.send_part(&served.whole(), 10_000, After::Close),
        1 => wire.send_part(&served.whole(), 20_000, After::Close),
        _ => wire.send(&served.whole()),
    });
    let mut input = open(&server.url("/x.otab"), quick()).unwrap();
    assert!(!input.random_access());
    let mut start = vec![0; 12_000];
    input.read_exact(&mut start).unwrap();
    let back = input.seek_to(100).unwrap_err();
    assert_code(failure_of(&back).unwrap(), Code::NetRange, "does not support ranges");
    input.seek_to(18_000).unwrap();
    let end = rest(&mut *input).unwrap();
    assert_eq!(start, file.bytes[..12_000]);
    assert_eq!(end, file.bytes[18_000..]);
    assert_eq!(server.requests().len(), 3);
}

/// N4: a server that loses its ranges on the way; nothing is appended twice.
#[test]
fn n4_the_whole_file_after_a_range_is_not_appended() {
    let file = Served::new(30_000);
    let served = file.clone();
    let server = Server::start(move |number, request, wire| match number {
        0 => wire.send(&served.answer(request)),
        _ => wire.send(&served.whole()),
    });
    assert_eq!(read_all(&server, quick()).unwrap(), file.bytes);
}

/// N4: the same bytes over and over are no progress, however many they are.
#[test]
fn n4_a_server_without_ranges_that_always_breaks_is_given_up() {
    let file = Served::new(30_000);
    let server = Server::start(move |_, _, wire| wire.send_part(&file.whole(), 20_000, After::Close));
    assert_code(&refusal(&server), Code::NetFailed, "broke off at byte 20000");
    assert_eq!(server.requests().len(), 3);
}

/// N7: a server that is busy for a moment is waited for, whether it says so in seconds or by its own clock.
#[test]
fn n7_a_busy_server_is_asked_again() {
    for (status, retry_after) in [
        ("503 Service Unavailable", Some("0")),
        ("503 Service Unavailable", None),
        ("429 Too Many Requests", Some("1")),
        ("429 Too Many Requests", Some("Sun, 06 Nov 1994 08:49:38 GMT")),
        ("416 Range Not Satisfiable", Some("0")),
        ("502 Bad Gateway", None),
    ] {
        let file = Served::new(1000);
        let served = file.clone();
        let server = Server::start(move |number, request, wire| {
            if number == 1 {
                return wire.send(&served.answer(request));
            }
            let busy = Answer::new(status, b"busy").set("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
            wire.send(&retry_after.iter().fold(busy, |busy, wait| busy.set("Retry-After", wait)))
        });
        let bytes = within(Duration::from_secs(4), || read_all(&server, quick())).unwrap();
        assert_eq!(bytes, file.bytes, "{status} {retry_after:?}");
    }
}

/// N8: up to five hops are followed, each kind of reference; later ranges go straight to where the file is.
#[test]
fn n8_a_few_redirects_are_followed_once() {
    let file = Served::new(20_000);
    let served = file.clone();
    let server = Server::start(move |_, request, wire| {
        let location = match request.target.as_str() {
            "/x.otab" => "/a/one",
            "/a/one" => "two?token=secret",
            "/a/two?token=secret" => "../b/three",
            "/b/three" => "?four",
            "/b/three?four" => "./five#part",
            _ => return wire.send(&served.answer(request)),
        };
        wire.send(&Answer::new("302 Found", b"over there").set("Location", location))
    });
    assert_eq!(read_all(&server, quick()).unwrap(), file.bytes);
    let targets: Vec<_> = server.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets[5..], ["/b/five", "/b/five"]);
}

/// N8: when the place that a redirect led to stops working, the first URL is asked again: links expire.
#[test]
fn n8_after_a_failure_the_first_url_is_asked_again() {
    let file = Served::new(20_000);
    let served = file.clone();
    let server = Server::start(move |number, request, wire| {
        if request.target == "/x.otab" {
            let link = if number == 0 { "/link-1" } else { "/link-2" };
            return wire.send(&Answer::new("307 Temporary Redirect", b"").set("Location", link));
        }
        if request.target == "/link-1" && number > 1 {
            return wire.send(&Answer::new("503 Service Unavailable", b""));
        }
        wire.send(&served.answer(request))
    });
    assert_eq!(read_all(&server, quick()).unwrap(), file.bytes);
    let targets: Vec<_> = server.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets, ["/x.otab", "/link-1", "/link-1", "/x.otab", "/link-2"]);
}
