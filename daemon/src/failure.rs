//! The one error of the daemon's core, and the total functions that map other errors to stable codes.

use std::io;
use std::path::Path;

pub use otad_dbus::{Code, Failure};

/// Maps an error of the bundle library; its codes are spelled as ours, which a test checks. Where the input itself
/// failed with a [`Failure`] (a cancelled pipe, a broken link), that is what happened.
pub fn from_bundle(error: &otad_bundle::Error) -> Failure {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    if let Some(failure) = source.and_then(failure_of) {
        return failure.clone();
    }
    Failure::new(Code::from_text(error.code()).unwrap_or(Code::Internal), error.to_string())
}

/// Finds the failure that an error of a bundle's input carries, through however many wrappings of `io::Error`.
///
/// The bundle reader only knows `io::Error`; this is how a pipe's or the network's own code and message get past it.
pub fn failure_of(error: &io::Error) -> Option<&Failure> {
    let inner = error.get_ref()?;
    match inner.downcast_ref::<io::Error>() {
        Some(wrapped) => failure_of(wrapped),
        None => inner.downcast_ref::<Failure>(),
    }
}

/// What was being done to a slot when the system call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Opening it.
    Open,
    /// Reading it.
    Read,
    /// Writing or zeroing it.
    Write,
    /// Flushing it.
    Flush,
}

/// Maps an error of a slot device; `place` says which role, device and offset.
pub fn from_slot(act: Act, place: &str, error: &io::Error) -> Failure {
    let (code, next) = match (act, error.raw_os_error()) {
        (_, Some(libc_errno::ENODEV | libc_errno::ENXIO)) => (Code::DeviceGone, "the device disappeared"),
        (_, Some(libc_errno::EROFS)) => (Code::SlotReadonly, "the device is write-protected"),
        (_, Some(libc_errno::ENOSPC)) => (Code::NoSpace, "the device below has no room"),
        (_, Some(errno)) if ran_out(errno) => (Code::Resource, "the device is not to blame; try again"),
        (Act::Open, Some(libc_errno::EBUSY)) => {
            (Code::SlotBusy, "it is mounted or another program holds it; unmount it and try again")
        }
        (Act::Open, _) => (Code::SlotInvalid, "check images.* of the slot in otad.toml"),
        (Act::Read, _) => (Code::IoRead, "the device may be failing"),
        (Act::Write, _) => (Code::IoWrite, "the device may be failing"),
        (Act::Flush, _) => (Code::IoSync, "nothing written in this attempt is trusted; try again"),
    };
    Failure::new(code, format!("{place}: {error}; {next}"))
}

/// Maps an error of the data directory.
pub fn from_state(act: &str, path: &Path, error: &io::Error) -> Failure {
    let code = match error.raw_os_error() {
        Some(libc_errno::ENOSPC) => Code::NoSpace,
        Some(errno) if ran_out(errno) => Code::Resource,
        _ => Code::StateIo,
    };
    Failure::new(code, format!("cannot {act} {}: {error}", path.display()))
}

/// Whether this process or the kernel had too little of something, which says nothing about any device (D8).
fn ran_out(errno: i32) -> bool {
    use libc_errno::{EMFILE, ENFILE, ENOMEM};
    matches!(errno, EMFILE | ENFILE | ENOMEM)
}

/// The errno values the mapping looks at, named as in errno(3).
mod libc_errno {
    use nix::errno::Errno;
    pub(super) const ENODEV: i32 = Errno::ENODEV as i32;
    pub(super) const ENXIO: i32 = Errno::ENXIO as i32;
    pub(super) const EROFS: i32 = Errno::EROFS as i32;
    pub(super) const ENOSPC: i32 = Errno::ENOSPC as i32;
    pub(super) const EBUSY: i32 = Errno::EBUSY as i32;
    pub(super) const EMFILE: i32 = Errno::EMFILE as i32;
    pub(super) const ENFILE: i32 = Errno::ENFILE as i32;
    pub(super) const ENOMEM: i32 = Errno::ENOMEM as i32;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S7, S12, S13, S14: each errno has its own code.
    #[test]
    fn slot_errors_have_codes_of_their_own() {
        let code = |act, errno: nix::errno::Errno| from_slot(act, "slot b", &io::Error::from(errno)).code;
        use nix::errno::Errno::*;
        assert_eq!(code(Act::Open, EBUSY), Code::SlotBusy);
        assert_eq!(code(Act::Open, ENOENT), Code::SlotInvalid);
        assert_eq!(code(Act::Write, EIO), Code::IoWrite);
        assert_eq!(code(Act::Write, EROFS), Code::SlotReadonly);
        assert_eq!(code(Act::Write, ENOSPC), Code::NoSpace);
        assert_eq!(code(Act::Flush, EIO), Code::IoSync);
        assert_eq!(code(Act::Read, ENODEV), Code::DeviceGone);
        assert_eq!(code(Act::Open, EMFILE), Code::Resource);
    }
}
