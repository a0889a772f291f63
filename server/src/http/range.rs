//! `Range` and the preconditions, as pure functions (RFC 9110 sections 13 and 14).
//!
//! One range is answered as asked, and so are several that are apart from each other. More than [`MOST_RANGES`], ranges that
//! overlap (what comes out would be longer than the file), and every form that this server does not know are answered with
//! the whole file: the RFC allows that for every range request, and a client has to cope with it anyway.

use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};

/// Ranges of one request that are answered: twice what otad asks for, and a head of 1.5 KiB.
pub const MOST_RANGES: usize = 64;

/// Some bytes of a file, both ends included; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte.
    pub last: u64,
}

impl Span {
    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// What part of a file goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it, status 200.
    Whole,
    /// These bytes, status 206.
    Bytes(Span),
    /// These, two at least and in the order asked for, each as a part of the body, status 206.
    Several(Vec<Span>),
    /// None: every range begins behind the end, status 416.
    Unsatisfiable,
}

/// What the preconditions and the range of a request come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Send this part.
    Send(Part),
    /// The client has it already, status 304.
    NotModified,
    /// The client wants another version, status 412.
    PreconditionFailed,
}

/// Decides about a `GET` of a file of `size` bytes with the strong entity tag `etag` (with its quotes).
///
/// The order is that of RFC 9110 section 13.2.2: `If-Match`, `If-None-Match`, then `Range` guarded by `If-Range`.
pub fn decide(headers: &HeaderMap, etag: &str, size: u64) -> Answer {
    if headers.contains_key(IF_MATCH) && !lists(headers, IF_MATCH.as_str(), etag, Compare::Strong) {
        return Answer::PreconditionFailed;
    }
    if lists(headers, IF_NONE_MATCH.as_str(), etag, Compare::Weak) {
        return Answer::NotModified;
    }
    Answer::Send(part(headers, etag, size))
}

fn part(headers: &HeaderMap, etag: &str, size: u64) -> Part {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Part::Whole };
    // A date or a weak tag cannot vouch for bytes: no date is ever given out, and only the strong tag compares equal.
    let mut guards = headers.get_all(IF_RANGE).iter();
    match (guards.next(), guards.next()) {
        (None, _) => {}
        (Some(guard), None) if guard.as_bytes() == etag.as_bytes() => {}
        (Some(_), _) => return Part::Whole,
    }
    range.to_str().map_or(Part::Whole, |text| parse(text, size))
}

/// Reads the value of a `Range` header for a file of `size` bytes.
pub fn parse(value: &str, size: u64) -> Part {
    let Some((unit, list)) = value.split_once('=') else { return Part::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Part::Whole;
    }
    let mut spans = Vec::new();
    for (count, spec) in list.split(',').enumerate() {
        match one(spec.trim_matches([' ', '\t']), size) {
            _ if count == MOST_RANGES => return Part::Whole,
            Spec::Malformed => return Part::Whole,
            // RFC 9110 section 14.2: what lies behind the end is left out, unless nothing else is asked for.
            Spec::BehindTheEnd => {}
            Spec::Within(span) => spans.push(span),
        }
    }
    match *spans.as_slice() {
        [] => Part::Unsatisfiable,
        [span] => Part::Bytes(span),
        _ if overlap(&spans) => Part::Whole,
        _ => Part::Several(spans),
    }
}

/// What one range of a list comes to.
enum Spec {
    Within(Span),
    BehindTheEnd,
    Malformed,
}

fn one(spec: &str, size: u64) -> Spec {
    let Some((first, last)) = spec.split_once('-') else { return Spec::Malformed };
    match (first, last) {
        ("", suffix) => match number(suffix) {
            Some(0) => Spec::BehindTheEnd,
            Some(length) => from(size.saturating_sub(length), u64::MAX, size),
            None => Spec::Malformed,
        },
        (first, "") => number(first).map_or(Spec::Malformed, |first| from(first, u64::MAX, size)),
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => from(first, last, size),
            _ => Spec::Malformed,
        },
    }
}

fn from(first: u64, last: u64, size: u64) -> Spec {
    if first >= size { Spec::BehindTheEnd } else { Spec::Within(Span { first, last: last.min(size - 1) }) }
}

