//! Files in object storage, through the crate `object_store`; and reading files of either store.

use std::io::{self, Read as _};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload,
};
use otad_bundle::Digest;

use super::pages::{Pages, Windows};
use super::{BlobError, Spooled, digest_of, file_name};
use crate::kind::Kind;

/// A part of an upload, in bytes: S3 takes at least 5 MiB and at most 10000 of them, which makes 78 GiB.
const PART_BYTES: u64 = 8 << 20;
/// Says which store this is.
const IDENTITY: &str = "otad-store";

/// Object storage, all of it.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
}

/// A file that is being served.
#[derive(Debug)]
pub enum Content {
    /// An open file: it can be read to its end also when it is removed.
    File(Arc<std::fs::File>, Windows),
    /// An object.
    Object(Arc<dyn ObjectStore>, Path),
}

impl Content {
    /// Reads `length` bytes from `first` on, piece by piece. What is not there to the end fails or ends early.
    pub async fn part(&self, first: u64, length: u64) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        match self {
            Content::File(file, windows) => {
                Ok(Pages::new(file.clone(), windows.clone(), first, length).boxed())
            }
            Content::Object(..) if length == 0 => Ok(stream::empty().boxed()),
            Content::Object(store, path) => {
                let range = Some(GetRange::Bounded(first..first.saturating_add(length)));
                let found = store.get_opts(path, GetOptions { range, ..GetOptions::default() }).await?;
                Ok(found.into_stream().map_err(io::Error::from).boxed())
            }
        }
    }
}

impl Objects {
    pub(super) fn over(store: Arc<dyn ObjectStore>) -> Objects {
        Objects { store }
    }

    fn path(&self, kind: Kind, sha256: &Digest) -> Path {
        Path::from(kind.directory()).join(file_name(kind, sha256))
    }

    /// Sends an upload part by part. The object appears with the last of them; what is broken off leaves none.
    pub(super) async fn keep(&self, kind: Kind, spooled: Spooled) -> Result<(), BlobError> {
        let path = self.path(kind, &spooled.sha256);
        let failed = |source| on("write", &path, source);
        let mut upload = self.store.put_multipart(&path).await.map_err(failed)?;
        let sent = match send(&mut *upload, &spooled).await {
            Ok(()) => upload.complete().await.map(drop).map_err(failed),
            Err(error) => Err(error),
        };
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            log::warn!("the parts of an upload stay in the artifact store: {error}");
        }
        sent
    }

    pub(super) async fn remove(&self, kind: Kind, sha256: &Digest) -> Result<(), BlobError> {
        let path = self.path(kind, sha256);
        match self.store.delete(&path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(on("remove", &path, source)),
        }
    }

    pub(super) async fn list(&self, kind: Kind) -> Result<Vec<(Digest, u64)>, BlobError> {
        let prefix = Path::from(kind.directory());
        let listed = self.store.list_with_delimiter(Some(&prefix)).await;
        let mut found = Vec::new();
        for object in listed.map_err(|source| on("list", &prefix, source))?.objects {
            match digest_of(kind, object.location.filename()) {
                Some(digest) => found.push((digest, object.size)),
                None => log::warn!("{} is no {} and is not served", object.location, kind.noun()),
            }
        }
        Ok(found)
    }

    pub(super) async fn content(
        &self,
        kind: Kind,
        sha256: &Digest,
    ) -> Result<Option<(Content, u64)>, BlobError> {
        let path = self.path(kind, sha256);
        match self.store.head(&path).await {
            Ok(object) => Ok(Some((Content::Object(self.store.clone(), path), object.size))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(on("read", &path, source)),
        }
    }

    pub(super) async fn identity(&self, new: String) -> Result<String, BlobError> {
        let path = Path::from(IDENTITY);
        let failed = |source| on("write", &path, source);
        match self.store.put_opts(&path, new.clone().into(), PutMode::Create.into()).await {
            Ok(_) => return Ok(new),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            Err(source) => return Err(failed(source)),
        }
        let found = self.store.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
        Ok(String::from_utf8_lossy(&found).into_owned())
    }
}

async fn send(upload: &mut dyn MultipartUpload, spooled: &Spooled) -> Result<(), BlobError> {
    let mut file = spooled.reopen()?;
    loop {
        let place = spooled.file.path().to_path_buf();
        let (rest, part) = tokio::task::spawn_blocking(move || {
            let mut part = Vec::new();
            let read = (&mut file).take(PART_BYTES).read_to_end(&mut part);
            read.map(|_| (file, part)).map_err(BlobError::on("read", &place))
        })
        .await??;
        file = rest;
        if part.is_empty() {
            return Ok(());
        }
        let sent = upload.put_part(PutPayload::from(part)).await;
        sent.map_err(|source| BlobError::Objects { act: "write", name: spooled.sha256.to_string(), source })?;
    }
}

fn on(act: &'static str, path: &Path, source: Error) -> BlobError {
    BlobError::Objects { act, name: path.to_string(), source }
}
