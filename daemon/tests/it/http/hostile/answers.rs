//! Answers that are about another range, another state of the file or another time: rows N5 to N7 and N9.

use otad::failure::Code::{BundleTruncated, HashMismatch, NetRange, NetStatus, NotABundle, SourceChanged};

use super::super::script::{Answer, Served};
use super::device::shelf;
use super::stage::End::{Broken, Refused, Resumed};
use super::stage::When::{Always, From, FromMiddle, MiddleOnce, Nth};
use super::stage::{Act, Case, case, case_with, instead, served, spoil};

pub(super) fn cases() -> Vec<Case> {
    [ranges(), other_bytes(), tags(), busy(), statuses(), encodings()].into_iter().flatten().collect()
}

/// Replaces the `Content-Range`; the text may use the positions that were asked for.
fn range(write: impl Fn(usize, usize, usize) -> String + Send + Sync + 'static) -> Act {
    Box::new(move |scene, wire| {
        let total = scene.file.bytes.len();
        let (first, last) = scene.request.range().unwrap();
        let text = write(first, last.min(total - 1), total);
        wire.send(&scene.right.clone().set("Content-Range", &text))
    })
}

fn ranges() -> Vec<Case> {
    let refused = |name, act| case("N5", name, From(1), act, Refused(NetRange));
    vec![
        refused(
            "a range that begins a byte early",
            range(|a, b, n| format!("bytes {}-{}/{n}", a - 1, b - 1)),
        ),
        refused("a range that begins a byte late", range(|a, b, n| format!("bytes {}-{}/{n}", a + 1, b + 1))),
        refused("a range that ends a byte late", range(|a, b, n| format!("bytes {a}-{}/{n}", b + 1))),
        refused("a range from the start of the file", range(|a, b, n| format!("bytes 0-{}/{n}", b - a))),
        refused("a range of an unknown total", range(|a, b, _| format!("bytes {a}-{b}/*"))),
        refused("a range backwards", range(|a, b, n| format!("bytes {b}-{a}/{n}"))),
        refused("a range beyond the total", range(|a, b, _| format!("bytes {a}-{b}/{b}"))),
        refused("a range in another unit", range(|a, b, n| format!("items {a}-{b}/{n}"))),
        refused("a range as in a request", range(|a, b, n| format!("bytes={a}-{b}/{n}"))),
        refused("a range with signs", range(|a, b, n| format!("bytes +{a}-{b}/{n}"))),
        refused("two ranges in one", range(|a, b, n| format!("bytes {a}-{},{}-{b}/{n}", a + 9, a + 20))),
        refused("a range that is garbage", range(|_, _, _| "\u{1}garbage".replace('\u{1}', "?"))),
        refused("a range of a 416", range(|_, _, n| format!("bytes */{n}"))),
        refused("no range", spoil(|answer| answer.without("Content-Range"))),
        refused("two headers with ranges", spoil(|answer| answer.add("Content-Range", "bytes 0-1/2"))),
        refused(
            "several parts",
            spoil(|answer| answer.set("Content-Type", "multipart/byteranges; boundary=x")),
        ),
        case(
            "N5",
            "another range from the middle on",
            FromMiddle,
            range(|_, _, n| format!("bytes 0-9/{n}")),
            Broken(NetRange),
        ),
        case("N5", "ranges shortened to 4096 bytes", Always, shortened(4096), Resumed),
        case("N5", "ranges shortened to 100 bytes", From(1), shortened(100), Refused(NetRange)),
    ]
}

/// Gives less than it was asked for, and says so.
fn shortened(limit: usize) -> Act {
    Box::new(move |scene, wire| {
        let total = scene.file.bytes.len();
        let (first, last) = scene.request.range().unwrap();
        let last = last.min(total - 1).min(first + limit - 1);
        let answer = Answer::new("206 Partial Content", &scene.file.bytes[first..=last]);
        wire.send(
            &answer.set("Content-Range", &format!("bytes {first}-{last}/{total}")).set("ETag", "\"v1\""),
        )
    })
}

