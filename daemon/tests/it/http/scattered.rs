//! Scattered extents that were announced: what is asked for, and what becomes of it when the server or the line is not as
//! it should be.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use otad::adapters::http::Limits;
use otad::failure::{Code, Failure, failure_of};
use otad::ports::{Fetch, Stop};
use otad_bundle::Input;

use super::script::{After, Answer, BOUNDARY, Request, Served, Server, Wire};
use super::{assert_code, fetcher, open, quick, within};

const FILE_BYTES: usize = 600_000;

/// Extents of 5000 bytes with 5000 bytes between them; several of them make a request.
fn extents() -> Vec<Range<u64>> {
    (0..50).map(|n| 20_000 + n * 10_000..25_000 + n * 10_000).collect()
}

fn read_extents(input: &mut dyn Input, file: &Served, extents: &[Range<u64>]) -> Result<(), Failure> {
    for extent in extents {
        let (first, end) = (extent.start as usize, extent.end as usize);
        let mut bytes = vec![0; end - first];
        input.seek_to(extent.start).unwrap();
        if let Err(error) = input.read_exact(&mut bytes) {
            return Err(failure_of(&error).unwrap_or_else(|| panic!("no failure in {error:?}")).clone());
        }
        assert!(bytes == file.bytes[first..end], "other bytes at {extent:?}");
    }
    Ok(())
}

