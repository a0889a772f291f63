//! Several ranges in one body: `multipart/byteranges`, read strictly (RFC 9110 section 14.6, RFC 2046 section 5.1).
//!
//! The parts must be the ranges that were asked for, in that order, one by one; the last ones may be left out, as some servers
//! do with more than they like. Anything else is no offence but a server that cannot do it, and it is asked for one range at a time from then on: there it has no choice but to answer clearly.
//! What a header takes is bounded, and everything is read out of a body of known length.

use std::ops::Range;

use super::client::Trouble;
use super::range::ContentRange;
use super::stream::Stream;
use crate::ports::Stop;

/// Bytes of the lines before a part. Real ones have 100 to 300.
const MOST_HEADER_BYTES: usize = 2048;
/// Bytes that are read at once while looking for lines.
const WINDOW_BYTES: usize = 4096;
/// Bytes behind the last part that are still read for the sake of the connection: the final boundary and little more.
const MOST_TAIL_BYTES: u64 = 512;
/// The longest boundary that RFC 2046 allows.
const MOST_BOUNDARY_BYTES: usize = 70;

/// Why a part cannot be had.
#[derive(Debug)]
pub(super) enum Fault {
    /// The line or the server failed; to be tried again or not, as it says.
    Trouble(Trouble),
    /// The server does not give several ranges as they were asked for.
    Unsuited(String),
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Fault {
        Fault::Trouble(trouble)
    }
}

/// Finds the boundary in a `Content-Type`; `None` if that is not the type of several ranges.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/byteranges") {
        return None;
    }
    let (name, value) = parameters.trim().split_once('=')?;
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let sound = (1..=MOST_BOUNDARY_BYTES).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte));
    (name.trim().eq_ignore_ascii_case("boundary") && sound).then(|| value.to_owned())
}

/// A body of several ranges.
pub(super) struct Parts {
    stream: Stream,
    boundary: String,
    /// Length of the whole file.
    total: u64,
    /// Bytes that were read while looking for lines.
    window: Vec<u8>,
    /// How many of them are used up.
    used: usize,
    left: u64,
    first: bool,
}

impl Parts {
    pub(super) fn new(stream: Stream, boundary: String, total: u64) -> Parts {
        Parts { stream, boundary, total, window: Vec::new(), used: 0, left: 0, first: true }
    }

    /// Goes to the next part, which must be this range; the one before must have been read. False if no other part comes.
    pub(super) fn next(&mut self, wanted: &Range<u64>) -> Result<bool, Fault> {
        let mut room = MOST_HEADER_BYTES;
        let mut line = self.line(&mut room)?;
        // A part ends with a line end that belongs to the boundary, and some servers begin with one too.
        if line.is_empty() {
            line = self.line(&mut room)?;
        } else if !self.first {
            return Err(Fault::Unsuited("a part is longer than its range".to_owned()));
        }
        let first = std::mem::replace(&mut self.first, false);
        if !first && line == format!("--{}--", self.boundary) {
            return Ok(false);
        }
        if line.strip_prefix("--") != Some(self.boundary.as_str()) {
            return Err(Fault::Unsuited("a part does not begin with the boundary".to_owned()));
        }
        let mut range = None;
        loop {
            let line = self.line(&mut room)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-range") && range.replace(value.trim().to_owned()).is_some()
            {
                return Err(Fault::Unsuited("a part has two ranges".to_owned()));
            }
        }
        let range = range.unwrap_or_default();
        let right = ContentRange::parse(&range).is_some_and(|range| {
            range.first == wanted.start
                && range.last.checked_add(1) == Some(wanted.end)
                && range.total == self.total
        });
        if !right {
            let asked = format!("bytes {} to {}", wanted.start, wanted.end.saturating_sub(1));
            return Err(Fault::Unsuited(format!("a part is {range:?} where {asked} come")));
        }
        self.left = wanted.end.saturating_sub(wanted.start);
        Ok(true)
    }

    /// Bytes of the current part that have not been read.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Reads some bytes of the current part; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..length).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let waiting = self.window.get(self.used..).unwrap_or_default();
        let count = if waiting.is_empty() {
            self.within()?;
            self.stream.receive(buffer)?
        } else {
            let count = waiting.len().min(length);
            buffer.iter_mut().zip(waiting).for_each(|(to, from)| *to = *from);
            self.used += count;
            count
        };
        self.left = self.left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }

    /// Ends the reading; a short rest is read, so that the connection can be used again.
    pub(super) fn finish(mut self, stop: &Stop) {
        let rest = self.stream.rest();
        // A connection that breaks now is one that is not used again.
        if rest <= MOST_TAIL_BYTES && self.stream.drop_bytes(rest, stop, |_| Ok(())).is_ok() {
            self.stream.finish();
        }
    }

    /// Reads a line without its end, as long as there is room.
    fn line(&mut self, room: &mut usize) -> Result<String, Fault> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if *room == 0 {
                return Err(Fault::Unsuited(format!(
                    "a part has more than {MOST_HEADER_BYTES} bytes of header"
                )));
            }
            *room -= 1;
            line.push(self.byte()?);
        }
        line.truncate(line.len().saturating_sub(2));
        String::from_utf8(line).map_err(|_| Fault::Unsuited("the header of a part is not text".to_owned()))
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        if self.used >= self.window.len() {
            self.within()?;
            self.window.resize(WINDOW_BYTES, 0);
            self.used = 0;
            let came = self.stream.receive(&mut self.window);
            self.window.truncate(came.as_ref().map_or(0, |count| *count));
            came?;
        }
        let byte = self.window.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        Ok(byte)
    }

    /// The body is as long as was announced; a server that announced too little does not know its own parts.
    fn within(&self) -> Result<(), Fault> {
        if self.stream.rest() == 0 {
            return Err(Fault::Unsuited("the body ends before its last part".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries() {
        for (text, expected) in [
            ("multipart/byteranges; boundary=abc", Some("abc")),
            ("Multipart/ByteRanges;boundary=\"a b\"", None),
            ("multipart/byteranges; Boundary=\"a.b\"", Some("a.b")),
            ("multipart/byteranges; boundary=", None),
            ("multipart/byteranges", None),
            ("multipart/mixed; boundary=abc", None),
            ("text/html; boundary=abc", None),
            ("multipart/byteranges; boundary=a\r\nb", None),
        ] {
            assert_eq!(boundary(text).as_deref(), expected, "{text:?}");
        }
        assert!(boundary(&format!("multipart/byteranges; boundary={}", "x".repeat(71))).is_none());
    }
}
