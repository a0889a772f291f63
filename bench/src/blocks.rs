//! What RAUC's adaptive method (`block-hash-index`) would fetch, computed.
//!
//! It looks up every 4 KiB block of the new image in the index of what the device holds, and reads the others from the bundle:
//! a squashfs, of whose data blocks a whole one is fetched wherever one byte is needed. Its index, 32 bytes for each block of
//! the image, travels too. RAUC itself needs device-mapper and a network block device for this, which not every machine
//! that measures has. What travels beside data blocks and index (squashfs tables, signature, dm-verity tree) is not counted, to
//! its advantage.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// RAUC's unit.
const BLOCK_BYTES: usize = 4096;
/// What its index has for each.
const HASH_BYTES: u64 = 32;
/// The compression of all that is compared.
const LEVEL: i32 = 10;

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Data blocks of the squashfs.
    pub(crate) data_bytes: u64,
    /// The index.
    pub(crate) index_bytes: u64,
}

/// Computes it, for a squashfs with data blocks of this length.
pub(crate) fn fetched(old: &Path, new: &Path, squashfs_block_bytes: usize) -> Result<Fetched, Error> {
    let mut held: HashSet<[u8; 32]> = HashSet::new();
    // A block of zeros is never fetched.
    held.insert(Sha256::digest([0; BLOCK_BYTES]).into());
    for_each_piece(old, BLOCK_BYTES, |block| {
        held.insert(Sha256::digest(block).into());
        Ok(())
    })?;
    let mut fetched = Fetched { data_bytes: 0, index_bytes: 0 };
    for_each_piece(new, squashfs_block_bytes, |data| {
        let mut needed = false;
        for block in data.chunks(BLOCK_BYTES) {
            fetched.index_bytes += HASH_BYTES;
            // Once fetched, a block is held.
            needed |= held.insert(Sha256::digest(block).into());
        }
        if needed {
            let packed = zstd::bulk::compress(data, LEVEL)?.len();
            // Squashfs stores what does not get smaller as it is.
            fetched.data_bytes += packed.min(data.len()) as u64;
        }
        Ok(())
    })?;
    Ok(fetched)
}

fn for_each_piece(
    path: &Path,
    bytes: usize,
    mut act: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut piece = Vec::with_capacity(bytes);
    loop {
        piece.clear();
        let limit = bytes as u64;
        (&mut file).take(limit).read_to_end(&mut piece).map_err(Error::io("read", path))?;
        if piece.is_empty() {
            return Ok(());
        }
        act(&piece).map_err(Error::io("compress a piece of", path))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_neither_is_held_nor_zero_is_fetched() {
        let dir = std::env::temp_dir().join(format!("otad-bench-blocks-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (old, new) = (dir.join("old"), dir.join("new"));
        let noise = |seed: u64| -> Vec<u8> {
            (0..BLOCK_BYTES as u64 / 32)
                .flat_map(|n| Sha256::digest((seed << 32 | n).to_le_bytes()))
                .collect()
        };
        std::fs::write(&old, [noise(1), noise(2)].concat()).unwrap();
        // A data block of held blocks in another order, one of zeros, one with a new block, and one with it again.
        let zeros = vec![0; BLOCK_BYTES];
        std::fs::write(
            &new,
            [noise(2), noise(1), zeros.clone(), zeros.clone(), noise(3), zeros, noise(3), noise(1)].concat(),
        )
        .unwrap();
        let fetched = fetched(&old, &new, 2 * BLOCK_BYTES).unwrap();
        assert_eq!(fetched.index_bytes, 8 * HASH_BYTES);
        assert!((4096..4200).contains(&fetched.data_bytes), "{fetched:?}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
