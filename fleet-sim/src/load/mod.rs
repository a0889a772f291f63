//! Load for a server: many devices that ask on schedule, some of which are at an update, and what that costs the server.
//!
//! These devices have no engine: ten thousand of them would need more than the machine that is measured. They speak the bytes that
//! otad's client speaks (a test compares them), over connections as otad makes them: a new one for every question, which then stays
//! open until the server closes it. Every question is due at a time that was fixed beforehand, and its time runs from
//! there, so that a server that stops for a moment is charged for everybody whom that keeps waiting.

mod devices;
mod limits;
mod meter;
mod samples;
mod slow;
pub mod wire;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

pub use limits::raise_open_files;
pub use meter::{Cost, Meter, MeterError};
pub use samples::{Samples, Shape};
pub use slow::{Download, Downloads, download};

/// The model of the devices of a load.
pub const COMPATIBLE: &str = "load";
/// The model of those that are at an update.
pub const COMPATIBLE_UPDATING: &str = "load-updating";

/// What a device does with the connection of a question that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// Keeps it until the server closes it or the next question is due, as otad does.
    Keep,
    /// Closes it, as otad does when the server says `Connection: close`.
    Close,
}

/// A load.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub server: SocketAddr,
    /// Devices that ask once per interval.
    pub devices: usize,
    /// Devices that are at an update: a word of progress and a part of the bundle every two seconds.
    pub updating: usize,
    /// Time between two questions of a device.
    pub interval: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What becomes of connections.
    pub afterwards: Afterwards,
}

/// What a load came to.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Devices that asked.
    pub devices: usize,
    /// Devices that were at an update.
    pub updating: usize,
    /// Seconds between two questions of a device.
    pub interval_s: u64,
    /// Seconds it lasted.
    pub lasted_s: u64,
    /// The update checks.
    pub checks: Shape,
    /// The words of progress.
    pub progress: Shape,
    /// Bytes of bundles that devices at an update took, per second.
    pub fetched_bytes_per_s: u64,
}

/// Makes every device known to the server, and has those that update begin: both are writes, and not what is measured.
///
/// # Errors
/// The server refuses or goes away.
pub async fn introduce(load: &Load) -> std::io::Result<()> {
    devices::introduce(load).await
}

/// Runs a load to its end.
pub async fn run(load: &Load) -> Figures {
    let (checks, progress) = (Rc::new(Samples::default()), Rc::new(Samples::default()));
    let fetched = Rc::new(std::cell::Cell::new(0_u64));
    let start = Instant::now();
    let end = start + load.lasts;
    let local = tokio::task::LocalSet::new();
    for number in 0..load.updating {
        let (load, progress, fetched) = (load.clone(), progress.clone(), fetched.clone());
        local.spawn_local(async move { devices::update(&load, number, end, &progress, &fetched).await });
    }
    local.run_until(devices::ask_on_schedule(load, start, &checks)).await;
    let lasted_s = load.lasts.as_secs();
    Figures {
        devices: load.devices,
        updating: load.updating,
        interval_s: load.interval.as_secs(),
        lasted_s,
        checks: checks.shape(),
        progress: progress.shape(),
        fetched_bytes_per_s: fetched.get().checked_div(lasted_s).unwrap_or(0),
    }
}
