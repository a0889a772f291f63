//! Cutting the power everywhere, and again in what follows.

use std::collections::HashSet;

use otad::testing::crash::{self, Effort};
use otad::testing::edges::ENVIRONMENT;
use otad::testing::medium::mix;

use crate::scenario::Scenario;
use crate::world::{self, Cut, Options, State, boots_key, check_boots};

/// What was tried.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    /// Different pairs of a state and what a cut leaves of it, by depth.
    pub(crate) cuts: [u64; 2],
    /// Different states after them that were booted and followed to the end.
    pub(crate) states: [u64; 2],
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        for depth in 0..2 {
            self.cuts[depth] += other.cuts[depth];
            self.states[depth] += other.states[depth];
        }
    }
}

/// How thorough to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Models of the first cut.
    pub(crate) first: Effort,
    /// Models of the second cut; none when it is absent.
    pub(crate) second: Option<Effort>,
    /// Boots after the first cut in which the second one may come.
    pub(crate) boots: u32,
}

/// One scenario's search.
pub(crate) struct Search<'a> {
    scenario: &'a Scenario,
    tally: Tally,
    /// State and crash.
    cuts: HashSet<u64>,
    /// States after a crash, or at a power-on, that are run already.
    states: HashSet<u64>,
    boots: HashSet<u64>,
}

/// Cuts everywhere.
pub(crate) fn explore(scenario: &Scenario, bounds: Bounds) -> Result<Tally, String> {
    let mut search = Search {
        scenario,
        tally: Tally::default(),
        cuts: HashSet::new(),
        states: HashSet::new(),
        boots: HashSet::new(),
    };
    let mut options = Options { trace: true, traced_boots: u32::MAX, ..Options::default() };
    let trace = world::run(scenario, scenario.initial(), &mut options)
        .map_err(|what| format!("{}: without any cut: {what}", scenario.name))?;
    let mut first = Vec::new();
    search.cut(0, &trace.cuts, bounds.first, "", &mut |state, how| first.push((state, how)))?;
    for (state, how) in first {
        search.follow(state, &how, bounds)?;
    }
    Ok(search.tally)
}

impl Search<'_> {
    /// Applies every crash to every moment; new states are handed on.
    fn cut(
        &mut self,
        depth: usize,
        cuts: &[Cut],
        effort: Effort,
        before: &str,
        found: &mut dyn FnMut(State, String),
    ) -> Result<(), String> {
        for cut in cuts {
            let moment = &cut.moment;
            let hit = moment.hit.as_ref();
            let key = mix(moment.storage.hash(), cut.operator.key());
            for crash in crash::crashes(&moment.storage, hit, effort) {
                let torn =
                    if crash.hit == crash::Part::Nothing { 0 } else { hit.map_or(0, |hit| hit.hash()) };
                if !self.cuts.insert(mix(mix(key, torn), crash::hash(&crash))) {
                    continue;
                }
                self.tally.cuts[depth] += 1;
                let mut storage = crash::power_cut(&moment.storage, hit, &crash);
                if self.scenario.erase {
                    storage.erase(ENVIRONMENT);
                }
                let state = State { storage, operator: cut.operator };
                if !self.states.insert(state.key()) {
                    continue;
                }
                self.tally.states[depth] += 1;
                let how = || {
                    format!("{before}boot {}, {} ({}): {crash:?}; ", cut.boot, moment.name, moment.operation)
                };
                self.check(&state).map_err(|what| self.violation(&how(), &what))?;
                found(state, how());
            }
        }
        Ok(())
    }

    fn check(&mut self, state: &State) -> Result<(), String> {
        let board = &self.scenario.board;
        if !self.boots.insert(boots_key(board, &state.storage)) || self.scenario.lying {
            return Ok(());
        }
        check_boots(board, &state.storage, false)?;
        check_boots(board, &state.storage, true)
    }

    /// Runs a state to its end, cutting again on the way.
    fn follow(&mut self, state: State, how: &str, bounds: Bounds) -> Result<(), String> {
        let Some(effort) = bounds.second else {
            return self.settle(state, how);
        };
        let mut options = Options { trace: true, traced_boots: bounds.boots, ..Options::default() };
        let trace = {
            let states = &mut self.states;
            let mut known = |key| !states.insert(key);
            options.known = Some(&mut known);
            world::run(self.scenario, state, &mut options)
        };
        let trace = trace.map_err(|what| self.violation(how, &what))?;
        let mut second = Vec::new();
        self.cut(1, &trace.cuts, effort, how, &mut |state, how| second.push((state, how)))?;
        for (state, how) in second {
            self.settle(state, &how)?;
        }
        Ok(())
    }

    fn settle(&mut self, state: State, how: &str) -> Result<(), String> {
        let states = &mut self.states;
        let mut known = |key| !states.insert(key);
        let mut options = Options { known: Some(&mut known), ..Options::default() };
        world::run(self.scenario, state, &mut options).map(drop).map_err(|what| self.violation(how, &what))
    }

    fn violation(&self, how: &str, what: &str) -> String {
        format!("{}: {what}\nafter cutting in {how}", self.scenario.name)
    }
}
