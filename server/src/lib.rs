//! The reference HTTP update server of otad: one process, one directory, no other service.
//!
//! It owns a directory with bundles and deltas and an embedded database. It promises that every bundle it serves was
//! verified, byte for byte, against the trust root when it was uploaded, that what it acknowledged survives a power
//! cut, and that memory does not grow with the size of an upload or a download. It must not hold a private key, and
//! nothing a device says may change what other devices are offered: devices trust signatures, not this server.

pub mod args;
pub mod blobs;
pub mod catalog;
pub mod channels;
pub mod clock;
pub mod http;
pub mod kind;
pub mod limits;
pub mod logger;
pub mod names;
pub mod release;
pub mod serve;
pub mod store;
pub mod verify;

pub use limits::Limits;