/// The right words, the wrong bytes: nothing but the signed hashes can tell.
fn other_bytes() -> Vec<Case> {
    let shift = || -> Act {
        spoil(|mut answer| {
            answer.body.rotate_left(1);
            answer
        })
    };
    let flip = || -> Act {
        spoil(|mut answer| {
            answer.body[1000] ^= 1;
            answer
        })
    };
    let zeros = || -> Act {
        spoil(|mut answer| {
            answer.body.fill(0);
            answer
        })
    };
    vec![
        case(
            "N5",
            "the right range with bytes from one further on, at the start",
            Nth(0),
            shift(),
            Refused(NotABundle),
        ),
        case(
            "N5",
            "the right range with bytes from one further on, in the middle",
            MiddleOnce,
            shift(),
            Broken(HashMismatch),
        ),
        case("N6", "the same tag and a bit flipped in the index", Nth(1), flip(), Refused(HashMismatch)),
        case("N6", "the same tag and a bit flipped in a chunk", MiddleOnce, flip(), Broken(HashMismatch)),
        case("N6", "the same tag and zeros in place of chunks", FromMiddle, zeros(), Broken(HashMismatch)),
    ]
}

fn tags() -> Vec<Case> {
    let tag = |text: &'static str| spoil(move |answer| answer.set("ETag", text));
    let replaced = || instead(Answer::new("200 OK", &[7; 5000]).set("ETag", "\"v2\""));
    let weak = || Served { tag: Some("W/\"v1\""), ..served(&shelf().bundle) };
    let none = || Served { tag: None, ..served(&shelf().bundle) };
    let malformed = || Served { tag: Some("no quotes"), ..served(&shelf().bundle) };
    let right = || spoil(|answer| answer);
    let short = || {
        let bundle = &shelf().bundle;
        served(&bundle[..bundle.len() - 3000])
    };
    let longer = || range(|a, b, n| format!("bytes {a}-{b}/{}", n + 1000));
    vec![
        case(
            "N6",
            "a tag that changes before the manifest is whole",
            From(1),
            tag("\"v2\""),
            Refused(SourceChanged),
        ),
        case("N6", "a tag that changes in the middle", FromMiddle, tag("\"v2\""), Broken(SourceChanged)),
        case("N6", "a tag that turns weak", FromMiddle, tag("W/\"v1\""), Broken(SourceChanged)),
        case("N6", "a tag that disappears", FromMiddle, spoil(|answer| answer.without("ETag")), Resumed),
        case("N6", "two tags", From(1), spoil(|answer| answer.add("ETag", "\"v2\"")), Refused(SourceChanged)),
        case("N6", "another file by a 200 at the index", From(1), replaced(), Refused(SourceChanged)),
        case("N6", "another file by a 200 in the middle", FromMiddle, replaced(), Broken(SourceChanged)),
        case(
            "N6",
            "another file by a 412 at the index",
            From(1),
            instead(Answer::new("412 Precondition Failed", b"")),
            Refused(SourceChanged),
        ),
        case(
            "N6",
            "another file by a 412 in the middle",
            FromMiddle,
            instead(Answer::new("412 Precondition Failed", b"")),
            Broken(SourceChanged),
        ),
        case("N6", "a file that grows", FromMiddle, longer(), Broken(SourceChanged)),
        // Found when the end is read, and not before: what a bundle is read from has no length for its reader.
        case_with(
            "N6",
            "a file whose upload was cut short",
            short,
            Always,
            right(),
            Refused(BundleTruncated),
        ),
        case_with("N6", "a weak tag that changes", weak, FromMiddle, tag("W/\"v2\""), Broken(SourceChanged)),
        case_with("N6", "a weak tag all along", weak, Always, right(), Resumed),
        case_with("N6", "no tag all along", none, Always, right(), Resumed),
        case_with("N6", "a malformed tag all along", malformed, Always, right(), Resumed),
    ]
}

const BUSY: &str = "503 Service Unavailable";
const MANY: &str = "429 Too Many Requests";
const UNSATISFIABLE: &str = "416 Range Not Satisfiable";

