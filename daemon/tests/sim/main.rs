//! Layer L1 of the fault matrix: the daemon's own code over storage that loses power at every operation.

// What is shared between tests is outside of test functions, where the lints allow a test to fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

mod board;
mod broken;
mod cuts;
mod errno;
mod explore;
mod random;
mod rows;
mod scenario;
mod strange;
mod world;
