//! Every operation of whole updates, cut before, inside and after it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bootenv::SchemeKind;
use otad::testing::crash::Effort;
use otad::testing::storage::Names;

use crate::explore::{Bounds, Tally, explore};
use crate::scenario::{self, Scenario};

/// Models of a single cut.
const FIRST: Effort = Effort { exhaustive: 5, random: 3, sectors: 32, bytes: 16 };
/// Models of the first of two cuts, and of the second one.
const OUTER: Effort = Effort { exhaustive: 3, random: 1, sectors: 3, bytes: 2 };
const INNER: Effort = Effort { exhaustive: 5, random: 2, sectors: 4, bytes: 8 };

/// Runs a search for every scenario, on all processors.
fn everywhere(scenarios: &[Scenario], bounds: Bounds) -> (Tally, Vec<String>) {
    let (next, results) = (AtomicUsize::new(0), Mutex::new((Tally::default(), Vec::new())));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let result = explore(scenario, bounds);
                    let mut results = results.lock().unwrap();
                    match result {
                        Ok(tally) => {
                            println!("{}: {tally:?} {:?}", scenario.name, started.elapsed());
                            results.0 += tally;
                        }
                        Err(what) => {
                            println!("VIOLATION {what}");
                            results.1.push(what);
                        }
                    }
                }
            });
        }
    });
    results.into_inner().unwrap()
}

fn matrix() -> Vec<Scenario> {
    let mut list = Vec::new();
    for kind in [SchemeKind::Bootcount, SchemeKind::BootOrder] {
        list.extend(scenario::all(kind, &["rootfs"], Names::AnyOrder));
        list.extend(scenario::all(kind, &["rootfs", "kernel"], Names::Ordered));
    }
    let erased = list.iter().cloned().map(|scenario| Scenario {
        name: format!("{}, both copies erased", scenario.name),
        erase: true,
        ..scenario
    });
    let erased: Vec<Scenario> = erased.collect();
    list.extend(erased);
    list
}

/// P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P12, P13, S1, S2, E2: every operation of every scenario, under every model, followed to the end.
#[test]
fn single() {
    let (tally, violations) = everywhere(&matrix(), Bounds { first: FIRST, second: None, boots: 0 });
    println!("{} single cuts", tally.cuts[0]);
    println!("{} different states after them", tally.states[0]);
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    assert!(tally.cuts[0] >= 50_000, "the search has become smaller: {} cuts", tally.cuts[0]);
}

/// P14: and every operation of the boot that recovers from it.
#[test]
fn double() {
    let (tally, violations) = everywhere(&matrix(), Bounds { first: OUTER, second: Some(INNER), boots: 1 });
    println!("{} double cuts", tally.cuts[1]);
    println!("{} different states after them", tally.states[1]);
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    assert!(tally.cuts[1] >= 1_000_000, "the search has become smaller: {} cuts", tally.cuts[1]);
}
