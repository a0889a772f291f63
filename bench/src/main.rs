//! `otad-bench`: arguments, a namespace to run in, the parts one after the other; nothing else.
//!
//! | module | owns |
//! |---|---|
//! | `parts` | what is measured and compared, part by part |
//! | `meter` | what one act costs |
//! | `peers` | other updaters and plain tools, set up |
//! | `board` | a device with otad |
//! | `web` | the update server, and the line to it |
//! | `images`, `goods` | what is made once and kept |
//! | `namespace`, `stage`, `slot` | where it happens |
//! | `report` | JSON and Markdown |

mod blocks;
mod board;
mod bsdiff;
mod error;
mod goods;
mod images;
mod meter;
mod namespace;
mod parts;
mod peers;
mod process;
mod report;
mod slot;
mod stage;
mod web;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, Value, ValueExt as _};
use otad_demo::Binaries;

use error::Error;
use goods::Goods;
use images::{Images, Kind};
use parts::{Bench, PARTS};
use report::Report;
use stage::Stage;

const HELP: &str = "\
otad-bench: measures otad and other updaters on the same images

Usage: otad-bench [OPTIONS]

Options:
      --only PART    only this part; can be given again: full, apart, adaptive, delta, resume, link, large, footprint
      --rounds N     how often each thing is measured [default: 5]
      --quick        small images made on the spot: to try the benchmark, not for figures
      --dir DIR      where images, bundles and results are kept [default: target/bench]
      --publish FILE measure nothing; put the kept results into a document, below its line for them
  -h, --help         print this

Needs root and the programs of this project beside it, or in $OTAD_BIN_DIR. What is not installed is left out, and said.
Results: DIR/PART.json, DIR/results.md (with --quick: in DIR/quick).
Exit status: 0 measured, whether limits are kept or not; 1 something failed; 2 usage; 130 interrupted.
";

struct Options {
    only: Vec<String>,
    rounds: usize,
    kind: Kind,
    dir: PathBuf,
    bsdiff: Option<[PathBuf; 3]>,
    publish: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("otad-bench: {error}; see otad-bench --help");
            return ExitCode::from(2);
        }
    };
    let done = if let Some([old, new, delta]) = &options.bsdiff {
        bsdiff::make(old, new, delta).map(|()| ExitCode::SUCCESS)
    } else if let Some(document) = &options.publish {
        report::publish(document, &kept(&results_dir(&options))).map(|()| ExitCode::SUCCESS)
    } else if namespace::inside() {
        measure(&options)
    } else {
        watch(&options)
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("otad-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `None` when the help was printed.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        only: Vec::new(),
        rounds: 5,
        kind: Kind::Debian,
        dir: PathBuf::from("target/bench"),
        bsdiff: None,
        publish: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("only") => {
                let name = parser.value()?.string()?;
                if !PARTS.iter().any(|(part, _)| *part == name) {
                    return Err(format!("there is no part `{name}`").into());
                }
                options.only.push(name);
            }
            Long("rounds") => options.rounds = parser.value()?.parse::<std::num::NonZeroUsize>()?.get(),
            Long("quick") => options.kind = Kind::Quick,
            Long("publish") => options.publish = Some(parser.value()?.into()),
            Long("dir") => options.dir = parser.value()?.into(),
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            // For the part `delta` alone: it measures what this takes.
            Value(word) if word == bsdiff::BSDIFF => {
                options.bsdiff =
                    Some([parser.value()?.into(), parser.value()?.into(), parser.value()?.into()]);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// The directory of this run, which is removed at the end.
fn work(dir: &Path) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    Ok(dir.canonicalize().map_err(Error::io("find", dir))?.join("work"))
}

/// Where the results of these images are kept.
fn results_dir(options: &Options) -> PathBuf {
    match options.kind {
        Kind::Debian => options.dir.clone(),
        Kind::Quick => options.dir.join("quick"),
    }
}

/// The reports of all parts that were measured, now or earlier.
fn kept(results: &Path) -> Vec<Report> {
    let read =
        |name: &str| serde_json::from_slice(&std::fs::read(results.join(format!("{name}.json"))).ok()?).ok();
    PARTS.iter().filter_map(|(name, _)| read(name)).collect()
}

fn watch(options: &Options) -> Result<ExitCode, Error> {
    namespace::keep_watch(&work(&options.dir)?)
}

fn measure(options: &Options) -> Result<ExitCode, Error> {
    let create = |dir: &PathBuf| std::fs::create_dir_all(dir).map_err(Error::io("create", dir));
    let work = work(&options.dir)?;
    let dir = work.parent().unwrap_or(&work).to_owned();
    otad_demo::device::check_directory(&dir)?;
    let binaries = Binaries::find()?;
    let images = Images::prepare(&dir, options.kind)?;
    let goods = Goods::prepare(&dir.join("goods"), options.kind, &images, &binaries)?;
    let stage = Stage::new(&work)?;
    let bench = Bench { images, goods, binaries, stage, rounds: options.rounds, kind: options.kind.word() };
    let results = results_dir(options);
    create(&results)?;
    for (name, part) in PARTS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            part(&bench)?.save(&results)?;
        }
    }
    let summary = report::write_results(&results, &kept(&results))?;
    println!("{summary}{}", results.join("results.md").display());
    Ok(ExitCode::SUCCESS)
}
