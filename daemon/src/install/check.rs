//! Comparing what a device holds with a signed index, chunk by chunk, on every core.
//!
//! The one loop behind the scan of a target, the read-back after a flush and the verification of a slot before going back
//! to it. Each byte is read once, past the page cache where the device allows that, and hashed once where it was read to.
//! Chunks of zeros are only compared with zero: that is as strict and ten times as fast.

use std::sync::atomic::{AtomicBool, Ordering};

use otad_bundle::{ChunkKind, Digest, Hasher};

use super::progress::Progress;
use super::view::View;
use super::{Placed, Target, stopped, walk};
use crate::failure::{Act, Failure, from_slot};
use crate::ports::{StateFs, Stop};

/// Lanes take turns in stripes of this length, so that the device sees rising offsets, not two distant places.
const STRIPE_BYTES: u64 = 4 * 1024 * 1024;
/// One more than there are cores, so that all of them hash while the device reads.
const MORE_LANES: u64 = 1;
/// What zeros are compared with, by the piece.
static ZEROS: [u8; 4096] = [0; 4096];

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

/// Which chunks to look at.
#[derive(Clone, Copy)]
pub enum Extent<'a> {
    /// At every one.
    All,
    /// At these few.
    Picked(&'a (dyn Fn(&Placed) -> bool + Sync)),
}

/// What every lane of a check has in common.
struct Lanes<'a> {
    check: Check<'a>,
    target: &'a Target,
    head: &'a [u8],
    extent: Extent<'a>,
    verdict: &'a (dyn Fn(&Found<'_>) -> Result<(), Failure> + Sync),
    of: u64,
    broken: AtomicBool,
}

impl Check<'_> {
    /// Reads chunks and tells `verdict` what was found, from several threads at once. `head` stands in for the front of the
    /// image. Stops at the first error.
    pub fn run(
        &self,
        target: &Target,
        head: &[u8],
        extent: Extent<'_>,
        verdict: &(dyn Fn(&Found<'_>) -> Result<(), Failure> + Sync),
    ) -> Result<(), Failure> {
        let stripes = target.image.size.div_ceil(STRIPE_BYTES);
        let of = match (self.lanes, extent) {
            (0, _) | (_, Extent::Picked(_)) => 1,
            (lanes, Extent::All) => u64::try_from(lanes).unwrap_or(1).saturating_add(MORE_LANES).min(stripes),
        };
        let lanes = Lanes { check: *self, target, head, extent, verdict, of, broken: AtomicBool::new(false) };
        std::thread::scope(|scope| {
            let lanes = &lanes;
            let handles: Vec<_> = (1..of)
                .map(|number| {
                    std::thread::Builder::new()
                        .name("check".into())
                        .spawn_scoped(scope, move || lanes.run(number))
                })
                .collect();
            let first = lanes.run(0);
            handles.into_iter().fold(first, |result, handle| {
                let other = match handle {
                    Ok(handle) => handle.join().unwrap_or_else(|_| Err(crate::threads::panicked("check"))),
                    Err(error) => Err(crate::threads::not_started("check", &error)),
                };
                result.and(other)
            })
        })
    }
}

impl Lanes<'_> {
    fn run(&self, number: u64) -> Result<(), Failure> {
        self.look(number).inspect_err(|_| self.broken.store(true, Ordering::Relaxed))
    }

    fn look(&self, number: u64) -> Result<(), Failure> {
        let (check, target) = (&self.check, self.target);
        let read = |error: std::io::Error| from_slot(Act::Read, &target.place, &error);
        let mut view = View::new(target.device.reader().map_err(read)?, target.device.size());
        let mut zeros = Zeros::default();
        for placed in walk(check.fs, &target.image)? {
            let placed = placed?;
            let stripe = placed.plain / STRIPE_BYTES;
            // A picked chunk says nothing about its neighbours: nothing is read ahead.
            let ahead = match self.extent {
                _ if stripe % self.of != number => continue,
                Extent::Picked(wanted) if !wanted(&placed) => continue,
                Extent::Picked(_) => 0,
                Extent::All => ((stripe + 1) * STRIPE_BYTES).min(target.image.size),
            };
            if check.stop.requested() {
                return Err(stopped());
            }
            if self.broken.load(Ordering::Relaxed) {
                return Ok(());
            }
            let sha256 = self.hash(&mut view, &placed, ahead, &mut zeros).map_err(|error| {
                from_slot(Act::Read, &format!("{} at offset {}", target.place, placed.plain), &error)
            })?;
            (self.verdict)(&Found { placed: &placed, sha256 })?;
            check.progress.advance(placed.chunk.plain_len.into());
        }
        Ok(())
    }

    /// Hashes the place of a chunk.
    fn hash(
        &self,
        view: &mut View,
        placed: &Placed,
        ahead: u64,
        zeros: &mut Zeros,
    ) -> std::io::Result<Digest> {
        if placed.chunk.kind == ChunkKind::Zero {
            let mut zero = true;
            self.each(view, placed, ahead, |piece| zero = zero && is_zero(piece))?;
            if zero {
                return Ok(zeros.hash(placed.chunk.plain_len));
            }
        }
        let mut hasher = Hasher::new();
        self.each(view, placed, ahead, |piece| hasher.update(piece))?;
        Ok(hasher.finish())
    }

    /// Hands on the bytes of a chunk: the withheld head, which the device does not hold yet, and the rest from the device.
    fn each(
        &self,
        view: &mut View,
        placed: &Placed,
        ahead: u64,
        mut take: impl FnMut(&[u8]),
    ) -> std::io::Result<()> {
        let (start, end) = (placed.plain, placed.plain + u64::from(placed.chunk.plain_len));
        let within = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(self.head.len());
        let head = self.head.get(within(start)..within(end)).unwrap_or_default();
        if !head.is_empty() {
            take(head);
        }
        view.each(start + u64::try_from(head.len()).unwrap_or(0)..end, ahead, take)
    }
}

/// Remembers the hash of the last run of zeros: nearly all chunks of zeros have the same length.
#[derive(Default)]
struct Zeros(Option<(u32, Digest)>);

impl Zeros {
    fn hash(&mut self, length: u32) -> Digest {
        match self.0 {
            Some((known, hash)) if known == length => hash,
            Some(_) | None => {
                let hash = Digest::of(&vec![0; usize::try_from(length).unwrap_or(0)]);
                self.0 = Some((length, hash));
                hash
            }
        }
    }
}

/// Whether all bytes are zero; comparing pieces is what the C library does fastest.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|piece| ZEROS.get(..piece.len()) == Some(piece))
}
