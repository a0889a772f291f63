//! An upload on its way: a file without a name in the incoming directory, which is gone when nobody wants it any more.

use std::fs::File;
use std::io::Write as _;

use otad_bundle::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{BlobError, Blobs};

/// How often a growing upload asks for the free space again, in bytes.
const RECHECK_BYTES: u64 = 16 << 20;

/// An upload being written and hashed.
#[derive(Debug)]
pub struct Spool {
    pub(super) blobs: Blobs,
    pub(super) keep_free: u64,
    /// Bytes written since the free space was last looked at.
    pub(super) unchecked: u64,
    pub(super) file: NamedTempFile,
    pub(super) hash: Sha256,
    pub(super) size: u64,
}

impl Spool {
    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.file.as_file_mut().write_all(bytes).map_err(BlobError::on("write", self.file.path()))?;
        self.hash.update(bytes);
        let written = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.size = self.size.saturating_add(written);
        self.unchecked = self.unchecked.saturating_add(written);
        if self.unchecked >= RECHECK_BYTES {
            self.unchecked = 0;
            self.blobs.require_space(0, self.keep_free)?;
        }
        Ok(())
    }

    /// Flushes the file to the disk.
    pub fn finish(self) -> Result<Spooled, BlobError> {
        self.file.as_file().sync_all().map_err(BlobError::on("flush", self.file.path()))?;
        Ok(Spooled { sha256: Digest(self.hash.finalize().into()), size: self.size, file: self.file })
    }
}

/// A complete upload that has no name yet.
#[derive(Debug)]
pub struct Spooled {
    /// SHA-256 of all bytes.
    pub sha256: Digest,
    /// Number of bytes.
    pub size: u64,
    pub(super) file: NamedTempFile,
}

impl Spooled {
    /// A fresh descriptor at the start of the file: what is verified is what was written, not what was received.
    pub fn reopen(&self) -> Result<File, BlobError> {
        self.file.reopen().map_err(BlobError::on("open", self.file.path()))
    }
}
