//! The emulated board: an ARM64 machine with a real U-Boot, Linux and systemd, made from Debian packages.
//!
//! - [`build`] makes everything the machine starts from, and caches it by content
//! - [`emulator`] starts, watches and kills the machine
//! - [`scenario`] says what must happen on it
//! - [`cuts`] replays what its disks had stored when the power failed

pub mod build;
pub mod cuts;
pub mod emulator;
pub mod scenario;
