//! Where the bytes of a chunk may come from, in order of cost.
//!
//! A source promises only to try: every chunk is hashed against the signed index before it is written, whoever gave it.
//! The target itself is the cheapest source of all: [`target::scan`] finds what it holds, and those chunks are never asked
//! for here.

pub mod alive;
pub mod bundle;
pub mod delta;
pub mod running;
pub mod target;

use std::ops::Range;

use super::Placed;
use crate::failure::Failure;
use bundle::BundleSource;

/// What a source gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The stored bytes, of which nothing is verified yet.
    Stored,
    /// The plain bytes, verified.
    Plain,
}

/// A source that may have a chunk.
pub trait ChunkSource: Send {
    /// Whether it is worth asking; costs nothing.
    fn may_have(&self, image: usize, placed: &Placed) -> bool;

    /// Puts the plain bytes of the chunk into `plain`, verified; tells whether it has them.
    fn get(&mut self, image: usize, placed: &Placed, plain: &mut Vec<u8>) -> Result<bool, Failure>;

    /// Bytes fetched over a link so far.
    fn fetched(&self) -> u64 {
        0
    }
}

/// The sources of one install.
pub struct Sources {
    /// Those that cost less than the bundle, the cheapest first.
    pub cheaper: Vec<Box<dyn ChunkSource>>,
    /// The bundle, which has every chunk.
    pub bundle: BundleSource,
    /// Plain bytes that came from the cheaper ones.
    pub saved: u64,
}

impl Sources {
    /// Tells the bundle which of these chunks will be asked of it, so that a link is never idle. Bounded by the index: two
    /// numbers for each run of chunks.
    pub fn expect(
        &mut self,
        image: usize,
        chunks: impl Iterator<Item = Result<Placed, Failure>>,
    ) -> Result<(), Failure> {
        if !self.bundle.bundle().random_access() {
            return Ok(());
        }
        let mut extents: Vec<Range<u64>> = Vec::new();
        for placed in chunks {
            let placed = placed?;
            let length = u64::from(placed.chunk.stored_len);
            if length == 0 || self.cheaper.iter().any(|source| source.may_have(image, &placed)) {
                continue;
            }
            match extents.last_mut() {
                Some(last) if last.end == placed.stored => last.end += length,
                Some(_) | None => extents.push(placed.stored..placed.stored + length),
            }
        }
        self.bundle.expect(image, extents)
    }

    /// Bytes fetched over a link or from a file so far.
    pub fn fetched(&self) -> u64 {
        self.bundle.fetched() + self.cheaper.iter().map(|source| source.fetched()).sum::<u64>()
    }

    /// Gets a chunk from the cheapest source that has it: verified into `plain`, or as it is stored into `stored`.
    pub fn fetch(
        &mut self,
        image: usize,
        placed: &Placed,
        stored: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Form, Failure> {
        for source in &mut self.cheaper {
            if source.may_have(image, placed) && source.get(image, placed, plain)? {
                self.saved += u64::from(placed.chunk.plain_len);
                return Ok(Form::Plain);
            }
        }
        self.bundle.read(image, placed, stored)?;
        Ok(Form::Stored)
    }
}
