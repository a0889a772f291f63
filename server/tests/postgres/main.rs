//! The tests of `tests/it` once more, with PostgreSQL behind the server instead of SQLite.
//!
//! Left out is what has nothing to do with the database: the dashboard in a browser; and what SQLite alone promises.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows the test functions, not what they share"
)]

#[path = "../it/artifacts.rs"]
mod artifacts;
#[path = "../it/channels.rs"]
mod channels;
#[path = "../it/database.rs"]
mod database;
#[path = "../it/deltas.rs"]
mod deltas;
#[path = "../it/devices.rs"]
mod devices;
#[path = "../it/fleet.rs"]
mod fleet;
#[path = "../it/hostile.rs"]
mod hostile;
#[path = "../it/http.rs"]
mod http;
#[path = "../it/lifecycle.rs"]
mod lifecycle;
#[path = "../it/objects.rs"]
mod objects;
#[path = "../it/openapi.rs"]
mod openapi;
#[path = "../it/operators.rs"]
mod operators;
#[path = "../it/process.rs"]
mod process;
#[path = "../it/progress.rs"]
mod progress;
#[path = "../it/ranges.rs"]
mod ranges;
#[path = "../it/rig.rs"]
mod rig;
#[path = "../it/roles.rs"]
mod roles;
#[path = "shared.rs"]
mod shared;
#[path = "../it/tls.rs"]
mod tls;
#[path = "trouble.rs"]
mod trouble;
#[path = "../it/uploads.rs"]
mod uploads;
#[path = "../it/webhooks.rs"]
mod webhooks;

/// A test that is added there runs here, too, or is named here with its reason.
#[test]
fn every_test_of_the_other_program_is_here() {
    // A browser sees no database; SQLite's own promises are SQLite's.
    let only_there = ["dashboard", "sqlite"];
    let there =
        include_str!("../it/main.rs").lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let missing: Vec<_> = there
        .filter(|module| !only_there.contains(module))
        .filter(|module| !include_str!("main.rs").contains(&format!("/it/{module}.rs\"]\nmod {module};")))
        .collect();
    assert_eq!(missing, [""; 0]);
}
