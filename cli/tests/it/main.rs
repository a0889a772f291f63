//! Integration tests of `otactl`, one binary: the command is run as a process and judged by what it says and how it exits.

// Clippy's exception for tests covers functions with #[test] only, not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod device;
mod fake;
mod look;
mod offline;
