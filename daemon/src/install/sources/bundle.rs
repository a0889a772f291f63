//! The bundle as a source: the last resort, which has every chunk.

use otad_bundle::{Bundle, Decoder, Input};

use super::ChunkSource;
use crate::failure::{Code, Failure, from_bundle};
use crate::install::Placed;

/// A verified bundle whose chunks are read in order.
pub struct BundleSource {
    bundle: Bundle<Box<dyn Input + Send>>,
    decoder: Decoder,
    /// Stored bytes of one chunk; allocated once.
    stored: Vec<u8>,
}

impl BundleSource {
    /// Takes a bundle whose indexes have been read as far as its input allows.
    pub fn new(bundle: Bundle<Box<dyn Input + Send>>) -> Result<Self, Failure> {
        let decoder = Decoder::new()
            .map_err(|error| Failure::new(Code::Resource, format!("no memory for the decoder: {error}")))?;
        Ok(BundleSource { bundle, decoder, stored: Vec::new() })
    }

    /// The bundle below.
    pub fn bundle(&mut self) -> &mut Bundle<Box<dyn Input + Send>> {
        &mut self.bundle
    }
}

impl ChunkSource for BundleSource {
    fn get(&mut self, image: usize, placed: &Placed, plain: &mut Vec<u8>) -> Result<(), Failure> {
        let chunk = &placed.chunk;
        self.bundle
            .read_stored(image, placed.stored, chunk.stored_len, &mut self.stored)
            .and_then(|()| self.decoder.decode(chunk, &self.stored, plain))
            .map_err(|error| {
                let failure = from_bundle(&error);
                let role = self.bundle.manifest().images.get(image).map_or("image", |image| &image.role);
                Failure::new(failure.code, format!("{role} at offset {}: {}", placed.plain, failure.message))
            })
    }

    fn fetched(&self) -> u64 {
        self.bundle.bytes_read()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.bundle.finish().map_err(|error| from_bundle(&error))
    }
}
