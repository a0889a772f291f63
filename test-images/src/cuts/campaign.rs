//! Many states, tried by several machines at once, with what is done written down so that it need not be done again.
//!
//! `progress.jsonl` has one object per state: its name, where it settled, the boots it took. A state that failed is tried
//! again by the next campaign; its logs stay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Error;
use super::chance::Chance;
use super::plan::Recorded;
use super::recording::Recording;
use super::state::State;
use super::trial::Bootable;
use crate::build::Board;
use crate::scenario::Failure;

/// States of one round at most: media only move forward, so a round is sorted, and rounds are short so that a campaign that is
/// stopped has seen all of the update.
const ROUND: usize = 24;

/// One state that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Its name.
    pub state: String,
    /// Where in the update it is.
    pub phase: String,
    /// The slot it settled on; empty if it did not.
    pub slot: String,
    /// The slots of all boots on the way.
    pub route: String,
    /// Why it did not settle; empty if it did.
    pub failure: String,
}

/// Where a campaign keeps its things, and with how many machines it works.
#[derive(Debug)]
pub struct Campaign<'a> {
    /// The recording.
    pub recording: &'a Recording,
    /// Its board.
    pub board: &'a Board,
    /// Where copies, logs and progress go.
    pub directory: PathBuf,
    /// Machines that run at once.
    pub machines: usize,
}

/// What a campaign came to, with what earlier ones of the same states had done.
#[derive(Debug, Default)]
pub struct Tally {
    /// States that settled.
    pub settled: usize,
    /// Those that were known to settle before this campaign.
    pub known: usize,
    /// States that did not.
    pub failed: Vec<Tried>,
    /// How many settled on which slot, by phase.
    pub by_phase: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Campaign<'_> {
    /// Tries states that are not known to settle. Each line on standard output is one state.
    pub fn run(&self, states: &[State], seed: u64) -> Result<Tally, Failure> {
        fs::create_dir_all(&self.directory).map_err(Error::io("create", &self.directory))?;
        let known = self.known()?;
        let mut tally = Tally::default();
        let mut left: Vec<State> = Vec::new();
        let mut names = BTreeSet::new();
        for state in states {
            let name = state.to_string();
            match known.get(&name) {
                _ if !names.insert(name.clone()) => {}
                Some(tried) if tried.failure.is_empty() => {
                    tally.known += 1;
                    tally.count(tried.clone());
                }
                _ => left.push(*state),
            }
        }
        Chance::new(seed).shuffle(&mut left);
        let all = names.len();
        let share = left.len().div_ceil(self.machines.max(1));
        let rounds: Vec<Vec<State>> = left
            .chunks(ROUND.min(share).max(1))
            .map(|chunk| {
                let mut round = chunk.to_vec();
                round.sort();
                round
            })
            .collect();
        let (rounds, tally) = (Mutex::new(rounds), Mutex::new(tally));
        let worked = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.machines)
                .map(|number| {
                    let (rounds, tally) = (&rounds, &tally);
                    scope.spawn(move || self.work(number, rounds, tally, all))
                })
                .collect();
            let ended = workers.into_iter().map(|worker| worker.join().unwrap_or(Ok(())));
            ended.collect::<Result<Vec<()>, Failure>>()
        });
        worked?;
        Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn work(
        &self,
        number: usize,
        rounds: &Mutex<Vec<Vec<State>>>,
        tally: &Mutex<Tally>,
        all: usize,
    ) -> Result<(), Failure> {
        let directory = self.directory.join(format!("machine-{number}"));
        loop {
            let round = rounds.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(round) = round else { break };
            let mut bootable = Bootable::new(self.recording, self.board, &directory)?;
            for state in round {
                let began = Instant::now();
                let tried = self.try_one(&mut bootable, &state);
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.count(tried.clone());
                let done = tally.settled + tally.failed.len();
                let end = if tried.failure.is_empty() {
                    format!("settled on {} by {}", tried.slot, tried.route)
                } else {
                    format!("FAILED: {}", tried.failure)
                };
                let seconds = began.elapsed().as_secs();
                println!("    {done:4}/{all} {:30} {:16} {end}, {seconds} s", tried.state, tried.phase);
                self.write_down(&tried)?;
            }
        }
        // The copies can be made again; the logs of failures are elsewhere.
        let _ = fs::remove_dir_all(&directory);
        Ok(())
    }

    fn try_one(&self, bootable: &mut Bootable<'_>, state: &State) -> Tried {
        let recording = self.recording;
        let recorded = Recorded { disk: &recording.disk, card: &recording.card, moments: &recording.moments };
        let logs = self.directory.join(state.to_string());
        let phase = recorded.phase(state.moment).to_string();
        let tried = |slot: &str, route: &str, failure: String| Tried {
            state: state.to_string(),
            phase: phase.clone(),
            slot: slot.to_owned(),
            route: route.to_owned(),
            failure,
        };
        match bootable.settle(state, &logs) {
            Ok(settled) => {
                let _ = fs::remove_dir_all(&logs);
                tried(&settled.slot, &settled.route, String::new())
            }
            Err(failure) => tried("", "", failure.to_string()),
        }
    }

    fn progress(&self) -> PathBuf {
        self.directory.join("progress.jsonl")
    }

    fn known(&self) -> Result<BTreeMap<String, Tried>, Error> {
        let path = self.progress();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.map_err(Error::io("read", &path))?,
        };
        // The last line may be half a one; a later line about a state is the one that counts.
        let tried = text.lines().filter_map(|line| serde_json::from_str::<Tried>(line).ok());
        Ok(tried.map(|tried| (tried.state.clone(), tried)).collect())
    }

    fn write_down(&self, tried: &Tried) -> Result<(), Error> {
        let path = self.progress();
        let mut line =
            serde_json::to_string(tried).map_err(|error| Error::io("write", &path)(error.into()))?;
        line.push('\n');
        let mut file =
            File::options().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
        file.write_all(line.as_bytes()).map_err(Error::io("write", &path))
    }
}

impl Tally {
    fn count(&mut self, tried: Tried) {
        if tried.failure.is_empty() {
            self.settled += 1;
            *self.by_phase.entry(tried.phase).or_default().entry(tried.slot).or_default() += 1;
        } else {
            self.failed.push(tried);
        }
    }

    /// The counts as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let failed = self.failed.len();
        let mut lines = vec![format!(
            "{} states, {} settled ({} of them in earlier runs), {failed} did not",
            self.settled + failed,
            self.settled,
            self.known
        )];
        lines.extend(self.by_phase.iter().map(|(phase, slots)| {
            let slots = slots.iter().map(|(slot, count)| format!("{count} on {slot}"));
            format!("{phase}: {}", slots.collect::<Vec<_>>().join(", "))
        }));
        lines.extend(
            self.failed.iter().map(|tried| format!("{} ({}): {}", tried.state, tried.phase, tried.failure)),
        );
        lines
    }
}

/// Removes what campaigns of other recordings have left in a directory of campaigns.
pub(super) fn forget_others(directory: &Path, id: &str) {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_name().to_str() != Some(id)) {
        // It is only space.
        let _ = fs::remove_dir_all(entry.path());
    }
}
