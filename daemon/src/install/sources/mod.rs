//! Where the bytes of a chunk may come from, in order of cost.
//!
//! A source promises only to try: every chunk is hashed against the signed index before it is written, whoever gave it.
//! The target itself is the cheapest source of all: [`target::scan`] finds what it holds, and those chunks are never asked
//! for here.

pub mod alive;
pub mod bundle;
pub mod delta;
mod repeats;
pub mod running;
pub mod target;

use std::ops::Range;

use otad_bundle::SharedExpander;

use super::Placed;
use crate::failure::Failure;
use bundle::BundleSource;
use repeats::{Repeats, Turn};

/// What the bytes of the bundle cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// It is here, or comes whether it is wanted or not.
    Free,
    /// Every byte of it that is wanted is paid for.
    Paid,
}

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

    /// Puts the plain bytes of the chunk into `plain`, which is as long, verified; tells whether it has them.
    fn get(&mut self, image: usize, placed: &Placed, plain: &mut [u8]) -> Result<bool, Failure>;

    /// Bytes fetched over a link so far.
    fn fetched(&self) -> u64 {
        0
    }

    /// What it decodes with, where it has something of its own for that.
    fn decoder(&self) -> Option<SharedExpander> {
        None
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
    /// Whether fetching a chunk twice matters.
    price: Price,
    repeats: Repeats,
}

impl Sources {
    /// Brings the sources of an install together.
    pub fn new(cheaper: Vec<Box<dyn ChunkSource>>, bundle: BundleSource, price: Price) -> Self {
        Sources { cheaper, bundle, saved: 0, price, repeats: Repeats::default() }
    }

    /// Tells the bundle which of these chunks will be asked of it, so that a link is never idle. Bounded by the index: two
    /// numbers for each run of chunks, and for a moment one for each chunk.
    pub fn expect<C: Iterator<Item = Result<Placed, Failure>>>(
        &mut self,
        image: usize,
        chunks: impl Fn() -> Result<C, Failure>,
    ) -> Result<(), Failure> {
        self.repeats = Repeats::default();
        if !self.bundle.bundle().random_access() {
            return Ok(());
        }
        let is_fetched = |placed: &Placed| {
            placed.chunk.stored_len > 0 && !self.cheaper.iter().any(|source| source.may_have(image, placed))
        };
        let mut announced = match self.price {
            Price::Free => Repeats::default(),
            Price::Paid => {
                let mut keys = Vec::new();
                for placed in chunks()? {
                    let placed = placed?;
                    if is_fetched(&placed) {
                        keys.push(repeats::key(&placed.chunk));
                    }
                }
                Repeats::among(keys)
            }
        };
        let repeats = announced.clone();
        let mut extents: Vec<Range<u64>> = Vec::new();
        for placed in chunks()? {
            let placed = placed?;
            let length = u64::from(placed.chunk.stored_len);
            if !is_fetched(&placed) || matches!(announced.turn(&placed.chunk), Turn::Held(_)) {
                continue;
            }
            match extents.last_mut() {
                Some(last) if last.end == placed.stored => last.end += length,
                Some(_) | None => extents.push(placed.stored..placed.stored + length),
            }
        }
        self.repeats = repeats;
        self.bundle.expect(image, extents)
    }

    /// What one of them decodes with.
    pub fn decoder(&self) -> Option<SharedExpander> {
        self.cheaper.iter().find_map(|source| source.decoder())
    }

    /// Bytes fetched over a link or from a file so far.
    pub fn fetched(&self) -> u64 {
        self.bundle.fetched() + self.cheaper.iter().map(|source| source.fetched()).sum::<u64>()
    }

    /// Gets a chunk from the cheapest source that has it: verified into `plain`, or as it is stored into `stored`; both are as
    /// long as the index says.
    pub fn fetch(
        &mut self,
        image: usize,
        placed: &Placed,
        stored: &mut [u8],
        plain: &mut [u8],
    ) -> Result<Form, Failure> {
        for source in &mut self.cheaper {
            if source.may_have(image, placed) && source.get(image, placed, plain)? {
                self.saved += u64::from(placed.chunk.plain_len);
                return Ok(Form::Plain);
            }
        }
        match self.repeats.turn(&placed.chunk) {
            Turn::Held(bytes) if bytes.len() == stored.len() => stored.copy_from_slice(&bytes),
            Turn::Hold => {
                self.bundle.read(image, placed, stored)?;
                self.repeats.hold(&placed.chunk, stored);
            }
            Turn::Held(_) | Turn::Pass => self.bundle.read(image, placed, stored)?,
        }
        Ok(Form::Stored)
    }
}
