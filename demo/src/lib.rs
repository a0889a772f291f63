//! A device made of files, for the demo and for end-to-end tests: no board, no root, no boot loader to flash.
//!
//! The programs are the real ones (otad, otactl, otaserver), the boot environment has U-Boot's format, the slots hold
//! real ext4 root file systems. Two things are played:
//!
//! - the boot loader, by [`bootenv::model`], which follows U-Boot's rules ([`machine`]);
//! - the running system: the userland of the booted slot is unpacked, and otad is started beside it ([`power`]).
//!
//! ```no_run
//! use std::time::Duration;
//! use otad_demo::{Binaries, Device};
//!
//! # fn main() -> Result<(), otad_demo::Error> {
//! let mut device = Device::builder("/tmp/device")
//!     .factory_image("/tmp/version-1.ext4")
//!     .trust_root("/tmp/root.toml")
//!     .build(&Binaries::find()?)?;
//! device.power_on()?;
//! device.wait_for("otad to answer", Duration::from_secs(10), |status| status.state == "idle")?;
//! device.otactl(&["install", "/tmp/version-2.otab", "--reboot", "--wait-commit"])?;
//! # Ok(())
//! # }
//! ```
//!
//! Whatever happens to the program that plays, nothing stays behind: processes and loop devices end with the values
//! that own them, and with [`cleanup::on_signals_and_panics`] also on Ctrl-C and on a panic.

pub mod bus;
pub mod cleanup;
pub mod console;
pub mod device;
mod error;
pub mod image;
pub mod machine;
pub mod power;
mod process;
pub mod programs;
pub mod server;
pub mod slots;
pub mod status;
mod tree;

pub use device::{Builder, Device};
pub use error::Error;
pub use programs::Binaries;
pub use server::Server;
pub use slots::Backing;
pub use status::Status;
