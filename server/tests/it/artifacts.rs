//! Downloads: ranges, preconditions, and what every answer says about the file.

use crate::http::{get, send};
use crate::rig::{Server, Spec, delta, sha256};

/// A served file: where, what, and as what.
struct Served {
    url: String,
    bytes: Vec<u8>,
    content_type: &'static str,
}

/// An artifact and a delta: everything below holds for both.
fn both(server: &Server) -> [Served; 2] {
    let old = Spec { sequence: 1, random_bytes: 200_000, ..Spec::default() }.bundle();
    let new = Spec { random_bytes: 300_000, ..Spec::default() }.bundle();
    let delta = delta(&old, &new);
    let url = |answer: crate::http::Answer| answer.json()["url"].as_str().unwrap().to_owned();
    let artifact = url(server.upload(&new));
    [
        Served { url: artifact, bytes: new, content_type: "application/vnd.otad.bundle" },
        Served {
            url: url(server.upload_delta(&delta)),
            bytes: delta,
            content_type: "application/vnd.otad.delta",
        },
    ]
}

/// Status, first and last byte if partial, for a file of `size` bytes.
type Expected = (u16, Option<(u64, u64)>);

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// Every form of range, compared byte by byte with the file.
#[test]
fn ranges() {
    let server = Server::start();
    for served in both(&server) {
        ranges_of(&server, &served);
    }
}

fn ranges_of(server: &Server, served: &Served) {
    let Served { url, bytes: whole_file, content_type } = served;
    let etag = format!("\"{}\"", sha256(whole_file));
    let size = whole_file.len() as u64;
    assert!(size > 200_001, "{url}: the table wants more than {size} bytes");
    let end = size - 1;
    let whole: Expected = (200, None);
    let part = |first, last| -> Expected { (206, Some((first, last))) };
    let none: Expected = (416, None);
    let table: Vec<(String, Option<&str>, Expected)> = vec![
        ("bytes=0-0".into(), None, part(0, 0)),
        ("bytes=0-511".into(), None, part(0, 511)),
        ("bytes=511-512".into(), None, part(511, 512)),
        ("bytes=65535-65536".into(), None, part(65535, 65536)),
        ("bytes=1-200000".into(), None, part(1, 200_000)),
        ("bytes=0-".into(), None, part(0, end)),
        ("bytes=1-".into(), None, part(1, end)),
        (format!("bytes={end}-"), None, part(end, end)),
        (format!("bytes={end}-{end}"), None, part(end, end)),
        (format!("bytes={end}-{size}"), None, part(end, end)),
        (format!("bytes=0-{size}"), None, part(0, end)),
        ("bytes=5-99999999999999999999999".into(), None, part(5, end)),
        (format!("bytes={size}-"), None, none),
        (format!("bytes={size}-{size}"), None, none),
        ("bytes=99999999999999999999999-".into(), None, none),
        ("bytes=-1".into(), None, part(end, end)),
        ("bytes=-1024".into(), None, part(size - 1024, end)),
        (format!("bytes=-{size}"), None, part(0, end)),
        (format!("bytes=-{}", size + 1), None, part(0, end)),
        ("bytes=-0".into(), None, none),
        ("bytes=2-1".into(), None, whole),
        ("bytes=-".into(), None, whole),
        ("bytes=".into(), None, whole),
        ("bytes=a-b".into(), None, whole),
        ("bytes=0-1,1-5".into(), None, whole),
        ("bytes=0-1,".into(), None, whole),
        (format!("bytes=0-1,{size}-"), None, part(0, 1)),
        (format!("bytes={size}-,-0"), None, none),
        ("octets=0-1".into(), None, whole),
        ("bytes 0-1".into(), None, whole),
        ("bytes=0-9".into(), Some(&etag), part(0, 9)),
        ("bytes=0-9".into(), Some("\"other\""), whole),
        ("bytes=0-9".into(), Some("W/\"other\""), whole),
        ("bytes=0-9".into(), Some("Sat, 29 Oct 1994 19:43:31 GMT"), whole),
        (format!("bytes={size}-"), Some("\"other\""), whole),
        (format!("bytes={size}-"), Some(&etag), none),
    ];
    assert!(table.len() >= 25);
    for (range, if_range, (status, bytes)) in table {
        let mut headers = vec![("Range", range.as_str())];
        headers.extend(if_range.map(|tag| ("If-Range", tag)));
        let answer = send(server.address, "GET", url, &headers, b"");
        let name = format!("{url} {range} {if_range:?}");
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.header("accept-ranges"), Some("bytes"), "{name}");
        let expected_range = match (status, bytes) {
            (206, Some((first, last))) => Some(format!("bytes {first}-{last}/{size}")),
            (416, _) => Some(format!("bytes */{size}")),
            _ => None,
        };
        assert_eq!(answer.header("content-range"), expected_range.as_deref(), "{name}");
        if status == 416 {
            assert_eq!(answer.code(), "NET_RANGE");
            continue;
        }
        let (first, last) = bytes.unwrap_or((0, end));
        assert!(answer.body == whole_file[index(first)..=index(last)], "{name}: other bytes");
        assert_eq!(answer.header("etag"), Some(etag.as_str()), "{name}");
        assert_eq!(answer.header("content-type"), Some(*content_type), "{name}");
        assert!(
            answer.header("content-length").is_some() && answer.header("transfer-encoding").is_none(),
            "{name}"
        );
        assert!(answer.header("cache-control").unwrap().contains("no-transform"), "{name}");
    }
}

