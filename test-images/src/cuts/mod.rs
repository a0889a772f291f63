//! Replays what the disks had stored when the power failed.
//!
//! One complete update is recorded with both drives under QEMU's `blklogwrites` ([`log`]), together with which entries of
//! the two were there at the same moments ([`order`]). From that come the states that a power cut could have left
//! ([`state`], [`plan`]); each is made on a copy of the drives ([`medium`]), booted with the real boot loader, and has to
//! settle on a slot that holds a whole release ([`trial`], many of them in a [`campaign`]).

pub mod campaign;
mod chance;
pub mod log;
pub mod medium;
pub mod order;
pub mod plan;
pub mod recording;
pub mod run;
pub mod state;
pub mod trial;

use std::io;
use std::path::{Path, PathBuf};

/// Why states could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be used.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// What was being done.
        act: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A log could not be used.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// A medium only moves forward: the caller has to sort its states.
    #[error("the medium holds {from} entries and cannot go back to {to}")]
    Backwards {
        /// How many it holds.
        from: usize,
        /// How many were asked for.
        to: usize,
    },
}

impl Error {
    /// A function for `map_err` that adds what was done to which file.
    pub(crate) fn io(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { act, path, source }
    }
}
