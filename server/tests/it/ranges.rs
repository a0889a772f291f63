//! Several ranges in one answer: what stands in the body, to the byte, and what is answered with the whole file instead.

use std::io::{Read, Write};

use crate::http::{Answer, connect, send};
use crate::rig::{Server, Spec, sha256};

/// A bundle on offer.
struct Offered {
    server: Server,
    url: String,
    bytes: Vec<u8>,
}

impl Offered {
    fn new(random_bytes: usize) -> Offered {
        let server = Server::start();
        let bytes = Spec { random_bytes, ..Spec::default() }.bundle();
        let url = server.upload(&bytes).json()["url"].as_str().unwrap().to_owned();
        Offered { server, url, bytes }
    }

    fn get(&self, ranges: &str, more: &[(&str, &str)]) -> Answer {
        let range = format!("bytes={ranges}");
        let headers: Vec<_> =
            std::iter::once(("Range", range.as_str())).chain(more.iter().copied()).collect();
        send(self.server.address, "GET", &self.url, &headers, b"")
    }

    fn tag(&self) -> String {
        format!("\"{}\"", sha256(&self.bytes))
    }

    /// The body that RFC 9110 section 14.6 and RFC 2046 section 5.1 give for these ranges.
    fn body(&self, boundary: &str, ranges: &[(usize, usize)]) -> Vec<u8> {
        let mut body = Vec::new();
        for &(first, last) in ranges {
            let size = self.bytes.len();
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: application/vnd.otad.bundle\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
            );
            body.extend(head.as_bytes());
            body.extend(&self.bytes[first..=last]);
        }
        body.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
        body
    }
}

fn boundary(answer: &Answer) -> String {
    let kind = answer.header("content-type").expect("a type");
    kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{kind}")).to_owned()
}

#[test]
fn several_ranges_come_as_parts_in_the_order_asked_for() {
    let offered = Offered::new(700_000);
    let end = offered.bytes.len() - 1;
    let (size, tag) = (end + 1, offered.tag());
    let long = (100_000, 600_000);
    for (asked, given) in [
        ("0-0,2-2".to_owned(), vec![(0, 0), (2, 2)]),
        ("0-511,512-1023".to_owned(), vec![(0, 511), (512, 1023)]),
        ("600-700,0-9".to_owned(), vec![(600, 700), (0, 9)]),
        (format!("{}-{},-1,5-9", long.0, long.1), vec![long, (end, end), (5, 9)]),
        (format!("0-1, 4-5,\t{end}-"), vec![(0, 1), (4, 5), (end, end)]),
        (format!("7-8,{}-{}", end - 3, end + 100), vec![(7, 8), (end - 3, end)]),
        (format!("7-8,{size}-,10-11,-0"), vec![(7, 8), (10, 11)]),
    ] {
        for guard in [&[][..], &[("If-Range", tag.as_str())][..]] {
            let answer = offered.get(&asked, guard);
            assert_eq!(answer.status, 206, "{asked}");
            let boundary = boundary(&answer);
            assert!((1..=70).contains(&boundary.len()), "{boundary}");
            assert!(answer.body == offered.body(&boundary, &given), "{asked}: another body");
            assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
            assert_eq!(answer.header("etag"), Some(tag.as_str()));
            assert_eq!(answer.header("accept-ranges"), Some("bytes"));
            assert_eq!(answer.header("content-range"), None, "that is for one range");
            assert_eq!(answer.header("transfer-encoding"), None);
            assert!(answer.header("cache-control").unwrap().contains("no-transform"));
        }
    }
}

#[test]
fn too_many_and_overlapping_ranges_bring_the_whole_file_once() {
    let offered = Offered::new(50_000);
    let (end, tag) = (offered.bytes.len() - 1, offered.tag());
    let list =
        |count: usize| (0..count).map(|n| format!("{}-{}", 4 * n, 4 * n + 1)).collect::<Vec<_>>().join(",");
    for (asked, guard) in [
        (list(65), tag.as_str()),
        (list(1000), tag.as_str()),
        ("0-9,9-10".to_owned(), tag.as_str()),
        ("0-,0-".to_owned(), tag.as_str()),
        (format!("0-{end},0-{end},0-{end}"), tag.as_str()),
        (format!("5-9,-{end}"), tag.as_str()),
        ("0-1,5-4".to_owned(), tag.as_str()),
        ("0-1,5-6".to_owned(), "\"other\""),
    ] {
        let answer = offered.get(&asked, &[("If-Range", guard)]);
        assert_eq!((answer.status, answer.body == offered.bytes), (200, true), "{asked}");
        assert_eq!(answer.header("content-type"), Some("application/vnd.otad.bundle"), "{asked}");
    }
    let answer = offered.get(&list(64), &[]);
    assert_eq!(answer.status, 206);
    let given: Vec<_> = (0..64).map(|n| (4 * n, 4 * n + 1)).collect();
    assert!(answer.body == offered.body(&boundary(&answer), &given));
}

#[test]
fn head_and_preconditions_are_as_for_one_range() {
    let offered = Offered::new(50_000);
    let (length, tag) = (offered.bytes.len().to_string(), offered.tag());
    let head = send(offered.server.address, "HEAD", &offered.url, &[("Range", "bytes=0-1,4-5")], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(length.as_str()));
    assert_eq!(offered.get("0-1,4-5", &[("If-Match", "\"x\"")]).status, 412);
    assert_eq!(offered.get("0-1,4-5", &[("If-None-Match", tag.as_str())]).status, 304);
    assert_eq!(offered.get(&format!("{length}-,-0"), &[]).status, 416);
}

/// A connection brings one such answer after the other, and anything else in between.
#[test]
fn the_connection_is_kept() {
    let offered = Offered::new(300_000);
    let mut stream = connect(offered.server.address);
    for (range, expected) in [("0-99999,200000-200009", 206), ("0-9", 206), ("0-5,100-200000", 206)] {
        let url = &offered.url;
        write!(stream, "GET {url} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={range}\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {expected} ")), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
    }
}

/// Whoever leaves in the middle of a long answer leaves nothing behind: the server ends, which waits for what it does.
#[test]
fn a_client_that_leaves_is_no_burden() {
    let offered = Offered::new(8 << 20);
    for _ in 0..20 {
        let mut stream = connect(offered.server.address);
        let url = &offered.url;
        write!(stream, "GET {url} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-4000000,4000002-\r\n\r\n")
            .unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
    }
    assert_eq!(offered.get("0-1,4-5", &[]).status, 206);
}

/// A file that is cut short while it is sent breaks the answer off: nobody takes what came for all of it.
#[test]
fn a_file_that_shrinks_breaks_the_answer_off() {
    let offered = Offered::new(32 << 20);
    let end = offered.bytes.len() - 1;
    let mut stream = connect(offered.server.address);
    let (url, second) = (&offered.url, end - 1000);
    write!(
        stream,
        "GET {url} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nRange: bytes=0-{},{second}-\r\n\r\n",
        second - 2
    )
    .unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    let file = std::fs::File::options().write(true).open(offered.server.data().join(&url[1..])).unwrap();
    file.set_len(16 << 20).unwrap();
    let mut rest = Vec::new();
    // Ended or reset: either way too early.
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < end, "{} bytes came of a file that has half of them", rest.len());
}
