//! `otad-demo`: arguments, and the exit status of the story; nothing else.

mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::{Long, Short};
use otad_demo::cleanup;
use story::{Afterwards, Options, Story, Volume};

/// Within this time an interrupt has reached every thread.
const INTERRUPT: Duration = Duration::from_millis(200);

const HELP: &str = "\
otad-demo: updates a device made of files, commits a good update and rolls a bad one back, with the real programs

Usage: otad-demo [OPTIONS]

Options:
      --dir DIR        where everything goes; an earlier demo there is replaced [default: target/demo]
      --files          slots are files even where loop devices could be made
      --keep-running   leave server, bus and device running at the end, until Ctrl-C
  -v, --verbose        show the console of the device as it runs
  -h, --help           print this

otad, otactl and otaserver are taken from beside this program, or from $OTAD_BIN_DIR.
Exit status: 0 everything went as told, 1 something did not, 2 usage, 130 interrupted.
";

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("otad-demo: {error}; see otad-demo --help");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = cleanup::on_signals_and_panics() {
        eprintln!("otad-demo: cannot watch for signals: {error}");
        return ExitCode::FAILURE;
    }
    match Story::tell(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            // Ctrl-C also ends the program that was just running: then this is no trouble, and the signal's thread ends
            // everything meanwhile.
            std::thread::sleep(INTERRUPT);
            eprintln!("\notad-demo: {trouble}");
            ExitCode::FAILURE
        }
    }
}

/// `None` when the help was printed.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        dir: PathBuf::from("target/demo"),
        backing: otad_demo::Backing::Best,
        afterwards: Afterwards::Stop,
        volume: Volume::Normal,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("dir") => options.dir = parser.value()?.into(),
            Long("files") => options.backing = otad_demo::Backing::Files,
            Long("keep-running") => options.afterwards = Afterwards::KeepRunning,
            Short('v') | Long("verbose") => options.volume = Volume::Verbose,
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}
