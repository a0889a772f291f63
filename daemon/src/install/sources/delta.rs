//! A delta as a source: what turns the release that runs into the new one, for less than the chunks it makes.
//!
//! Nothing in it is believed ([`otad_bundle::delta`]): an index that it makes counts only with the hash of the manifest, a
//! chunk only with the hash of the index. A delta that is of no use costs its first bytes; a chunk that it gets wrong
//! comes from the bundle.

use std::io::Write;

use otad_bundle::delta::{Content, Delta, DeltaError, DeltaInput, Extent, Part, ReadAt};
use otad_bundle::{Digest, Expand, Image, Input, SharedExpander};

use super::ChunkSource;
use crate::config::Slot;
use crate::failure::{Act, Code, Failure, from_slot};
use crate::install::{Placed, index_name};
use crate::lifecycle::event::Release;
use crate::ports::{SlotDevices, SlotReader, StateFs};

/// Largest old index that is held in memory to make the new one of it: that of 2 GiB in chunks of 16 KiB, 60 bytes each.
const OLD_INDEX_LIMIT_BYTES: u64 = 8 * 1024 * 1024;

/// An open delta that leads to the wanted release.
pub struct DeltaSource {
    delta: Delta<DeltaInput<Box<dyn Input + Send>>>,
    /// What decodes it.
    expand: SharedExpander,
    /// For each image of the manifest: what makes it, from where.
    images: Vec<Option<Section>>,
    /// The chunk that it made last.
    plain: Vec<u8>,
    /// It turned out to be of no use.
    broken: bool,
}

struct Section {
    number: usize,
    old: Old,
}

/// What a delta is opened for.
pub struct Opening<'a> {
    /// The release that is wanted.
    pub new: &'a Release,
    /// The running slot and what it holds.
    pub running: (&'a Slot, &'a Release),
    /// Opens it.
    pub devices: &'a dyn SlotDevices,
}

/// An image of the running slot.
struct Old(Box<dyn SlotReader>);

impl ReadAt for Old {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset, buf)
    }
}

impl DeltaSource {
    /// Opens a delta and finds what it makes of the release that runs.
    ///
    /// # Errors
    /// It is no delta, or one for other releases.
    pub fn open(
        input: DeltaInput<Box<dyn Input + Send>>,
        expand: Box<dyn Expand>,
        opening: &Opening<'_>,
    ) -> Result<Self, Failure> {
        let expand = SharedExpander::new(expand);
        let delta = Delta::open_with(input, Box::new(expand.clone())).map_err(from_delta)?;
        let Opening { new, running: (slot, old), devices } = *opening;
        let (from, to) = (delta.header().old_release, delta.header().new_release);
        if (from, to) != (old.digest, new.digest) {
            let what = format!(
                "the delta leads from {from} to {to}, wanted is from {} to {}",
                old.digest, new.digest
            );
            return Err(Failure::new(Code::HashMismatch, what));
        }
        let section = |image: &Image| {
            let before = old.images.iter().find(|before| before.role == image.role)?;
            let number = delta.find(Part::Image, Content::of_image(image))?;
            let starts = delta.header().sections.get(number)?.old;
            let path = slot.images.get(&image.role).filter(|_| starts == Content::of_image(before))?;
            let place = format!("{} of slot {} ({})", image.role, slot.name, path.display());
            let opened = devices.open_source(path).map_err(|error| from_slot(Act::Open, &place, &error));
            let (reader, _) = opened.inspect_err(|failure| log::warn!("no delta: {failure}")).ok()?;
            Some(Section { number, old: Old(reader) })
        };
        let images = new.images.iter().map(section).collect();
        Ok(DeltaSource { delta, expand, images, plain: Vec::new(), broken: false })
    }

    /// Writes the index of `image`, made of the kept index of the release that runs; false when it cannot be made.
    pub fn index(
        &mut self,
        image: &Image,
        old: &Release,
        fs: &dyn StateFs,
        sink: &mut dyn Write,
    ) -> Result<bool, Failure> {
        let before = old.images.iter().find(|before| before.role == image.role);
        let Some(before) = before.filter(|before| before.index.size <= OLD_INDEX_LIMIT_BYTES) else {
            return Ok(false);
        };
        let Some(section) = self.delta.find(Part::Index, Content::of_index(image)) else { return Ok(false) };
        let Ok(Some(kept)) = fs.read(&index_name(before)) else { return Ok(false) };
        self.delta.check_old(section, Digest::of(&kept)).map_err(from_delta)?;
        self.delta.write_all(section, &mut kept.as_slice(), sink).map_err(from_delta)?;
        Ok(true)
    }
}

impl ChunkSource for DeltaSource {
    fn may_have(&self, image: usize, _placed: &Placed) -> bool {
        !self.broken && self.images.get(image).is_some_and(Option::is_some)
    }

    fn get(&mut self, image: usize, placed: &Placed, plain: &mut [u8]) -> Result<bool, Failure> {
        let Some(Some(section)) = self.images.get_mut(image) else { return Ok(false) };
        let (chunk, made) = (&placed.chunk, &mut self.plain);
        match self.delta.chunk(section.number, placed.plain, chunk, &mut section.old, made) {
            Ok(()) if made.len() == plain.len() => {
                plain.copy_from_slice(made);
                Ok(true)
            }
            Ok(()) => Ok(false),
            Err(error) => {
                log::warn!("the chunk at offset {} comes from the bundle: {error}", placed.plain);
                self.broken = error.extent() == Extent::Delta;
                Ok(false)
            }
        }
    }

    fn fetched(&self) -> u64 {
        self.delta.bytes_read()
    }

    fn decoder(&self) -> Option<SharedExpander> {
        Some(self.expand.clone())
    }
}

/// Maps an error of a delta.
pub(in crate::install) fn from_delta(error: DeltaError) -> Failure {
    Failure::new(Code::from_text(error.code()).unwrap_or(Code::Internal), format!("delta: {error}"))
}
