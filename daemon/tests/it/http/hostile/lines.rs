//! Lines that break, stall or lie about lengths, and servers without ranges: rows N1 to N4.

use std::thread;
use std::time::Duration;

use otad::failure::Code::{Cancelled, NetFailed, NetLength, NetStalled, NotABundle, SourceChanged};

use super::super::script::{After, Answer};
use super::stage::End::{Broken, Refused, Resumed};
use super::stage::When::{Always, From, FromMiddle, LastOnce, MiddleOnce, Nth};
use super::stage::{Act, Case, Cut, cancelled, case, cut, drip, endless, fall_silent, instead, raw, spoil};

const TENTH: Duration = Duration::from_millis(100);
const TEN_SECONDS: Duration = Duration::from_secs(10);

pub(super) fn cases() -> Vec<Case> {
    [resets(), stalls(), lengths(), without_ranges()].into_iter().flatten().collect()
}

fn resets() -> Vec<Case> {
    let reset = |at| cut(at, After::Reset);
    let close = |at| cut(at, After::Close);
    vec![
        case("N1", "reset before the first byte", Nth(0), reset(Cut::Answer(0)), Resumed),
        case("N1", "reset within the status line", Nth(0), reset(Cut::Answer(5)), Resumed),
        case("N1", "reset within the header", Nth(0), reset(Cut::Answer(40)), Resumed),
        case("N1", "reset between header and body", Nth(0), reset(Cut::Header), Resumed),
        case("N1", "reset after the first byte of the file", Nth(0), reset(Cut::Body(1)), Resumed),
        case("N1", "reset within the manifest", Nth(0), reset(Cut::Body(1500)), Resumed),
        case("N1", "reset within the index", Nth(1), reset(Cut::Body(700)), Resumed),
        case("N1", "reset in the middle of a chunk", MiddleOnce, reset(Cut::Body(6000)), Resumed),
        case("N1", "reset before the last byte of a span", MiddleOnce, reset(Cut::LastByte), Resumed),
        case("N1", "reset before the last byte of the file", LastOnce, reset(Cut::LastByte), Resumed),
        case("N1", "reset of every answer after 9000 bytes", Always, reset(Cut::Body(9000)), Resumed),
        case("N1", "orderly end in the middle of a chunk", MiddleOnce, close(Cut::Body(6000)), Resumed),
        case("N1", "orderly end before the last byte of the file", LastOnce, close(Cut::LastByte), Resumed),
        case("N1", "orderly end between header and body", MiddleOnce, close(Cut::Header), Resumed),
        case("N1", "reset of every answer at once", Always, reset(Cut::Answer(0)), Refused(NetFailed)),
        case(
            "N1",
            "reset of every answer after 100 bytes",
            Always,
            reset(Cut::Body(100)),
            Refused(NetFailed),
        ),
        case(
            "N1",
            "reset of every answer within the index",
            From(1),
            reset(Cut::Answer(0)),
            Refused(NetFailed),
        ),
        case(
            "N1",
            "reset of every answer from the middle on",
            FromMiddle,
            reset(Cut::Answer(0)),
            Broken(NetFailed),
        ),
    ]
}

fn stalls() -> Vec<Case> {
    let header = |pause| endless(b"HTTP/1.1 206 Partial Content\r\nX: ", b"x".to_vec(), pause);
    vec![
        case(
            "N2",
            "silence in place of the first answer, once",
            Nth(0),
            fall_silent(Cut::Answer(0)),
            Resumed,
        ),
        case("N2", "silence within a header, once", MiddleOnce, fall_silent(Cut::Answer(30)), Resumed),
        case(
            "N2",
            "silence in the middle of a chunk, once",
            MiddleOnce,
            fall_silent(Cut::Body(6000)),
            Resumed,
        ),
        case(
            "N2",
            "silence before the last byte of the file, once",
            LastOnce,
            fall_silent(Cut::LastByte),
            Resumed,
        ),
        case("N2", "a trickle in the middle, once", MiddleOnce, drip(Cut::Body(3000), 1, TENTH), Resumed),
        case("N2", "a header by the byte, once", Nth(1), header(TENTH), Resumed),
        case(
            "N2",
            "a slow line that never pauses for long",
            Always,
            drip(Cut::Header, 4096, TENTH / 20),
            Resumed,
        ),
        case("N2", "silence for ever", Always, fall_silent(Cut::Answer(0)), Refused(NetStalled)),
        case("N2", "silence after each header", Always, fall_silent(Cut::Header), Refused(NetStalled)),
        case(
            "N2",
            "silence for ever from the middle on",
            FromMiddle,
            fall_silent(Cut::Body(100)),
            Broken(NetStalled),
        ),
        case(
            "N2",
            "a byte in ten seconds from the start",
            Always,
            drip(Cut::Header, 1, TEN_SECONDS),
            Refused(NetStalled),
        ),
        case(
            "N2",
            "a byte in ten seconds from the middle on",
            FromMiddle,
            drip(Cut::Header, 1, TEN_SECONDS),
            Broken(NetStalled),
        ),
        case(
            "N2",
            "a trickle from the middle on",
            FromMiddle,
            drip(Cut::Header, 1, TENTH),
            Broken(NetStalled),
        ),
        case("N2", "every header by the byte", Always, header(TENTH), Refused(NetStalled)),
        cancelled(
            "N2",
            "silence that somebody cancels",
            Always,
            fall_silent(Cut::Answer(0)),
            Refused(Cancelled),
        ),
        cancelled(
            "N2",
            "a trickle that somebody cancels",
            From(1),
            drip(Cut::Header, 1, TENTH),
            Refused(Cancelled),
        ),
        cancelled(
            "N2",
            "silence in the middle that somebody cancels",
            FromMiddle,
            fall_silent(Cut::Body(100)),
            Broken(Cancelled),
        ),
        cancelled(
            "N2",
            "a wait between two tries that somebody cancels",
            FromMiddle,
            cut(Cut::Answer(0), After::Reset),
            Broken(Cancelled),
        ),
    ]
}

