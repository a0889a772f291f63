//! Finding where old bytes resemble new ones: anchors.
//!
//! An *anchor* is a window of 24 bytes whose hash has its low four bits zero: the content decides where anchors are, so the
//! same bytes have the same anchors wherever they stand (the rsync idea with a sampled hash instead of a grid). For every
//! anchor of the old bytes the index knows its pages; a piece of new bytes asks which few pages share most anchors with it.

use std::collections::BinaryHeap;
use std::num::NonZeroUsize;

use super::super::segment::PageRun;
use super::super::{PAGE_BYTES, PREFIX_PAGES};

/// Bytes under the hash: long enough to be rare in code, short enough to survive between two changes.
const WINDOW_BYTES: usize = 24;
/// One window in 16 is an anchor. Measured on two releases of Debian (23 MB of delta): one in 32 makes 1.4 % more of it, one in
/// 64 makes 2.1 % more; the index takes half of what the old bytes take.
const SAMPLE_MASK: u64 = 15;
/// Anchors on more pages than this say nothing.
const COMMON_PAGES: usize = 32;
/// A page that shares fewer anchors than this, which no better page has, is not worth reading: with one, deltas are 0.7 %
/// smaller, and devices read twice as much of the old bytes.
const WORTH_ANCHORS: usize = 2;
/// Buckets of the lookup table: 2^20 of four bytes.
const BUCKET_BITS: u32 = 20;

/// The anchors of the old bytes.
pub(super) struct Anchors {
    /// Hash in the upper half, page in the lower; sorted and distinct.
    entries: Vec<u64>,
    /// Where each bucket, the upper bits of the hash, starts.
    buckets: Vec<u32>,
}

impl Anchors {
    /// Indexes the old bytes with so many threads.
    pub(super) fn of(old: &[u8], threads: NonZeroUsize) -> Anchors {
        let share = old.len().div_ceil(PAGE_BYTES).div_ceil(threads.get()).max(1) * PAGE_BYTES;
        let mut entries = std::thread::scope(|scope| {
            let work = |(number, _): (usize, &[u8])| scope.spawn(move || scan(old, number * share, share));
            let workers: Vec<_> = old.chunks(share).enumerate().map(work).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect::<Vec<_>>()
        });
        entries.sort_unstable();
        entries.dedup();
        let mut buckets = vec![0u32; (1 << BUCKET_BITS) + 1];
        for entry in &entries {
            if let Some(count) = buckets.get_mut(bucket(*entry) + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut buckets {
            sum += *start;
            *start = sum;
        }
        Anchors { entries, buckets }
    }

    /// Pages on which an anchor is, unless it is on too many.
    fn pages(&self, anchor: u32) -> impl Iterator<Item = u32> {
        let number = bucket(u64::from(anchor) << 32);
        let limits = self.buckets.get(number).zip(self.buckets.get(number + 1));
        let (start, end) = limits.map_or((0, 0), |(start, end)| (*start as usize, *end as usize));
        let bucket = self.entries.get(start..end).unwrap_or_default();
        let first = bucket.partition_point(|&entry| entry >> 32 < u64::from(anchor));
        let behind = bucket.partition_point(|&entry| entry >> 32 <= u64::from(anchor));
        let found = bucket.get(first..behind).filter(|found| found.len() <= COMMON_PAGES).unwrap_or_default();
        found.iter().map(|&entry| low(entry))
    }

    /// The pages that together share most anchors with `piece`, ascending.
    pub(super) fn choose(&self, piece: &[u8]) -> Vec<PageRun> {
        let mut anchors = Vec::new();
        each_anchor(piece, |_, anchor| anchors.push(anchor));
        anchors.sort_unstable();
        anchors.dedup();
        // (page, number of the anchor), sorted: the anchors of a page follow each other.
        let mut votes: Vec<(u32, usize)> = Vec::new();
        for (number, &anchor) in anchors.iter().enumerate() {
            votes.extend(self.pages(anchor).map(|page| (page, number)));
        }
        votes.sort_unstable();
        let ballots: Vec<_> = votes.chunk_by(|one, other| one.0 == other.0).collect();
        let mut covered = vec![false; anchors.len()];
        let gain = |ballot: &[(u32, usize)], covered: &[bool]| {
            ballot.iter().filter(|(_, anchor)| !covered.get(*anchor).copied().unwrap_or(true)).count()
        };
        // The gain of a page only falls while others are taken, so an outdated gain is an upper bound.
        let mut heap: BinaryHeap<_> =
            ballots.iter().enumerate().map(|(number, ballot)| (ballot.len(), number)).collect();
        let mut pages = Vec::new();
        while let Some((bound, number)) = heap.pop() {
            if bound < WORTH_ANCHORS || pages.len() == PREFIX_PAGES {
                break;
            }
            let Some(ballot) = ballots.get(number) else { break };
            let now = gain(ballot, &covered);
            if now < bound {
                heap.push((now, number));
                continue;
            }
            for (page, anchor) in ballot.iter() {
                if let Some(covered) = covered.get_mut(*anchor) {
                    *covered = true;
                }
                if pages.last() != Some(page) {
                    pages.push(*page);
                }
            }
        }
        runs(pages)
    }
}

fn runs(mut pages: Vec<u32>) -> Vec<PageRun> {
    pages.sort_unstable();
    let mut runs: Vec<PageRun> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.first + run.pages == page => run.pages += 1,
            _ => runs.push(PageRun { first: page, pages: 1 }),
        }
    }
    runs
}

/// The entries of the pages that start in `old[start..start + length]`; windows may end behind it.
fn scan(old: &[u8], start: usize, length: usize) -> Vec<u64> {
    let end = (start + length + WINDOW_BYTES - 1).min(old.len());
    let mut entries = Vec::new();
    each_anchor(old.get(start..end).unwrap_or_default(), |offset, anchor| {
        let page = (start + offset) / PAGE_BYTES;
        let entry = u64::from(anchor) << 32 | page as u64;
        // Runs of equal bytes have the same anchor again and again.
        if entries.last() != Some(&entry) {
            entries.push(entry);
        }
    });
    entries
}

fn bucket(entry: u64) -> usize {
    (entry >> (64 - BUCKET_BITS)) as usize
}

fn low(entry: u64) -> u32 {
    u32::try_from(entry & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// Calls `found` with the offset and the upper hash of every anchor.
fn each_anchor(bytes: &[u8], mut found: impl FnMut(usize, u32)) {
    let parts = bytes.iter().zip(bytes.iter().skip(8)).zip(bytes.iter().skip(16));
    // The last eight bytes of each third of the window, shifted along.
    let (mut one, mut two, mut three) = (0u64, 0u64, 0u64);
    for (end, ((&first, &second), &third)) in parts.enumerate() {
        one = one >> 8 | u64::from(first) << 56;
        two = two >> 8 | u64::from(second) << 56;
        three = three >> 8 | u64::from(third) << 56;
        let hash = mix(one, two, three);
        if hash & SAMPLE_MASK == 0
            && let Some(offset) = end.checked_sub(7)
        {
            found(offset, low(hash >> 32));
        }
    }
}

/// Odd constants of xxHash; three rounds spread every byte over the upper half.
fn mix(one: u64, two: u64, three: u64) -> u64 {
    let mut hash = one.wrapping_mul(0x9e37_79b1_85eb_ca87);
    hash = (hash ^ hash >> 29).wrapping_add(two.wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
    hash = (hash ^ hash >> 31).wrapping_add(three).wrapping_mul(0x1656_67b1_9e37_79f9);
    hash ^ hash >> 32
}
