//! Channel documents: which are kept, and those that an earlier version kept as files.
//!
//! A document is kept only if the online role of the trust root signed it and its counter is higher than that of the one
//! before. Devices verify it again; what is checked here only keeps mistakes from reaching them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use otad_bundle::{Channel, SignedChannel};

use crate::store::{Keeping, Store, StoreError};
use crate::verify::{self, VerifyError};

/// Why a document was not kept.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// It is not signed as the trust root demands, or the root cannot be read.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// It does not lead ahead.
    #[error("its counter is {found}, that of the one before is {before}: raise it")]
    Replay {
        /// Its counter.
        found: u64,
        /// The counter of the document that is kept.
        before: u64,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of an earlier version.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file, or its directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Verifies a document by the trust root at `root` and keeps it. The same document again changes nothing.
pub async fn publish(store: &Store, root: &Path, document: &[u8]) -> Result<Channel, ChannelError> {
    let root = verify::read_root(root)?;
    let signed = SignedChannel::parse(document).map_err(VerifyError::from)?;
    let channel = signed.verify(&root).map_err(VerifyError::from)?.clone();
    keep(store, &channel, document).await?;
    Ok(channel)
}

/// Takes over what an earlier version kept in `data` as `channels/<digest>.toml`, unless the database is ahead. The files stay for
/// the way back.
pub async fn take_over(store: &Store, data: &Path) -> Result<(), ChannelError> {
    let directory = data.join("channels");
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ChannelError::Io { path, source }
    };
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(&directory)(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed(&directory))?.path();
        let document = fs::read(&path).map_err(failed(&path))?;
        match SignedChannel::parse(&document) {
            Ok(signed) => match keep(store, signed.unverified(), &document).await {
                Ok(()) | Err(ChannelError::Replay { .. }) => {}
                Err(error) => return Err(error),
            },
            Err(error) => log::warn!("{} is no channel document: {error}", path.display()),
        }
    }
    Ok(())
}

async fn keep(store: &Store, channel: &Channel, document: &[u8]) -> Result<(), ChannelError> {
    // What was parsed is UTF-8.
    let document = String::from_utf8_lossy(document);
    match store.keep_channel(&channel.compatible, channel.counter, &document).await? {
        Keeping::Kept => Ok(()),
        Keeping::Behind(before) => Err(ChannelError::Replay { found: channel.counter, before }),
    }
}
