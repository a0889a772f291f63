//! A batch: neighbouring chunks on their way to the target, in memory as they will lie on the device.
//!
//! Decoders put the plain bytes where they are written from, so nothing is copied between the two, and batches go round, so
//! nothing is allocated per chunk.

use std::ops::Range;

use otad_bundle::{Chunking, Decoder, Image, ImageSeal, MAX_CHUNK_BYTES, Piece};

use super::Placed;
use super::sources::{Form, Sources};
use crate::aligned::{ALIGNMENT, Aligned};
use crate::failure::{Failure, from_bundle};

/// Plain bytes of a batch: large enough for few system calls and for the erase blocks of flash to be written in few pieces,
/// small enough not to matter for memory.
const BATCH_BYTES: usize = 256 * 1024;

/// Plain bytes that the batches of an image have room for; one chunk always fits.
pub fn room(image: &Image) -> usize {
    let largest = match image.chunking {
        Chunking::Fixed { size } => size,
        Chunking::FastCdc { max, .. } => max,
    };
    usize::try_from(largest.min(MAX_CHUNK_BYTES)).map_or(BATCH_BYTES, |largest| largest.max(BATCH_BYTES))
}

/// Stored bytes that as many plain bytes of an image take at most: encryption adds some to each chunk, and there are no more chunks
/// than the shortest ones make.
fn stored_room(image: &Image, room: usize) -> usize {
    let chunks = room / usize::try_from(image.chunking.min()).unwrap_or(1).max(1) + 1;
    room + chunks * usize::try_from(image.cover()).unwrap_or(0)
}

/// Chunks without a gap between them.
pub struct Batch {
    chunks: Vec<Waiting>,
    /// Where in the image the first one begins.
    at: u64,
    /// Begins as many bytes behind a boundary of direct writes as `at` does.
    plain: Aligned,
    /// The part of `plain` that is used.
    used: Range<usize>,
    /// What the sources gave, one after the other.
    stored: Vec<u8>,
    stored_end: usize,
    room: usize,
}

/// A chunk that is to be decoded, unless a source gave it verified and plain.
struct Waiting {
    placed: Placed,
    stored: Range<usize>,
}

impl Batch {
    /// Takes the memory for plain bytes of an image and as many stored ones: they are hardly ever more, mostly fewer, and what is
    /// not touched takes no memory.
    pub fn new(image: &Image) -> Self {
        let room = room(image);
        Batch::with_room(room, stored_room(image, room))
    }

    fn with_room(room: usize, stored: usize) -> Self {
        Batch {
            chunks: Vec::new(),
            at: 0,
            plain: Aligned::new(room + ALIGNMENT),
            used: 0..0,
            stored: vec![0; stored],
            stored_end: 0,
            room,
        }
    }

    /// One that holds these bytes.
    #[cfg(test)]
    pub fn of(at: u64, plain: &[u8]) -> Self {
        let mut batch = Batch::with_room(plain.len(), 0);
        batch.begin(at);
        batch.used.end += plain.len();
        batch.plain.bytes_mut()[batch.used.clone()].copy_from_slice(plain);
        batch
    }

    /// Makes it empty, to begin at that offset of the image.
    pub fn begin(&mut self, at: u64) {
        let start = usize::try_from(at % ALIGNMENT as u64).unwrap_or(0);
        self.chunks.clear();
        (self.at, self.used, self.stored_end) = (at, start..start, 0);
    }

    /// Whether the chunk belongs here: it follows the last one, and there is room.
    pub fn fits(&self, placed: &Placed) -> bool {
        let length = usize::try_from(placed.chunk.plain_len).unwrap_or(usize::MAX);
        placed.plain == self.at + self.used.len() as u64
            && self.used.len().saturating_add(length) <= self.room
    }

    /// Gets a chunk that fits from the cheapest source.
    pub fn fetch(&mut self, image: usize, placed: Placed, sources: &mut Sources) -> Result<(), Failure> {
        let length = usize::try_from(placed.chunk.plain_len).unwrap_or(0);
        let stored_length = usize::try_from(placed.chunk.stored_len).unwrap_or(0);
        let (end, stored_end) = (self.used.end + length, self.stored_end + stored_length);
        let plain = self.plain.bytes_mut().get_mut(self.used.end..end).unwrap_or_default();
        let stored = self.stored.get_mut(self.stored_end..stored_end).unwrap_or_default();
        match sources.fetch(image, &placed, stored, plain)? {
            Form::Plain => {}
            Form::Stored => {
                self.chunks.push(Waiting { placed, stored: self.stored_end..stored_end });
                self.stored_end = stored_end;
            }
        }
        self.used.end = end;
        Ok(())
    }

    /// Verifies and decodes what came as it is stored; encrypted chunks are decrypted where they lie.
    pub fn decode(
        &mut self,
        role: &str,
        seal: Option<&ImageSeal>,
        decoder: &mut Decoder,
    ) -> Result<(), Failure> {
        let (mut pieces, mut rest, mut at) =
            (Vec::with_capacity(self.chunks.len()), self.plain.bytes_mut(), 0);
        let mut packed = self.stored.as_mut_slice();
        for Waiting { placed, stored } in &self.chunks {
            let start = usize::try_from(placed.plain - self.at).map_or(usize::MAX, |at| self.used.start + at);
            let length = usize::try_from(placed.chunk.plain_len).unwrap_or(0);
            // Chunks lie in the order of the image, and what is stored of them one behind the other.
            let _ = rest.split_off_mut(..start.saturating_sub(at));
            at = start.saturating_add(length);
            let plain = rest.split_off_mut(..length).unwrap_or_default();
            let stored = packed.split_off_mut(..stored.len()).unwrap_or_default();
            pieces.push(Piece { chunk: placed.chunk, number: placed.number, stored, plain });
        }
        decoder.decode_all(&mut pieces, seal).map_err(|(piece, error)| {
            let failure = from_bundle(&error);
            let offset = self.chunks.get(piece).map_or(0, |chunk| chunk.placed.plain);
            Failure::new(failure.code, format!("{role} at offset {offset}: {}", failure.message))
        })
    }

    /// Where in the image it begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The plain bytes.
    pub fn plain(&self) -> &[u8] {
        self.plain.bytes().get(self.used.clone()).unwrap_or_default()
    }

    /// Puts bytes before its first one, if they fill what lies between it and the boundary before; it begins there then.
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() == self.used.start;
        if fits && let Some(place) = self.plain.bytes_mut().get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
            self.at -= bytes.len() as u64;
            self.used.start = 0;
        }
        fits
    }
}