fn lengths() -> Vec<Case> {
    let length = |text: &'static str| spoil(move |answer| answer.set("Content-Length", text));
    let none = || spoil(|answer| answer.without("Content-Length").set("Connection", "close"));
    let twice = |text: &'static str| spoil(move |answer| answer.add("Content-Length", text));
    let same_twice = spoil(|answer| {
        let length = answer.body.len().to_string();
        answer.add("Content-Length", &length)
    });
    let chunked = || spoil(|answer| answer.without("Content-Length").set("Transfer-Encoding", "chunked"));
    vec![
        case("N3", "two lengths that differ", Always, twice("7"), Refused(NetLength)),
        case("N3", "two lengths that agree", Always, same_twice, Refused(NetLength)),
        case("N3", "a negative length", Always, length("-5"), Refused(NetLength)),
        case("N3", "a length in hexadecimal", Always, length("0x2000"), Refused(NetLength)),
        case("N3", "a length beyond 64 bits", Always, length("99999999999999999999"), Refused(NetLength)),
        case("N3", "a list of lengths", Always, length("8192, 8192"), Refused(NetLength)),
        case("N3", "no length", Always, none(), Refused(NetLength)),
        case("N3", "no length from the middle on", FromMiddle, none(), Broken(NetLength)),
        case("N3", "chunked in place of a length", Always, chunked(), Refused(NetLength)),
        case(
            "N3",
            "chunked and a length",
            Always,
            spoil(|answer| answer.set("Transfer-Encoding", "chunked")),
            Refused(NetLength),
        ),
        case("N3", "a length too small for the range", Always, length("10"), Refused(NetLength)),
        case("N3", "a length too big for the range", Always, length("70000"), Refused(NetLength)),
        case("N3", "a body that never comes, once", MiddleOnce, cut(Cut::Header, After::Close), Resumed),
        case("N3", "bodies that never come", Always, cut(Cut::Header, After::Close), Refused(NetLength)),
        case("N3", "an answer of nothing", Nth(1), raw(Vec::new()), Resumed),
    ]
}

fn without_ranges() -> Vec<Case> {
    let whole = || -> Act { Box::new(|scene, wire| wire.send(&scene.file.whole())) };
    let part = |count, after| -> Act {
        Box::new(move |scene, wire| {
            let whole = scene.file.whole();
            if scene.request.connection > 0 {
                return wire.send(&whole);
            }
            wire.send_part(&whole, count, After::Keep)?;
            // As with [`cut`]: a reset may overtake bytes.
            thread::sleep(TENTH / 3);
            Ok(after)
        })
    };
    let stuck: Act = Box::new(|scene, wire| wire.send_part(&scene.file.whole(), 400_000, After::Close));
    let ranged = spoil(|answer| {
        let Answer { body, .. } = &answer;
        Answer::new("200 OK", body).set("Content-Range", "bytes 0-8191/700000").set("ETag", "\"v1\"")
    });
    vec![
        case("N4", "the whole file in place of every range", Always, whole(), Resumed),
        case("N4", "the whole file in place of the second range", Nth(1), whole(), Resumed),
        case("N4", "the whole file in place of a range in the middle", MiddleOnce, whole(), Resumed),
        case("N4", "the whole file from the middle on", FromMiddle, whole(), Resumed),
        case("N4", "the whole file, reset in the middle, once", Always, part(400_000, After::Reset), Resumed),
        case("N4", "the whole file, ended in the index, once", Always, part(9000, After::Close), Resumed),
        case("N4", "the whole file, ended at the same byte each time", Always, stuck, Broken(NetFailed)),
        case("N4", "200 with a range and a range's body", Nth(1), ranged, Refused(SourceChanged)),
        case("N4", "200 of nothing", Always, instead(Answer::new("200 OK", b"")), Refused(NotABundle)),
    ]
}
