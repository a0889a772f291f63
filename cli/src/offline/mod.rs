//! Commands that need no daemon: keys, trust roots and bundles, on any machine.
//!
//! Each file owns one noun of the command line. Library errors become exits in one place ([`crate::exit`]); what a command
//! found goes to standard output, progress to standard error and only to a terminal.

pub(crate) mod bundle;
pub(crate) mod channel;
mod create;
mod delta;
pub(crate) mod key;
mod output;
#[cfg(feature = "passphrase")]
mod passphrase;
#[cfg(not(feature = "passphrase"))]
#[path = "no_passphrase.rs"]
mod passphrase;
mod progress;
mod recipient;
mod signer;
pub(crate) mod trust;
