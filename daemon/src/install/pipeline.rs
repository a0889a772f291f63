//! Writing a prepared release to the target: steps 2 to 6 of the durability order ([`crate::install`]).
//!
//! # What happens to each byte
//! A chunk that the scan found on the target is skipped: its bytes are neither fetched nor written. Of any other chunk
//! the stored bytes are read once into a reused buffer and hashed, decoded once into a second one and hashed, copied
//! once into the writer's batch, written once, and read back and hashed once after the flush. Chunks of zeros are never
//! fetched or decoded; the device is told to read as zeros. Buffers are bounded by the largest chunk and the batch.

use super::prepare::{self, Context, Plan};
use super::progress::{Phase, Progress};
use super::readback::{self, SyncedSlot};
use super::sources::{ChunkSource, bundle::BundleSource};
use super::writer::Writer;
use super::{Placed, Target, stopped, walk};
use crate::config::SlotName;
use crate::failure::{Act, Failure, from_slot};
use crate::ports::{StateFs, Stop};
use crate::trial::BootControl;

/// What a finished write counted.
#[derive(Debug)]
pub struct Written {
    /// The proof that the slot is whole.
    pub synced: SyncedSlot,
    /// Bytes read from the source.
    pub fetched: u64,
    /// Bytes written to the slot, heads included.
    pub written: u64,
}

/// Writes the plan to the target and proves it.
pub fn write(context: &Context<'_>, boot: &BootControl, plan: Plan) -> Result<Written, Failure> {
    let Plan { release, mut source, mut targets } = plan;
    let (fs, progress, stop, slot) = (context.fs, context.progress, context.stop, &context.target.name);

    progress.begin(Phase::Disarming, 0);
    boot.disarm(slot)?;
    // The other way round than the heads come back: what the boot loader loads is gone before anything behind it is.
    for loaded in [true, false] {
        for target in targets.iter_mut().filter(|target| is_loaded(target) == loaded) {
            zero_head(target)?;
        }
    }

    let total = targets.iter().map(|target| target.image.size).sum();
    progress.begin(Phase::Writing, total);
    let mut heads = Vec::with_capacity(targets.len());
    let mut written = 0;
    for (number, target) in targets.iter_mut().enumerate() {
        if target.held.is_empty() {
            // A pipe brings the index of a later image only now.
            prepare::keep_index(fs, number, &target.image, &mut source)?;
        }
        let (head, bytes) = write_body(fs, number, target, &mut source, progress, stop)?;
        written += bytes + target.head();
        heads.push(head);
    }
    source.finish()?;
    debug_assert_eq!(release.images.len(), targets.len());

    progress.begin(Phase::Flushing, 0);
    for target in &mut targets {
        flush(target)?;
    }
    progress.begin(Phase::ReadingBack, total);
    for (target, head) in targets.iter_mut().zip(&heads) {
        readback::bodies(fs, target, head, progress, stop)?;
    }
    let synced = write_heads(slot, &mut targets, &heads).inspect_err(|_| take_heads_back(&mut targets))?;
    Ok(Written { synced, fetched: source.fetched(), written })
}

/// Makes the image unloadable by anybody until its head comes back (fault matrix, rule 2). The front page goes first: a
/// head of which only the back is zeroed would still be loaded.
fn zero_head(target: &mut Target) -> Result<(), Failure> {
    let (front, head) = (target.front(), target.head());
    for (from, to) in [(0, front), (front, head)].into_iter().filter(|(from, to)| from < to) {
        target.device.zero(from, to - from).map_err(|error| from_slot(Act::Write, &target.place, &error))?;
        flush(target)?;
    }
    Ok(())
}

fn flush(target: &mut Target) -> Result<(), Failure> {
    target.device.flush().map_err(|error| from_slot(Act::Flush, &target.place, &error))
}

fn write_body(
    fs: &dyn StateFs,
    number: usize,
    target: &mut Target,
    source: &mut BundleSource,
    progress: &Progress,
    stop: &Stop,
) -> Result<(Vec<u8>, u64), Failure> {
    let head = target.head();
    let mut writer = Writer::new(usize::try_from(head).unwrap_or(0));
    let mut plain = Vec::new();
    for placed in walk(fs, &target.image)? {
        if stop.requested() {
            return Err(stopped());
        }
        let placed = placed?;
        // What the scan found within the head is gone since: the head was zeroed.
        let still_there = placed.plain >= head && target.held.get(placed.number);
        if !still_there {
            write_chunk(number, &placed, target, source, &mut writer, &mut plain)?;
        }
        progress.fetched(source.fetched());
        progress.advance(placed.chunk.plain_len.into());
    }
    writer.finish(target)
}

fn write_chunk(
    image: usize,
    placed: &Placed,
    target: &mut Target,
    source: &mut dyn ChunkSource,
    writer: &mut Writer,
    plain: &mut Vec<u8>,
) -> Result<(), Failure> {
    if placed.chunk.kind == otad_bundle::ChunkKind::Zero {
        let length = usize::try_from(placed.chunk.plain_len).unwrap_or(usize::MAX);
        return writer.zero(target, placed.plain, length);
    }
    source.get(image, placed, plain)?;
    writer.put(target, placed.plain, plain)
}

/// Whether the boot loader itself loads this image, by its role.
fn is_loaded(target: &Target) -> bool {
    matches!(target.image.role.as_str(), "kernel" | "boot")
}

/// Writes the heads, the image that the boot loader loads last, and proves them.
fn write_heads(slot: &SlotName, targets: &mut [Target], heads: &[Vec<u8>]) -> Result<SyncedSlot, Failure> {
    for loaded in [false, true] {
        for (target, head) in targets.iter_mut().zip(heads).filter(|(target, _)| is_loaded(target) == loaded)
        {
            write_head(target, head)?;
        }
    }
    readback::heads(slot, targets, heads)
}

/// Zeros the heads again after one of them could not be written or did not read back: a slot that is not proved must
/// not be loadable, whatever becomes of the environment.
fn take_heads_back(targets: &mut [Target]) {
    for loaded in [true, false] {
        for target in targets.iter_mut().filter(|target| is_loaded(target) == loaded) {
            if let Err(failure) = zero_head(target) {
                log::error!("{}: {failure}; the slot stays disarmed", failure.code);
            }
        }
    }
}

/// Writes one head, its front page when the rest is durable.
fn write_head(target: &mut Target, head: &[u8]) -> Result<(), Failure> {
    let (front, rest) = head.split_at(head.len().min(usize::try_from(target.front()).unwrap_or(usize::MAX)));
    for (at, part) in [(target.front(), rest), (0, front)].into_iter().filter(|(_, part)| !part.is_empty()) {
        target.device.write_at(at, part).map_err(|error| from_slot(Act::Write, &target.place, &error))?;
        flush(target)?;
    }
    Ok(())
}
