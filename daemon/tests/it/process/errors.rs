//! Failed by errno at the n-th system call, once and for ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::board::{Board, Goods, Halfway};
use super::places::Files::{self, Environment, Index, Record, Target};
use super::places::Moment::{self, Halfway as Half, Start};
use super::places::{Place, RENAME, on_boards};
use crate::e2e::shelf::said;

/// What becomes of an install one of whose calls fails.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// It goes on as if nothing had been.
    Goes,
    /// It ends with one of these codes.
    Ends(&'static [&'static str]),
    /// Either: what cannot be read or kept may not be needed any more.
    Either(&'static [&'static str]),
}

use Outcome::{Either, Ends, Goes};

struct Fault {
    place: Place,
    /// An errno, or the number that the call returns without having done anything.
    result: &'static str,
    outcome: Outcome,
}

const fn fault(
    moment: Moment,
    files: Files,
    call: &'static str,
    result: &'static str,
    outcome: Outcome,
) -> Fault {
    Fault { place: Place { moment, files, call }, result, outcome }
}

const FAULTS: &[Fault] = &[
    // S6, S5, S13, S12: the target's writes.
    fault(Start, Target, "pwrite64", "EIO", Ends(&["IO_WRITE"])),
    fault(Start, Target, "pwrite64", "ENOSPC", Ends(&["NO_SPACE"])),
    fault(Half, Target, "pwrite64", "EROFS", Ends(&["SLOT_READONLY"])),
    fault(Half, Target, "pwrite64", "ENODEV", Ends(&["DEVICE_GONE"])),
    // The first ioctl asks for the size, the others write zeros.
    fault(Start, Target, "ioctl", "EIO", Ends(&["SLOT_INVALID", "IO_WRITE"])),
    // A device that has no command for zeros gets them written.
    fault(Half, Target, "ioctl", "EOPNOTSUPP", Goes),
    // S7: a failed flush is final for the attempt.
    fault(Start, Target, "fsync", "EIO", Ends(&["IO_SYNC"])),
    fault(Half, Target, "fsync", "ENOSPC", Ends(&["NO_SPACE"])),
    // S8: the scan before, the read-back after.
    fault(Start, Target, "pread64", "EIO", Ends(&["IO_READ"])),
    fault(Half, Target, "pread64", "EIO", Ends(&["IO_READ"])),
    fault(Half, Target, "pread64", "ENXIO", Ends(&["DEVICE_GONE"])),
    // S9, E3: says that it wrote so much, and did not. (The environment is written a second time when the first does not
    // read back.)
    fault(Start, Target, "pwrite64", "4096", Ends(&["VERIFY_FAILED"])),
    fault(Half, Environment, "pwrite64", "16384", Either(&["ENV_IO"])),
    // S11.
    fault(Start, Target, "pwrite64", "EINTR", Goes),
    fault(Start, Target, "pread64", "EINTR", Goes),
    fault(Start, Target, "fsync", "EINTR", Goes),
    fault(Half, Record, "write", "EINTR", Goes),
    fault(Half, Environment, "pwrite64", "EINTR", Goes),
    fault(Half, Environment, "pread64", "EINTR", Goes),
    // The environment: disarming, and arming. A copy that cannot be read is a bad copy, and the other one serves.
    fault(Start, Environment, "pwrite64", "EIO", Ends(&["ENV_IO"])),
    fault(Half, Environment, "pwrite64", "ENOSPC", Ends(&["ENV_IO"])),
    fault(Start, Environment, "fsync", "EIO", Ends(&["ENV_IO"])),
    fault(Half, Environment, "fsync", "EIO", Ends(&["ENV_IO"])),
    fault(Start, Environment, "pread64", "EIO", Either(&["ENV_IO", "ENV_LOST"])),
    fault(Half, Environment, "pread64", "EIO", Either(&["ENV_IO", "ENV_LOST"])),
    // S4, P12: the record.
    fault(Start, Record, "openat", "EIO", Either(&["STATE_IO"])),
    fault(Start, Record, "write", "ENOSPC", Either(&["NO_SPACE"])),
    fault(Start, Record, "fsync", "EIO", Either(&["STATE_IO"])),
    fault(Half, Record, "write", "EIO", Either(&["STATE_IO"])),
    fault(Half, Record, "fsync", "EIO", Either(&["STATE_IO"])),
    fault(Half, Record, RENAME, "EIO", Either(&["STATE_IO"])),
    fault(Half, Record, "openat", "ENOSPC", Either(&["NO_SPACE"])),
    // The kept index.
    fault(Start, Index, "openat", "EIO", Ends(&["STATE_IO"])),
    fault(Start, Index, "write", "ENOSPC", Ends(&["NO_SPACE"])),
    fault(Start, Index, "fsync", "EIO", Ends(&["STATE_IO"])),
    fault(Start, Index, "read", "EIO", Ends(&["STATE_IO"])),
];