/// Announces the extents and reads them from a server that does what it is told at requests for more than one range.
fn fetch(
    limits: Limits,
    several: impl Fn(usize, &Served, &Request, &mut Wire<'_>) -> std::io::Result<After> + Send + Sync + 'static,
) -> (Server, Result<(), Failure>) {
    let file = Served::new(FILE_BYTES);
    let (served, asked) = (file.clone(), AtomicUsize::new(0));
    let server = Server::start(move |_, request, wire| {
        if request.ranges().unwrap().len() == 1 {
            return wire.send(&served.answer(request));
        }
        several(asked.fetch_add(1, Ordering::SeqCst), &served, request, wire)
    });
    let outcome = open(&server.url("/x.otab"), limits).and_then(|mut input| {
        // Most of the first span, so that its connection is worth keeping.
        input.read_exact(&mut [0; 6000]).unwrap();
        input.expect(extents());
        read_extents(&mut *input, &file, &extents())
    });
    (server, outcome)
}

fn several_asked(server: &Server) -> usize {
    server.requests().iter().filter(|request| request.ranges().unwrap().len() > 1).count()
}

#[test]
fn several_ranges_come_in_one_answer_and_nothing_else_does() {
    let (server, outcome) = fetch(quick(), |_, file, request, wire| wire.send(&file.answer(request)));
    outcome.unwrap();
    let asked: Vec<_> =
        server.requests().iter().skip(1).flat_map(|request| request.ranges().unwrap()).collect();
    let mut sorted = asked.clone();
    sorted.sort_unstable();
    let expected: Vec<_> =
        extents().iter().map(|extent| (extent.start as usize, extent.end as usize - 1)).collect();
    assert_eq!(sorted, expected);
    // 250000 bytes; a request holds about 64 KiB.
    assert_eq!(server.requests().len(), 5);
    assert!(server.connections() <= 2, "{} connections", server.connections());
    let tags: Vec<_> = server.requests().iter().map(|request| request.header("if-range").is_some()).collect();
    assert_eq!(tags, [false, true, true, true, true]);
}

type Spoil = Box<dyn Fn(Answer) -> Answer + Send + Sync>;

/// Whatever is wrong with the form of several ranges, single ones bring the bytes, and several are not asked for again.
#[test]
fn n5_several_ranges_that_are_not_as_asked_for_are_asked_for_one_by_one() {
    let text = |from: &'static str, to: &'static str| move |answer: Answer| replaced(answer, from, to);
    let head = |name: &'static str, value: &'static str| move |answer: Answer| answer.set(name, value);
    let spoilers: Vec<(&str, Spoil)> = vec![
        ("the whole file", Box::new(|_| Served::new(FILE_BYTES).whole())),
        (
            "one range of them",
            Box::new(|answer| {
                answer.set("Content-Type", "text/plain").set("Content-Range", "bytes 20000-24999/600000")
            }),
        ),
        ("a status", Box::new(|_| Answer::new("416 Range Not Satisfiable", b""))),
        ("a refusal", Box::new(|_| Answer::new("403 Forbidden", b"attack!"))),
        ("no boundary", Box::new(head("Content-Type", "multipart/byteranges"))),
        ("another boundary", Box::new(head("Content-Type", "multipart/byteranges; boundary=other"))),
        (
            "a boundary that is no text",
            Box::new(head("Content-Type", "multipart/byteranges; boundary=\"a b\"")),
        ),
        (
            "no length",
            Box::new(|answer| answer.without("Content-Length").add("Transfer-Encoding", "chunked")),
        ),
        ("encoded", Box::new(head("Content-Encoding", "gzip"))),
        ("another first range", Box::new(text("bytes 20000-24999", "bytes 20001-25000"))),
        ("another later range", Box::new(text("bytes 40000-44999", "bytes 40000-44998"))),
        ("another total", Box::new(text("/600000", "/600001"))),
        ("no range", Box::new(text("Content-Range", "X-Some-Ranges"))),
        ("two ranges", Box::new(text("Content-Type: text/plain", "Content-Range: bytes 0-1/2"))),
        (
            "an endless header",
            Box::new(|answer| {
                let line = format!("X: {}", "y".repeat(3000));
                replaced(answer, "Content-Type: text/plain", &line)
            }),
        ),
        ("parts without an end", Box::new(text(BOUNDARY, "THIS_IS_A_BOUNDARIE"))),
        (
            "a body that ends early, as announced",
            Box::new(|mut answer| {
                answer.body.truncate(12_000);
                answer.set("Content-Length", "12000")
            }),
        ),
        (
            "a header that ends early, as announced",
            Box::new(|mut answer| {
                answer.body.truncate(60);
                answer.set("Content-Length", "60")
            }),
        ),
    ];
    for (name, spoil) in spoilers {
        let (server, outcome) =
            fetch(quick(), move |_, file, request, wire| wire.send(&spoil(file.answer(request))));
        if let Err(failure) = outcome {
            panic!("{name}: {failure}");
        }
        assert_eq!(several_asked(&server), 1, "{name}");
    }
}

/// lighttpd gives the first ten ranges: what it leaves out is asked for again, and no more than ten at a time.
#[test]
fn several_ranges_may_be_fewer_than_asked_for() {
    for (most, expected) in [(10, 6), (4, 13), (2, 1)] {
        let (server, outcome) = fetch(quick(), move |_, file, request, wire| {
            let ranges = request.ranges().unwrap();
            wire.send(&file.several(&ranges[..most.min(ranges.len())]))
        });
        outcome.unwrap();
        assert!(several_asked(&server).abs_diff(expected) <= 2, "{most}: {}", several_asked(&server));
        let too_many = server.requests().iter().filter(|one| one.ranges().unwrap().len() > most).count();
        // The second connection may ask before the first has learnt.
        assert!((1..=2).contains(&too_many), "{most}: {too_many}");
    }
}

fn replaced(mut answer: Answer, from: &str, to: &str) -> Answer {
    let mut body = Vec::new();
    let mut rest = answer.body.as_slice();
    while !rest.is_empty() {
        if rest.starts_with(from.as_bytes()) {
            body.extend(to.as_bytes());
            rest = &rest[from.len()..];
        } else {
            body.push(rest[0]);
            rest = &rest[1..];
        }
    }
    answer.body = body;
    let length = answer.body.len().to_string();
    answer.set("Content-Length", &length)
}

/// What other servers do that is as good.
#[test]
fn several_ranges_may_be_written_differently() {
    let spoilers: [Spoil; 4] = [
        Box::new(|answer| replaced(answer, "Content-Type: text/plain\r\n", "")),
        Box::new(|answer| replaced(answer, "Content-Range: ", "content-range:")),
        Box::new(|answer| {
            answer.set("Content-Type", &format!("multipart/byteranges; boundary=\"{BOUNDARY}\""))
        }),
        // No line end before the first boundary.
        Box::new(|mut answer| {
            answer.body.drain(..2);
            let length = answer.body.len().to_string();
            answer.set("Content-Length", &length)
        }),
    ];
    for spoil in spoilers {
        let (server, outcome) =
            fetch(quick(), move |_, file, request, wire| wire.send(&spoil(file.answer(request))));
        outcome.unwrap();
        assert_eq!(several_asked(&server), 4);
    }
}

/// N1: a reset anywhere in an answer of several ranges is resumed with what is missing.
#[test]
fn n1_several_ranges_that_break_off_are_resumed() {
    let file = Served::new(FILE_BYTES);
    let head = file.several(&[(0, 1)]).head().len();
    for cut in [0, 1, 20, head, head + 50, head + 2000, head + 5000, head + 60_000, usize::MAX] {
        let (server, outcome) = fetch(quick(), move |number, file, request, wire| {
            let answer = file.answer(request);
            if number != 1 {
                return wire.send(&answer);
            }
            let bytes = answer.bytes();
            wire.raw(&bytes[..cut.min(bytes.len() - 30)])?;
            thread::sleep(Duration::from_millis(30));
            Ok(After::Reset)
        });
        outcome.unwrap();
        let asked: usize = server.requests().iter().map(|request| request.ranges().unwrap().len()).sum();
        assert!(asked <= 1 + 50 + 20, "cut at {cut}: {asked} ranges were asked for");
    }
}

/// N1: breaks without end are survived as long as each try brings something, and no longer.
#[test]
fn n1_several_ranges_break_off_again_and_again() {
    let (_, outcome) =
        fetch(quick(), |_, file, request, wire| wire.send_part(&file.answer(request), 7000, After::Close));
    outcome.unwrap();
    let (server, outcome) = fetch(quick(), |_, _, _, _| Ok(After::Close));
    assert_code(&outcome.unwrap_err(), Code::NetFailed, "gave up after 3 tries");
    assert!((3..=4).contains(&several_asked(&server)), "{}", several_asked(&server));
}

/// N2: a server that falls silent or only trickles costs its time, and the next try goes on.
#[test]
fn n2_several_ranges_that_stall() {
    let silent = |number, file: &Served, request: &Request, wire: &mut Wire<'_>| {
        if number != 1 {
            return wire.send(&file.answer(request));
        }
        wire.send_part(&file.answer(request), 9000, After::Keep)?;
        wire.hold()
    };
    let limits = Limits { idle: Duration::from_millis(300), ..quick() };
    fetch(limits, silent).1.unwrap();
    let limits = Limits { window: Duration::from_millis(400), ..quick() };
    within(Duration::from_secs(5), || fetch(limits.clone(), silent).1.unwrap());

    let (_, outcome) = fetch(limits, |_, file, request, wire| {
        wire.raw(file.answer(request).head().as_bytes())?;
        for byte in file.answer(request).body {
            wire.raw(&[byte])?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(After::Keep)
    });
    assert_code(&outcome.unwrap_err(), Code::NetStalled, "bytes in 0.4 s");
}

/// N2: whoever cancels does not wait for those who fetch ahead, and they end with the input.
#[test]
fn n2_a_stop_ends_everybody() {
    let minute = Duration::from_secs(60);
    let limits = Limits { idle: minute, answer: minute, window: minute, ..quick() };
    let file = Served::new(FILE_BYTES);
    let served = file.clone();
    let server = Server::start(move |number, request, wire| {
        if number > 1 {
            return wire.hold();
        }
        wire.send(&served.answer(request))
    });
    let stop = Stop::default();
    let mut input = fetcher(limits).open(&server.url("/x.otab"), &stop).unwrap();
    input.expect(extents());
    let signal = stop.clone();
    let asked = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        signal.request();
        Instant::now()
    });
    let failure = read_extents(&mut *input, &file, &extents()).unwrap_err();
    let told = Instant::now();
    assert_code(&failure, Code::Cancelled, "cancelled");
    drop(input);
    let ended = Instant::now();
    let requested = asked.join().unwrap();
    assert!(told - requested < Duration::from_millis(500), "{:?}", told - requested);
    assert!(ended - told < Duration::from_millis(500), "{:?}", ended - told);
}

