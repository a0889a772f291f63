//! Which writes a power cut leaves: what is durable, what was pending, and what becomes of it.
//!
//! **The disk** has a cache: what was written since the last flush is *pending*, and a cut may keep any of it, in any
//! order, and half of a write. **The card** has none that anybody could flush: SD cards acknowledge a write when it is
//! stored, and neither Linux nor U-Boot sends more. So on the card only the write that is under way is pending: QEMU logs
//! it sector by sector, and a run of sectors that follow one another is one copy of the environment being saved. While such a
//! run is not complete, any of its sectors may be there; once it is, all are.

use std::fmt;

use super::chance::Chance;
use super::log::{Act, Entry, Log};
use super::order::Moment;

/// What becomes of pending writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// All are kept: the cut of a machine whose cache survives.
    All,
    /// None is kept.
    None,
    /// Each is kept or not, by chance.
    Some,
    /// They are stored in another order, and the power goes somewhere in it.
    Reordered,
    /// The last one is stored up to some sector; the others are kept or not, by chance.
    Torn,
}

/// All of them.
pub const FATES: [Fate; 5] = [Fate::All, Fate::None, Fate::Some, Fate::Reordered, Fate::Torn];

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::All => "all",
            Fate::None => "none",
            Fate::Some => "some",
            Fate::Reordered => "reordered",
            Fate::Torn => "torn",
        })
    }
}

/// A cut: when, and what it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// How much each drive had been told.
    pub moment: Moment,
    /// What became of what was pending.
    pub fate: Fate,
    /// The seed of what is left to chance; 0 where nothing is.
    pub seed: u64,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.moment.disk, self.moment.card, self.fate)?;
        if self.seed != 0 { write!(f, "-{:x}", self.seed) } else { Ok(()) }
    }
}

/// What of a log is stored: everything up to `durable`, then these, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Entries that are stored whole, counted from the first.
    pub durable: usize,
    /// Entries behind, and how many of their sectors.
    pub kept: Vec<(usize, u64)>,
}

/// The entries of a log that are pending when it has `count` entries, on a drive with a cache: those after the last flush.
pub fn pending_on_disk(log: &Log, count: u64) -> (usize, Vec<usize>) {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(log.entries.len());
    let told = log.entries.get(..count).unwrap_or_default();
    let durable = told.iter().rposition(|entry| entry.act == Act::Flush).map_or(0, |flush| flush + 1);
    (durable, (durable..count).collect())
}

/// The same on a card: the run of sectors that was under way.
pub fn pending_on_card(log: &Log, count: u64) -> (usize, Vec<usize>) {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(log.entries.len());
    let goes_on = |index: usize| {
        let pair = index.checked_sub(1).and_then(|before| log.entries.get(before..=index));
        matches!(pair, Some([before, after]) if follows(before, after))
    };
    if !goes_on(count) {
        return (count, Vec::new());
    }
    let mut begin = count;
    while begin > 0 && goes_on(begin) {
        begin -= 1;
    }
    (begin, (begin..count).collect())
}

/// The runs of a card's log: each is one copy of the environment being saved.
pub fn runs(log: &Log) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for index in 0..log.entries.len() {
        match runs.last_mut() {
            Some(run)
                if log
                    .entries
                    .get(index - 1..=index)
                    .is_some_and(|pair| matches!(pair, [before, after] if follows(before, after))) =>
            {
                run.end = index + 1;
            }
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

fn follows(before: &Entry, after: &Entry) -> bool {
    let both_write = [before, after].iter().all(|entry| matches!(entry.act, Act::Write { .. }));
    both_write && before.sector + before.sectors == after.sector
}

/// Decides what is stored of pending entries.
pub fn store(log: &Log, durable: usize, mut pending: Vec<usize>, fate: Fate, seed: u64) -> Stored {
    let mut chance = Chance::new(seed);
    let torn = pending.last().copied().filter(|_| fate == Fate::Torn);
    match fate {
        Fate::All => {}
        Fate::None => pending.clear(),
        Fate::Some => pending.retain(|_| chance.below(2) == 0),
        Fate::Torn => pending.retain(|entry| Some(*entry) == torn || chance.below(2) == 0),
        Fate::Reordered => {
            chance.shuffle(&mut pending);
            let length = chance.place(pending.len() + 1);
            pending.truncate(length);
        }
    }
    let sectors = |index: usize| log.entries.get(index).map_or(0, |entry| entry.sectors);
    let kept = pending.into_iter().map(|index| {
        let whole = sectors(index);
        // A write of one sector is stored or not; a longer one loses at least one sector.
        (index, if Some(index) == torn && whole > 1 { 1 + chance.below(whole - 1) } else { whole })
    });
    Stored { durable, kept: kept.collect() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::log::Log;
    use super::{FATES, Fate, pending_on_card, pending_on_disk, runs, store};

    fn golden() -> Log {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/blklogwrites.log");
        Log::open(Path::new(path)).unwrap()
    }

    #[test]
    fn a_flush_makes_everything_before_it_durable() {
        // write, flush, write, write, flush, discard, flush, write, flush
        let log = golden();
        let cases = [
            (0, 0, vec![]),
            (1, 0, vec![0]),
            (2, 2, vec![]),
            (4, 2, vec![2, 3]),
            (5, 5, vec![]),
            (99, 9, vec![]),
        ];
        for (count, durable, pending) in cases {
            assert_eq!(pending_on_disk(&log, count), (durable, pending), "{count}");
        }
    }

    #[test]
    fn a_card_has_only_the_run_under_way_pending() {
        let mut log = golden();
        let write = log.entries[0];
        log.entries = [10, 11, 12, 40, 41, 10]
            .iter()
            .map(|sector| super::Entry { sector: *sector, sectors: 1, ..write })
            .collect();
        assert_eq!(runs(&log), [0..3, 3..5, 5..6]);
        let cases = [
            (0, 0, vec![]),
            (1, 0, vec![0]),
            (2, 0, vec![0, 1]),
            (3, 3, vec![]),
            (4, 3, vec![3]),
            (5, 5, vec![]),
            (6, 6, vec![]),
        ];
        for (count, durable, pending) in cases {
            assert_eq!(pending_on_card(&log, count), (durable, pending), "{count}");
        }
    }

    #[test]
    fn every_fate_keeps_only_what_was_pending_and_is_the_same_again() {
        let log = golden();
        for fate in FATES {
            for seed in 0..50 {
                let stored = store(&log, 2, vec![2, 3], fate, seed);
                assert_eq!(stored, store(&log, 2, vec![2, 3], fate, seed));
                assert_eq!(stored.durable, 2);
                assert!(stored.kept.iter().all(|(index, sectors)| (*index == 2 && *sectors == 1)
                    || (*index == 3 && (1..=8).contains(sectors))));
                match fate {
                    Fate::All => assert_eq!(stored.kept, [(2, 1), (3, 8)]),
                    Fate::None => assert!(stored.kept.is_empty()),
                    Fate::Torn => {
                        assert!(stored.kept.iter().any(|(index, sectors)| *index == 3 && *sectors < 8))
                    }
                    Fate::Some | Fate::Reordered => {}
                }
            }
        }
        let kept: std::collections::BTreeSet<Vec<(usize, u64)>> =
            (0..50).map(|seed| store(&log, 2, vec![2, 3], Fate::Reordered, seed).kept).collect();
        assert!(kept.contains(&vec![(3, 8), (2, 1)]), "another order comes up: {kept:?}");
    }
}
