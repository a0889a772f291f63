//! Tests of whole bundles: hostile input, other people's tools, building and reading back.

// Clippy's exception for tests covers functions with #[test] only, not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod building;
mod channel;
mod container;
mod decoding;
mod delta;
mod delta_bytes;
mod delta_memory;
mod hostile;
mod large;
mod manifests;
mod rotating;
mod sealed;
mod support;
mod tools;
mod trusting;
