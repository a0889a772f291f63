//! Channel documents on disk: the newest one of every model.
//!
//! ```text
//! DIR/channels/<SHA-256 of the model's name>.toml
//! ```
//!
//! A document is kept only if the online role of the trust root signed it and its counter is higher than that of the one
//! before. Devices verify it again; what is checked here only keeps mistakes from reaching them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use otad_bundle::{Channel, Digest, SignedChannel};
use tempfile::NamedTempFile;

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
    /// The data directory.
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

impl ChannelError {
    fn on(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ChannelError {
        let path = path.to_path_buf();
        move |source| ChannelError::Io { act, path, source }
    }
}

/// Verifies a document by the trust root at `root` and keeps it. The same document again changes nothing.
pub fn publish(data: &Path, root: &Path, document: &[u8]) -> Result<Channel, ChannelError> {
    let root = verify::read_root(root)?;
    let signed = SignedChannel::parse(document).map_err(VerifyError::from)?;
    let channel = signed.verify(&root).map_err(VerifyError::from)?.clone();
    let before = read(data, &channel.compatible)?;
    if before.as_deref() == Some(document) {
        return Ok(channel);
    }
    let before = before.and_then(|bytes| SignedChannel::parse(&bytes).ok());
    if let Some(before) = before.map(|before| before.unverified().counter)
        && channel.counter <= before
    {
        return Err(ChannelError::Replay { found: channel.counter, before });
    }
    let directory = directory(data);
    fs::create_dir_all(&directory).map_err(ChannelError::on("create", &directory))?;
    let path = path(data, &channel.compatible);
    let mut file =
        NamedTempFile::new_in(&directory).map_err(ChannelError::on("create a file in", &directory))?;
    file.write_all(document)
        .and_then(|()| file.as_file().sync_all())
        .map_err(ChannelError::on("write", &path))?;
    file.persist(&path).map_err(|error| ChannelError::on("rename to", &path)(error.error))?;
    File::open(&directory).and_then(|dir| dir.sync_all()).map_err(ChannelError::on("flush", &directory))?;
    Ok(channel)
}

/// The newest document of a model.
pub fn read(data: &Path, compatible: &str) -> Result<Option<Vec<u8>>, ChannelError> {
    let path = path(data, compatible);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ChannelError::on("read", &path)(error)),
    }
}

fn directory(data: &Path) -> PathBuf {
    data.join("channels")
}

/// The name comes from a stranger, so its digest is the file's name.
fn path(data: &Path, compatible: &str) -> PathBuf {
    directory(data).join(format!("{}.toml", Digest::of(compatible.as_bytes())))
}
