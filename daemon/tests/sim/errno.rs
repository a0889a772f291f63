//! Every operation of whole updates fails once, and for ever from there on.
//!
//! While it fails the daemon may end anywhere but in silence: whatever it does, it ends, it says why with a code, and what
//! it leaves boots (I1 to I5). When the fault is gone the same update goes through.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bootenv::SchemeKind;
use nix::errno::Errno;
use otad::failure::Code;
use otad::testing::rig::{Fault, Lasting, Upset};
use otad::testing::storage::Names;

use crate::scenario::{self, Operator, Plan, Scenario};
use crate::world::{self, Options, State, check_boots};

/// S6, S7, S8, S11, S12 and E3 on every operation: device, boot environment, data directory, source, machine.
const UPSETS: [Upset; 5] = [
    Upset::Errno(Errno::EIO as i32),
    Upset::Errno(Errno::ENOSPC as i32),
    Upset::Errno(Errno::EINTR as i32),
    Upset::Errno(Errno::ENXIO as i32),
    Upset::Short,
];

/// One scenario with one fault, and then without it.
pub(crate) fn with_fault(scenario: &Scenario, fault: Fault) -> Result<(), String> {
    let mut options = Options { fault: Some(fault), ..Options::default() };
    let run = world::run_once(scenario, scenario.initial(), &mut options)?;
    let state = run.end.ok_or("it did not end")?;
    for code in &run.codes {
        Code::from_text(code).ok_or_else(|| format!("I8: {code:?} is no code"))?;
    }
    check_boots(&scenario.board, &state.storage, false)?;
    check_boots(&scenario.board, &state.storage, true)?;
    // Later the fault is gone: the same device gets there, from a boot of its own.
    let mut storage = state.storage;
    storage.sync_all();
    let state = State { storage, operator: Operator::after(&state.operator) };
    let later = world::run(scenario, state, &mut Options::default());
    let run = later.map_err(|what| format!("{what}; while it failed: {:?} {:?}", run.story, run.codes))?;
    run.end.map(drop).ok_or_else(|| "it did not end well".to_owned())
}

/// The number of operations of the uncut scenario.
fn operations(scenario: &Scenario) -> u64 {
    world::run(scenario, scenario.initial(), &mut Options::default()).unwrap().operations
}

#[test]
fn every_operation_fails_once_and_for_ever() {
    let mut scenarios = Vec::new();
    for (kind, roles) in
        [(SchemeKind::Bootcount, &["rootfs", "kernel"][..]), (SchemeKind::BootOrder, &["rootfs"][..])]
    {
        scenarios.extend(scenario::all(kind, roles, Names::AnyOrder).into_iter().filter(|scenario| {
            // Going back needs the other slot as it was, which a fault may have cost.
            !matches!(scenario.plan, Plan::GoBack(_))
        }));
    }
    let jobs: Vec<(usize, u64)> = scenarios
        .iter()
        .enumerate()
        .flat_map(|(n, scenario)| (0..operations(scenario)).map(move |at| (n, at)))
        .collect();
    let (next, count, failures) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((scenario, at)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for upset in UPSETS {
                        for lasting in [Lasting::Once, Lasting::ForEver] {
                            if upset == Upset::Errno(Errno::EINTR as i32) && lasting == Lasting::ForEver {
                                // Every loop over a system call would be right to go on for ever.
                                continue;
                            }
                            let (scenario, fault) =
                                (&scenarios[*scenario], Fault { at: *at, upset, lasting });
                            count.fetch_add(1, Ordering::Relaxed);
                            if let Err(what) = with_fault(scenario, fault) {
                                failures
                                    .lock()
                                    .unwrap()
                                    .push(format!("{}: {fault:?}: {what}", scenario.name));
                            }
                        }
                    }
                }
            });
        }
    });
    println!("{} failing operations", count.into_inner());
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} of them:\n{}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n")
    );
}