/// N4: a server that stops giving ranges is read from front to back.
#[test]
fn n4_ranges_that_get_lost_on_the_way() {
    let file = Served::new(FILE_BYTES);
    let served = file.clone();
    let server = Server::start(move |number, request, wire| match number {
        0..=2 => wire.send(&served.answer(request)),
        _ => wire.send(&served.whole()),
    });
    let mut input = open(&server.url("/x.otab"), quick()).unwrap();
    input.expect(extents());
    read_extents(&mut *input, &file, &extents()).unwrap();
    assert!(server.requests().len() <= 8, "{}", server.requests().len());
}

/// N6: several ranges of another state of the file are not taken for this one's.
#[test]
fn n6_several_ranges_of_another_file() {
    for spoil in [
        |answer: Answer| answer.set("ETag", "\"v2\""),
        |_: Answer| Answer::new("412 Precondition Failed", b""),
    ] {
        let (_, outcome) =
            fetch(quick(), move |_, file, request, wire| wire.send(&spoil(file.answer(request))));
        assert_code(&outcome.unwrap_err(), Code::SourceChanged, "changed while it was fetched");
    }
    // Without several ranges nothing is known of a file that is given whole but that it is another one.
    let (_, outcome) = fetch(quick(), |_, _, _, wire| {
        wire.send(&Answer::new("200 OK", b"<html>log in</html>").set("Content-Type", "text/html"))
    });
    assert_code(&outcome.unwrap_err(), Code::NotABundle, "captive portal");
}

