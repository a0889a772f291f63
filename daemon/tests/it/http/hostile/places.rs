//! Redirects, floods, names, portals and caches: rows N8, N10 and N12 to N14.

use std::any::Any;
use std::net::TcpListener;
use std::time::Duration;

use otad::adapters::http::{HttpFetch, Limits};
use otad::failure::Code::{
    BundleFormat, Downgrade, NetFailed, NetRedirect, NetStalled, NotABundle, SigUntrusted, SizeExceeded,
    SourceChanged,
};

use super::super::AGENT;
use super::super::script::{After, Answer, Served, Server};
use super::device::shelf;
use super::hasty;
use super::stage::End::{Broken, Refused, Resumed};
use super::stage::When::{Always, From, FromMiddle, MiddleOnce};
use super::stage::{Act, Case, Opponent, case, case_with, endless, instead, raw, served, spoil};

pub(super) fn cases() -> Vec<Case> {
    [redirects(), floods(), not_http(), names(), portals(), caches()].into_iter().flatten().collect()
}

fn moved(to: &str) -> Answer {
    Answer::new("302 Found", b"over there").set("Location", to)
}

fn redirects() -> Vec<Case> {
    let refused =
        |name: &'static str, answer: Answer| case("N8", name, Always, instead(answer), Refused(NetRedirect));
    let hops = |count: usize| -> Act {
        Box::new(move |scene, wire| {
            let hop: usize =
                scene.request.target.strip_prefix("/hop-").map_or(0, |text| text.parse().unwrap());
            if hop == count {
                wire.send(&scene.right)
            } else {
                wire.send(&moved(&format!("/hop-{}", hop + 1)))
            }
        })
    };
    let nobody = || -> Act {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        instead(moved(&format!("http://{}/x", listener.local_addr().unwrap())))
    };
    vec![
        case("N8", "five redirects", Always, hops(5), Resumed),
        case("N8", "six redirects", Always, hops(6), Refused(NetRedirect)),
        refused("a redirect to itself", moved("/x.otab")),
        refused("a redirect to a file of the device", moved("file:///etc/shadow")),
        refused("a redirect to the link's metadata service", moved("http://169.254.169.254/latest")),
        refused("a redirect to the metadata service in IPv6", moved("http://[fe80::1]/x")),
        refused("a redirect with a password", moved("http://user:secret@127.0.0.1/x")),
        refused("a redirect to an address in disguise", moved("http://2130706433/x")),
        refused("a redirect to another protocol", moved("gopher://127.0.0.1/x")),
        refused("a redirect to nowhere", Answer::new("302 Found", b"")),
        refused("a redirect to two places", moved("/a").add("Location", "/b")),
        case("N8", "a redirect to nobody, once", MiddleOnce, nobody(), Resumed),
        case("N8", "a redirect to nobody", Always, nobody(), Refused(NetFailed)),
        case(
            "N8",
            "a redirect to a file from the middle on",
            FromMiddle,
            instead(moved("file:///x")),
            Broken(NetRedirect),
        ),
    ]
}

const HEAD: &[u8] = b"HTTP/1.1 206 Partial Content\r\n";
const AT_ONCE: Duration = Duration::ZERO;

fn floods() -> Vec<Case> {
    let long = |length: usize| spoil(move |answer| answer.set("X-Long", &"x".repeat(length)));
    let many =
        |count: usize| spoil(move |answer| (0..count).fold(answer, |answer, _| answer.add("X-Many", "1")));
    let behind: Act = Box::new(|scene, wire| {
        wire.send(&scene.right)?;
        loop {
            wire.raw(&[b'x'; 4096])?;
        }
    });
    let continues = endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), AT_ONCE);
    vec![
        case(
            "N10",
            "header lines without end",
            Always,
            endless(HEAD, b"X: y\r\n".repeat(64), AT_ONCE),
            Refused(SizeExceeded),
        ),
        case(
            "N10",
            "a header line without end",
            Always,
            endless(HEAD, vec![b'x'; 4096], AT_ONCE),
            Refused(SizeExceeded),
        ),
        case(
            "N10",
            "a status line without end",
            Always,
            endless(b"HTTP/1.1 200 ", vec![b'x'; 4096], AT_ONCE),
            Refused(SizeExceeded),
        ),
        case("N10", "a header line of a mebibyte", From(1), long(1 << 20), Refused(SizeExceeded)),
        case(
            "N10",
            "a header line of 40 kB from the middle on",
            FromMiddle,
            long(40_000),
            Broken(SizeExceeded),
        ),
        case("N10", "a header line of 20 kB", Always, long(20_000), Resumed),
        case("N10", "a thousand header lines", Always, many(1000), Refused(SizeExceeded)),
        case("N10", "a body that goes on behind its end", Always, behind, Resumed),
        case("N10", "continues without end", Always, continues, Refused(SizeExceeded)),
        case_with(
            "N10",
            "a file that goes on behind the bundle",
            longer,
            Always,
            spoil(|answer| answer),
            Refused(BundleFormat),
        ),
        case("N10", "a file of 9 exabytes", Always, huge(), Refused(BundleFormat)),
    ]
}

fn longer() -> Served {
    let mut file = served(&shelf().bundle);
    file.bytes.extend_from_slice(&[0; 100_000]);
    file
}

/// Ignores ranges and announces a length that no disk has.
fn huge() -> Act {
    Box::new(|scene, wire| {
        wire.raw(scene.file.whole().set("Content-Length", "9000000000000000000").head().as_bytes())?;
        wire.raw(&scene.file.bytes)?;
        loop {
            wire.raw(&[0; 4096])?;
        }
    })
}

