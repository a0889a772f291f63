//! The reference HTTP update server of otad: one process, one directory, no other service; or several processes on one PostgreSQL and
//! one directory of files.
//!
//! It owns a directory with bundles and deltas and a database, embedded unless told otherwise. It promises that every bundle it serves was
//! verified, byte for byte, against the trust root when it was uploaded, that what it acknowledged survives a power
//! cut, and that memory does not grow with the size of an upload or a download. It must not hold a private key. What devices say
//! decides how far a release goes on its own, never what it contains: devices trust signatures, not this server.

pub mod admin;
pub mod args;
pub mod assign;
pub mod blobs;
pub mod catalog;
pub mod channels;
pub mod clock;
pub mod fleet;
pub mod http;
pub mod kind;
pub mod limits;
pub mod live;
pub mod logger;
pub mod names;
pub mod open_files;
mod others;
pub mod presence;
pub mod reach;
pub mod release;
pub mod role;
pub mod rounds;
pub mod secret;
pub mod serve;
pub mod store;
pub mod tls;
pub mod verify;
pub mod webhooks;

pub use limits::Limits;
