//! The two bundles: their indexes and plain images.

use std::path::Path;

use crate::decode::Decoder;
use crate::digest::Digest;
use crate::error::Error;
use crate::index::IndexReader;
use crate::input::FileInput;
use crate::manifest::Image;
use crate::reader::{Contents, Unverified};
use crate::seal::{DeviceKey, Unlocked};

/// A bundle whose content is checked against its manifest, which nobody vouches for.
pub(super) struct Release {
    contents: Contents<FileInput>,
    /// SHA-256 of the manifest.
    pub(super) id: Digest,
    /// Length of the bundle in bytes.
    pub(super) size: u64,
}

/// An image that both bundles have.
pub(super) struct Pair {
    pub(super) role: String,
    /// Its number in the old bundle.
    pub(super) old: usize,
    /// Its number in the new bundle.
    pub(super) new: usize,
    /// Length of the new image in bytes.
    pub(super) new_size: u64,
}

impl Release {
    pub(super) fn open(path: &Path, key: Option<&dyn DeviceKey>) -> Result<Release, Error> {
        let mut contents = Unverified::open(FileInput::open(path)?)?.contents()?;
        if let Some(key) = key {
            contents.unlock(key)?;
        }
        contents.require_unlocked()?;
        let (id, size) = (Digest::of(&contents.manifest_bytes), contents.total_size());
        Ok(Release { contents, id, size })
    }

    /// What it was decrypted with; `None` when everybody can read it.
    pub(super) fn unlocked(&self) -> Option<&Unlocked> {
        self.contents.unlocked.as_ref()
    }

    fn images(&self) -> &[Image] {
        &self.contents.manifest.images
    }

    pub(super) fn roles(&self) -> impl Iterator<Item = &str> {
        self.images().iter().map(|image| image.role.as_str())
    }

    /// The images of the same role, in the order of the new bundle.
    pub(super) fn pairs(&self, new: &Release) -> Vec<Pair> {
        let pair = |(number, image): (usize, &Image)| {
            let old = self.roles().position(|role| role == image.role)?;
            Some(Pair { role: image.role.clone(), old, new: number, new_size: image.size })
        };
        new.images().iter().enumerate().filter_map(pair).collect()
    }

    /// The index of an image.
    pub(super) fn index(&mut self, number: usize) -> Result<Vec<u8>, Error> {
        let mut index = Vec::new();
        self.contents.read_index(number, &mut index)?;
        Ok(index)
    }

    /// A whole plain image.
    pub(super) fn image(&mut self, number: usize) -> Result<Vec<u8>, Error> {
        let index = self.index(number)?;
        let image =
            self.images().get(number).ok_or_else(|| Error::Caller(format!("no image {number}")))?.clone();
        let too_large = |_| Error::Order(format!("no memory for {} with {} bytes", image.role, image.size));
        let mut whole: Vec<u8> = Vec::new();
        whole.try_reserve_exact(usize::try_from(image.size).unwrap_or(usize::MAX)).map_err(too_large)?;
        let mut decoder =
            Decoder::new().map_err(|source| Error::Sink { what: "decoder state".into(), source })?;
        let (mut stored, mut plain, mut offset) = (Vec::new(), Vec::new(), 0);
        for (chunk_number, chunk) in IndexReader::new(index.as_slice(), &image).enumerate() {
            let chunk = chunk?;
            self.contents.read_stored(number, offset, chunk.stored_len, &mut stored)?;
            let decoded = match self.contents.seal(number) {
                None => decoder.decode(&chunk, &stored, &mut plain),
                Some(seal) => {
                    plain.resize(chunk.plain_len as usize, 0);
                    decoder.decode_sealed_into(&chunk, (seal, chunk_number as u64), &mut stored, &mut plain)
                }
            };
            decoded.map_err(|source| Error::Chunk {
                role: image.role.clone(),
                number: chunk_number as u64,
                offset,
                source: Box::new(source),
            })?;
            whole.extend_from_slice(&plain);
            offset += u64::from(chunk.stored_len);
        }
        let found = Digest::of(&whole);
        if found == image.sha256 {
            return Ok(whole);
        }
        let what = format!("the image {}", image.role);
        Err(Error::HashMismatch { what, found, wanted: image.sha256 })
    }
}
