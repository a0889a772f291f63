//! `otactl`, the companion command of otad, as a library, so that man pages and completions come from the same
//! definition as the parser.
//!
//! Owns the command line ([`args`]) and how a command ends ([`exit`]). `offline` works on files and needs no daemon;
//! `device` talks to otad over D-Bus and knows nothing of files but how to open them.

pub mod args;
pub mod device;
pub mod exit;
mod offline;
pub mod show;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::exit::Exit;

/// The whole program: the arguments of the process, one command, and its exit status.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.globals.format();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            exit.show(format);
            ExitCode::from(exit.status)
        }
    }
}

/// Runs one command.
pub fn run(cli: Cli) -> Result<(), Exit> {
    match cli.command {
        Command::Device(command) => device::run(command, &cli.globals),
        Command::Key(command) => offline::key::run(command, &cli.globals),
        Command::Channel(command) => offline::channel::run(command, &cli.globals),
        Command::Trust(command) => offline::trust::run(command, &cli.globals),
        Command::Bundle(command) => offline::bundle::run(command, &cli.globals),
    }
}
