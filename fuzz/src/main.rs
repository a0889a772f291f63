//! `otad-fuzz TARGET SECONDS [SEED]`: mutates a target's seeds for so long. `otad-fuzz attack COUNT [SEED]`: so many mutations of a valid
//! bundle, encrypted bundle, root and channel document. These two say what they did; a finding is a panic, and the seed to repeat it is
//! printed before. `otad-fuzz seed TARGET` writes a valid input to standard output, `otad-fuzz encrypt DIRECTORY` a new encrypted bundle
//! and a delta to it.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use otad_fuzz::mutate::{Rng, mutate};
use otad_fuzz::{TARGETS, Target, attack};

/// Seeds of the attack that are announced together.
const BATCH: u64 = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, name] = arguments.as_slice()
        && word == "seed"
        && let Some(target) = TARGETS.iter().find(|target| target.name == name)
    {
        return match std::io::stdout().write_all(&(target.seed)()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    if let [word, dir] = arguments.as_slice()
        && word == "encrypt"
    {
        otad_fuzz::make_anew(Path::new(dir));
        return ExitCode::SUCCESS;
    }
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok());
    match (arguments.first().map(String::as_str), number(1)) {
        (Some("attack"), Some(count)) => attack_all(number(2).unwrap_or(0), count),
        (Some(name), Some(seconds)) => match TARGETS.iter().find(|target| target.name == name) {
            Some(target) => fuzz(target, seconds, number(2).unwrap_or(0)),
            None => return usage(),
        },
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    eprintln!(
        "usage: otad-fuzz TARGET SECONDS [SEED] | otad-fuzz attack COUNT [SEED] | otad-fuzz seed TARGET | otad-fuzz encrypt DIRECTORY\ntargets: {}",
        names.join(" ")
    );
    ExitCode::from(2)
}

fn fuzz(target: &Target, seconds: u64, first: u64) {
    let (seed, started) = ((target.seed)(), Instant::now());
    let mut count = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        let mut rng = Rng(first.wrapping_add(count));
        let bytes = mutate(&mut rng, &seed, seed.len());
        let finding = std::panic::catch_unwind(|| (target.run)(&bytes)).is_err();
        assert!(!finding, "{}: seed {} is a finding", target.name, first.wrapping_add(count));
        count += 1;
    }
    println!("{}: {count} inputs in {seconds} s, no finding", target.name);
}

fn attack_all(first: u64, count: u64) {
    let started = Instant::now();
    let mut tried = [0; 4];
    for begin in (first..first + count).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        let end = (begin + BATCH).min(first + count);
        let result = std::panic::catch_unwind(|| attack::run(begin, end - begin));
        let Ok(tally) = result else {
            eprintln!("a finding among the seeds {begin} to {end}");
            std::process::exit(1);
        };
        for (sum, more) in tried.iter_mut().zip(tally.tried) {
            *sum += more;
        }
    }
    let [bundles, encrypted, roots, channels] = tried;
    let seconds = started.elapsed().as_secs();
    println!(
        "{bundles} bundles, {encrypted} encrypted ones, {roots} roots, {channels} channel documents in {seconds} s: none taken, no panic, running slot untouched"
    );
}
