//! What a bundle holds, counted from its indexes, for people and tools.

use std::io::Write;

use crate::digest::Digest;
use crate::error::Error;
use crate::index::{Chunk, ChunkKind, IndexReader};
use crate::input::Input;
use crate::manifest::Manifest;
use crate::reader::{Bundle, Contents, Unverified};

/// Chunks of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindCount {
    /// How many.
    pub chunks: u64,
    /// Their plain bytes.
    pub plain: u64,
    /// Their stored bytes.
    pub stored: u64,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Counts by kind, in the order of [`ChunkKind::ALL`].
    pub kinds: [(ChunkKind, KindCount); 4],
}

/// What a bundle holds. Whether anybody vouches for it depends on where it came from.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of its bytes.
    pub release: Digest,
    /// Length of the whole file in bytes.
    pub total_size: u64,
    /// One entry per image, in the order of the manifest; none while it is encrypted and not unlocked.
    pub images: Vec<ImageSummary>,
}

impl<I: Input> Bundle<I> {
    /// Reads all indexes and counts; the payload is not read where the input allows to skip it.
    pub fn summarise(&mut self) -> Result<Summary, Error> {
        self.contents.summarise()
    }
}

impl<I: Input> Unverified<I> {
    /// The same as [`Bundle::summarise`] for a bundle that **nobody vouches for**: for looking only.
    pub fn summarise_unverified(self) -> Result<Summary, Error> {
        self.contents()?.summarise()
    }
}

impl<I: Input> Contents<I> {
    fn summarise(&mut self) -> Result<Summary, Error> {
        let mut images = Vec::new();
        let readable = if self.is_locked() { 0 } else { self.manifest.images.len() };
        for number in 0..readable {
            let mut index = Vec::new();
            self.read_index(number, &mut index as &mut dyn Write)?;
            let mut kinds = ChunkKind::ALL.map(|kind| (kind, KindCount::default()));
            if let Some(image) = self.manifest.images.get(number) {
                for chunk in IndexReader::new(index.as_slice(), image) {
                    count(&mut kinds, &chunk?);
                }
            }
            images.push(ImageSummary { kinds });
        }
        Ok(Summary {
            manifest: self.manifest.clone(),
            release: Digest::of(&self.manifest_bytes),
            total_size: self.total_size(),
            images,
        })
    }
}

fn count(kinds: &mut [(ChunkKind, KindCount); 4], chunk: &Chunk) {
    for (_, count) in kinds.iter_mut().filter(|(kind, _)| *kind == chunk.kind) {
        count.chunks += 1;
        count.plain += u64::from(chunk.plain_len);
        count.stored += u64::from(chunk.stored_len);
    }
}
