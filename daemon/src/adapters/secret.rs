//! Files with secrets of this device.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::failure::{Code, Failure};

/// Refuses a secret that everybody on the device may read or change; `name` is its key in `otad.toml`. What cannot be looked at
/// is for whoever reads it to report.
///
/// # Errors
/// [`Code::Config`]: the file's mode.
pub(super) fn refuse_if_public(name: &str, file: &Path) -> Result<(), Failure> {
    let Ok(metadata) = fs::metadata(file) else { return Ok(()) };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        let what = format!("{name}: mode {mode:04o} lets everybody use {}", file.display());
        return Err(Failure::new(Code::Config, format!("{what}; run chmod o-rwx on it")));
    }
    Ok(())
}
