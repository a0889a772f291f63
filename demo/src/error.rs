//! The one error of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong in playing a device.
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
    /// A program of this project or of the system is not there.
    #[error("{program} is not installed ({hint})")]
    Missing {
        /// Its name.
        program: String,
        /// How to get it.
        hint: String,
    },
    /// A program did not do what it was asked for.
    #[error("`{command}` failed ({status}){}", after_colon(said))]
    Program {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// Something did not happen in time.
    #[error("waited {seconds} s for {what}; {seen}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What there was instead.
        seen: String,
    },
    /// The boot environment cannot be used.
    #[error("boot environment: {0}")]
    Environment(String),
    /// The device cannot be built as asked for.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// A function for `map_err` that adds what was done to which file.
    pub(crate) fn io(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { act, path, source }
    }

    /// A function for `map_err` on anything of the boot environment.
    pub(crate) fn environment(error: impl std::fmt::Display) -> Error {
        Error::Environment(error.to_string())
    }
}

fn after_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
