//! Writing a prepared release to the target: steps 2 to 6 of the durability order ([`crate::install`]).
//!
//! # What happens to each byte
//! A chunk that the scan found on the target is skipped: its bytes are neither fetched nor written. Of any other chunk
//! the stored bytes are read once into a batch that goes round and hashed (a decoder sees nothing else), decrypted there if the bundle
//! is encrypted, decoded once to where
//! they are written from and hashed (nothing else is written), written once, past the page cache where the device allows
//! it, and after the flush read back once, past the cache too, and hashed where they were read to. Copied is only the part of
//! a page with which a batch ends, so that it is written with the rest of the page. Where most chunks were found on the target,
//! what lies in the place of the others is read before it is overwritten, and blocks of 4 KiB that are right already stay.
//! Runs of zeros are never fetched, decoded or hashed; the device is told to forget the range or to read as zeros, and what
//! it then returns is compared with zero.
//!
//! Reading, decoding with its two hashes, and writing overlap on all cores ([`super::flow`]), and so do reading back and
//! hashing ([`super::check`]). The read-back follows the flush of everything and does not overlap with writing: before the
//! flush it would prove nothing, and before the last write it would not see a device that stores one address in the place of
//! another. Memory: at most 4 MiB of batches under way, one batch and its stored bytes shared with each decoder, and 512 KiB of
//! stored chunks that come again; or 512 KiB for each reader; whatever the image.

use super::flow::Flow;
use super::prepare::{Context, Plan};
use super::progress::Phase;
use super::readback::{self, SyncedSlot};
use super::sources::Sources;
use super::view::View;
use super::writer::Writer;
use super::{Held, Placed, Target, kept, stopped, walk};
use crate::config::SlotName;
use crate::failure::{Act, Failure, from_slot};
use crate::lifecycle::event::Counts;
use crate::trial::BootControl;

/// What a finished write counted.
#[derive(Debug)]
pub struct Written {
    /// The proof that the slot is whole.
    pub synced: SyncedSlot,
    /// What it cost.
    pub counts: Counts,
    /// Plain bytes that another slot had.
    pub saved: u64,
}

/// Writes the plan to the target and proves it.
pub fn write(context: &Context<'_>, boot: &BootControl, plan: Plan) -> Result<Written, Failure> {
    let Plan { release, mut sources, mut targets } = plan;
    let (fs, progress, slot) = (context.fs, context.progress, &context.target.name);

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
    for (number, target) in targets.iter_mut().enumerate() {
        if target.held.is_empty() {
            // A pipe brings the index of a later image only now.
            kept::read(fs, number, &target.image, &mut sources.bundle)?;
        }
        heads.push(write_body(context, number, target, &mut sources)?);
        progress.wrote(target.head());
    }
    sources.bundle.finish()?;
    debug_assert_eq!(release.images.len(), targets.len());

    progress.begin(Phase::Flushing, 0);
    for target in &mut targets {
        flush(target)?;
    }
    progress.begin(Phase::ReadingBack, total);
    for (target, head) in targets.iter_mut().zip(&heads) {
        readback::bodies(context.check(), target, head)?;
    }
    let synced = write_heads(slot, &mut targets, &heads).inspect_err(|_| take_heads_back(&mut targets))?;
    progress.fetched(sources.fetched());
    Ok(Written { synced, counts: progress.counts(), saved: sources.saved })
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

/// Brings every chunk that the target lacks; returns the withheld head.
fn write_body(
    context: &Context<'_>,
    number: usize,
    target: &mut Target,
    sources: &mut Sources,
) -> Result<Vec<u8>, Failure> {
    let (progress, stop) = (context.progress, context.stop);
    let (image, head) = (target.image.clone(), target.head());
    let held = std::mem::take(&mut target.held);
    // What the scan found within the head is gone since: the head was zeroed.
    let still_there = |placed: &Placed| placed.plain >= head && held.get(placed.number);
    let is_missing = |placed: &Result<Placed, Failure>| !placed.as_ref().is_ok_and(&still_there);
    sources.expect(number, || Ok(walk(context.fs, &image)?.filter(is_missing)))?;
    let missing = walk(context.fs, &image)?.filter_map(|placed| {
        if stop.requested() {
            return Some(Err(stopped()));
        }
        match placed {
            Ok(placed) if still_there(&placed) => {
                progress.advance(placed.chunk.plain_len.into());
                progress.unchanged(placed.chunk.plain_len.into());
                None
            }
            other => Some(other),
        }
    });
    let before = before(target, &held)?;
    let mut writer = Writer::new(target, before, progress);
    let seal = sources.bundle.bundle().seal(number);
    Flow { number, image: &image, seal, decoders: context.decoders, lanes: context.lanes, progress, stop }
        .run(missing, sources, &mut writer)?;
    writer.finish()
}

/// A view of what the target holds, where most chunks are there already: then those that are not have blocks that are, and few
/// bytes have to be read to spare them. A target that holds something else is not read again for nothing.
fn before(target: &Target, held: &Held) -> Result<Option<View>, Failure> {
    if 2 * held.count() < target.chunks() {
        return Ok(None);
    }
    let reader = target.device.reader().map_err(|error| from_slot(Act::Read, &target.place, &error))?;
    Ok(Some(View::new(reader, target.device.size())))
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