/// Whether a byte would go out twice. Spans that are apart never add up to more than the file.
fn overlap(spans: &[Span]) -> bool {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable_by_key(|span| span.first);
    sorted.iter().zip(sorted.iter().skip(1)).any(|(one, next)| next.first <= one.last)
}

/// Digits only; a number that does not fit is as good as the largest one, because it is behind every end.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

/// Whether a list of entity tags contains ours, or is `*`.
fn lists(headers: &HeaderMap, name: &str, etag: &str, compare: Compare) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| {
            let tag = tag.trim();
            let tag = if compare == Compare::Weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
            tag == "*" || tag == etag
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1000;

    fn bytes(first: u64, last: u64) -> Part {
        Part::Bytes(Span { first, last })
    }

    fn several(spans: &[(u64, u64)]) -> Part {
        Part::Several(spans.iter().map(|&(first, last)| Span { first, last }).collect())
    }

    #[test]
    fn ranges() {
        use Part::{Unsatisfiable, Whole};
        for (value, expected) in [
            ("bytes=0-0", bytes(0, 0)),
            ("bytes=0-999", bytes(0, 999)),
            ("bytes=0-1000", bytes(0, 999)),
            ("bytes=0-18446744073709551615", bytes(0, 999)),
            ("bytes=0-99999999999999999999999", bytes(0, 999)),
            ("bytes=500-", bytes(500, 999)),
            ("bytes=999-", bytes(999, 999)),
            ("bytes=999-999", bytes(999, 999)),
            ("bytes=1000-", Unsatisfiable),
            ("bytes=1000-2000", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-1", bytes(999, 999)),
            ("bytes=-1000", bytes(0, 999)),
            ("bytes=-1001", bytes(0, 999)),
            ("bytes=-99999999999999999999999", bytes(0, 999)),
            ("bytes=-0", Unsatisfiable),
            ("Bytes=1-2", bytes(1, 2)),
            ("bytes= 1-2 ", bytes(1, 2)),
            ("bytes=007-010", bytes(7, 10)),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes", Whole),
            ("", Whole),
            ("bytes=2-1", Whole),
            ("bytes=a-b", Whole),
            ("bytes=0x1-2", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1--2", Whole),
            ("bytes=--1", Whole),
            ("bytes=1-2-3", Whole),
            ("bytes=0-1,5-6", several(&[(0, 1), (5, 6)])),
            ("Bytes= 0-1 ,\t5-6 ", several(&[(0, 1), (5, 6)])),
            ("bytes=5-6,0-1,-1", several(&[(5, 6), (0, 1), (999, 999)])),
            ("bytes=0-1,2-3", several(&[(0, 1), (2, 3)])),
            ("bytes=0-1,990-2000", several(&[(0, 1), (990, 999)])),
            ("bytes=0-1,5-6,1000-1001", several(&[(0, 1), (5, 6)])),
            ("bytes=1000-1001,5-6,-0", bytes(5, 6)),
            ("bytes=1000-1001,2000-,-0", Unsatisfiable),
            ("bytes=0-1,1-2", Whole),
            ("bytes=5-6,0-5", Whole),
            ("bytes=0-0,0-0", Whole),
            ("bytes=0-,0-,0-", Whole),
            ("bytes=990-,-1", Whole),
            ("bytes=0-1,", Whole),
            ("bytes=,0-1", Whole),
            ("bytes=0-1,,5-6", Whole),
            ("bytes=0-1;5-6", Whole),
            ("bytes=0-1,x", Whole),
            ("bytes=1000-1001,x", Whole),
            ("bytes=0-1,5-4", Whole),
            ("bytes:0-1", Whole),
            ("chunks=0-1", Whole),
            ("bytes=1 - 2", Whole),
            ("bytes=١-٢", Whole),
        ] {
            assert_eq!(parse(value, SIZE), expected, "{value:?}");
        }
        for value in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"] {
            assert_eq!(parse(value, 0), Unsatisfiable, "{value:?} of an empty file");
        }
    }

    /// The limit is on what is asked for, not on what of it can be given.
    #[test]
    fn so_many_ranges_and_no_more() {
        let list = |count: u64, from: u64| {
            let ranges: Vec<_> = (from..from + count).map(|n| format!("{}-{}", 3 * n, 3 * n + 1)).collect();
            parse(&format!("bytes={}", ranges.join(",")), SIZE)
        };
        let most = MOST_RANGES as u64;
        assert!(matches!(list(most, 0), Part::Several(spans) if spans.len() == MOST_RANGES));
        assert_eq!(list(most + 1, 0), Part::Whole);
        assert_eq!(list(most, SIZE), Part::Unsatisfiable);
        assert_eq!(list(most + 1, SIZE), Part::Whole);
    }

    /// Whatever the range, what goes out lies inside the file.
    #[test]
    fn answers_lie_inside_the_file() {
        let numbers =
            ["", "0", "1", "2", "9", "10", "11", "18446744073709551615", "18446744073709551616", "x"];
        for size in [0, 1, 2, 10, u64::MAX] {
            for first in numbers {
                for last in numbers {
                    let spans = match parse(&format!("bytes={first}-{last},{last}-{first},1-1"), size) {
                        Part::Bytes(span) => vec![span],
                        Part::Several(spans) => spans,
                        Part::Whole | Part::Unsatisfiable => Vec::new(),
                    };
                    for Span { first, last } in &spans {
                        assert!(first <= last && *last < size, "{first}-{last} of {size}");
                    }
                    assert!(
                        spans.iter().map(|span| u128::from(span.length())).sum::<u128>() <= u128::from(size)
                    );
                    if let Part::Bytes(Span { first, last }) = parse(&format!("bytes={first}-{last}"), size) {
                        assert!(first <= last && last < size, "{first}-{last} of {size}");
                    }
                }
            }
        }
    }

    #[test]
    fn preconditions() {
        const TAG: &str = "\"abc\"";
        const RANGED: Answer = Answer::Send(Part::Bytes(Span { first: 1, last: 2 }));
        const WHOLE: Answer = Answer::Send(Part::Whole);
        for (name, given, expected) in [
            ("plain", vec![("range", "bytes=1-2")], RANGED),
            ("same tag", vec![("range", "bytes=1-2"), ("if-range", TAG)], RANGED),
            ("other tag", vec![("range", "bytes=1-2"), ("if-range", "\"xyz\"")], WHOLE),
            ("weak tag", vec![("range", "bytes=1-2"), ("if-range", "W/\"abc\"")], WHOLE),
            ("bare tag", vec![("range", "bytes=1-2"), ("if-range", "abc")], WHOLE),
            ("a date", vec![("range", "bytes=1-2"), ("if-range", "Sat, 29 Oct 1994 19:43:31 GMT")], WHOLE),
            ("if-range alone", vec![("if-range", TAG)], WHOLE),
            ("two headers", vec![("range", "bytes=1-2"), ("range", "bytes=3-4")], WHOLE),
            ("several, other tag", vec![("range", "bytes=1-2,4-5"), ("if-range", "\"xyz\"")], WHOLE),
            ("has it", vec![("if-none-match", TAG)], Answer::NotModified),
            ("has it, weak", vec![("if-none-match", "W/\"abc\"")], Answer::NotModified),
            ("has it, in a list", vec![("if-none-match", "\"x\", \"abc\"")], Answer::NotModified),
            ("has anything", vec![("if-none-match", "*")], Answer::NotModified),
            ("has another", vec![("if-none-match", "\"x\"")], WHOLE),
            ("has it and a range", vec![("if-none-match", TAG), ("range", "bytes=1-2")], Answer::NotModified),
            ("wants it", vec![("if-match", TAG), ("range", "bytes=1-2")], RANGED),
            ("wants another", vec![("if-match", "\"x\"")], Answer::PreconditionFailed),
            ("wants it weakly", vec![("if-match", "W/\"abc\"")], Answer::PreconditionFailed),
            ("wants anything", vec![("if-match", "*")], WHOLE),
        ] {
            let mut headers = HeaderMap::new();
            for (key, value) in given {
                headers.append(key, value.parse().unwrap());
            }
            assert_eq!(decide(&headers, TAG, SIZE), expected, "{name}");
        }
    }
}
