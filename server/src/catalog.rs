//! Keeps the files and the database in agreement: publishing, withdrawing, and taking stock at the start.
//!
//! The order of the two effects is what makes a kill harmless. Publishing: the file first, then the row, so that what is
//! on offer always has its file. Withdrawing: the row first, then the file.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use otad_bundle::Digest;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::blobs::{BlobError, Blobs, Spooled};
use crate::kind::Kind;
use crate::store::{Artifact, CatalogLock, Delta, Publication, Store, StoreError};
use crate::verify::{self, VerifyError};

/// How long a publication waits for one of another process: large files take their time on slow disks.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why something was not published or withdrawn.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The row.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A delta leads to a release of which no artifact is on offer.
    #[error(
        "the delta leads to release {release}, of which no artifact is on offer: upload its bundle first"
    )]
    UnknownRelease {
        /// SHA-256 of the manifest.
        release: String,
    },
    /// Another server with the same database keeps its files elsewhere.
    #[error(
        "the files of this database are in another store: give every server with it the same --artifacts"
    )]
    OtherStore,
    /// A worker thread ended without a result.
    #[error("a worker thread stopped: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// The artifacts and deltas of a data directory.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Store,
    blobs: Blobs,
    root: PathBuf,
    /// One publication or withdrawal at a time: each is two effects that must not interleave with the other's.
    turn: Arc<Mutex<()>>,
}

impl Catalog {
    /// Takes stock: what the database offers must be there in full, and what is withdrawn must be gone.
    ///
    /// A file without a row is kept and reported: it may be all that is left after an older backup of the database was
    /// restored. Uploading it again brings it back on offer.
    pub async fn open(store: Store, blobs: Blobs, root: PathBuf) -> Result<Catalog, CatalogError> {
        let catalog = Catalog { store, blobs, root, turn: Arc::new(Mutex::new(())) };
        let turn = catalog.turn().await?;
        if catalog.store.is_shared() {
            let identity = catalog.blobs.identity().await?;
            if !catalog.store.claim_artifacts(&identity).await? {
                return Err(CatalogError::OtherStore);
            }
        }
        for kind in Kind::ALL {
            take_stock(&catalog.store, &catalog.blobs, kind).await?;
        }
        drop(turn);
        Ok(catalog)
    }

    /// Waits until no publication or withdrawal is under way, here or in another process with the same database.
    async fn turn(&self) -> Result<(OwnedMutexGuard<()>, Option<CatalogLock>), StoreError> {
        let here = self.turn.clone().lock_owned().await;
        Ok((here, self.store.lock_catalog(PATIENCE).await?))
    }

    /// Where the trust root is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The files.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Verifies a complete upload and puts it on offer. The same file again changes nothing.
    pub async fn publish(&self, spooled: Spooled) -> Result<(Artifact, Publication), CatalogError> {
        let sha256 = spooled.sha256.to_string();
        if let Some(known) = self.store.artifact(&sha256).await?
            && known.withdrawn_at.is_none()
            // A file that was lost or cut since is repaired by the same upload.
            && self.blobs.content(Kind::Artifact, &spooled.sha256).await?.is_some_and(|(_, size)| size == known.size)
        {
            return Ok((known, Publication::Repeated));
        }
        let root = self.root.clone();
        let (spooled, new) = worker(move || {
            let root = verify::read_root(&root)?;
            let new = verify::verify(spooled.reopen()?, &root, &sha256, spooled.size)?;
            Ok((spooled, new))
        })
        .await?;
        let _turn = self.turn().await?;
        self.place(Kind::Artifact, spooled, self.store.publish(&new)).await
    }

    /// Reads the header of a delta and puts the file on offer. The same file again changes nothing.
    pub async fn publish_delta(&self, spooled: Spooled) -> Result<(Delta, Publication), CatalogError> {
        let (spooled, new) = worker(move || {
            let new = verify::read_delta(spooled.reopen()?, &spooled.sha256.to_string(), spooled.size)?;
            Ok((spooled, new))
        })
        .await?;
        // Asked within the turn: the release must not be withdrawn between the question and the row.
        let _turn = self.turn().await?;
        if !self.store.offers_release(&new.to_release).await? {
            return Err(CatalogError::UnknownRelease { release: new.to_release });
        }
        self.place(Kind::Delta, spooled, self.store.publish_delta(&new)).await
    }

