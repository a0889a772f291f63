//! Too little of everything: descriptors, memory, room, time; and a device that goes away.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use otad::adapters::block::SystemDevices;
use otad::ports::SlotDevices as _;

use super::board::{Board, Goods, Halfway};
use super::tracer::Tracer;
use crate::e2e::shelf::said;

/// Starts otad with a limit, installs, and tells whether that worked. If it did not, it must have been said why, the
/// device boots, and without the limit the next install works.
fn install_within(board: &mut Board, limit: &str) -> bool {
    board.reset(["a", "b"], &Goods::get().old);
    let mut prlimit = Command::new("prlimit");
    prlimit.arg(limit);
    let mut otad = board.start_as(prlimit);
    let output = otad.runs().then(|| board.install());
    if output.as_ref().is_some_and(|output| output.status.success()) {
        board.assert_installed(limit);
        return true;
    }
    let lived = otad.runs();
    let (log, said) = (board.log(), output.as_ref().map(said).unwrap_or_default());
    if lived {
        // What cannot be handed over at all is refused by the bus library, or ends the connection and with it otad.
        let codes = ["RESOURCE", "ENV_IO", "InvalidArgs", "DAEMON_GONE"];
        assert!(codes.iter().any(|code| said.contains(code)), "{limit}: {said}\n{log}");
    }
    // Of tokio it is known that it panics when it cannot make its pipe for signals.
    assert!(!log.contains("panicked at daemon"), "{limit}: {log}");
    drop(otad);
    board.assert_bootable(limit);
    let _otad = board.start();
    let output = board.install();
    assert!(output.status.success(), "{limit}, and again without: {output:?}\n{}", board.log());
    board.assert_installed(limit);
    false
}

/// D8: too few descriptors. From too few to start to just enough, there is always a reason given.
#[test]
fn too_few_descriptors_fail_cleanly() {
    let mut board = Board::new();
    let enough = (4..64).find(|count| install_within(&mut board, &format!("--nofile={count}")));
    println!("{enough:?} descriptors are enough");
    assert!(enough.is_some_and(|count| count > 8), "the limit does not limit");
}

/// D8: too little memory to map. What Rust cannot allocate aborts otad, which is one more way to be killed.
#[test]
fn too_little_memory_fails_cleanly() {
    let mut board = Board::new();
    let enough = (16..256)
        .map(|mebibytes| mebibytes << 20)
        .find(|bytes| install_within(&mut board, &format!("--as={bytes}")));
    println!("{enough:?} bytes of address space are enough");
    assert!(enough.is_some_and(|bytes| bytes > 1 << 24), "the limit does not limit");
}

/// Runs a program of util-linux that must work.
fn losetup(arguments: &[&str], device: &Path) {
    let status =
        Command::new("losetup").args(arguments).arg(device).status().expect("losetup, of util-linux");
    assert!(status.success(), "losetup {arguments:?}");
}

/// S12: the medium is gone in the middle of an install: the device has no sectors any more. The job fails, the daemon goes
/// on, and when the medium is back so does the update. (ENODEV and ENXIO, as other drivers say it, are in `errors`.)
#[test]
fn a_medium_that_goes_away_fails_the_job_only() {
    let mut board = Board::new();
    board.reset(["a", "b"], &Goods::get().old);
    let mut otad = board.start();
    let halfway = Halfway::start(&board);
    let (device, medium) = (board.target(), fs::File::options().write(true).open(board.medium("b")).unwrap());
    let length = medium.metadata().unwrap().len();
    medium.set_len(0).unwrap();
    losetup(&["--set-capacity"], &device);
    let output = halfway.finish();
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    let codes = ["IO_WRITE", "IO_READ", "IO_SYNC", "NO_SPACE", "DEVICE_GONE"];
    assert!(codes.iter().any(|code| text.contains(code)), "{text}");
    assert!(otad.runs(), "{}", board.log());
    assert_eq!(board.wait("the end of the job", |status| status.job.is_none()).state, "failed");
    assert_eq!(board.next_boot(), "a");

    medium.set_len(length).unwrap();
    losetup(&["--set-capacity"], &device);
    let output = board.install();
    assert!(output.status.success(), "{}", said(&output));
    board.assert_installed("with the medium back");
}

/// Runs of zeros cost no flash: the device is told to forget the range, and what it lay on is free again.
#[test]
fn zeros_are_holes_in_what_a_device_is_made_of() {
    const NOISE: u64 = 512 << 10;
    let mut board = Board::new();
    board.reset(["a", "b"], &Goods::get().old);
    let (device, medium) = (board.target(), board.medium("b"));
    let allocated = || fs::metadata(&medium).unwrap().blocks() * 512;
    let mut target = SystemDevices.open_target(&device).unwrap();
    target.write_at(0, &vec![0x5a; NOISE as usize]).unwrap();
    target.flush().unwrap();
    let full = allocated();
    target.zero(0, NOISE).unwrap();
    target.flush().unwrap();
    assert!(allocated() + NOISE <= full, "{} bytes are allocated, {full} before", allocated());
    let mut found = vec![1; NOISE as usize];
    target.reader().unwrap().read_at(0, &mut found).unwrap();
    assert!(found.iter().all(|byte| *byte == 0));
}

/// S16: every write takes two seconds. Status is there at once, and cancelling takes no longer than the write under way.
#[test]
fn a_very_slow_device_can_be_cancelled() {
    const WRITE: Duration = Duration::from_secs(2);
    let mut board = Board::new();
    board.reset(["a", "b"], &Goods::get().old);
    let mut otad = board.start();
    let halfway = Halfway::start(&board);
    let tracer = Tracer::new(
        &board.path("strace.log"),
        "pwrite64",
        &[board.target()],
        &format!("delay_enter={}us", WRITE.as_micros()),
        "1+",
    );
    otad.trace(&tracer);
    let bundle = halfway.finish_later();
    std::thread::sleep(Duration::from_millis(300));
    let asked = Instant::now();
    assert!(board.status().unwrap().job.is_some());
    assert!(asked.elapsed() < WRITE / 2, "status took {:?}", asked.elapsed());

    let output = board.otactl(&["cancel"]);
    assert!(output.status.success(), "{}", said(&output));
    let status = board.wait("the cancellation", |status| status.job.is_none());
    assert!(asked.elapsed() < WRITE + WRITE / 2, "cancelling took {:?}", asked.elapsed());
    assert_eq!((status.state.as_str(), status.last_outcome()), ("idle", "cancelled"));
    assert_eq!(board.next_boot(), "a");
    assert!(!said(&bundle.join().unwrap()).is_empty());
}