/// S4 to S8, S11, S12, S13: the n-th call of an install fails, once or from then on, for every kind of call and n = 1,
/// 2, … until a run completes. It ends with the code that says which act failed, never with a slot armed that is not
/// whole, the daemon goes on, and the next install works.
#[test]
fn failed_at_the_nth_call() {
    let started = Instant::now();
    let calls = AtomicUsize::new(0);
    on_boards(FAULTS, |board, fault| {
        let mut nth = 1;
        // Interruptions and missing commands that last for ever are not what they say they are.
        let passing = matches!(fault.outcome, Goes) && fault.result == "EINTR";
        while failed(board, fault, nth, "") && (passing || failed(board, fault, nth, "+")) {
            calls.fetch_add(if passing { 1 } else { 2 }, Ordering::Relaxed);
            nth += 1;
        }
    });
    let calls = calls.into_inner();
    println!("{calls} failed calls in {} s", started.elapsed().as_secs());
    assert!(calls >= FAULTS.len(), "strace failed only {calls} calls");
}

/// One run; false when nothing was left to fail.
fn failed(board: &mut Board, fault: &Fault, nth: u64, onward: &str) -> bool {
    let Fault { place, result, .. } = fault;
    let what =
        format!("{result} at {} {nth}{onward} on the {:?} since {:?}", place.call, place.files, place.moment);
    let slots = if nth % 2 == 1 { ["a", "b"] } else { ["b", "a"] };
    board.reset(slots, &Goods::get().old);
    let act = if result.starts_with('E') { "error" } else { "retval" };
    let tracer = place.tracer(board, &format!("{act}={result}"), &format!("{nth}{onward}"));
    let (mut otad, said) = match place.moment {
        Start => {
            let mut otad = board.start_traced(&tracer);
            // A daemon that cannot read what it needs says so and leaves it to systemd to try again.
            let said = if otad.runs() { ending(&board.install()) } else { Err(board.log()) };
            (otad, said)
        }
        Half => {
            let mut otad = board.start();
            let halfway = Halfway::start(board);
            otad.trace(&tracer);
            (otad, ending(&halfway.finish()))
        }
    };
    if tracer.injected() == 0 {
        assert!(said.is_ok(), "{what}: nothing failed, and yet {said:?}\n{}", board.log());
        return false;
    }
    let (may_go, codes): (_, &[&str]) = match fault.outcome {
        Goes => (true, &[]),
        Ends(codes) => (false, codes),
        Either(codes) => (true, codes),
    };
    match &said {
        Ok(()) => assert!(may_go, "{what}: as if nothing had been\n{}", board.log()),
        Err(text) => assert!(codes.iter().any(|code| text.contains(code)), "{what}: {text}\n{}", board.log()),
    }
    after(board, &mut otad, &said, &what, onward);
    true
}

/// How an install ended.
fn ending(output: &std::process::Output) -> Result<(), String> {
    if output.status.success() { Ok(()) } else { Err(said(output)) }
}

/// What is left, and that it can be put right.
fn after(board: &Board, otad: &mut super::board::Otad, said: &Result<(), String>, what: &str, onward: &str) {
    board.assert_bootable(what);
    if said.is_ok() {
        return board.assert_installed(what);
    }
    let mut again = None;
    if otad.runs() {
        otad.untrace();
    }
    if onward.is_empty() && otad.runs() {
        assert_eq!(
            board.next_boot(),
            board.slots[0],
            "{what}: failed and armed all the same\n{}",
            board.log()
        );
        let status = board.wait("the end of the job", |status| status.job.is_none());
        assert_eq!(status.state, "failed", "{what}: {status:?}");
    } else {
        otad.stop();
        again = Some(board.start());
        // Whatever could not be written before is settled now.
        assert_eq!(
            board.next_boot(),
            board.slots[0],
            "{what}: failed and armed all the same\n{}",
            board.log()
        );
    }
    let output = board.install();
    assert!(output.status.success(), "{what}, and again: {output:?}\n{}", board.log());
    board.assert_installed(what);
    drop(again);
}
