//! The one error of building: which step failed, how, and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why a part of the board could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be used.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// What was being done, for example "create".
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("{step}: cannot start `{program}`: {source}; scripts/need-board installs what is needed")]
    Start {
        /// What it was needed for.
        step: String,
        /// Its name.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// A program failed.
    #[error("{step}: `{command}` failed ({status}); the end of what it said:\n{tail}\n{advice}")]
    Program {
        /// What it was needed for.
        step: String,
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines of its output.
        tail: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// A part of the project or of Debian is not as expected.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// A function for `map_err` that adds what was done to which file.
    pub(crate) fn io(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { act, path, source }
    }
}
