//! The words on the command line for scenarios and power cuts.

use std::path::Path;

use lexopt::Parser;
use lexopt::prelude::{Long, Value, ValueExt as _};

use super::Group;
use super::runner::{Choice, main_list, main_run};
use crate::cuts::run::{Wanted, main_cuts};

/// What they are, for `--help`.
pub const HELP: &str = "\
       otad-board run [--machines N] [--smoke|--core|--all|SCENARIO...]
                                                           run scenarios, so many at once [default: --core]
       otad-board list                                     the scenarios there are
       otad-board cuts [--states N] [--seed S] [--machines N] [--all]
                                                           boot N sampled power-cut states, with --all every flush
                                                           boundary too; goes on where it stopped before
";

/// Samples of a soak, besides every boundary, unless a number is given.
const SOAK_SAMPLES: usize = 500;
/// Samples otherwise.
const SAMPLES: usize = 20;

/// An error of the command line or of the run.
pub type Error = Box<dyn std::error::Error>;

/// `run`: `true` if everything went well.
pub fn run(workspace: &Path, mut parser: Parser) -> Result<bool, Error> {
    let mut choice = Choice::Group(Group::Core);
    let mut machines = processors();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("smoke") => choice = Choice::Group(Group::Smoke),
            Long("core") => choice = Choice::Group(Group::Core),
            Long("all") => choice = Choice::Group(Group::All),
            Long("machines") => machines = parser.value()?.parse()?,
            Value(name) => {
                let mut names = if let Choice::Names(names) = choice { names } else { Vec::new() };
                names.push(name.string()?);
                choice = Choice::Names(names);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    main_run(workspace, &choice, machines).map_err(Error::from)
}

/// `list`.
pub fn list(mut parser: Parser) -> Result<bool, Error> {
    match parser.next()? {
        Some(other) => Err(other.unexpected().into()),
        None => {
            main_list();
            Ok(true)
        }
    }
}

/// `cuts`: `true` if every state settled.
pub fn cuts(workspace: &Path, mut parser: Parser) -> Result<bool, Error> {
    let (mut samples, mut boundaries, mut seed) = (None, false, 1);
    let mut machines = processors();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("states") => samples = Some(parser.value()?.parse()?),
            Long("seed") => seed = parser.value()?.parse()?,
            Long("machines") => machines = parser.value()?.parse()?,
            Long("all") => boundaries = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let usual = if boundaries { SOAK_SAMPLES } else { SAMPLES };
    Ok(main_cuts(workspace, &Wanted { boundaries, samples: samples.unwrap_or(usual), seed, machines })?)
}

/// An emulated machine keeps one processor busy.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