#[test]
fn head_tells_about_the_whole_file_and_sends_nothing() {
    let server = Server::start();
    for Served { url, bytes, .. } in both(&server) {
        for headers in [&[][..], &[("Range", "bytes=0-1")][..], &[("Range", "bytes=99999999-")][..]] {
            let answer = send(server.address, "HEAD", &url, headers, b"");
            assert_eq!((answer.status, answer.body.len()), (200, 0));
            assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
            assert_eq!(answer.header("etag"), Some(format!("\"{}\"", sha256(&bytes)).as_str()));
            assert_eq!(answer.header("accept-ranges"), Some("bytes"));
            assert_eq!(answer.header("content-range"), None);
        }
    }
    for name in ["artifacts/HEX.otab", "deltas/HEX.otad-delta"] {
        let url = format!("/{}", name.replace("HEX", &"0".repeat(64)));
        assert_eq!(send(server.address, "HEAD", &url, &[], b"").status, 404, "{url}");
    }
}

#[test]
fn preconditions() {
    let server = Server::start();
    for Served { url, bytes, .. } in both(&server) {
        let etag = format!("\"{}\"", sha256(&bytes));
        for (name, value, status) in [
            ("If-None-Match", etag.as_str(), 304),
            ("If-None-Match", "*", 304),
            ("If-None-Match", "\"x\"", 200),
            ("If-Match", etag.as_str(), 200),
            ("If-Match", "\"x\"", 412),
        ] {
            let answer = send(server.address, "GET", &url, &[(name, value)], b"");
            assert_eq!(answer.status, status, "{name}: {value}");
            match status {
                304 => assert_eq!((answer.header("etag"), answer.body.len()), (Some(etag.as_str()), 0)),
                412 => assert_eq!(answer.code(), "SOURCE_CHANGED"),
                _ => assert!(answer.body == bytes),
            }
        }
    }
}

/// RFC 9110 section 8.6: the length of a 304 is that of the 200 it stands for, or is left out. A cache that is told 0
/// believes that the file is empty now.
#[test]
fn not_modified_never_says_empty() {
    let server = Server::start();
    for Served { url, bytes, .. } in both(&server) {
        for method in ["GET", "HEAD"] {
            let answer = send(server.address, method, &url, &[("If-None-Match", "*")], b"");
            assert_eq!((answer.status, answer.body.len()), (304, 0));
            let length = answer.header("content-length");
            assert!(length.is_none_or(|length| length == bytes.len().to_string()), "{method}: {length:?}");
        }
    }
}

/// A client that accepts compression still gets the bytes that its ranges count.
#[test]
fn never_compressed() {
    let server = Server::start();
    let bundle = Spec::default().bundle();
    let url = server.upload(&bundle).json()["url"].as_str().unwrap().to_owned();
    let answer = send(server.address, "GET", &url, &[("Accept-Encoding", "gzip, br, zstd")], b"");
    assert!(answer.header("content-encoding").is_none() && answer.body == bundle);
}

/// A file that was damaged behind the server's back is not sent as if it were whole.
#[test]
fn a_shortened_file_is_an_error_not_a_short_answer() {
    let server = Server::start();
    let bundle = Spec::default().bundle();
    let url = server.upload(&bundle).json()["url"].as_str().unwrap().to_owned();
    std::fs::write(server.data().join(&url[1..]), &bundle[..100]).unwrap();
    let answer = get(server.address, &url);
    assert_eq!((answer.status, answer.code().as_str()), (500, "INTERNAL"));
    let text = String::from_utf8(answer.body).unwrap();
    assert!(!text.contains(server.data().to_str().unwrap()), "no paths for strangers: {text}");
}
