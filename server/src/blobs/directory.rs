//! Files in a directory. `object_store` has a back end for that, too, which copies an upload instead of renaming it and reads in steps of
//! 8 KiB: a range of 1 GiB costs it 2.6 to 5.7 s of processor time, and this one 0.8 s (version 0.14.2, over the loopback, warm).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use otad_bundle::Digest;
use tempfile::NamedTempFile;

use super::pages::Windows;
use super::{BlobError, Content, Spooled, digest_of, file_name};
use crate::kind::Kind;

/// What the name of a copy under way begins with. One server at a time publishes, so whoever lists for it may remove what was left.
const UNDER_WAY: &str = ".incoming-";
/// Says which store this is.
const IDENTITY: &str = "otad-store";

/// A directory of files.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    path: PathBuf,
    windows: Windows,
}

impl Directory {
    /// Opens or creates it.
    pub(super) fn open(path: &Path) -> Result<Directory, BlobError> {
        let store = Directory { path: path.to_path_buf(), windows: Windows::default() };
        for directory in Kind::ALL.map(|kind| store.of(kind)) {
            fs::create_dir_all(&directory).map_err(BlobError::on("create", &directory))?;
        }
        sync_directory(path)?;
        Ok(store)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn of(&self, kind: Kind) -> PathBuf {
        self.path.join(kind.directory())
    }

    fn file(&self, kind: Kind, sha256: &Digest) -> PathBuf {
        self.of(kind).join(file_name(kind, sha256))
    }

    pub(super) fn keep(&self, kind: Kind, spooled: Spooled) -> Result<(), BlobError> {
        let path = self.file(kind, &spooled.sha256);
        let failed = BlobError::on("rename an upload to", &path);
        match spooled.file.persist(&path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::CrossesDevices => {
                let copy = self.copy(kind, &error.file)?;
                copy.persist(&path).map_err(|error| failed(error.error))?;
            }
            Err(error) => return Err(failed(error.error)),
        }
        sync_directory(&self.of(kind))
    }

    /// Copies an upload from another file system, and flushes the copy.
    fn copy(&self, kind: Kind, upload: &NamedTempFile) -> Result<NamedTempFile, BlobError> {
        let directory = self.of(kind);
        let failed = || BlobError::on("copy an upload to", &directory);
        let copy = tempfile::Builder::new().prefix(UNDER_WAY).tempfile_in(&directory).map_err(failed())?;
        let mut from = upload.reopen().map_err(failed())?;
        io::copy(&mut from, &mut copy.as_file()).map_err(failed())?;
        copy.as_file().sync_all().map_err(failed())?;
        Ok(copy)
    }

    pub(super) fn remove(&self, kind: Kind, sha256: &Digest) -> Result<(), BlobError> {
        let path = self.file(kind, sha256);
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(&self.of(kind)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(BlobError::on("remove", &path)(error)),
        }
    }

    /// The caller has the turn to publish: a copy under way is nobody's.
    pub(super) fn list(&self, kind: Kind) -> Result<Vec<(Digest, u64)>, BlobError> {
        let mut found = Vec::new();
        for path in read_directory(&self.of(kind))? {
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(digest) = digest_of(kind, name) {
                let metadata = fs::metadata(&path).map_err(BlobError::on("read", &path))?;
                found.push((digest, metadata.len()));
            } else if name.is_some_and(|name| name.starts_with(UNDER_WAY)) {
                fs::remove_file(&path).map_err(BlobError::on("remove", &path))?;
                log::info!("removed {}, left by an upload that was interrupted", path.display());
            } else {
                log::warn!("{} is no {} and is not served", path.display(), kind.noun());
            }
        }
        Ok(found)
    }

    pub(super) async fn content(
        &self,
        kind: Kind,
        sha256: &Digest,
    ) -> Result<Option<(Content, u64)>, BlobError> {
        let path = self.file(kind, sha256);
        let file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BlobError::on("open", &path)(error)),
        };
        let size = file.metadata().await.map_err(BlobError::on("read", &path))?.len();
        Ok(Some((Content::File(Arc::new(file.into_std().await), self.windows.clone()), size)))
    }

    pub(super) fn identity(&self, new: &str) -> Result<String, BlobError> {
        let path = self.path.join(IDENTITY);
        let failed = || BlobError::on("write", &path);
        let mut file = NamedTempFile::new_in(&self.path).map_err(failed())?;
        file.write_all(new.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed())?;
        match file.persist_noclobber(&path) {
            Ok(_) => sync_directory(&self.path)?,
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed()(error.error)),
        }
        fs::read_to_string(&path).map_err(BlobError::on("read", &path))
    }
}

/// Bytes that an unprivileged process may still write on the file system of a directory.
#[allow(clippy::useless_conversion, reason = "the system's types have 32 bits on 32-bit machines")]
pub(super) fn free_bytes(directory: &Path) -> Result<u64, BlobError> {
    let stat = nix::sys::statvfs::statvfs(directory)
        .map_err(|errno| BlobError::on("ask for the free space of", directory)(errno.into()))?;
    Ok(u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size())))
}

pub(super) fn read_directory(directory: &Path) -> Result<Vec<PathBuf>, BlobError> {
    let entries = fs::read_dir(directory).map_err(BlobError::on("list", directory))?;
    entries.map(|entry| Ok(entry.map_err(BlobError::on("list", directory))?.path())).collect()
}

pub(super) fn sync_directory(directory: &Path) -> Result<(), BlobError> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(BlobError::on("flush", directory))
}
