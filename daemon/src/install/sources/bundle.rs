//! The bundle as a source: the last resort, which has every chunk.

use otad_bundle::{Bundle, Input};

use crate::failure::{Failure, from_bundle};
use crate::install::Placed;

/// A verified bundle whose chunks are read in order.
pub struct BundleSource {
    bundle: Bundle<Box<dyn Input + Send>>,
}

impl BundleSource {
    /// Takes a bundle whose indexes have been read as far as its input allows.
    pub fn new(bundle: Bundle<Box<dyn Input + Send>>) -> Self {
        BundleSource { bundle }
    }

    /// The bundle below.
    pub fn bundle(&mut self) -> &mut Bundle<Box<dyn Input + Send>> {
        &mut self.bundle
    }

    /// Puts the stored bytes of the chunk into `stored`, which is as long; nothing of them is verified yet.
    pub fn read(&mut self, image: usize, placed: &Placed, stored: &mut [u8]) -> Result<(), Failure> {
        self.bundle.read_stored_into(image, placed.stored, stored).map_err(|error| {
            let failure = from_bundle(&error);
            let role = self.bundle.manifest().images.get(image).map_or("image", |image| &image.role);
            Failure::new(failure.code, format!("{role} at offset {}: {}", placed.plain, failure.message))
        })
    }

    /// Says which extents of an image's payload will be read.
    pub fn expect(&mut self, image: usize, extents: Vec<std::ops::Range<u64>>) -> Result<(), Failure> {
        self.bundle.expect_stored(image, extents).map_err(|error| from_bundle(&error))
    }

    /// Bytes fetched over a link or from a file so far.
    pub fn fetched(&self) -> u64 {
        self.bundle.bytes_read()
    }

    /// Called once after the last chunk: whatever can only be checked at the end.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.bundle.finish().map_err(|error| from_bundle(&error))
    }
}
