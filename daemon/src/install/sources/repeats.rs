//! Chunks that an image has more than once, as two copies of a file make them: fetched once and held until the last of them.
//!
//! What is held is as unverified as it came, and bounded. Which chunks that will be is known before the first is fetched,
//! because the same rules are followed twice: once to announce what will be fetched, and once to fetch it.

use std::collections::BTreeMap;

use otad_bundle::Chunk;

/// Most stored bytes that are held at a time: a few of the largest chunks, and little beside what a link needs anyway.
const HELD_LIMIT_BYTES: u64 = 512 * 1024;

/// Stands for the stored bytes of a chunk: half of their shortened hash.
type Key = u64;

/// What to do about a chunk whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// These are its stored bytes.
    Held(Vec<u8>),
    /// To be fetched, and given to [`Repeats::hold`].
    Hold,
    /// To be fetched.
    Pass,
}

/// Stored bytes that will be wanted again.
#[derive(Debug, Clone)]
struct Held {
    stored_sha256: [u8; 16],
    length: u64,
    bytes: Vec<u8>,
}

/// The chunks of one image that come more than once.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats {
    /// How often each of them is still to come.
    left: BTreeMap<Key, u32>,
    held: BTreeMap<Key, Held>,
    held_bytes: u64,
}

impl Repeats {
    /// Finds what comes more than once among the keys of the chunks that will be fetched. Sorts them: 8 bytes for each chunk are
    /// all the memory that looking takes.
    pub(super) fn among(mut keys: Vec<Key>) -> Repeats {
        keys.sort_unstable();
        let several = keys.chunk_by(|one, other| one == other).filter(|same| same.len() > 1);
        let count = |same: &[Key]| Some((*same.first()?, u32::try_from(same.len()).ok()?));
        Repeats { left: several.filter_map(count).collect(), ..Repeats::default() }
    }

    /// Takes the next chunk, in the order of the image.
    pub(super) fn turn(&mut self, chunk: &Chunk) -> Turn {
        let (key, length) = (key(chunk), u64::from(chunk.stored_len));
        let Some(left) = self.left.get_mut(&key) else { return Turn::Pass };
        *left = left.saturating_sub(1);
        let last = *left == 0;
        if last {
            self.left.remove(&key);
        }
        let same = |held: &&mut Held| held.stored_sha256 == chunk.stored_sha256 && held.length == length;
        if let Some(held) = self.held.get_mut(&key).filter(same) {
            if !last {
                return Turn::Held(held.bytes.clone());
            }
            self.held_bytes = self.held_bytes.saturating_sub(length);
            return self.held.remove(&key).map_or(Turn::Pass, |held| Turn::Held(held.bytes));
        }
        let room = self.held_bytes.saturating_add(length) <= HELD_LIMIT_BYTES;
        if last || !room || self.held.contains_key(&key) {
            return Turn::Pass;
        }
        self.held_bytes = self.held_bytes.saturating_add(length);
        self.held.insert(key, Held { stored_sha256: chunk.stored_sha256, length, bytes: Vec::new() });
        Turn::Hold
    }

    /// Keeps the stored bytes of a chunk that was to be held.
    pub(super) fn hold(&mut self, chunk: &Chunk, stored: &[u8]) {
        if let Some(held) = self.held.get_mut(&key(chunk)) {
            held.bytes = stored.to_vec();
        }
    }
}

/// The key of a chunk.
pub(super) fn key(chunk: &Chunk) -> Key {
    chunk.stored_sha256.first_chunk().map_or(0, |half| u64::from_le_bytes(*half))
}

#[cfg(test)]
mod tests {
    use otad_bundle::{ChunkKind, Digest};

    use super::*;

    /// A chunk of its own for each number.
    fn chunk(number: u8, length: u32) -> Chunk {
        let digest = Digest::of(&[number]);
        Chunk {
            sha256: digest,
            stored_sha256: digest.truncated(),
            plain_len: length,
            stored_len: length,
            kind: ChunkKind::Stored,
        }
    }

    /// Which of these chunks are fetched; numbers and lengths.
    fn fetched(chunks: &[(u8, u32)]) -> Vec<u8> {
        let chunks: Vec<_> = chunks.iter().map(|&(number, length)| (number, chunk(number, length))).collect();
        let mut repeats = Repeats::among(chunks.iter().map(|(_, chunk)| key(chunk)).collect());
        let mut announced = repeats.clone();
        let mut fetched = Vec::new();
        for (number, chunk) in &chunks {
            let turn = repeats.turn(chunk);
            let is_announced = !matches!(announced.turn(chunk), Turn::Held(_));
            assert_eq!(!matches!(turn, Turn::Held(_)), is_announced, "{number}");
            match turn {
                Turn::Held(bytes) => assert_eq!(bytes, [*number; 3]),
                Turn::Hold => repeats.hold(chunk, &[*number; 3]),
                Turn::Pass => {}
            }
            if is_announced {
                fetched.push(*number);
            }
            assert!(repeats.held_bytes <= HELD_LIMIT_BYTES);
        }
        assert!(repeats.held.is_empty() && repeats.held_bytes == 0 && repeats.left.is_empty());
        fetched
    }

    #[test]
    fn what_comes_again_is_fetched_once() {
        assert_eq!(fetched(&[(1, 10), (2, 10), (3, 10)]), [1, 2, 3]);
        assert_eq!(fetched(&[(1, 10), (2, 10), (1, 10), (1, 10), (2, 10), (3, 10), (1, 10)]), [1, 2, 3]);
    }

    #[test]
    fn no_more_is_held_than_allowed() {
        let half = u32::try_from(HELD_LIMIT_BYTES / 2).unwrap();
        let (one, other, third) = ((1, half), (2, half), (3, half));
        assert_eq!(fetched(&[one, other, third, one, other, third]), [1, 2, 3, 3]);
        // There is room again when one of them has come for the last time.
        assert_eq!(fetched(&[one, other, one, third, other, third]), [1, 2, 3]);
        assert_eq!(fetched(&[(1, 3 * half), (1, 3 * half)]), [1, 1]);
    }

    /// A source that was to have a chunk and has not makes the bundle be asked for one that was not announced.
    #[test]
    fn surprises_cost_bytes_and_nothing_else() {
        let (one, other) = (chunk(1, 10), chunk(2, 10));
        let mut repeats = Repeats::among(vec![key(&one), key(&one)]);
        assert_eq!(repeats.turn(&other), Turn::Pass);
        assert_eq!(repeats.turn(&one), Turn::Hold);
        repeats.hold(&one, &[7]);
        assert_eq!(repeats.turn(&one), Turn::Held(vec![7]));
        assert_eq!(repeats.turn(&one), Turn::Pass);
    }
}
