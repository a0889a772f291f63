//! The real process on real block devices, killed and failed at its system calls (layer L2 of the fault matrix).
//!
//! `strace` does it: `inject=pwrite64:signal=KILL:when=7` kills otad as it enters its seventh `pwrite64`, `error=EIO`
//! makes the call fail, as it is entered and before it does anything. strace counts the calls of each thread for itself, so
//! a [`places::Place`] also names the files and the moment: disarming and arming, on two threads, are two places.
//!
//! Each loop takes n = 1, 2, … until a run completes untouched: some 120 kills and 400 failed calls in well under a minute.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows the test functions, not what they share"
)]

mod board;
mod bus;
mod errors;
mod kills;
mod limits;
mod places;
mod tracer;
