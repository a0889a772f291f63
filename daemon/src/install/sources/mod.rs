//! Where the bytes of a chunk may come from, in order of cost.
//!
//! A source promises only to try: every chunk it yields has been hashed against the signed index. The target itself is
//! the cheapest source of all: [`target::scan`] finds what it holds, and those chunks are never asked for here.

pub mod alive;
pub mod bundle;
pub mod target;

use super::Placed;
use crate::failure::Failure;

/// A source of chunks.
pub trait ChunkSource {
    /// Puts the verified plain bytes of the chunk into `plain`.
    fn get(&mut self, image: usize, placed: &Placed, plain: &mut Vec<u8>) -> Result<(), Failure>;

    /// Bytes fetched over a link or from a file so far.
    fn fetched(&self) -> u64;

    /// Called once after the last chunk: whatever can only be checked at the end.
    fn finish(&mut self) -> Result<(), Failure>;
}
