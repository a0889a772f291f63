//! `Range` and the preconditions, as pure functions (RFC 9110 sections 13 and 14).
//!
//! One range is answered as asked. More than one, or a form this server does not know, is answered with the whole file:
//! the RFC allows that for every range request, and a client has to cope with it anyway.

use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};

/// What part of a file goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it, status 200.
    Whole,
    /// These bytes, both ends included, status 206.
    Bytes {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte.
        last: u64,
    },
    /// None: the range begins behind the end, status 416.
    Unsatisfiable,
}

/// What the preconditions and the range of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    let Some((unit, spec)) = value.split_once('=') else { return Part::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Part::Whole;
    }
    let Some((first, last)) = spec.trim_matches([' ', '\t']).split_once('-') else { return Part::Whole };
    match (first, last) {
        ("", suffix) => match number(suffix) {
            Some(0) => Part::Unsatisfiable,
            Some(_) if size == 0 => Part::Unsatisfiable,
            Some(length) => Part::Bytes { first: size.saturating_sub(length), last: size.saturating_sub(1) },
            None => Part::Whole,
        },
        (first, "") => number(first).map_or(Part::Whole, |first| from(first, u64::MAX, size)),
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => from(first, last, size),
            _ => Part::Whole,
        },
    }
}

fn from(first: u64, last: u64, size: u64) -> Part {
    if first >= size { Part::Unsatisfiable } else { Part::Bytes { first, last: last.min(size - 1) } }
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
        Part::Bytes { first, last }
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
            ("bytes=0-1,5-6", Whole),
            ("bytes=0-,0-,0-", Whole),
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

    /// Whatever the range, what goes out lies inside the file.
    #[test]
    fn answers_lie_inside_the_file() {
        let numbers =
            ["", "0", "1", "2", "9", "10", "11", "18446744073709551615", "18446744073709551616", "x"];
        for size in [0, 1, 2, 10, u64::MAX] {
            for first in numbers {
                for last in numbers {
                    if let Part::Bytes { first, last } = parse(&format!("bytes={first}-{last}"), size) {
                        assert!(first <= last && last < size, "{first}-{last} of {size}");
                    }
                }
            }
        }
    }

    #[test]
    fn preconditions() {
        const TAG: &str = "\"abc\"";
        const RANGED: Answer = Answer::Send(Part::Bytes { first: 1, last: 2 });
        const WHOLE: Answer = Answer::Send(Part::Whole);
        for (name, given, expected) in [
            ("plain", vec![("range", "bytes=1-2")], RANGED),
            ("same tag", vec![("range", "bytes=1-2"), ("if-range", TAG)], RANGED),
            ("other tag", vec![("range", "bytes=1-2"), ("if-range", "\"xyz\"")], WHOLE),
            ("weak tag", vec![("range", "bytes=1-2"), ("if-range", "W/\"abc\"")], WHOLE),
            ("bare tag", vec![("range", "bytes=1-2"), ("if-range", "abc")], WHOLE),
            ("a date", vec![("range", "bytes=1-2"), ("if-range", "Sat, 29 Oct 1994 19:43:31 GMT")], WHOLE),
            ("if-range alone", vec![("if-range", TAG)], WHOLE),
            ("two ranges", vec![("range", "bytes=1-2"), ("range", "bytes=3-4")], WHOLE),
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
