//! Threads with names, so that `top -H` and a stack trace say what they are for.

use crate::failure::{Code, Failure};

/// Starts a named thread.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| not_started(name, &error))
}

/// The failure of a thread that could not be started.
pub(crate) fn not_started(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(Code::Resource, format!("no thread for `{name}`: {error}"))
}

/// The failure of a stage whose thread panicked; where a panic ends the process nobody sees it.
pub(crate) fn panicked(name: &str) -> Failure {
    Failure::new(Code::Internal, format!("thread `{name}` panicked"))
}
