//! The target as a source: which chunks it holds already.

use otad_bundle::ChunkKind;

use crate::failure::{Act, Failure, from_slot};
use crate::install::check::{Check, Extent};
use crate::install::{Held, Placed, Target};

/// Chunks that are looked at before the whole target is read: spread evenly, so that a target that holds the front of the
/// image up to a hundredth (an interrupted install) or a similar release is noticed, and one that holds something else
/// costs milliseconds instead of a second read of everything.
const PROBES: u64 = 128;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At everything, if a few chunks show that it is worth it.
    Probe,
    /// At everything.
    Whole,
}

/// Reads the target from the device and remembers which chunks are right.
pub fn scan(check: Check<'_>, target: &mut Target, depth: Depth) -> Result<(), Failure> {
    target.device.drop_caches().map_err(|error| from_slot(Act::Read, &target.place, &error))?;
    let held = Held::none_of(target.chunks());
    let step = target.chunks().div_ceil(PROBES);
    if depth == Depth::Probe && step > 1 {
        // Zeros say nothing: every second device is full of them.
        let probed =
            |placed: &Placed| placed.number.is_multiple_of(step) && placed.chunk.kind != ChunkKind::Zero;
        find(check, target, Extent::Picked(&probed), &held)?;
        check.progress.rewind();
        if held.count() == 0 {
            target.held = held;
            return Ok(());
        }
    }
    find(check, target, Extent::All, &held)?;
    target.held = held;
    Ok(())
}

fn find(check: Check<'_>, target: &Target, extent: Extent<'_>, held: &Held) -> Result<(), Failure> {
    check.run(target, &[], extent, &|found| {
        if found.is_right() {
            held.set(found.placed.number);
        }
        Ok(())
    })
}
