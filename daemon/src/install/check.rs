//! Comparing what a device holds with a signed index, chunk by chunk, on every core.
//!
//! The one loop behind the scan of a target, the read-back after a flush and the verification of a slot before going back
//! to it. Each byte is read once, past the page cache where the device allows that, and hashed once. Chunks of zeros
//! are only compared with zero: that is as strict and ten times as fast.

use std::sync::atomic::{AtomicBool, Ordering};

use otad_bundle::{ChunkKind, Digest};

use super::progress::Progress;
use super::{Placed, Target, stopped, walk};
use crate::failure::{Act, Failure, from_slot};
use crate::ports::{SlotReader, StateFs, Stop};

/// Lanes take turns in stripes of this length, so that the device sees rising offsets, not two distant places.
const STRIPE_BYTES: u64 = 4 * 1024 * 1024;

/// What a check needs of the world.
#[derive(Clone, Copy)]
pub struct Check<'a> {
    /// Where the kept indexes are.
    pub fs: &'a dyn StateFs,
    /// Threads to use; 0 stands for this one alone.
    pub lanes: usize,
    /// Is told of every chunk.
    pub progress: &'a Progress,
    /// Whether somebody asked to stop.
    pub stop: &'a Stop,
}

/// A chunk as it was found.
pub struct Found<'a> {
    /// The chunk.
    pub placed: &'a Placed,
    /// Hash of the bytes at its place.
    pub sha256: Digest,
}

impl Found<'_> {
    /// Whether the device holds the chunk.
    pub fn is_right(&self) -> bool {
        self.sha256 == self.placed.chunk.sha256
    }
}

impl Check<'_> {
    /// Reads every chunk that `wanted` and tells `verdict` what was found, from several threads at once. `head` stands in
    /// for the front of the image. Stops at the first error.
    pub fn run(
        &self,
        target: &Target,
        head: &[u8],
        wanted: &(dyn Fn(&Placed) -> bool + Sync),
        verdict: &(dyn Fn(&Found<'_>) -> Result<(), Failure> + Sync),
    ) -> Result<(), Failure> {
        let broken = AtomicBool::new(false);
        let lane = |number: u64, of: u64| {
            let mine = |placed: &Placed| placed.plain / STRIPE_BYTES % of == number && wanted(placed);
            self.lane(target, head, &mine, verdict, &broken)
                .inspect_err(|_| broken.store(true, Ordering::Relaxed))
        };
        let lanes = u64::try_from(self.lanes).unwrap_or(1).min(target.image.size.div_ceil(STRIPE_BYTES));
        if lanes < 2 {
            return lane(0, 1);
        }
        std::thread::scope(|scope| {
            let lane = &lane;
            let handles: Vec<_> = (1..lanes)
                .map(|number| {
                    std::thread::Builder::new()
                        .name("check".into())
                        .spawn_scoped(scope, move || lane(number, lanes))
                })
                .collect();
            let first = lane(0, lanes);
            handles.into_iter().fold(first, |result, handle| {
                let other = match handle {
                    Ok(handle) => handle.join().unwrap_or_else(|_| Err(crate::threads::panicked("check"))),
                    Err(error) => Err(crate::threads::not_started("check", &error)),
                };
                result.and(other)
            })
        })
    }

    fn lane(
        &self,
        target: &Target,
        head: &[u8],
        mine: &dyn Fn(&Placed) -> bool,
        verdict: &(dyn Fn(&Found<'_>) -> Result<(), Failure> + Sync),
        broken: &AtomicBool,
    ) -> Result<(), Failure> {
        let read = |error: std::io::Error| from_slot(Act::Read, &target.place, &error);
        let mut reader = target.device.reader().map_err(read)?;
        let (mut buffer, mut zeros) = (Vec::new(), Zeros::default());
        for placed in walk(self.fs, &target.image)? {
            let placed = placed?;
            if !mine(&placed) {
                continue;
            }
            if self.stop.requested() {
                return Err(stopped());
            }
            if broken.load(Ordering::Relaxed) {
                return Ok(());
            }
            read_chunk(target, &mut *reader, &placed, &mut buffer)?;
            overlay(&placed, head, &mut buffer);
            let sha256 = zeros.hash(&placed, &buffer);
            verdict(&Found { placed: &placed, sha256 })?;
            self.progress.advance(placed.chunk.plain_len.into());
        }
        Ok(())
    }
}

/// Reads the place of a chunk from the device.
fn read_chunk(
    target: &Target,
    reader: &mut dyn SlotReader,
    placed: &Placed,
    buffer: &mut Vec<u8>,
) -> Result<(), Failure> {
    let length = usize::try_from(placed.chunk.plain_len).unwrap_or(usize::MAX);
    buffer.resize(length, 0);
    reader.read_at(placed.plain, buffer).map_err(|error| {
        from_slot(Act::Read, &format!("{} at offset {}", target.place, placed.plain), &error)
    })
}

/// Puts the withheld head over the zeros that are on the device.
fn overlay(placed: &Placed, head: &[u8], buffer: &mut [u8]) {
    let Some(part) = usize::try_from(placed.plain).ok().and_then(|at| head.get(at..)) else { return };
    let length = part.len().min(buffer.len());
    if let (Some(into), Some(from)) = (buffer.get_mut(..length), part.get(..length)) {
        into.copy_from_slice(from);
    }
}

/// Remembers the hash of the last run of zeros: nearly all chunks of zeros have the same length.
#[derive(Default)]
struct Zeros(Option<(usize, Digest)>);

impl Zeros {
    fn hash(&mut self, placed: &Placed, bytes: &[u8]) -> Digest {
        if placed.chunk.kind != ChunkKind::Zero || !is_zero(bytes) {
            return Digest::of(bytes);
        }
        match self.0 {
            Some((length, hash)) if length == bytes.len() => hash,
            Some(_) | None => {
                let hash = Digest::of(bytes);
                self.0 = Some((bytes.len(), hash));
                hash
            }
        }
    }
}

/// Whether all bytes are zero, many at a time.
fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}
