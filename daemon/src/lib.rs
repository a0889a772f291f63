//! `otad`: fetches, verifies, writes, switches, and commits or rolls back.
//!
//! The core ([`lifecycle`], [`install`], [`engine`], [`trial`], [`slots`], [`health`], [`poll`]) names no file, socket
//! or clock: it works on the traits in [`ports`]. [`adapters`] implements them on a real system, [`bus`] shows the
//! engine on D-Bus, [`daemon`] wires everything together. [`self_test`] asks whether all of it could work on this device.

pub mod adapters;
mod aligned;
pub mod bus;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod failure;
pub mod health;
pub mod heap;
pub mod install;
pub mod layout;
pub mod lifecycle;
pub mod poll;
pub mod poller;
pub mod ports;
pub mod roles;
pub mod self_test;
pub mod slots;
#[cfg(feature = "testing")]
pub mod testing;
mod threads;
pub mod trial;
pub mod trust;
mod watchdog;
