//! The crate against the tools of the field, against lost power, and as a command.

// What is shared between tests is outside of test functions, where the lints allow a test to fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation)]

mod command;
mod devices;
mod faults;
mod golden;
mod oracle;
mod peers;
mod support;
