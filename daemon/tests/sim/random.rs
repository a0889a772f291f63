//! Three cuts in a row at random, by a seed that is printed when it finds something.

use std::time::{Duration, Instant};

use bootenv::SchemeKind;
use otad::testing::crash::{self, Effort};
use otad::testing::edges::ENVIRONMENT;
use otad::testing::medium::mix;
use otad::testing::rig::{Fault, Lasting, Upset};
use otad::testing::storage::Names;

use crate::scenario::{self, Scenario};
use crate::world::{self, Options, State};

/// Cuts in a row.
const DEPTH: u64 = 3;
/// Operations within which a cut falls; the longest scenarios have a few hundred more, the recoveries far fewer.
const SPAN: u64 = 500;
const EFFORT: Effort = Effort { exhaustive: 5, random: 8, sectors: 64, bytes: 64 };

/// Where the seeds of `make test` begin.
const FIRST_SEED: u64 = 20_779_000_000;

/// Seeds that found something once.
const FAILED_BEFORE: &[u64] = &[20_779_000_271, 20_779_000_425, 20_779_000_872, 20_780_003_420];

fn scenarios() -> Vec<Scenario> {
    let mut list = Vec::new();
    for kind in [SchemeKind::Bootcount, SchemeKind::BootOrder] {
        for names in [Names::AnyOrder, Names::Ordered] {
            let all = scenario::all(kind, &["rootfs", "kernel"], names);
            list.extend(all.into_iter().map(|scenario| Scenario { wearing: true, ..scenario }));
        }
    }
    list
}

/// One story; the number of cuts that happened.
fn story(scenarios: &[Scenario], seed: u64) -> Result<u64, String> {
    let draw = |n: u64| mix(mix(0x0ad, seed), n);
    let scenario = &scenarios[draw(0) as usize % scenarios.len()];
    let mut state = scenario.initial();
    let mut cuts = 0;
    for cut in 1..=DEPTH {
        // Half of the cuts come early, where recovery is.
        let span = if draw(10 * cut) % 2 == 0 { SPAN } else { 40 };
        let upset =
            [Upset::PowerBefore, Upset::PowerDuring, Upset::PowerAfter][draw(10 * cut + 1) as usize % 3];
        let fault = Fault { at: draw(10 * cut + 2) % span, upset, lasting: Lasting::ForEver };
        let mut options = Options { fault: Some(fault), ..Options::default() };
        let run =
            world::run(scenario, state, &mut options).map_err(|what| describe(scenario, seed, &what))?;
        let Some(cut_) = run.cut else { return Ok(cuts) };
        cuts += 1;
        let (storage, hit) = (&cut_.moment.storage, cut_.moment.hit.as_ref());
        let models = crash::crashes(storage, hit, EFFORT);
        let model = &models[draw(10 * cut + 3) as usize % models.len()];
        let mut storage = crash::power_cut(storage, hit, model);
        if draw(10 * cut + 4) % 8 == 0 {
            storage.erase(ENVIRONMENT);
        }
        // What was at rest before the cut may be left for the other slot: the power went as often as there are attempts.
        let mut operator = cut_.operator;
        operator.rest = 0;
        state = State { storage, operator };
    }
    world::run(scenario, state, &mut Options::default()).map_err(|what| describe(scenario, seed, &what))?;
    Ok(cuts)
}

fn describe(scenario: &Scenario, seed: u64, what: &str) -> String {
    format!("seed {seed}, {}: {what}", scenario.name)
}

#[test]
fn three_cuts_in_a_row() {
    let scenarios = scenarios();
    for seed in FAILED_BEFORE {
        story(&scenarios, *seed).unwrap();
    }
    // The same part of the space every time: a build that fails fails again. `make soak` looks at others.
    let first = FIRST_SEED;
    println!("seeds from {first}");
    let started = Instant::now();
    let (mut stories, mut cuts) = (0, 0);
    while started.elapsed() < Duration::from_secs(15) {
        cuts += story(&scenarios, first + stories).unwrap();
        stories += 1;
    }
    println!("{stories} stories with {cuts} cuts, up to {DEPTH} in a row");
    assert!(stories > 100, "{stories}");
}

/// `make soak`: until it is stopped, on every processor.
#[test]
#[ignore = "runs until it is stopped: make soak"]
fn soak() {
    let scenarios = scenarios();
    let first = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() << 24;
    let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    println!("seeds from {first}, on {workers} processors; stop it with Ctrl-C");
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let scenarios = &scenarios;
            scope.spawn(move || {
                let (started, mut said, mut cuts) = (Instant::now(), Instant::now(), 0);
                for n in 0_u64.. {
                    let seed = first + n * workers + worker;
                    match story(scenarios, seed) {
                        Ok(more) => cuts += more,
                        Err(what) => println!("VIOLATION {what}\n  put {seed} into FAILED_BEFORE in tests/sim/random.rs"),
                    }
                    if said.elapsed() > Duration::from_secs(10) {
                        said = Instant::now();
                        let rate = cuts as f64 / started.elapsed().as_secs_f64();
                        println!("processor {worker}: {n} stories, {cuts} cuts, {rate:.0} cuts/s, now at seed {seed}");
                    }
                }
            });
        }
    });
}