/// N7: a server that takes one request at a time is asked for one at a time.
#[test]
fn n7_a_server_that_takes_one_request_at_a_time() {
    let file = Served::new(FILE_BYTES);
    let (served, busy, refused) =
        (file.clone(), AtomicUsize::new(0), std::sync::Arc::new(AtomicUsize::new(0)));
    let seen = refused.clone();
    let server = Server::start(move |_, request, wire| {
        let others = busy.fetch_add(1, Ordering::SeqCst);
        let outcome = if others > 0 {
            seen.fetch_add(1, Ordering::SeqCst);
            wire.send(&Answer::new("503 Service Unavailable", b"").set("Retry-After", "0"))
        } else {
            let (answer, pause) = (served.answer(request), Duration::from_millis(20));
            thread::sleep(pause);
            let bytes = answer.bytes();
            let (one, other) = bytes.split_at(bytes.len() / 2);
            wire.raw(one).and_then(|()| {
                thread::sleep(pause);
                wire.raw(other).map(|()| After::Keep)
            })
        };
        busy.fetch_sub(1, Ordering::SeqCst);
        outcome
    });
    // A connection that was broken keeps such a server busy for a while.
    let (backoff_first, backoff_longest) = (Duration::from_millis(60), Duration::from_millis(120));
    let limits = Limits { backoff_first, backoff_longest, tries: 5, ..quick() };
    let mut input = open(&server.url("/x.otab"), limits).unwrap();
    input.expect(extents());
    within(Duration::from_secs(3), || read_extents(&mut *input, &file, &extents()).unwrap());
    let refused = refused.load(Ordering::SeqCst);
    assert!((1..=6).contains(&refused), "{refused} of {} refused", server.requests().len());
}

/// What is read besides what was announced is there too, and what was announced but not read is no hindrance.
#[test]
fn other_reads_than_announced_work_as_before() {
    let file = Served::new(FILE_BYTES);
    let served = file.clone();
    let server = Server::start(move |_, request, wire| wire.send(&served.answer(request)));
    let mut input = open(&server.url("/x.otab"), quick()).unwrap();
    input.expect(extents());
    for range in [
        20_000..21_000,
        26_000..27_000,
        30_000..35_000,
        0..100,
        24_000..31_000,
        400_000..405_000,
        200_000..205_000,
        410_001..415_000,
        590_000..600_000,
    ] {
        read_extents(&mut *input, &file, std::slice::from_ref(&range)).unwrap();
    }
    input.seek_to(FILE_BYTES as u64).unwrap();
    assert_eq!(input.read(&mut [0; 10]).unwrap(), 0);
    // Announced anew, behind a stream that brings the beginning.
    input.seek_to(0).unwrap();
    input.read_exact(&mut [0; 100]).unwrap();
    let anew = [100..5000, 6000..60_000, 70_000..500_000];
    input.expect(anew.to_vec());
    let before = server.requests().len();
    read_extents(&mut *input, &file, &anew).unwrap();
    let asked: Vec<_> = server.requests()[before..].iter().map(|request| request.ranges().unwrap()).collect();
    assert!(asked.iter().flatten().all(|(first, _)| *first >= 8192), "{asked:?}");
    assert!(input.fetched().unwrap() > 0);
}
