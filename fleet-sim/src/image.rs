//! What a slot of a simulated device holds: an image that says what it is, and whose every byte follows from that.
//!
//! The first page is `SIMIMAGE`, the CRC-32 of the rest of the page (little endian), and the text of `image.toml`; behind it comes
//! noise that no other release has. The boot loader looks at the first page, as a real one looks at a kernel's header.

use otad::testing::medium::{Medium, mix};

/// Bytes of a slot and of every image: the head that is written last, and some more.
pub(crate) const IMAGE_BYTES: usize = 192 * 1024;
/// What the boot loader looks at.
const FRONT_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"SIMIMAGE";
/// Where the text begins: behind the magic and the checksum.
const TEXT_AT: usize = 12;

/// The text of `image.toml`.
pub(crate) fn info(version: &str, sequence: u64) -> String {
    format!("version = \"{version}\"\nsequence = {sequence}\n")
}

/// All bytes of the image of a release.
pub(crate) fn bytes(version: &str, sequence: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..IMAGE_BYTES as u64 / 8).flat_map(|at| mix(sequence, at).to_le_bytes()).collect();
    let mut front = vec![0; FRONT_BYTES];
    let text = info(version, sequence);
    for (to, from) in front.iter_mut().skip(TEXT_AT).zip(text.bytes()) {
        *to = from;
    }
    let crc = crc32fast::hash(front.get(TEXT_AT..).unwrap_or_default());
    let head = MAGIC.iter().copied().chain(crc.to_le_bytes());
    front.iter_mut().zip(head).for_each(|(to, from)| *to = from);
    bytes.iter_mut().zip(front).for_each(|(to, from)| *to = from);
    bytes
}

/// What the first page of a slot says of itself; `None` for one that no boot loader would start.
pub(crate) fn read(medium: &Medium) -> Option<String> {
    let mut front = vec![0; FRONT_BYTES];
    medium.read(0, &mut front);
    let (magic, rest) = front.split_first_chunk::<8>()?;
    let (crc, text) = rest.split_first_chunk::<4>()?;
    if magic != MAGIC || crc32fast::hash(text).to_le_bytes() != *crc {
        return None;
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8(text.get(..end)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_what_it_is_unless_its_front_is_torn() {
        let bytes = bytes("2.0.0", 2);
        assert_eq!(read(&Medium::new(&bytes)), Some(info("2.0.0", 2)));
        let mut torn = bytes.clone();
        torn[100] ^= 1;
        assert_eq!(read(&Medium::new(&torn)), None);
        assert_eq!(read(&Medium::new(&vec![0xff; IMAGE_BYTES])), None);
    }
}
