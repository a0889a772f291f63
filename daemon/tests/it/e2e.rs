//! The daemon as a whole: real processes, a private bus, real devices, real HTTP, and a boot loader that is a model.

mod bus;
mod encrypted;
mod faults;
mod freshness;
mod memory;
mod refusals;
#[cfg(target_arch = "x86_64")]
mod roles;
mod rotation;
pub(crate) mod shelf;
mod updates;
