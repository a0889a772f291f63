//! Which states are tried, out of the many that there could have been.
//!
//! *Boundaries*: for every flush of the disk the state right after it and four states right before it (everything pending
//! stored, some of it, reordered, torn; nothing stored is the state after the flush before); for every save of the
//! environment the states before, after, and at several places within it. *Samples*: any moment with any fate. Phases are
//! told by the card: how many saves of the environment were complete, and whether one was under way.

use std::collections::BTreeSet;
use std::fmt;

use super::chance::Chance;
use super::log::{Act, Log};
use super::order::Moment;
use super::state::{FATES, Fate, State, Stored, pending_on_card, pending_on_disk, runs, store};

/// Places within one save of the environment that are tried for each fate.
const PLACES_WITHIN_A_SAVE: u64 = 3;

/// What a recording knows, as far as planning needs it.
#[derive(Debug)]
pub struct Recorded<'a> {
    /// What the disk was told.
    pub disk: &'a Log,
    /// What the card was told.
    pub card: &'a Log,
    /// Moments that certainly were, in order.
    pub moments: &'a [Moment],
}

/// Where in the update a moment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phase {
    /// Saves of the environment that were complete.
    pub saves: usize,
    /// Whether another one was under way.
    pub is_saving: bool,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_saving {
            write!(f, "within save {}", self.saves + 1)
        } else {
            write!(f, "after {} saves", self.saves)
        }
    }
}

impl Recorded<'_> {
    /// Where a moment is.
    pub fn phase(&self, moment: Moment) -> Phase {
        let count = usize::try_from(moment.card).unwrap_or(usize::MAX);
        let saves = runs(self.card).iter().filter(|run| run.end <= count).count();
        let (_, pending) = pending_on_card(self.card, moment.card);
        Phase { saves, is_saving: !pending.is_empty() }
    }

    /// What the two drives hold in a state.
    pub fn stored(&self, state: &State) -> (Stored, Stored) {
        let (durable, pending) = pending_on_disk(self.disk, state.moment.disk);
        let disk = store(self.disk, durable, pending, state.fate, state.seed);
        let (durable, pending) = pending_on_card(self.card, state.moment.card);
        // Another seed for the card: fates of the two drives have nothing to do with each other.
        (disk, store(self.card, durable, pending, state.fate, !state.seed))
    }

    /// Every boundary; states that hold the same are one.
    pub fn boundaries(&self, seed: u64) -> Vec<State> {
        let mut chance = Chance::new(seed);
        let mut found = Distinct::default();
        let mut disk_seen = BTreeSet::new();
        let saves = runs(self.card);
        for moment in self.moments.iter().copied() {
            let is_first = disk_seen.insert(moment.disk);
            if is_first && self.is_behind_flush(moment) {
                found.add(self, State { moment, fate: Fate::All, seed: 0 });
            }
            if is_first && self.is_before_flush(moment) {
                for fate in [Fate::All, Fate::Some, Fate::Reordered, Fate::Torn] {
                    found.add(self, with_seed(moment, fate, &mut chance));
                }
            }
            let card = usize::try_from(moment.card).unwrap_or(usize::MAX);
            if saves.iter().any(|run| run.start == card || run.end == card) {
                found.add(self, State { moment, fate: Fate::All, seed: 0 });
            }
        }
        for run in saves {
            let within: Vec<Moment> = self
                .moments
                .iter()
                .copied()
                .filter(|moment| {
                    usize::try_from(moment.card).is_ok_and(|card| card > run.start && card < run.end)
                })
                .collect();
            for fate in FATES {
                for _ in 0..PLACES_WITHIN_A_SAVE {
                    if let Some(moment) = within.get(chance.place(within.len())).copied() {
                        found.add(self, with_seed(moment, fate, &mut chance));
                    }
                }
            }
        }
        found.states
    }

    /// So many more states by chance, the phases in turn, none of which is among those that are known.
    pub fn samples(&self, count: usize, seed: u64, known: &[State]) -> Vec<State> {
        let mut chance = Chance::new(seed ^ 0x5a17);
        let mut found = Distinct::default();
        for state in known {
            found.add(self, *state);
        }
        let phases: BTreeSet<Phase> = self.moments.iter().map(|moment| self.phase(*moment)).collect();
        let of_phases: Vec<Vec<Moment>> = phases
            .iter()
            .map(|phase| {
                self.moments.iter().copied().filter(|moment| self.phase(*moment) == *phase).collect()
            })
            .collect();
        let begin = found.states.len();
        // A phase may be so short that it has no more states: then its turn brings nothing.
        let most_tries = count.saturating_mul(20) + of_phases.len();
        let mut turn = 0;
        while found.states.len() < begin + count && turn < most_tries {
            let Some(moments) = of_phases.get(turn.checked_rem(of_phases.len()).unwrap_or_default()) else {
                break;
            };
            turn += 1;
            let fate = FATES.get(chance.place(FATES.len())).copied().unwrap_or(Fate::All);
            if let Some(moment) = moments.get(chance.place(moments.len())) {
                found.add(self, with_seed(*moment, fate, &mut chance));
            }
        }
        found.states.split_off(begin)
    }

    fn is_behind_flush(&self, moment: Moment) -> bool {
        let last = usize::try_from(moment.disk).ok().and_then(|count| count.checked_sub(1));
        last.and_then(|last| self.disk.entries.get(last)).is_some_and(|entry| entry.act == Act::Flush)
    }

    fn is_before_flush(&self, moment: Moment) -> bool {
        let next = usize::try_from(moment.disk).ok().and_then(|count| self.disk.entries.get(count));
        next.is_some_and(|entry| entry.act == Act::Flush)
    }
}

