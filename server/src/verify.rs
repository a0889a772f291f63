//! Checking every byte of an uploaded bundle against the trust root, before anything else is believed about it.

use std::fs::File;
use std::path::{Path, PathBuf};

use otad_bundle::{Bundle, Error, FileInput, Root};

use crate::store::NewArtifact;

/// Why a bundle was not taken.
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
    /// The bundle is refused, and will be refused again.
    #[error(transparent)]
    Bundle(#[from] Error),
    /// The uploaded file cannot be read back; nothing is known about the bundle.
    #[error("cannot read the upload back: {0}")]
    Input(std::io::Error),
}

/// Reads the trust root. Done for every upload, so that a rotated root holds from the next upload on.
pub fn read_root(path: &Path) -> Result<Root, VerifyError> {
    Root::read(path).map_err(|source| VerifyError::Root { path: path.to_path_buf(), source })
}

/// Checks all `size` bytes of `file` and returns what the artifact is.
pub fn verify(file: File, root: &Root, sha256: &str, size: u64) -> Result<NewArtifact, VerifyError> {
    let mut bundle = Bundle::open(FileInput::new(file).map_err(VerifyError::Input)?, root)?;
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
