//! Checking uploads before anything is believed about them: every byte of a bundle against the trust root, the header of a
//! delta by the rules of its format.

use std::fs::File;
use std::path::{Path, PathBuf};

use otad_bundle::delta::{Announced, DeltaError};
use otad_bundle::{Bundle, Error, FileInput, Root};

use crate::store::{NewArtifact, NewDelta};

/// Codes of [`Error`] that say nothing about the upload: this machine could not read it, or had no memory.
const TROUBLE_CODES: [&str; 6] = ["BUNDLE_READ", "FILE_IO", "IO_READ", "NO_SPACE", "RESOURCE", "INTERNAL"];

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The server has no usable trust root; the bundle was not looked at.
    #[error(
        "no uploads without a trust root, and {path} is none: {source} (`otactl trust create` makes one)"
    )]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Error,
    },
    /// The upload is refused, and will be refused again.
    #[error(transparent)]
    Content(Error),
    /// The server failed while it looked; nothing is known about the upload, which may be tried again.
    #[error("cannot check the upload: {0}")]
    Trouble(Error),
}

impl From<Error> for VerifyError {
    fn from(error: Error) -> Self {
        if TROUBLE_CODES.contains(&error.code()) {
            VerifyError::Trouble(error)
        } else {
            VerifyError::Content(error)
        }
    }
}

/// Reads the trust root. Done for every upload, so that a rotated root holds from the next upload on.
pub fn read_root(path: &Path) -> Result<Root, VerifyError> {
    Root::read(path).map_err(|source| VerifyError::Root { path: path.to_path_buf(), source })
}

/// Checks all `size` bytes of `file` and returns what the artifact is.
pub fn verify(file: File, root: &Root, sha256: &str, size: u64) -> Result<NewArtifact, VerifyError> {
    let mut bundle = Bundle::open(input(file)?, root)?;
    otad_bundle::verify(&mut bundle, &mut |_| {})?;
    let update = &bundle.manifest().update;
    Ok(NewArtifact {
        sha256: sha256.to_owned(),
        release: bundle.release().to_string(),
        version: update.version.to_string(),
        sequence: update.sequence,
        compatible: update.compatible.clone(),
        size,
        description: update.description.clone(),
    })
}

/// Reads the header of the delta in `file`, which must describe exactly its `size` bytes.
///
/// Nothing behind the header is looked at: what it makes is checked by devices, chunk by chunk, against the signed release.
pub fn read_delta(file: File, sha256: &str, size: u64) -> Result<NewDelta, VerifyError> {
    let header = Announced::read(input(file)?).map_err(Error::from)?;
    if size < header.total_size {
        return Err(Error::from(DeltaError::Truncated { offset: size }).into());
    }
    if size > header.total_size {
        let problem = format!("{size} bytes, its header speaks of {}", header.total_size);
        return Err(Error::from(DeltaError::Directory { place: "file".into(), problem }).into());
    }
    Ok(NewDelta {
        sha256: sha256.to_owned(),
        from_release: header.old_release.to_string(),
        to_release: header.new_release.to_string(),
        size,
    })
}

fn input(file: File) -> Result<FileInput, VerifyError> {
    FileInput::new(file).map_err(|source| Error::Read { offset: 0, source }.into())
}

#[cfg(test)]
mod tests {
    use otad_bundle::{Signer as _, SigningKey};

    use super::*;

    /// A disk that cannot be read back must not look like a bad upload, which nobody would send again.
    #[test]
    fn a_file_that_cannot_be_read_is_no_bad_upload() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("upload");
        std::fs::write(&path, [0; 4096]).unwrap();
        let root = Root::with_release_keys(&[SigningKey::from_seed([1; 32]).unwrap().public_key()]);
        // EBADF: a descriptor for writing only.
        let unreadable = || File::options().write(true).open(&path).unwrap();
        let readable = || File::open(&path).unwrap();
        assert!(matches!(
            verify(unreadable(), &root, "", 4096),
            Err(VerifyError::Trouble(Error::Read { .. }))
        ));
        assert!(matches!(read_delta(unreadable(), "", 4096), Err(VerifyError::Trouble(Error::Delta(_)))));
        assert!(matches!(verify(readable(), &root, "", 4096), Err(VerifyError::Content(_))));
        assert!(matches!(read_delta(readable(), "", 4096), Err(VerifyError::Content(_))));
    }

    /// Also deep inside of a bundle, and for want of memory.
    #[test]
    fn trouble_is_told_from_content() {
        let eio = || std::io::Error::from_raw_os_error(5);
        let chunk =
            |source| Error::Chunk { role: "rootfs".into(), number: 7, offset: 0, source: Box::new(source) };
        for (error, trouble) in [
            (chunk(Error::Read { offset: 9, source: eio() }), true),
            (chunk(Error::SizeExceeded { limit: 1 }), false),
            (
                Error::Sink { what: "decoder state".into(), source: std::io::ErrorKind::OutOfMemory.into() },
                true,
            ),
            (DeltaError::Memory.into(), true),
            (DeltaError::Truncated { offset: 1 }.into(), false),
            (Error::Unsigned, false),
        ] {
            let text = error.to_string();
            assert_eq!(matches!(VerifyError::from(error), VerifyError::Trouble(_)), trouble, "{text}");
        }
    }
}
