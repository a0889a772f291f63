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
mod dashboard;
mod database;
mod deltas;
mod devices;
mod fleet;
mod hostile;
mod http;
mod lifecycle;
mod objects;
mod openapi;
mod operators;
mod process;
mod progress;
mod ranges;
mod rig;
mod roles;
mod sqlite;
mod tls;
mod uploads;
mod webhooks;
