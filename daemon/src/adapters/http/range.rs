//! The headers that ranges, identity and waiting depend on, parsed strictly.
//!
//! Pure; opens nothing. Grammar: RFC 9110, sections 8.8.3 (ETag), 10.2.3 (Retry-After) and 14.4 (Content-Range).

use std::fmt;
use std::time::{Duration, SystemTime};

/// The longest time a `Retry-After` is believed to mean: a server that says more is wrong or hostile.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// A `Content-Range` that answers a range request: inclusive positions, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Length of the whole file.
    pub(super) total: u64,
}

impl ContentRange {
    /// Parses `bytes 0-499/1234`; `None` for anything else, also for an unknown total and for positions that cannot be.
    pub(super) fn parse(text: &str) -> Option<ContentRange> {
        let (positions, total) = after_unit(text)?.split_once('/')?;
        let (first, last) = positions.split_once('-')?;
        let range = ContentRange { first: digits(first)?, last: digits(last)?, total: digits(total)? };
        (range.first <= range.last && range.last < range.total).then_some(range)
    }

    /// Number of bytes in the range.
    pub(super) fn length(self) -> u64 {
        // Neither step can wrap: `parse` saw to first <= last < total.
        self.last - self.first + 1
    }
}

/// Parses the `Content-Range` of a 416 (`bytes */1234`) to the length of the whole file.
pub(super) fn unsatisfied_total(text: &str) -> Option<u64> {
    digits(after_unit(text)?.strip_prefix("*/")?)
}

/// Parses a `Content-Length`.
pub(super) fn content_length(text: &str) -> Option<u64> {
    digits(text)
}

fn after_unit(text: &str) -> Option<&str> {
    let (unit, rest) = text.split_once(' ')?;
    unit.eq_ignore_ascii_case("bytes").then_some(rest)
}

/// Rust's number parser also takes a sign; the grammar does not.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// An `ETag`: what tells two states of a file apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tag {
    /// Same tag, same bytes. Holds the tag with its quotes, as it is sent back.
    Strong(String),
    /// Same tag, much the same content: of no use for putting ranges together.
    Weak(String),
}

impl Tag {
    /// Parses an `ETag`; `None` if it is not well formed.
    pub(super) fn parse(text: &str) -> Option<Tag> {
        let (quoted, weak) = match text.strip_prefix("W/") {
            Some(quoted) => (quoted, true),
            None => (text, false),
        };
        let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
        if !inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
            return None;
        }
        Some(if weak { Tag::Weak(quoted.to_owned()) } else { Tag::Strong(quoted.to_owned()) })
    }

    /// The tag as `If-Range` sends it: only a strong one may be used there.
    pub(super) fn strong(&self) -> Option<&str> {
        match self {
            Tag::Strong(tag) => Some(tag),
            Tag::Weak(_) => None,
        }
    }
}

/// The tag as the header has it.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tag::Strong(quoted) => f.write_str(quoted),
            Tag::Weak(quoted) => write!(f, "W/{quoted}"),
        }
    }
}

/// Reads a `Retry-After`, given as seconds or as a date, no longer than [`MAX_RETRY_AFTER`].
///
/// A date is compared with the server's own `Date` where there is one: the clock of a device may be years off.
pub(super) fn retry_after(text: &str, server_date: Option<&str>, device_now: SystemTime) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean "long", not "malformed".
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let now = server_date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(device_now);
    Some(until.duration_since(now).unwrap_or(Duration::ZERO).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N5: everything that is not one exact range of a file of known length is refused.
    #[test]
    fn content_range_takes_exactly_one_form() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        for (text, expected) in [
            ("bytes 0-0/1", range(0, 0, 1)),
            ("bytes 5-9/10", range(5, 9, 10)),
            ("BYTES 5-9/10", range(5, 9, 10)),
            ("bytes 0-18446744073709551613/18446744073709551614", range(0, u64::MAX - 2, u64::MAX - 1)),
            ("bytes 5-10/10", None),
            ("bytes 9-5/10", None),
            ("bytes 0-9/*", None),
            ("bytes */10", None),
            ("bytes 0-9", None),
            ("bytes=0-9/10", None),
            ("bytes  0-9/10", None),
            ("bytes 0 - 9/10", None),
            ("bytes +0-9/10", None),
            ("bytes -1-9/10", None),
            ("bytes 0--9/10", None),
            ("bytes 0-9/10/10", None),
            ("bytes 0-9/10 ", None),
            ("bytes 0x0-0x9/10", None),
            ("bytes 0-9/18446744073709551616", None),
            ("bytes 0-4,6-9/10", None),
            ("bytes -/", None),
            ("bytes ", None),
            ("items 0-9/10", None),
            ("0-9/10", None),
            ("", None),
        ] {
            assert_eq!(ContentRange::parse(text), expected, "{text:?}");
        }
        assert_eq!(ContentRange::parse("bytes 5-9/10").unwrap().length(), 5);
        assert_eq!(unsatisfied_total("bytes */10"), Some(10));
        assert_eq!(unsatisfied_total("bytes */*"), None);
        assert_eq!(unsatisfied_total("bytes 0-9/10"), None);
    }

    /// N3: a length is digits and nothing else.
    #[test]
    fn content_length_is_digits() {
        assert_eq!(content_length("10"), Some(10));
        for wrong in ["", "-1", "+10", "1e3", " 10", "10, 10", "18446744073709551616"] {
            assert_eq!(content_length(wrong), None, "{wrong:?}");
        }
    }

    /// N6: only a well-formed strong tag identifies bytes.
    #[test]
    fn tags() {
        assert_eq!(Tag::parse("\"abc\"").unwrap().strong(), Some("\"abc\""));
        assert_eq!(Tag::parse("W/\"abc\"").unwrap().strong(), None);
        for text in ["\"abc\"", "W/\"abc\""] {
            assert_eq!(Tag::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["abc", "\"", "\"a\"b\"", "w/\"abc\"", "\"a b\"", "\"a\r\nb\"", ""] {
            assert_eq!(Tag::parse(wrong), None, "{wrong:?}");
        }
    }

    /// N7: zero, far too long, dates by the server's clock, dates in the past.
    #[test]
    fn retry_after_is_clamped_and_needs_no_clock() {
        let year_1970 = SystemTime::UNIX_EPOCH;
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        let seconds = |n| Some(Duration::from_secs(n));
        for (text, server_date, expected) in [
            ("0", None, seconds(0)),
            ("120", None, seconds(120)),
            ("1000000000", None, Some(MAX_RETRY_AFTER)),
            ("99999999999999999999999", None, Some(MAX_RETRY_AFTER)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", date, seconds(30)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", date, seconds(0)),
            ("Sat, 06 Nov 2094 08:50:07 GMT", date, Some(MAX_RETRY_AFTER)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", None, Some(MAX_RETRY_AFTER)),
            ("", None, None),
            ("-5", None, None),
            ("soon", None, None),
        ] {
            assert_eq!(retry_after(text, server_date, year_1970), expected, "{text:?}");
        }
    }
}
