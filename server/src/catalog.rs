//! Keeps the artifact files and the database in agreement: publishing, withdrawing, and taking stock at the start.
//!
//! The order of the two effects is what makes a kill harmless. Publishing: the file first, then the row, so that an
//! artifact on offer always has its file. Withdrawing: the row first, then the file.

use std::path::PathBuf;
use std::sync::Arc;

use otad_bundle::Digest;
use tokio::sync::Mutex;

use crate::blobs::{BlobError, Blobs, Spooled};
use crate::store::{Artifact, Publication, Store, StoreError};
use crate::verify::{self, VerifyError};

/// Why an artifact was not published or withdrawn.
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
    /// A worker thread ended without a result.
    #[error("a worker thread stopped: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// The artifacts of a data directory.
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
        let files: std::collections::HashMap<String, u64> =
            blobs.list()?.into_iter().map(|(digest, size)| (digest.to_string(), size)).collect();
        let rows = store.inventory().await?;
        for (sha256, size, offered) in &rows {
            match (files.get(sha256), offered) {
                (Some(found), true) if found == size => {}
                (Some(found), true) => {
                    log::error!(
                        "artifact {sha256} has {found} bytes instead of {size}: withdrawn, upload it again"
                    );
                    store.withdraw(sha256).await?;
                }
                (None, true) => {
                    log::error!("the file of artifact {sha256} is gone: withdrawn, upload it again");
                    store.withdraw(sha256).await?;
                }
                // Never deleted here: the disk may have been away for a start, or the database be an older backup.
                (Some(_), false) => {
                    log::warn!(
                        "artifact {sha256} is withdrawn but its file is here: upload it or DELETE it again"
                    );
                }
                (None, false) => {}
            }
        }
        let known: std::collections::HashSet<&str> =
            rows.iter().map(|(sha256, ..)| sha256.as_str()).collect();
        for sha256 in files.keys().filter(|sha256| !known.contains(sha256.as_str())) {
            log::warn!(
                "artifact file {sha256}.otab is not in the database and not on offer: upload it again, or delete it"
            );
        }
        Ok(Catalog { store, blobs, root, turn: Arc::new(Mutex::new(())) })
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
            && tokio::fs::metadata(self.blobs.path(&spooled.sha256)).await.is_ok_and(|data| data.len() == known.size)
        {
            return Ok((known, Publication::Repeated));
        }
        let root = self.root.clone();
        let verified = tokio::task::spawn_blocking(move || -> Result<_, CatalogError> {
            let root = verify::read_root(&root)?;
            let new = verify::verify(spooled.reopen()?, &root, &spooled.sha256.to_string(), spooled.size)?;
            Ok((spooled, new))
        });
        let (spooled, new) = verified.await??;
        let _turn = self.turn.lock().await;
        let blobs = self.blobs.clone();
        tokio::task::spawn_blocking(move || blobs.keep(spooled)).await??;
        Ok(self.store.publish(&new).await?)
    }

    /// Takes an artifact off offer and removes its file. `None` when there never was one with this digest.
    pub async fn withdraw(&self, sha256: &Digest) -> Result<Option<Artifact>, CatalogError> {
        // In a task of its own: an operator who hangs up half way must not leave the row and the file in disagreement.
        let (catalog, sha256) = (self.clone(), *sha256);
        tokio::spawn(async move { catalog.withdraw_whole(&sha256).await }).await?
    }

    async fn withdraw_whole(&self, sha256: &Digest) -> Result<Option<Artifact>, CatalogError> {
        let _turn = self.turn.lock().await;
        self.store.withdraw(&sha256.to_string()).await?;
        let artifact = self.store.artifact(&sha256.to_string()).await?;
        if artifact.is_some() {
            let (blobs, sha256) = (self.blobs.clone(), *sha256);
            tokio::task::spawn_blocking(move || blobs.remove(&sha256)).await??;
        }
        Ok(artifact)
    }
}
