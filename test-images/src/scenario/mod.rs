//! What must happen on the board, told as runs of the machine.
//!
//! A [`Scenario`] is a name, a sentence and a function on a [`Stage`]: a board from the factory with an update server
//! beside it. The function does to it what a person, a server, a bad release or the mains would do, and looks at it from outside:
//! console, shell, the bytes on its media. One file per group of scenarios; [`runner`] runs them, each with a directory of
//! logs, and ends with a table.

mod bad_release;
mod by_hand;
mod checks;
pub mod command;
mod environment;
mod failure;
mod fleet;
mod footprint;
mod good;
mod guide;
mod mains;
mod power_cuts;
mod releases;
pub mod runner;
mod small;
mod stage;
mod status;

use bootenv::scheme::SchemeKind;

pub use failure::Failure;
pub use releases::Release;
pub use runner::main_run;
pub use stage::{Bench, Stage, holds};

/// In which runs a scenario takes part; each takes those before it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The quickest that says something.
    Smoke,
    /// What every change has to pass.
    Core,
    /// The rest.
    All,
}

/// One story.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// How it is asked for.
    pub name: &'static str,
    /// The smallest run that takes it.
    pub group: Group,
    /// What happens, in one line.
    pub story: &'static str,
    /// The boot scheme of the device.
    pub scheme: SchemeKind,
    /// Lets it happen.
    pub tell: fn(&mut Stage<'_>) -> Result<(), Failure>,
}

/// All of them, in the order in which they run.
pub fn all() -> Vec<Scenario> {
    [
        good::SCENARIOS,
        bad_release::SCENARIOS,
        environment::SCENARIOS,
        power_cuts::SCENARIOS,
        by_hand::SCENARIOS,
        mains::SCENARIOS,
        small::SCENARIOS,
        guide::SCENARIOS,
        fleet::SCENARIOS,
    ]
    .concat()
}
