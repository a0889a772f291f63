//! Fakes of every port, for the power-cut simulator: storage with a volatile cache, and a plan of what goes wrong.
//!
//! Nothing here decides how an update is done. [`storage`] is a medium that forgets what was not flushed, [`crash`] says what
//! a power cut may leave of it, [`rig`] counts every operation and lets one of them fail, [`edges`] are the ports on
//! top. The production code above them runs unmodified, inline and deterministically.

// A mistake in test equipment has to stop the test, not to be handled.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

pub mod crash;
pub mod edges;
pub mod medium;
pub mod rig;
pub mod storage;
