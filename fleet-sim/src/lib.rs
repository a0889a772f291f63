//! Fleets that are not there: devices that run otad's own code over simulated disks, and load for a server.
//!
//! A [`device::Device`] is the daemon without its bus: the real poll round, HTTP client, engine, lifecycle, record, trust, health
//! watch and boot environment, over the simulated storage of [`otad::testing`] and the boot loader of [`bootenv::model`]. Only what
//! is below the ports is not real: disk, clock, machine and health checks. A [`fleet::Fleet`] steps hundreds of them on a few threads.
//!
//! [`load`] is for figures: thousands of devices that have no engine and speak the same bytes. [`mod@bench`] takes the figures.

pub mod bench;
pub mod device;
mod edges;
pub mod fleet;
mod image;
pub mod life;
pub mod load;
pub mod model;
pub mod naive;
pub mod nature;
pub mod operator;
pub mod server;
