//! The target as a source: which chunks it holds already.

use sha2::{Digest as _, Sha256};

use crate::failure::{Act, Failure, from_slot};
use crate::install::progress::Progress;
use crate::install::{Held, Placed, Target, stopped, walk};
use crate::ports::{StateFs, Stop};

/// Reads the whole target from the device and remembers which chunks are right.
pub fn scan(fs: &dyn StateFs, target: &mut Target, progress: &Progress, stop: &Stop) -> Result<(), Failure> {
    target.device.drop_caches().map_err(|error| from_slot(Act::Read, &target.place, &error))?;
    let mut held = Held::default();
    let mut buffer = Vec::new();
    for placed in walk(fs, &target.image)? {
        if stop.requested() {
            return Err(stopped());
        }
        let placed = placed?;
        held.push(matches(target, &placed, &mut buffer)?);
        progress.advance(placed.chunk.plain_len.into());
    }
    target.held = held;
    Ok(())
}

/// Whether the device holds the chunk at its place.
pub(crate) fn matches(target: &mut Target, placed: &Placed, buffer: &mut Vec<u8>) -> Result<bool, Failure> {
    read(target, placed, buffer)?;
    Ok(Sha256::digest(&*buffer)[..] == placed.chunk.sha256.0)
}

/// Reads the place of a chunk from the device.
pub(crate) fn read(target: &mut Target, placed: &Placed, buffer: &mut Vec<u8>) -> Result<(), Failure> {
    let length = usize::try_from(placed.chunk.plain_len).unwrap_or(usize::MAX);
    buffer.resize(length, 0);
    target.device.read_at(placed.plain, buffer).map_err(|error| {
        from_slot(Act::Read, &format!("{} at offset {}", target.place, placed.plain), &error)
    })
}
