//! The two ways to try states: a handful as a scenario, or as many as are wanted.

use std::path::Path;

use bootenv::scheme::SchemeKind;

use super::campaign::{Campaign, Tally, forget_others};
use super::plan::Recorded;
use super::recording::Recording;
use super::state::{Fate, State};
use super::trial::Bootable;
use crate::scenario::{Bench, Failure, Stage};

/// How many states, chosen how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Every boundary before the samples.
    pub boundaries: bool,
    /// Samples, all phases of the update in turn.
    pub samples: usize,
    /// The seed of the choice.
    pub seed: u64,
    /// Machines that run at once.
    pub machines: usize,
}

/// Records the update if need be, and tries states of it.
pub fn try_states(stage: &mut Stage<'_>, wanted: &Wanted) -> Result<Tally, Failure> {
    let root = stage.bench().directory().join("cuts");
    let recording = Recording::obtain(&root.join("recording"), stage)?;
    let recorded = Recorded { disk: &recording.disk, card: &recording.card, moments: &recording.moments };
    let boundaries = if wanted.boundaries { recorded.boundaries(wanted.seed) } else { Vec::new() };
    let mut states: Vec<State> = recorded.samples(wanted.samples, wanted.seed, &boundaries);
    stage.note(format!(
        "seed {}: {} boundaries and {} samples of {} moments ({} more have no certain order)",
        wanted.seed,
        boundaries.len(),
        states.len(),
        recording.moments.len(),
        recording.unseen
    ));
    states.extend(boundaries);
    let campaigns = root.join("campaigns");
    forget_others(&campaigns, &recording.id);
    let campaign = Campaign {
        recording: &recording,
        board: stage.board()?,
        directory: campaigns.join(&recording.id),
        machines: wanted.machines,
    };
    let tally = campaign.run(&states, wanted.seed)?;
    for line in tally.lines() {
        stage.note(line);
    }
    Ok(tally)
}

/// The negative control: the state after the update settles, and with one byte of its slot changed it does not. A check that
/// cannot fail would prove nothing.
pub fn control(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let root = stage.bench().directory().join("cuts");
    let recording = Recording::obtain(&root.join("recording"), stage)?;
    let logs = stage.dir.join("control");
    let mut bootable = Bootable::new(&recording, stage.board()?, &logs)?;
    let Some(moment) = recording.moments.last().copied() else {
        return Failure::unless(false, "a recording with moments", "none");
    };
    let after = State { moment, fate: Fate::All, seed: 0 };
    let settled = bootable.settle(&after, &logs)?;
    Failure::unless(settled.slot == "b", "the committed slot b", &settled)?;
    bootable.spoil()?;
    let spoilt = bootable.settle(&after, &logs);
    let noticed = matches!(&spoilt, Err(Failure::Unexpected { .. }));
    Failure::unless(noticed, "a changed byte of slot b to be noticed", &spoilt)?;
    stage.note("control: a changed byte of the committed slot is noticed");
    Ok(())
}

/// Tries states for as long as there are any; `true` if all of them settled.
pub fn main_cuts(workspace: &Path, wanted: &Wanted) -> Result<bool, Failure> {
    let bench = Bench::new(workspace);
    bench.prepare(&[SchemeKind::Bootcount])?;
    let mut stage = Stage::set(&bench, SchemeKind::Bootcount, &bench.directory().join("cuts/stage"))?;
    Ok(try_states(&mut stage, wanted)?.failed.is_empty())
}
