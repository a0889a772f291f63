//! What a slot of a simulated device holds: an image whose every byte follows from what it is.
//!
//! The text of `image.toml` comes first, behind it noise that no other release has. The boot loader looks at the first page, as a real one looks
//! at a kernel's header: it knows the fronts of the releases there are.

use otad::testing::medium::{Medium, hash_bytes, mix};

/// Bytes of a slot and of every image: the head that is written last, and some more.
pub(crate) const IMAGE_BYTES: usize = 192 * 1024;
/// What the boot loader looks at.
const FRONT_BYTES: usize = 4096;

/// The text of `image.toml`.
pub(crate) fn info(version: &str, sequence: u64) -> String {
    format!("version = \"{version}\"\nsequence = {sequence}\n")
}

/// All bytes of the image of a release.
pub(crate) fn bytes(version: &str, sequence: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..IMAGE_BYTES as u64 / 8).flat_map(|at| mix(sequence, at).to_le_bytes()).collect();
    bytes.iter_mut().zip(info(version, sequence).bytes()).for_each(|(to, from)| *to = from);
    bytes
}

/// Hash of what the boot loader looks at.
pub(crate) fn front(medium: &Medium) -> u64 {
    let mut front = vec![0; FRONT_BYTES];
    medium.read(0, &mut front);
    hash_bytes(&front)
}