fn later(status: &str, retry_after: &str) -> Act {
    let answer = Answer::new(status, b"later").set("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    instead(answer.set("Retry-After", retry_after))
}

fn busy() -> Vec<Case> {
    let two = Answer::new(BUSY, b"").set("Retry-After", "1000000000").add("Retry-After", "0");
    vec![
        case("N7", "503 and come back at once", Nth(0), later(BUSY, "0"), Resumed),
        case("N7", "503 without advice", Nth(0), instead(Answer::new(BUSY, b"")), Resumed),
        case("N7", "503 in the middle, and come back in a second", MiddleOnce, later(BUSY, "1"), Resumed),
        case("N7", "503 and come back five seconds ago", Nth(0), later(BUSY, "-5"), Resumed),
        case("N7", "503 and come back soon", Nth(0), later(BUSY, "soon"), Resumed),
        case("N7", "503 and come back at two times", Nth(0), instead(two), Resumed),
        case(
            "N7",
            "429 by the server's clock",
            Nth(1),
            later(MANY, "Sun, 06 Nov 1994 08:49:38 GMT"),
            Resumed,
        ),
        case(
            "N7",
            "429 and a date in the past",
            MiddleOnce,
            later(MANY, "Sat, 06 Nov 1993 08:49:37 GMT"),
            Resumed,
        ),
        case("N7", "416 of a server that is only busy", MiddleOnce, later(UNSATISFIABLE, "0"), Resumed),
        case(
            "N7",
            "503 and come back in thirty years",
            Nth(0),
            later(BUSY, "1000000000"),
            Refused(NetStatus),
        ),
        case(
            "N7",
            "503 and more digits than there are seconds",
            Nth(0),
            later(BUSY, "99999999999999999999999"),
            Refused(NetStatus),
        ),
        case(
            "N7",
            "429 and a date a century away",
            Nth(0),
            later(MANY, "Sat, 06 Nov 2094 08:49:37 GMT"),
            Refused(NetStatus),
        ),
        case("N7", "503 for ever", Always, instead(Answer::new(BUSY, b"")), Refused(NetStatus)),
        case(
            "N7",
            "503 for ever from the middle on",
            FromMiddle,
            instead(Answer::new(BUSY, b"")),
            Broken(NetStatus),
        ),
        case(
            "N7",
            "416 of a range that is there",
            FromMiddle,
            instead(Answer::new(UNSATISFIABLE, b"")),
            Broken(NetRange),
        ),
        case(
            "N7",
            "416 of an empty file",
            Always,
            instead(Answer::new(UNSATISFIABLE, b"").set("Content-Range", "bytes */0")),
            Refused(NotABundle),
        ),
    ]
}

fn statuses() -> Vec<Case> {
    let status = |text: &'static str| instead(Answer::new(text, b"no"));
    let hints = || -> Act {
        Box::new(|scene, wire| {
            wire.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")?;
            wire.send(&scene.right)
        })
    };
    vec![
        case("N7", "500 in the middle, once", MiddleOnce, status("500 Internal Server Error"), Resumed),
        case("N7", "502 of a proxy, once", Nth(1), status("502 Bad Gateway"), Resumed),
        case("N7", "408 of an idle server, once", MiddleOnce, status("408 Request Timeout"), Resumed),
        case("N7", "404", Always, status("404 Not Found"), Refused(NetStatus)),
        case("N7", "404 from the middle on", FromMiddle, status("404 Not Found"), Broken(NetStatus)),
        case("N7", "403 of an expired link", From(1), status("403 Forbidden"), Refused(NetStatus)),
        case(
            "N7",
            "304 that nobody asked for",
            Always,
            instead(Answer::new("304 Not Modified", b"")),
            Refused(NetStatus),
        ),
        case("N7", "a status beyond all classes", Always, status("999 Request Denied"), Refused(NetStatus)),
        case("N7", "hints before an answer", Nth(0), hints(), Resumed),
    ]
}

fn encodings() -> Vec<Case> {
    let coded = |text: &'static str| spoil(move |answer| answer.set("Content-Encoding", text));
    vec![
        case("N9", "gzip that nobody asked for", Always, coded("gzip"), Refused(NetStatus)),
        case("N9", "zstd that nobody asked for", From(1), coded("zstd"), Refused(NetStatus)),
        case("N9", "br from the middle on", FromMiddle, coded("br"), Broken(NetStatus)),
        case("N9", "identity, spelled out", Always, coded("identity"), Resumed),
    ]
}
