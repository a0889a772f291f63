//! `otad-fleet-sim`: load for a fleet server, by hand or as `make bench-fleet` wants it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::{Long, Short, Value, ValueExt as _};
use otad_fleet_sim::bench::{self, BenchError, Options};
use otad_fleet_sim::load::{self, Afterwards, Load};
use otad_fleet_sim::naive::{self, Durability};

const HELP: &str = "\
otad-fleet-sim: devices that are not there, for a server that is

Usage: otad-fleet-sim load [OPTIONS] ADDRESS:PORT   ask a server; figures as JSON
       otad-fleet-sim bench [OPTIONS]               measure everything; tables in DIR/fleet.md
       otad-fleet-sim naive [OPTIONS]               the server that writes every heartbeat, to compare with

Options:
      --devices N        devices that ask [default: 10000]; for bench a list [1000,10000,50000,100000]
      --updating N       devices at an update [default: 500]; load: of a release for the model `load-updating`
      --interval S       seconds between two questions of a device [default: 60]
      --seconds S        how long [default: 120]
      --afterwards WORD  keep (as otad) or close each connection [default: keep]
      --only PART        bench: only `curve`, `naive` or `ranges`
      --rounds N         bench: rounds of downloads from each server [default: 5]
      --dir DIR          where data and results are kept [default: target/bench]
      --synchronous WORD naive: full or normal [default: full]
      --listen ADDR      naive: address and port [default: 127.0.0.1:0]
  -h, --help             print this

bench needs otaserver beside this program, and nginx. Exit status: 0 measured; 1 something failed; 2 usage.
";

struct Arguments {
    words: Vec<String>,
    devices: Option<String>,
    updating: usize,
    interval: u64,
    seconds: u64,
    afterwards: Afterwards,
    only: Option<String>,
    rounds: usize,
    dir: PathBuf,
    durability: Durability,
    listen: String,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("otad-fleet-sim: {error}; --help shows what there is");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("otad-fleet-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    let mut arguments = Arguments {
        words: Vec::new(),
        devices: None,
        updating: 500,
        interval: 60,
        seconds: 120,
        afterwards: Afterwards::Keep,
        only: None,
        rounds: 5,
        dir: PathBuf::from("target/bench"),
        durability: Durability::Full,
        listen: "127.0.0.1:0".to_owned(),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) => arguments.words.push(word.string()?),
            Long("devices") => arguments.devices = Some(parser.value()?.string()?),
            Long("updating") => arguments.updating = parser.value()?.parse()?,
            Long("interval") => arguments.interval = parser.value()?.parse::<std::num::NonZeroU64>()?.get(),
            Long("seconds") => arguments.seconds = parser.value()?.parse()?,
            Long("rounds") => arguments.rounds = parser.value()?.parse()?,
            Long("only") => arguments.only = Some(parser.value()?.string()?),
            Long("dir") => arguments.dir = parser.value()?.into(),
            Long("listen") => arguments.listen = parser.value()?.string()?,
            Long("afterwards") => {
                arguments.afterwards =
                    choose(&mut parser, &[("keep", Afterwards::Keep), ("close", Afterwards::Close)])?;
            }
            Long("synchronous") => {
                let choices = [("full", Durability::Full), ("normal", Durability::Normal)];
                arguments.durability = choose(&mut parser, &choices)?;
            }
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(arguments))
}

fn choose<T: Copy>(parser: &mut lexopt::Parser, choices: &[(&str, T)]) -> Result<T, lexopt::Error> {
    let word = parser.value()?.string()?;
    let found = choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice);
    found.ok_or_else(|| format!("there is no choice `{word}` here").into())
}

fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let limited = |source| BenchError::Io { what: "cannot open more files".into(), source };
    load::raise_open_files().map_err(limited)?;
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", server] => ask(arguments, server),
        ["bench"] => measure(arguments),
        ["naive"] => serve(arguments),
        _ => Err(BenchError::Other("no such command; --help shows what there is".into())),
    }
}

fn ask(arguments: &Arguments, server: &str) -> Result<(), BenchError> {
    let wrong = |what: &str| BenchError::Other(format!("{what} is not what is wanted here"));
    let devices = arguments.devices.as_deref().unwrap_or("10000");
    let load = Load {
        server: server.parse().map_err(|_| wrong(server))?,
        devices: devices.parse().map_err(|_| wrong(devices))?,
        updating: arguments.updating,
        interval: Duration::from_secs(arguments.interval),
        lasts: Duration::from_secs(arguments.seconds),
        afterwards: arguments.afterwards,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)?;
    let lost = |source| BenchError::Io { what: format!("{server} does not take the devices"), source };
    runtime.block_on(load::introduce(&load)).map_err(lost)?;
    let figures = runtime.block_on(load::run(&load));
    println!("{}", serde_json::json!(figures));
    Ok(())
}

/// Measures something and returns its table.
type Part = fn(&Options) -> Result<String, BenchError>;

fn measure(arguments: &Arguments) -> Result<(), BenchError> {
    let list = arguments.devices.as_deref().unwrap_or("1000,10000,50000,100000");
    let devices: Result<Vec<usize>, _> = list.split(',').map(str::parse).collect();
    let program = std::env::current_exe().map_err(no_runtime)?;
    let options = Options {
        dir: arguments.dir.clone(),
        programs: program.parent().unwrap_or(&program).to_owned(),
        devices: devices.map_err(|_| BenchError::Other(format!("{list} is no list of numbers")))?,
        updating: arguments.updating,
        interval: Duration::from_secs(arguments.interval),
        lasts: Duration::from_secs(arguments.seconds),
        download: Duration::from_secs(arguments.seconds.min(30)),
        rounds: arguments.rounds,
    };
    let kept = |source| BenchError::Io { what: format!("cannot use {}", options.dir.display()), source };
    std::fs::create_dir_all(&options.dir).map_err(kept)?;
    let mut tables = Vec::new();
    let parts: [(&str, Part); 3] =
        [("curve", bench::curve), ("naive", bench::naive), ("ranges", bench::ranges)];
    for (name, part) in parts {
        if arguments.only.as_deref().is_none_or(|only| only == name) {
            tables.push(part(&options)?);
        }
    }
    std::fs::write(options.dir.join("fleet.md"), tables.join("\n")).map_err(kept)
}

fn serve(arguments: &Arguments) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_runtime)?;
    let served = naive::serve(&arguments.listen, &arguments.dir, arguments.durability);
    runtime.block_on(served).map_err(|source| BenchError::Io { what: "cannot serve".into(), source })
}

fn no_runtime(source: std::io::Error) -> BenchError {
    BenchError::Io { what: "cannot start".into(), source }
}
