//! Maps the result of [`otactl::run`] to an exit status, and nothing else.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = otactl::args::Cli::parse();
    let format = cli.globals.format();
    match otactl::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            exit.show(format);
            ExitCode::from(exit.status)
        }
    }
}