fn not_http() -> Vec<Case> {
    let talk = |bytes: &'static [u8]| raw(bytes.to_vec());
    vec![
        case("N10", "another protocol", Always, talk(b"SSH-2.0-OpenSSH_9.2\r\n"), Refused(NetFailed)),
        case("N10", "HTTP/0.9", Always, talk(b"<html>hello</html>"), Refused(NetFailed)),
        case(
            "N10",
            "HTTP/2 on a plain line",
            Always,
            talk(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64"),
            Refused(NetFailed),
        ),
        case("N10", "another protocol, once", MiddleOnce, talk(b"220 mail ESMTP\r\n"), Resumed),
        case(
            "N10",
            "a header with a zero byte",
            Always,
            talk(b"HTTP/1.1 206 OK\r\nX: a\0b\r\n\r\n"),
            Refused(NetFailed),
        ),
    ]
}

fn opponent(url: String, limits: Limits, server: impl Any + Send) -> Opponent {
    Opponent { fetch: HttpFetch::with_limits(None, AGENT, limits).unwrap(), ..Opponent::new(url, server) }
}

fn names() -> Vec<Case> {
    let nobody = || {
        let url = format!("http://{}/x", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        opponent(url, hasty(), ())
    };
    let unknown = || {
        // A resolver may take its time to say that a name does not exist.
        let limits = Limits { resolve: Duration::from_secs(6), tries: 2, ..hasty() };
        opponent("http://no-such-host.invalid/x".to_owned(), limits, ())
    };
    let slow_resolver = || {
        let limits = Limits { resolve: Duration::from_nanos(1), ..hasty() };
        opponent("http://localhost:9/x".to_owned(), limits, ())
    };
    vec![
        Case::of("N12", "nobody listens", Refused(NetFailed), nobody),
        Case::of("N12", "a name that does not exist", Refused(NetFailed), unknown),
        Case::of("N12", "a resolver that does not answer in its time", Refused(NetStalled), slow_resolver),
        Case::of("N12", "a host that swallows connections", Refused(NetStalled), black_hole),
    ]
}

/// A listener whose queue is full: the kernel drops whoever else knocks.
fn black_hole() -> Opponent {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(0).unwrap()
    });
    let address = listener.local_addr().unwrap();
    // More than the queue holds; those that do not get in give up soon.
    let waiting: Vec<_> = (0..4)
        .filter_map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok())
        .collect();
    opponent(format!("http://{address}/x"), hasty(), (runtime, listener, waiting))
}

fn page() -> Answer {
    Answer::new("200 OK", b"<!doctype html><html>log in</html>")
        .set("Content-Type", "text/html; charset=utf-8")
}

fn portals() -> Vec<Case> {
    let to_login = || -> Act {
        Box::new(|scene, wire| match scene.request.target.as_str() {
            "/login" => wire.send(&page()),
            _ => wire.send(&moved("/login")),
        })
    };
    let wall = Answer::new("511 Network Authentication Required", b"<html>");
    let plain = page().set("Content-Type", "text/plain");
    let partial =
        Answer::new("206 Partial Content", b"<html>log in</html>").set("Content-Range", "bytes 0-18/19");
    let json = Answer::new("200 OK", br#"{"error":"please accept our terms"}"#)
        .set("Content-Type", "application/json");
    vec![
        case("N13", "a login page", Always, instead(page()), Refused(NotABundle)),
        case("N13", "a login page as plain text", Always, instead(plain), Refused(NotABundle)),
        case("N13", "a login page as a range", Always, instead(partial), Refused(NotABundle)),
        case("N13", "a login page as JSON", Always, instead(json), Refused(NotABundle)),
        case("N13", "a login page at the index", From(1), instead(page()), Refused(NotABundle)),
        case("N13", "a login page from the middle on", FromMiddle, instead(page()), Broken(NotABundle)),
        case("N13", "a redirect to a login page", Always, to_login(), Refused(NotABundle)),
        case(
            "N13",
            "a redirect to a login page from the middle on",
            FromMiddle,
            to_login(),
            Broken(NotABundle),
        ),
        case("N13", "511", Always, instead(wall.clone()), Refused(NotABundle)),
        case("N13", "511 from the middle on", FromMiddle, instead(wall), Broken(NotABundle)),
    ]
}

/// What a cache in between has kept.
fn caches() -> Vec<Case> {
    let right = || spoil(|answer| answer);
    let outdated = || served(&shelf().outdated);
    let zeros = || served(&vec![0; shelf().bundle.len()]);
    let stale = |tag: &'static str| -> Act {
        Box::new(move |scene, wire| {
            let old = Served { bytes: shelf().outdated.clone(), tag: scene.file.tag };
            wire.send(&old.answer(scene.request).set("ETag", tag))
        })
    };
    vec![
        case_with("N14", "an older bundle", outdated, Always, right(), Refused(Downgrade)),
        case_with(
            "N14",
            "an older bundle without ranges",
            outdated,
            Always,
            Box::new(|scene, wire| wire.send(&scene.file.whole())),
            Refused(Downgrade),
        ),
        case("N14", "an older bundle from the index on", From(1), stale("\"v0\""), Refused(SourceChanged)),
        case("N14", "an older bundle from the middle on", FromMiddle, stale("\"v0\""), Broken(SourceChanged)),
        case_with(
            "N14",
            "somebody else's bundle",
            || served(&shelf().foreign),
            Always,
            right(),
            Refused(SigUntrusted),
        ),
        case_with("N14", "a file of zeros", zeros, Always, right(), Refused(NotABundle)),
        Case::of("N14", "a proxy that closes after each answer", Resumed, || {
            let file = served(&shelf().bundle);
            let server = Server::start(move |_, request, wire| {
                wire.send(&file.answer(request).set("Connection", "close")).map(|_| After::Close)
            });
            Opponent::new(server.url("/x.otab"), server)
        }),
    ]
}
