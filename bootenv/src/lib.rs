//! The U-Boot environment and boot control.
//!
//! A U-Boot environment is a block of `name=value` strings with a checksum, stored once or, so that a power cut
//! cannot lose it, twice. This crate reads and writes it as the boot loader does, and never worse than that:
//!
//! - [`mod@env`], [`mod@format`], [`config`] and [`script`] are pure: they take bytes and open nothing.
//! - [`store`] and [`lock`] are the only modules that touch the system.
//! - [`txn`] puts them together: one change is one transaction on the copy that is *not* in use, flushed, read back
//!   and compared.
//! - [`scheme`] says which variables select a slot, put it on trial, confirm it or give it up.
//! - [`model`] is the boot loader itself as a pure function, for simulators and for devices made of files.
//!
//! What this crate must not do: write defaults that nobody asked for, treat an unreadable copy as anything but a bad
//! copy, or write to the copy the boot loader would use next.

pub mod config;
pub mod env;
pub mod format;
pub mod lock;
pub mod model;
pub mod scheme;
pub mod script;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod txn;

pub use config::Config;
pub use env::{Changes, Environment};
pub use format::{ByteOrder, CopyId, FlagScheme, Layout};
pub use lock::{EnvLock, LockDirs};
pub use scheme::{Scheme, SchemeKind, Trial};
pub use store::{FileStore, Store};
pub use txn::{BootEnv, Committed, CopyState, Health, Loaded};
