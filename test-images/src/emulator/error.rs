//! What can go wrong between this program and the machine.

use std::io;
use std::path::{Path, PathBuf};

/// Why the machine could not be used. That it did something unexpected is not one of these, except that it did it too
/// late: see [`crate::scenario::Failure`].
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
    /// A program of this machine could not be started.
    #[error("cannot start {program}: {source}; `scripts/need-board` installs what is needed")]
    Start {
        /// Its name.
        program: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Something was not said on the console in time.
    #[error("waited {seconds} s for {wanted} on the console, which ends with\n{tail}")]
    Silent {
        /// What was waited for.
        wanted: String,
        /// How long.
        seconds: u64,
        /// The last lines that came.
        tail: String,
    },
    /// The emulator ended by itself.
    #[error("the emulator ended while {wanted} was expected; see {}; the console ends with\n{tail}", log.display())]
    Ended {
        /// What was waited for.
        wanted: String,
        /// What the emulator itself said.
        log: PathBuf,
        /// The last lines that came.
        tail: String,
    },
    /// The emulator refused a command or did not answer.
    #[error("the emulator did not do `{command}`: {why}")]
    Qmp {
        /// The command.
        command: String,
        /// Its answer.
        why: String,
    },
    /// A command in the guest could not be run, or ran and failed where that was not expected.
    #[error("`{command}` on the board: {why}")]
    Guest {
        /// The command line.
        command: String,
        /// Exit status and output.
        why: String,
    },
    /// The boot environment on the card cannot be used.
    #[error("the environment on {}: {why}", path.display())]
    Environment {
        /// The card's image.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl Error {
    /// A function for `map_err` that adds what was done to which file.
    pub(crate) fn io(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { act, path, source }
    }
}
