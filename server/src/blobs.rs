//! Artifacts and deltas on disk, named by the SHA-256 of all their bytes.
//!
//! ```text
//! DIR/artifacts/<64 hex digits>.otab       complete, flushed, verified
//! DIR/deltas/<64 hex digits>.otad-delta    complete, flushed, with a header that can be read
//! DIR/incoming/…                           uploads under way; emptied at every start
//! ```
//!
//! It promises that a name in the first two only ever appears with all its bytes on the disk (temporary file, flush,
//! rename, flush of the directory). Names are made from digests alone: no label of a client reaches the file system.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use otad_bundle::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::kind::Kind;

/// How often a growing upload asks for the free space again, in bytes.
const RECHECK_BYTES: u64 = 16 << 20;

/// An act on the data directory that failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk is full.
    #[error("no room left for {act} {path}: {source}")]
    Full {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system has room, but less than uploads must leave free.
    #[error(
        "{free} bytes are free and uploads leave {keep} for the database; make room or withdraw old artifacts"
    )]
    LowSpace {
        /// Bytes that are free.
        free: u64,
        /// Bytes that have to stay free.
        keep: u64,
    },
    /// Anything else.
    #[error("cannot {act} {path}: {source}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl BlobError {
    fn on(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
        let path = path.to_path_buf();
        move |source| {
            use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
            if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
                BlobError::Full { act, path, source }
            } else {
                BlobError::Io { act, path, source }
            }
        }
    }
}

/// The directories.
#[derive(Debug, Clone)]
pub struct Blobs {
    data: PathBuf,
    incoming: PathBuf,
}

impl Blobs {
    /// Opens or creates the directories under `data` and removes what interrupted uploads left.
    ///
    /// The caller holds the lock of the data directory: another server's uploads look like leftovers.
    pub fn open(data: &Path) -> Result<Blobs, BlobError> {
        let blobs = Blobs { data: data.to_path_buf(), incoming: data.join("incoming") };
        for directory in Kind::ALL.map(|kind| blobs.directory(kind)).iter().chain([&blobs.incoming]) {
            fs::create_dir_all(directory).map_err(BlobError::on("create", directory))?;
        }
        sync_directory(data)?;
        for entry in read_directory(&blobs.incoming)? {
            fs::remove_file(&entry).map_err(BlobError::on("remove", &entry))?;
            log::info!("removed {}, left by an upload that was interrupted", entry.display());
        }
        Ok(blobs)
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where the file with this digest is, or would be.
    pub fn path(&self, kind: Kind, sha256: &Digest) -> PathBuf {
        self.directory(kind).join(format!("{sha256}{}", kind.suffix()))
    }

    fn directory(&self, kind: Kind) -> PathBuf {
        self.data.join(kind.directory())
    }

    /// Begins a file in the incoming directory that may grow while `keep_free` bytes stay free. It disappears when the
    /// value is dropped.
    pub fn spool(&self, keep_free: u64) -> Result<Spool, BlobError> {
        let file = tempfile::Builder::new()
            .prefix("upload-")
            .tempfile_in(&self.incoming)
            .map_err(BlobError::on("create a file in", &self.incoming))?;
        Ok(Spool { blobs: self.clone(), keep_free, unchecked: 0, file, hash: Sha256::new(), size: 0 })
    }

    /// Refuses when fewer than `keep_free` bytes would stay free after `planned` more.
    pub fn require_space(&self, planned: u64, keep_free: u64) -> Result<(), BlobError> {
        let free = self.free_bytes()?;
        if free.saturating_sub(planned) < keep_free {
            return Err(BlobError::LowSpace { free, keep: keep_free });
        }
        Ok(())
    }

    /// Bytes that an unprivileged process may still write on this file system.
    #[allow(clippy::useless_conversion, reason = "the system's types have 32 bits on 32-bit machines")]
    pub fn free_bytes(&self) -> Result<u64, BlobError> {
        let stat = nix::sys::statvfs::statvfs(&self.incoming)
            .map_err(|errno| BlobError::on("ask for the free space of", &self.incoming)(errno.into()))?;
        Ok(u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size())))
    }

    /// Gives a spooled file its name. It is complete and on the disk when this returns.
    pub fn keep(&self, kind: Kind, spooled: Spooled) -> Result<(), BlobError> {
        let path = self.path(kind, &spooled.sha256);
        spooled
            .file
            .persist(&path)
            .map_err(|error| BlobError::on("rename an upload to", &path)(error.error))?;
        sync_directory(&self.directory(kind))
    }

    /// Removes a file; a missing one is fine. Downloads that have it open go on.
    pub fn remove(&self, kind: Kind, sha256: &Digest) -> Result<(), BlobError> {
        let path = self.path(kind, sha256);
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(&self.directory(kind)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(BlobError::on("remove", &path)(error)),
        }
    }

    /// Every file of a kind by digest with its size in bytes. Other names are left alone and reported in the log.
    pub fn list(&self, kind: Kind) -> Result<Vec<(Digest, u64)>, BlobError> {
        let mut found = Vec::new();
        for path in read_directory(&self.directory(kind))? {
            let digest = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(kind.suffix()))
                .and_then(|hex| hex.parse().ok());
            match digest {
                Some(digest) => {
                    let metadata = fs::metadata(&path).map_err(BlobError::on("read", &path))?;
                    found.push((digest, metadata.len()));
                }
                None => log::warn!("{} is no {} and is not served", path.display(), kind.noun()),
            }
        }
        Ok(found)
    }
}