    /// Gives an upload its name, then writes its row. The caller holds the turn.
    async fn place<T>(
        &self,
        kind: Kind,
        spooled: Spooled,
        row: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, CatalogError> {
        let sha256 = spooled.sha256;
        let placed = match self.blobs.keep(kind, spooled).await {
            Ok(()) => row.await.map_err(CatalogError::from),
            Err(error) => Err(error.into()),
        };
        if placed.is_err() {
            self.take_back(kind, sha256).await;
        }
        placed
    }

    /// Removes the file of a publication that failed, so that a refused upload takes no room.
    async fn take_back(&self, kind: Kind, sha256: Digest) {
        let removed = match self.store.file(kind, &sha256.to_string()).await {
            // The upload was to repair the file of a row that is on offer, or the commit went through all the same.
            Ok(Some(row)) if row.offered => Ok(()),
            Ok(_) => self.blobs.remove(kind, sha256).await.map_err(CatalogError::from),
            // In doubt the file stays: the next start compares it with the database and reports it.
            Err(error) => Err(error.into()),
        };
        if let Err(error) = removed {
            log::error!("the file of the failed upload {sha256} stays: {error}");
        }
    }

    /// Takes a file off offer and removes it; an artifact takes the deltas to its release along, unless another artifact
    /// holds the same release. `false` when there never was one with this digest.
    pub async fn withdraw(&self, kind: Kind, sha256: &Digest) -> Result<bool, CatalogError> {
        // In a task of its own: an operator who hangs up half way must not leave the row and the file in disagreement.
        let (catalog, sha256) = (self.clone(), *sha256);
        tokio::spawn(async move { catalog.withdraw_whole(kind, sha256).await }).await?
    }

    async fn withdraw_whole(&self, kind: Kind, sha256: Digest) -> Result<bool, CatalogError> {
        let _turn = self.turn().await?;
        let name = sha256.to_string();
        self.store.withdraw(kind, &name).await?;
        if self.store.file(kind, &name).await?.is_none() {
            return Ok(false);
        }
        self.blobs.remove(kind, sha256).await?;
        log::info!("withdrew {} {name}", kind.noun());
        if kind == Kind::Artifact
            && let Some(artifact) = self.store.artifact(&name).await?
        {
            for delta in self.store.withdraw_deltas_to(&artifact.release).await? {
                let delta = delta.parse().map_err(|_| StoreError::Row { what: "digest", value: delta })?;
                self.blobs.remove(Kind::Delta, delta).await?;
            }
        }
        Ok(true)
    }
}

/// Compares the files of a kind with their rows.
async fn take_stock(store: &Store, blobs: &Blobs, kind: Kind) -> Result<(), CatalogError> {
    let noun = kind.noun();
    let files: HashMap<String, u64> =
        blobs.list(kind).await?.into_iter().map(|(digest, size)| (digest.to_string(), size)).collect();
    let rows = store.inventory(kind).await?;
    for (sha256, row) in &rows {
        let size = row.size;
        match (files.get(sha256), row.offered) {
            (Some(&found), true) if found == size => {}
            (Some(found), true) => {
                log::error!(
                    "{noun} {sha256} has {found} bytes instead of {size}: withdrawn, upload it again"
                );
                store.withdraw(kind, sha256).await?;
            }
            (None, true) => {
                log::error!("the file of {noun} {sha256} is gone: withdrawn, upload it again");
                store.withdraw(kind, sha256).await?;
            }
            // Never deleted here: the disk may have been away for a start, or the database be an older backup.
            (Some(_), false) => {
                log::warn!("{noun} {sha256} is withdrawn but its file is here: upload it or DELETE it again");
            }
            (None, false) => {}
        }
    }
    let known: HashSet<&str> = rows.iter().map(|(sha256, _)| sha256.as_str()).collect();
    for sha256 in files.keys().filter(|sha256| !known.contains(sha256.as_str())) {
        log::warn!(
            "{noun} {sha256} is not in the database and not on offer: upload it again, or delete its file"
        );
    }
    Ok(())
}

/// Does what blocks on a thread for it.
async fn worker<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(work).await?
}
