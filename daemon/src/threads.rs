//! Threads with names, so that `top -H` and a stack trace say what they are for.

use crate::failure::{Code, Failure};

/// Starts a named thread.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| Failure::new(Code::Resource, format!("no thread for `{name}`: {error}")))
}