/// An upload being written and hashed.
#[derive(Debug)]
pub struct Spool {
    blobs: Blobs,
    keep_free: u64,
    /// Bytes written since the free space was last looked at.
    unchecked: u64,
    file: NamedTempFile,
    hash: Sha256,
    size: u64,
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
    file: NamedTempFile,
}

impl Spooled {
    /// A fresh descriptor at the start of the file: what is verified is what was written, not what was received.
    pub fn reopen(&self) -> Result<File, BlobError> {
        self.file.reopen().map_err(BlobError::on("open", self.file.path()))
    }
}

fn read_directory(directory: &Path) -> Result<Vec<PathBuf>, BlobError> {
    let entries = fs::read_dir(directory).map_err(BlobError::on("list", directory))?;
    entries.map(|entry| Ok(entry.map_err(BlobError::on("list", directory))?.path())).collect()
}

fn sync_directory(directory: &Path) -> Result<(), BlobError> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(BlobError::on("flush", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spooled(blobs: &Blobs, bytes: &[u8]) -> Spooled {
        let mut spool = blobs.spool(0).unwrap();
        for part in bytes.chunks(3) {
            spool.write(part).unwrap();
        }
        spool.finish().unwrap()
    }

    #[test]
    fn a_name_is_the_sha256_of_the_bytes() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (kind, name) in [(Kind::Artifact, "artifacts/HEX.otab"), (Kind::Delta, "deltas/HEX.otad-delta")] {
            let data = tempfile::tempdir().unwrap();
            let blobs = Blobs::open(data.path()).unwrap();
            let upload = spooled(&blobs, b"abc");
            assert_eq!((upload.sha256.to_string().as_str(), upload.size), (expected, 3));
            let digest = upload.sha256;
            blobs.keep(kind, upload).unwrap();
            assert_eq!(fs::read(data.path().join(name.replace("HEX", expected))).unwrap(), b"abc");
            assert_eq!(blobs.list(kind).unwrap(), [(digest, 3)]);
            blobs.remove(kind, &digest).unwrap();
            blobs.remove(kind, &digest).unwrap();
            assert_eq!(blobs.list(kind).unwrap(), []);
        }
    }

    /// W6: what an interrupted upload left is gone after a restart; what was finished is not.
    #[test]
    fn w6_leftovers_go_at_the_start() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path()).unwrap();
        for kind in Kind::ALL {
            blobs.keep(kind, spooled(&blobs, b"finished")).unwrap();
        }
        fs::write(data.path().join("incoming/upload-killed"), b"half").unwrap();
        drop(blobs.spool(0).unwrap());
        let blobs = Blobs::open(data.path()).unwrap();
        assert_eq!(fs::read_dir(data.path().join("incoming")).unwrap().count(), 0);
        assert_eq!(Kind::ALL.map(|kind| blobs.list(kind).unwrap().len()), [1, 1]);
    }

    /// W6: a full disk is told apart from a broken one.
    #[test]
    fn w6_a_full_disk_has_its_own_error() {
        let full = BlobError::on("write", Path::new("x"))(io::Error::from_raw_os_error(28));
        assert!(matches!(full, BlobError::Full { .. }), "ENOSPC");
        let broken = BlobError::on("write", Path::new("x"))(io::Error::from_raw_os_error(5));
        assert!(matches!(broken, BlobError::Io { .. }), "EIO");
    }
}
