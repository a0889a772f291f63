//! The running slot as a source: what two releases have in common is read there and not fetched.
//!
//! Which chunks it holds is looked up in a table by their hash. The table comes from the kept index of the release that runs,
//! or, where otad did not install it, from cutting the running slot as the new image is cut. It is only a guess about where
//! to look: the slot is mounted and may have been written to, so every chunk is hashed after it was read.

use otad_bundle::{ChunkKind, Cutter, Digest, Image};

use super::ChunkSource;
use crate::config::Slot;
use crate::failure::{Act, Code, Failure, from_slot};
use crate::install::{Placed, index_name, stopped, walk};
use crate::lifecycle::event::Release;
use crate::ports::{SlotDevices, SlotReader, StateFs, Stop};

/// Most chunks that are remembered, 16 bytes each: 8 MiB of memory, enough for 32 GiB in chunks of 64 KiB.
const PLACES_LIMIT: usize = 512 * 1024;

/// A chunk that the running slot seems to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// First eight bytes of its hash.
    key: u64,
    /// Offset in the image.
    offset: u64,
}

/// One image of the running slot.
struct Volume {
    /// For messages: role, slot and path.
    name: String,
    reader: Box<dyn SlotReader>,
    /// Sorted by key.
    places: Vec<Place>,
}

/// The running slot.
pub struct Running {
    volumes: Vec<Volume>,
}

/// What finding the chunks of the running slot needs.
pub struct Finder<'a> {
    /// The running slot.
    pub slot: &'a Slot,
    /// What the record says it holds.
    pub release: Option<&'a Release>,
    /// Opens it.
    pub devices: &'a dyn SlotDevices,
    /// Where the kept indexes are.
    pub fs: &'a dyn StateFs,
    /// Whether somebody asked to stop.
    pub stop: &'a Stop,
}

impl Finder<'_> {
    /// Looks what the running slot has of these images, each in the image of the same role.
    ///
    /// # Errors
    /// Only when somebody asked to stop: an install goes on without a source that cannot be read.
    pub fn find(&self, images: &[Image]) -> Result<Running, Failure> {
        let mut volumes = Vec::new();
        for image in images {
            match self.volume(image) {
                Ok(volume) => volumes.extend(volume),
                Err(failure) if failure.code == Code::Cancelled => return Err(failure),
                Err(failure) => log::warn!("the running slot is no source: {failure}"),
            }
        }
        Ok(Running { volumes })
    }

    fn volume(&self, image: &Image) -> Result<Option<Volume>, Failure> {
        let Some(path) = self.slot.images.get(&image.role) else { return Ok(None) };
        let name = format!("{} of slot {} ({})", image.role, self.slot.name, path.display());
        let open = || self.devices.open_source(path).map_err(|error| from_slot(Act::Open, &name, &error));
        let installed =
            self.release.and_then(|release| release.images.iter().find(|old| old.role == image.role));
        let kept = installed.filter(|old| self.fs.open(&index_name(old)).is_ok());
        let mut places = match kept {
            Some(old) => self.by_index(old)?,
            None => self.by_cutting(image, open()?, &name)?,
        };
        places.sort_unstable();
        Ok(Some(Volume { reader: open()?.0, name, places }))
    }

    fn by_index(&self, old: &Image) -> Result<Vec<Place>, Failure> {
        let mut places = Vec::new();
        for placed in walk(self.fs, old)? {
            let placed = placed?;
            if placed.chunk.kind != ChunkKind::Zero && places.len() < PLACES_LIMIT {
                places.push(Place { key: key(&placed.chunk.sha256), offset: placed.plain });
            }
        }
        Ok(places)
    }

    fn by_cutting(
        &self,
        image: &Image,
        (reader, size): (Box<dyn SlotReader>, u64),
        name: &str,
    ) -> Result<Vec<Place>, Failure> {
        log::info!("reading {name}, to know what need not be fetched");
        let (mut places, mut offset) = (Vec::new(), 0);
        let mut cutter = Cutter::new(Whole { reader, at: 0, size }, image.chunking);
        while let Some(chunk) = cutter.next().map_err(|error| from_slot(Act::Read, name, &error))? {
            if self.stop.requested() {
                return Err(stopped());
            }
            if places.len() < PLACES_LIMIT {
                places.push(Place { key: key(&Digest::of(chunk)), offset });
            }
            offset += u64::try_from(chunk.len()).unwrap_or(0);
        }
        Ok(places)
    }
}

/// A device from front to back.
struct Whole {
    reader: Box<dyn SlotReader>,
    at: u64,
    size: u64,
}

impl std::io::Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        self.reader.read_at(self.at, buffer.get_mut(..length).unwrap_or_default())?;
        self.at += u64::try_from(length).unwrap_or(0);
        Ok(length)
    }
}

impl Volume {
    fn places(&self, sha256: &Digest) -> &[Place] {
        let key = key(sha256);
        let from = self.places.partition_point(|place| place.key < key);
        let to = self.places.partition_point(|place| place.key <= key);
        self.places.get(from..to).unwrap_or_default()
    }
}

impl ChunkSource for Running {
    fn may_have(&self, _image: usize, placed: &Placed) -> bool {
        self.volumes.iter().any(|volume| !volume.places(&placed.chunk.sha256).is_empty())
    }

    fn get(&mut self, _image: usize, placed: &Placed, plain: &mut [u8]) -> Result<bool, Failure> {
        for volume in &mut self.volumes {
            // Copied, because the reader is in the same volume: hardly ever more than one.
            for place in volume.places(&placed.chunk.sha256).to_vec() {
                match volume.reader.read_at(place.offset, plain) {
                    Ok(()) if Digest::of(plain) == placed.chunk.sha256 => return Ok(true),
                    Ok(()) => {}
                    Err(error) => log::warn!("{} at offset {}: {error}", volume.name, place.offset),
                }
            }
        }
        Ok(false)
    }
}

fn key(sha256: &Digest) -> u64 {
    sha256.0.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}
