//! Hostile bytes for everything that parses bytes nobody has vouched for yet.
//!
//! Each target is a plain function that takes bytes, asserts what must hold whatever they are, and returns. libFuzzer calls them
//! from `libfuzzer/`, which needs a nightly compiler; the tests of this crate and the program `otad-fuzz` call them with a mutator of
//! our own, which is deterministic and needs nothing. A panic, here or in what is called, is a finding.

// A target that finds something panics; nothing of this runs on a device.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod attack;
mod device;
mod encrypted;
mod fixture;
mod members;
pub mod mutate;
mod targets;

pub use encrypted::make_anew;
pub use targets::*;

/// A name and what it does with bytes.
pub struct Target {
    /// Its name: the directory of its seeds, and the fuzz target of libFuzzer.
    pub name: &'static str,
    /// Takes bytes and asserts.
    pub run: fn(&[u8]),
    /// A valid input, to begin with.
    pub seed: fn() -> Vec<u8>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "container", run: container, seed: fixture::bundle },
    Target { name: "manifest", run: manifest, seed: fixture::manifest },
    Target { name: "index", run: index, seed: fixture::index },
    Target { name: "signature", run: signature, seed: fixture::signature },
    Target { name: "root", run: root, seed: fixture::next_root },
    Target { name: "channel", run: channel, seed: fixture::channel },
    Target { name: "delta", run: delta, seed: fixture::delta },
    Target { name: "encryption", run: encryption, seed: encrypted::manifest },
    Target { name: "sealed_delta", run: sealed_delta, seed: encrypted::delta },
    Target { name: "environment", run: environment, seed: fixture::environment },
    Target { name: "record", run: record, seed: fixture::record },
    Target { name: "http_head", run: http_head, seed: fixture::http_head },
    Target { name: "roles", run: roles, seed: fixture::role_answer },
    Target { name: "dbus_arguments", run: dbus_arguments, seed: fixture::dbus_arguments },
    Target { name: "config", run: config, seed: fixture::config },
    Target { name: "pipeline", run: pipeline, seed: fixture::edits },
];
