//! How many connections this process may have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the number of open files to what the system allows, and returns it.
///
/// # Errors
/// The system does not say, or does not let it.
pub fn raise_open_files() -> std::io::Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}
