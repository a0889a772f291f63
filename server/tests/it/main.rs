//! The server over real HTTP: in-process with small limits, and as a process that is killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows the test functions, not what they share"
)]

mod artifacts;
mod channels;
mod deltas;
mod devices;
mod hostile;
mod http;
mod operators;
mod process;
mod ranges;
mod rig;
mod uploads;
