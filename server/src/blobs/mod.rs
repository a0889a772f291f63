//! Artifacts and deltas, named by the SHA-256 of all their bytes, and uploads under way.
//!
//! ```text
//! STORE/artifacts/<64 hex digits>.otab       complete, verified
//! STORE/deltas/<64 hex digits>.otad-delta    complete, with a header that can be read
//! STORE/otad-store                           which store this is, where several servers use it
//! DIR/incoming/…                             uploads under way; emptied at every start
//! ```
//!
//! STORE is the data directory of the server, another directory, or object storage. It promises that a name in it only ever appears
//! with all its bytes in safety: in a directory by temporary file, flush, rename and flush of the directory; in object storage because
//! an object appears when it is complete. Names are made from digests alone: no label of a client reaches a file system.

mod directory;
mod objects;
mod pages;
mod spool;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use otad_bundle::Digest;
use sha2::{Digest as _, Sha256};

pub use objects::Content;
pub use spool::{Spool, Spooled};

use crate::kind::Kind;
use directory::{Directory, read_directory, sync_directory};
use objects::Objects;

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
    /// Object storage.
    #[error("cannot {act} {name} in the artifact store: {source}")]
    Objects {
        /// What was tried.
        act: &'static str,
        /// On what.
        name: String,
        /// What it said.
        source: object_store::Error,
    },
    /// A worker thread ended without a result.
    #[error("a worker thread stopped: {0}")]
    Worker(#[from] tokio::task::JoinError),
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

/// The files, and the directory of uploads under way.
#[derive(Debug, Clone)]
pub struct Blobs {
    data: PathBuf,
    incoming: PathBuf,
    store: Shelf,
}

#[derive(Debug, Clone)]
enum Shelf {
    Directory(Directory),
    Objects(Objects),
}

impl Blobs {
    /// Opens or creates the directories under `data`, which hold the files, too, and removes what interrupted uploads left.
    ///
    /// The caller holds the lock of the data directory: another server's uploads look like leftovers.
    pub fn open(data: &Path) -> Result<Blobs, BlobError> {
        Blobs::at(data, data)
    }

    /// The same with the files in another directory, which other servers may use as well.
    pub fn at(data: &Path, files: &Path) -> Result<Blobs, BlobError> {
        Blobs::on(data, Shelf::Directory(Directory::open(files)?))
    }

    /// The same with the files in this object storage.
    pub fn over(data: &Path, store: Arc<dyn ObjectStore>) -> Result<Blobs, BlobError> {
        Blobs::on(data, Shelf::Objects(Objects::over(store)))
    }

    fn on(data: &Path, store: Shelf) -> Result<Blobs, BlobError> {
        let blobs = Blobs { data: data.to_path_buf(), incoming: data.join("incoming"), store };
        fs::create_dir_all(&blobs.incoming).map_err(BlobError::on("create", &blobs.incoming))?;
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

    /// Bytes that an unprivileged process may still write where uploads go through and, if that is a directory, end.
    pub fn free_bytes(&self) -> Result<u64, BlobError> {
        let free = directory::free_bytes(&self.incoming)?;
        match &self.store {
            Shelf::Directory(store) => Ok(free.min(directory::free_bytes(store.path())?)),
            Shelf::Objects(_) => Ok(free),
        }
    }

    /// Gives a spooled file its name. It is complete and in safety when this returns.
    pub async fn keep(&self, kind: Kind, spooled: Spooled) -> Result<(), BlobError> {
        match &self.store {
            Shelf::Directory(store) => worker(store, move |store| store.keep(kind, spooled)).await,
            Shelf::Objects(store) => store.keep(kind, spooled).await,
        }
    }

    /// Removes a file; a missing one is fine. Downloads that have it open go on.
    pub async fn remove(&self, kind: Kind, sha256: Digest) -> Result<(), BlobError> {
        match &self.store {
            Shelf::Directory(store) => worker(store, move |store| store.remove(kind, &sha256)).await,
            Shelf::Objects(store) => store.remove(kind, &sha256).await,
        }
    }

    /// Every file of a kind by digest with its size in bytes. Other names are left alone and reported in the log.
    pub async fn list(&self, kind: Kind) -> Result<Vec<(Digest, u64)>, BlobError> {
        match &self.store {
            Shelf::Directory(store) => worker(store, move |store| store.list(kind)).await,
            Shelf::Objects(store) => store.list(kind).await,
        }
    }

    /// Opens a file and tells its size; `None` when there is none.
    pub async fn content(&self, kind: Kind, sha256: &Digest) -> Result<Option<(Content, u64)>, BlobError> {
        match &self.store {
            Shelf::Directory(store) => store.content(kind, sha256).await,
            Shelf::Objects(store) => store.content(kind, sha256).await,
        }
    }

    /// Which store this is: a name that it gets when it is first asked for, and keeps.
    pub async fn identity(&self) -> Result<String, BlobError> {
        let new: String = crate::secret::token().map_err(|source| BlobError::Io {
            act: "read random bytes for",
            path: self.data.clone(),
            source,
        })?;
        match &self.store {
            Shelf::Directory(store) => worker(store, move |store| store.identity(&new)).await,
            Shelf::Objects(store) => store.identity(new).await,
        }
    }
}

/// The name of a file in every store.
fn file_name(kind: Kind, sha256: &Digest) -> String {
    format!("{sha256}{}", kind.suffix())
}

/// The digest of such a name.
fn digest_of(kind: Kind, name: Option<&str>) -> Option<Digest> {
    name.and_then(|name| name.strip_suffix(kind.suffix())).and_then(|hex| hex.parse().ok())
}

/// Does what blocks on a thread for it.
async fn worker<T: Send + 'static>(
    store: &Directory,
    work: impl FnOnce(&Directory) -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || work(&store)).await?
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

    #[tokio::test]
    async fn a_name_is_the_sha256_of_the_bytes() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (kind, name) in [(Kind::Artifact, "artifacts/HEX.otab"), (Kind::Delta, "deltas/HEX.otad-delta")] {
            let data = tempfile::tempdir().unwrap();
            let blobs = Blobs::open(data.path()).unwrap();
            let upload = spooled(&blobs, b"abc");
            assert_eq!((upload.sha256.to_string().as_str(), upload.size), (expected, 3));
            let digest = upload.sha256;
            blobs.keep(kind, upload).await.unwrap();
            assert_eq!(fs::read(data.path().join(name.replace("HEX", expected))).unwrap(), b"abc");
            assert_eq!(blobs.list(kind).await.unwrap(), [(digest, 3)]);
            blobs.remove(kind, digest).await.unwrap();
            blobs.remove(kind, digest).await.unwrap();
            assert_eq!(blobs.list(kind).await.unwrap(), []);
        }
    }

    /// W6: what an interrupted upload left is gone after a restart; what was finished is not.
    #[tokio::test]
    async fn w6_leftovers_go_at_the_start() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path()).unwrap();
        for kind in Kind::ALL {
            blobs.keep(kind, spooled(&blobs, b"finished")).await.unwrap();
        }
        fs::write(data.path().join("incoming/upload-killed"), b"half").unwrap();
        drop(blobs.spool(0).unwrap());
        let blobs = Blobs::open(data.path()).unwrap();
        assert_eq!(fs::read_dir(data.path().join("incoming")).unwrap().count(), 0);
        for kind in Kind::ALL {
            assert_eq!(blobs.list(kind).await.unwrap().len(), 1);
        }
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
