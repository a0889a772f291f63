//! Killed at the n-th system call, restarted, looked at.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::board::{Board, Goods, Halfway};
use super::places::Files::{Environment, Index, Record, Target};
use super::places::Moment::{Halfway as Half, Start};
use super::places::{Place, RENAME, on_boards};

/// Every call of an install that changes something; reading back is there too, because it is a phase of its own.
const PLACES: &[Place] = &[
    Place { moment: Start, files: Target, call: "pwrite64" },
    Place { moment: Start, files: Target, call: "ioctl" },
    Place { moment: Start, files: Target, call: "fsync" },
    Place { moment: Start, files: Environment, call: "pwrite64" },
    Place { moment: Start, files: Environment, call: "fsync" },
    Place { moment: Start, files: Record, call: "openat" },
    Place { moment: Start, files: Record, call: "write" },
    Place { moment: Start, files: Record, call: "fsync" },
    Place { moment: Start, files: Record, call: RENAME },
    Place { moment: Start, files: Index, call: "openat" },
    Place { moment: Start, files: Index, call: "write" },
    Place { moment: Start, files: Index, call: "fsync" },
    Place { moment: Half, files: Target, call: "pread64" },
    Place { moment: Half, files: Target, call: "fsync" },
    Place { moment: Half, files: Environment, call: "pread64" },
    Place { moment: Half, files: Environment, call: "pwrite64" },
    Place { moment: Half, files: Environment, call: "fsync" },
    Place { moment: Half, files: Record, call: "openat" },
    Place { moment: Half, files: Record, call: "write" },
    Place { moment: Half, files: Record, call: "fsync" },
    Place { moment: Half, files: Record, call: RENAME },
];
/// Every so many kills the install is repeated.
const REPEAT: usize = 3;

/// D2, P2, P3, P12, I1 to I4: `kill -9` at the n-th call of an install, for every kind of call and n = 1, 2, … until a run
/// completes. Whatever the moment, the device boots a whole slot, says after a restart what happened, and takes the
/// update the next time.
#[test]
fn killed_at_the_nth_call() {
    let started = Instant::now();
    let kills = AtomicUsize::new(0);
    on_boards(PLACES, |board, place| {
        let mut nth = 1;
        while killed(board, place, nth, &kills) {
            nth += 1;
        }
    });
    let kills = kills.into_inner();
    println!("{kills} kills in {} s", started.elapsed().as_secs());
    assert!(kills >= PLACES.len(), "strace killed only {kills} times");
}

/// One run; false when nothing was left to be killed at.
fn killed(board: &mut Board, place: &Place, nth: u64, kills: &AtomicUsize) -> bool {
    let what =
        format!("killed at {} number {nth} on the {:?} since {:?}", place.call, place.files, place.moment);
    // Both directions, because the boot loader's built-in environment prefers slot a.
    let slots = if nth % 2 == 1 { ["a", "b"] } else { ["b", "a"] };
    board.reset(slots, &Goods::get().old);
    let tracer = place.tracer(board, "signal=KILL", &nth.to_string());
    let (mut otad, output) = match place.moment {
        Start => {
            let mut otad = board.start_traced(&tracer);
            let output = otad.runs().then(|| board.install());
            (otad, output)
        }
        Half => {
            let mut otad = board.start();
            let halfway = Halfway::start(board);
            otad.trace(&tracer);
            (otad, Some(halfway.finish()))
        }
    };
    // An answer may come before the kill.
    if output.is_some_and(|output| output.status.success()) && otad.runs() {
        board.assert_installed(&what);
        return false;
    }
    assert_eq!(otad.ended().signal(), Some(9), "{what}\n{}", board.log());
    if std::env::var_os("L2_VERBOSE").is_some() {
        println!("{what}");
    }
    drop(otad);
    board.assert_bootable(&what);

    let otad = board.start();
    settled(board, &what);
    let count = kills.fetch_add(1, Ordering::Relaxed);
    if count.is_multiple_of(REPEAT) {
        let output = board.install();
        assert!(output.status.success(), "{what}, and again: {output:?}\n{}", board.log());
        board.assert_installed(&what);
    }
    drop(otad);
    // I7: one more start decides the same.
    board.assert_bootable(&what);
    true
}

/// What a restart makes of it: told, consistent with the environment, and never torn.
pub(super) fn settled(board: &Board, what: &str) {
    let [running, target] = board.slots;
    let status = board.wait("otad to settle", |status| status.job.is_none());
    let log = board.log();
    assert!(!log.contains("damaged"), "{what}: the record is not whole:\n{log}");
    let standing = status.slot(target).unwrap().state.clone();
    match (status.state.as_str(), &status.last_result) {
        ("idle", None) => assert_eq!(standing, "confirmed", "{what}: idle, and the slot was touched"),
        ("failed", Some(last)) => {
            assert_eq!(
                (last.outcome.as_str(), last.code.as_str()),
                ("failed", "INTERRUPTED"),
                "{what}: {last:?}"
            );
            assert_eq!(board.next_boot(), running, "{what}");
        }
        ("post-upgrade", Some(last)) => {
            assert_eq!(last.outcome, "installed", "{what}: {last:?}");
            assert_eq!((standing.as_str(), board.next_boot().as_str()), ("trial", target), "{what}");
        }
        _ => panic!("{what}: {status:?}\n{log}"),
    }
    board.assert_bootable(what);
}
