//! The daemon's adapters and the daemon as a whole, from outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that is surprised must fail; clippy.toml only knows functions marked #[test]"
)]

mod e2e;
mod http;
mod process;
mod system;
#[cfg(target_arch = "x86_64")]
mod takeover;