fn with_seed(moment: Moment, fate: Fate, chance: &mut Chance) -> State {
    // Short enough to be typed.
    const SEEDS: u64 = 1 << 24;
    let seed = match fate {
        Fate::All | Fate::None => 0,
        Fate::Some | Fate::Reordered | Fate::Torn => 1 + chance.below(SEEDS),
    };
    State { moment, fate, seed }
}

/// States that hold different things.
#[derive(Default)]
struct Distinct {
    held: BTreeSet<(Holding, Holding)>,
    states: Vec<State>,
}

type Holding = (usize, Vec<(usize, u64)>);

impl Distinct {
    fn add(&mut self, recorded: &Recorded<'_>, state: State) {
        let (disk, card) = recorded.stored(&state);
        let [disk, card] = [disk, card].map(|stored| (stored.durable, stored.kept));
        if self.held.insert((disk, card)) {
            self.states.push(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::log::{Entry, Log};
    use super::super::order::Moment;
    use super::super::state::Fate;
    use super::Recorded;

    fn logs() -> (Log, Log) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/blklogwrites.log");
        let (disk, mut card) = (Log::open(Path::new(path)).unwrap(), Log::open(Path::new(path)).unwrap());
        let write = card.entries[0];
        card.entries = (10..14).chain(40..44).map(|sector| Entry { sector, sectors: 1, ..write }).collect();
        (disk, card)
    }

    #[test]
    fn boundaries_are_distinct_and_cover_every_flush_and_every_save() {
        let (disk, card) = logs();
        let moments: Vec<Moment> = (0..=4)
            .map(|disk| Moment { disk, card: 0 })
            .chain((1..=6).map(|card| Moment { disk: 4, card }))
            .chain((5..=9).map(|disk| Moment { disk, card: 6 }))
            .chain((7..=8).map(|card| Moment { disk: 9, card }))
            .collect();
        let recorded = Recorded { disk: &disk, card: &card, moments: &moments };
        let states = recorded.boundaries(1);
        let held: BTreeSet<String> =
            states.iter().map(|state| format!("{:?}", recorded.stored(state))).collect();
        assert_eq!(held.len(), states.len());
        for flushed in [2, 5, 7, 9] {
            assert!(
                states.iter().any(|state| state.moment.disk == flushed && state.fate == Fate::All),
                "after the flush at {flushed}: {states:?}"
            );
        }
        let phases: BTreeSet<String> =
            states.iter().map(|state| recorded.phase(state.moment).to_string()).collect();
        for phase in ["after 0 saves", "within save 1", "after 1 saves", "within save 2", "after 2 saves"] {
            assert!(phases.contains(phase), "{phase}: {phases:?}");
        }
        let more = recorded.samples(5, 3, &states);
        assert_eq!(more, recorded.samples(5, 3, &states));
        assert!(more.iter().all(|state| !states.contains(state)));
    }
}
