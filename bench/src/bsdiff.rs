//! The delta that the bsdiff algorithm would make, on the part of the problem that it can hold in memory.
//!
//! bsdiff wants a suffix array of the whole old image. So what any delta of a file system finds first is taken out before: a map
//! says which 4 KiB blocks of the new image are zero, stand somewhere in the old one, or came before in the new one. The others
//! go to the algorithm (crate `bidiff`, the same suffix array and approximate extension) together with the old image without
//! its zeros, and what it says goes to zstd -19 with a window of 128 MiB. This serves as a yardstick; nothing decodes it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// The command of this program that makes one, so that its memory can be measured.
pub(crate) const BSDIFF: &str = "bsdiff";
const BLOCK_BYTES: usize = 4096;
/// Strong enough to be a yardstick, as `zstd -19`.
const LEVEL: i32 = 19;
/// 128 MiB.
const WINDOW_LOG: u32 = 27;
/// How much of the new blocks the algorithm looks at by itself, so that several processors can work.
const SCAN_BYTES: usize = 32 << 20;

/// Where a block comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Zero,
    Old(u32),
    Repeat(u32),
    New,
}

impl From {
    /// The block that would follow in the same run.
    fn next(self) -> From {
        match self {
            From::Old(at) => From::Old(at + 1),
            From::Repeat(at) => From::Repeat(at + 1),
            same => same,
        }
    }
}

/// Makes the delta and writes it to a file.
pub(crate) fn make(old: &Path, new: &Path, delta: &Path) -> Result<(), Error> {
    let read = |path: &Path| fs::read(path).map_err(Error::io("read", path));
    let (held, old) = without_zeros(&read(old)?);
    let (map, new) = map(&held, &read(new)?);
    drop(held);
    let file = File::create(delta).map_err(Error::io("create", delta))?;
    compress(file, &map, &old, &new).map_err(Error::io("write", delta))
}

/// Compresses map and patch one after the other.
fn compress(mut file: File, map: &[u8], old: &[u8], new: &[u8]) -> io::Result<()> {
    file.write_all(&zstd::bulk::compress(map, LEVEL)?)?;
    let mut packed = zstd::Encoder::new(file, LEVEL)?;
    packed.window_log(WINDOW_LOG)?;
    packed.long_distance_matching(true)?;
    let params = bidiff::DiffParams::new(1, Some(SCAN_BYTES)).map_err(io::Error::other)?;
    bidiff::simple_diff_with_params(old, new, &mut packed, &params)?;
    packed.finish()?.flush()
}

fn digest(block: &[u8]) -> [u8; 32] {
    Sha256::digest(block).into()
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// Where each block of an image stands first, and the image without blocks of zeros.
fn without_zeros(image: &[u8]) -> (HashMap<[u8; 32], u32>, Vec<u8>) {
    let (mut held, mut rest) = (HashMap::new(), Vec::new());
    for (at, block) in (0..).zip(image.chunks(BLOCK_BYTES)) {
        if !is_zero(block) {
            held.entry(digest(block)).or_insert(at);
            rest.extend_from_slice(block);
        }
    }
    (held, rest)
}

/// The map of an image, nine bytes for each run, and its new blocks.
fn map(held: &HashMap<[u8; 32], u32>, image: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut seen, mut new, mut runs) = (HashMap::new(), Vec::new(), Vec::<(From, u32)>::new());
    let mut expected = None;
    for (at, block) in (0..).zip(image.chunks(BLOCK_BYTES)) {
        let from = if is_zero(block) {
            From::Zero
        } else {
            let digest = digest(block);
            match (held.get(&digest), seen.entry(digest)) {
                (Some(&old), _) => From::Old(old),
                (None, Entry::Occupied(first)) => From::Repeat(*first.get()),
                (None, Entry::Vacant(first)) => {
                    first.insert(at);
                    new.extend_from_slice(block);
                    From::New
                }
            }
        };
        match runs.last_mut() {
            Some((_, length)) if expected == Some(from) => *length += 1,
            _ => runs.push((from, 1)),
        }
        expected = Some(from.next());
    }
    let mut map = Vec::new();
    for (from, length) in runs {
        let (kind, at): (u8, u32) = match from {
            From::Zero => (0, 0),
            From::Old(at) => (1, at),
            From::Repeat(at) => (2, at),
            From::New => (3, 0),
        };
        map.push(kind);
        map.extend_from_slice(&at.to_le_bytes());
        map.extend_from_slice(&length.to_le_bytes());
    }
    (map, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_has_runs_and_the_rest_is_new() {
        let block = |byte: u8| vec![byte; BLOCK_BYTES];
        let (held, rest) = without_zeros(&[block(1), block(0), block(2), block(3)].concat());
        assert_eq!(rest, [block(1), block(2), block(3)].concat());
        let image = [block(0), block(0), block(2), block(3), block(9), block(8), block(9)].concat();
        let (map, new) = map(&held, &image);
        assert_eq!(new, [block(9), block(8)].concat());
        let runs: Vec<(u8, u8, u8)> = map.chunks(9).map(|run| (run[0], run[1], run[5])).collect();
        assert_eq!(runs, [(0, 0, 2), (1, 2, 2), (3, 0, 2), (2, 4, 1)]);
    }
}
