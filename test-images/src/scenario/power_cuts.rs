//! A handful of power cuts out of the many of [`crate::cuts`].

use bootenv::scheme::SchemeKind;

use super::failure::Failure;
use super::stage::Stage;
use super::{Group, Scenario};
use crate::cuts::run::{Wanted, control, try_states};

/// One of every phase of the update: four saves of the environment, and what lies before, between and behind them.
const HANDFUL: Wanted = Wanted { boundaries: false, samples: 9, seed: 1, machines: 2 };

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "power-cuts",
    scheme: SchemeKind::Bootcount,
    group: Group::Core,
    story: "an update is recorded; the power is cut in each of its phases, unflushed writes are lost, torn, reordered",
    tell: power_cuts,
}];

fn power_cuts(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let tally = try_states(stage, &HANDFUL)?;
    Failure::unless(tally.failed.is_empty(), "every state to settle", &tally.failed)?;
    control(stage)
}
