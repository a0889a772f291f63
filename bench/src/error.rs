//! The one error of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
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
    /// What the demo's device is built on does not work here.
    #[error(transparent)]
    Demo(#[from] otad_demo::Error),
    /// Anything that a sentence says.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// A function for `map_err` that adds what was done to which file.
    pub(crate) fn io(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { act, path, source }
    }
}

fn after_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
