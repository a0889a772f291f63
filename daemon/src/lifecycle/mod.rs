//! The lifecycle of an update, as data.
//!
//! [`machine::step`] and [`recover::recover`] are pure and total: they decide, the engine acts. [`record`] keeps what
//! must survive a power cut. Nothing here opens, writes or waits.

// Whoever adds a state, an event or a standing is asked about every place that decides by it.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod event;
pub mod machine;
pub mod record;
pub mod recover;

#[cfg(test)]
mod tests;
