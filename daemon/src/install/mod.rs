//! One install, from an open source to a synced slot.
//!
//! [`prepare`] changes nothing on disk outside the data directory; [`pipeline`] writes. The stages are plain functions
//! over ports: the daemon runs them on one thread ([`worker`]), a simulator runs them inline.
//!
//! # The durability order
//! 1. Scan the target read-only; if it holds the image already, go to 7.
//! 2. Disarm the target: one environment transaction, flushed and read back.
//! 3. Zero the heads (first 128 KiB) of every image of the target, the front page first; flush. A dirty slot cannot be
//!    loaded by anybody.
//! 4. Write the bodies; flush, once; any error of a flush is final for this attempt.
//! 5. Drop caches and read the bodies back against the signed hashes.
//! 6. Write the heads, the image that the boot loader loads last, the front page of each when all the rest of it is
//!    durable; flush; read back. The slot is now synced.
//! 7. Where configured: the new system tests itself in a sandbox, on the device set read-only.
//! 8. Persist the record.
//! 9. Arm: one environment transaction, flushed and read back. This is the only commit point.
//! 10. Reboot.
//!
//! Steps 1 to 7 are here; 8 to 10 are effects of the lifecycle.

pub mod batch;
pub mod check;
pub mod flow;
pub mod kept;
pub mod pipeline;
pub mod prepare;
pub mod progress;
pub mod readback;
pub mod sources;
pub mod view;
pub mod worker;
pub mod writer;

use std::sync::atomic::{AtomicU8, Ordering};

use otad_bundle::{Chunk, Image, IndexReader, RECORD_BYTES};

use crate::failure::{self, Code, Failure};
use crate::ports::{SlotDevice, StateFs};

/// How much of the front of every image is withheld until everything else is verified: it covers every boot loader
/// header and file system superblock in use (ext4's lies at 1 KiB, btrfs's at 64 KiB, a FIT's header at 0).
pub const HEAD_BYTES: u64 = 128 * 1024;

/// The part of the head that is zeroed first and written last, each time with a flush between it and the rest: what boot
/// loaders and file systems check first (a FIT header at 0, ext4's and squashfs's superblocks) and small enough for a
/// device to write in one piece. A cut within the 124 KiB behind it leaves a slot that nobody loads, even when the boot
/// environment is lost in the same cut and the boot loader tries whatever it finds.
pub const FRONT_BYTES: u64 = 4096;

/// One image of the target slot, claimed.
pub struct Target {
    /// What goes into it.
    pub image: Image,
    /// The open device.
    pub device: Box<dyn SlotDevice>,
    /// For messages: role, slot and path.
    pub place: String,
    /// One bit per chunk: the scan found it there already.
    pub held: Held,
}

impl Target {
    /// Length of the withheld head.
    pub fn head(&self) -> u64 {
        HEAD_BYTES.min(self.image.size)
    }

    /// How many chunks the image has.
    pub fn chunks(&self) -> u64 {
        self.image.index.size / RECORD_BYTES as u64
    }

    /// Length of its front page.
    pub fn front(&self) -> u64 {
        FRONT_BYTES.min(self.image.size)
    }
}

/// Which chunks the target holds: one bit each, 32 KiB for a 16 GiB image of 64 KiB chunks. Set by several threads.
#[derive(Debug, Default)]
pub struct Held {
    bits: Vec<AtomicU8>,
    of: u64,
}

impl Held {
    /// None of so many chunks is held.
    pub fn none_of(chunks: u64) -> Self {
        let bytes = usize::try_from(chunks.div_ceil(8)).unwrap_or(0);
        Held { bits: std::iter::repeat_with(AtomicU8::default).take(bytes).collect(), of: chunks }
    }

    /// The chunk of that number is there.
    pub fn set(&self, number: u64) {
        if let Some(byte) = usize::try_from(number / 8).ok().and_then(|at| self.bits.get(at)) {
            byte.fetch_or(1 << (number % 8), Ordering::Relaxed);
        }
    }

    /// Whether the chunk of that number is there.
    pub fn get(&self, number: u64) -> bool {
        let byte = usize::try_from(number / 8).ok().and_then(|at| self.bits.get(at));
        byte.is_some_and(|byte| byte.load(Ordering::Relaxed) & (1 << (number % 8)) != 0)
    }

    /// How many are there.
    pub fn count(&self) -> u64 {
        self.bits.iter().map(|byte| u64::from(byte.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// Whether nothing was looked at yet.
    pub fn is_empty(&self) -> bool {
        self.of == 0
    }

    /// Whether every chunk is there.
    pub fn all(&self) -> bool {
        self.of > 0 && self.count() == self.of
    }
}

/// A chunk and where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    /// Its record.
    pub chunk: Chunk,
    /// Its number in the image.
    pub number: u64,
    /// Offset of its plain bytes in the image.
    pub plain: u64,
    /// Offset of its stored bytes in the payload.
    pub stored: u64,
}

/// Name of a kept chunk index in the data directory.
pub fn index_name(image: &Image) -> String {
    format!("index/{}", image.index.sha256)
}

/// Walks a kept index front to back, in a window of constant size.
pub fn walk(
    fs: &dyn StateFs,
    image: &Image,
) -> Result<impl Iterator<Item = Result<Placed, Failure>> + use<>, Failure> {
    let name = index_name(image);
    let file = fs.open(&name).map_err(|error| failure::from_state("read", name.as_ref(), &error))?;
    let reader = IndexReader::new(file, image);
    let failed = move |error: otad_bundle::Error| match &error {
        // It is our own copy that cannot be read, not the bundle.
        otad_bundle::Error::Read { source, .. } => failure::from_state("read", name.as_ref(), source),
        _ => failure::from_bundle(&error),
    };
    let (mut number, mut plain, mut stored) = (0, 0, 0);
    Ok(reader.map(move |chunk| {
        let chunk = chunk.map_err(&failed)?;
        let placed = Placed { chunk, number, plain, stored };
        number += 1;
        plain += u64::from(chunk.plain_len);
        stored += u64::from(chunk.stored_len);
        Ok(placed)
    }))
}

/// The failure of a job that was asked to stop.
pub fn stopped() -> Failure {
    Failure::new(Code::Cancelled, "cancelled on request")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_counts_and_finds_bits() {
        assert!(Held::default().is_empty() && !Held::default().all());
        let held = Held::none_of(19);
        assert!(!held.all());
        (0..19).filter(|n| n % 3 == 0).for_each(|n| held.set(n));
        assert_eq!(held.count(), 7);
        assert!((0..19).all(|n| held.get(n) == (n % 3 == 0)));
        assert!(!held.get(19) && !held.get(1 << 40) && !held.all());
    }
}
