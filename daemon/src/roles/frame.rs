//! What goes over the socket between the daemon and a role: frames of a bounded length.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | length of what follows, little-endian |
//! | 1 | kind |
//! | 4 | length of the first field, little-endian |
//! | | the first field, and so on |

use std::io::{self, Read, Write};

/// Bytes of a frame at most: four files of `[server]`, or the extents of an index.
const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// A frame that was read.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    rest: Vec<u8>,
    at: usize,
}

/// Writes a frame.
pub(super) fn write(to: &mut impl Write, kind: u8, fields: &[&[u8]]) -> io::Result<()> {
    let length = 1 + fields.iter().map(|field| 4 + field.len()).sum::<usize>();
    if length > MAX_FRAME_BYTES {
        return Err(broken(format!("a frame of {length} bytes; the limit is {MAX_FRAME_BYTES}")));
    }
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend(number(length).to_le_bytes());
    bytes.push(kind);
    for field in fields {
        bytes.extend(number(field.len()).to_le_bytes());
        bytes.extend_from_slice(field);
    }
    to.write_all(&bytes)
}

/// Below the limit of a frame, and so of 32 bits.
fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Reads a frame; `None` when the other side has closed the socket.
pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match from.read(length.get_mut(have..).unwrap_or_default()) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length == 0 || length > MAX_FRAME_BYTES {
        return Err(broken(format!("a frame of {length} bytes; the limit is {MAX_FRAME_BYTES}")));
    }
    let mut kind = [0];
    from.read_exact(&mut kind)?;
    let mut rest = vec![0; length - 1];
    from.read_exact(&mut rest)?;
    Ok(Some(Frame { kind: kind[0], rest, at: 0 }))
}

impl Frame {
    /// The next field.
    pub(super) fn bytes(&mut self) -> io::Result<&[u8]> {
        let missing = || broken("a field is missing".to_owned());
        let rest = self.rest.get(self.at..).unwrap_or_default();
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(missing)?;
        let length = u32::from_le_bytes(*length) as usize;
        let field = rest.get(..length).ok_or_else(missing)?;
        self.at += 4 + length;
        Ok(field)
    }

    /// The next field, a text.
    pub(super) fn text(&mut self) -> io::Result<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| broken("a text is not UTF-8".to_owned()))
    }

    /// The next field, a number.
    pub(super) fn number(&mut self) -> io::Result<u64> {
        let bytes = self.bytes()?.try_into().map_err(|_| broken("a number has not 8 bytes".to_owned()))?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Characters of a message at most; the longest of otad's own have four hundred.
const MAX_MESSAGE_CHARS: usize = 1000;

/// A message of the other side as it may be logged and shown on a terminal.
pub(super) fn printable(message: &str) -> String {
    let visible = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    visible.take(MAX_MESSAGE_CHARS).collect()
}

/// The other side does not keep to the protocol.
pub(super) fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_nothing_else_does() {
        let mut bytes = Vec::new();
        write(&mut bytes, 7, &[b"one", b"", &5u64.to_le_bytes()]).unwrap();
        let mut frame = read(&mut bytes.as_slice()).unwrap().unwrap();
        assert_eq!((frame.kind, frame.text().unwrap().as_str()), (7, "one"));
        assert!(frame.bytes().unwrap().is_empty());
        assert_eq!(frame.number().unwrap(), 5);
        assert!(frame.bytes().is_err());
        assert!(read(&mut io::empty()).unwrap().is_none());
        for length in 1..bytes.len() {
            assert!(read(&mut bytes.get(..length).unwrap()).is_err(), "{length} bytes");
        }
        for at in 0..bytes.len() {
            for value in 0..=255 {
                let mut changed = bytes.clone();
                changed[at] = value;
                if let Ok(Some(mut frame)) = read(&mut changed.as_slice()) {
                    while frame.bytes().is_ok() {}
                }
            }
        }
        let huge = u32::MAX.to_le_bytes();
        assert!(read(&mut huge.as_slice()).unwrap_err().to_string().contains("limit"));
    }
}
