//! Header and directory: what a delta starts from, what it leads to, and where its segments are.

use std::fmt;

use super::wire::Wire;
use super::{
    BLOCK_BYTES, CONTENT_LIMIT_BYTES, DIRECTORY_LIMIT_BYTES, HEAD_LIMIT_BYTES, PIECE_BLOCKS,
    PIECE_STORED_LIMIT_BYTES, SEGMENT_BLOCKS, SEGMENT_BYTES,
};
use crate::digest::Digest;
use crate::manifest::{IMAGES_LIMIT, Image, check_role};

/// First bytes of a delta: the format and its version.
pub const MAGIC: &[u8; 16] = b"otad-delta 1\n\0\0\0";
/// Bytes before the directory.
pub(super) const HEADER_BYTES: usize = 96;
/// Bytes of a directory entry before its segments.
const ENTRY_BYTES: usize = 120;
/// Bytes of the role in a directory entry.
const ROLE_BYTES: usize = 32;
/// An index and an image for each image of the largest bundle.
const SECTIONS_LIMIT: usize = 2 * IMAGES_LIMIT;

/// What a delta is for, and its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Length of the whole file in bytes.
    pub total_size: u64,
    /// SHA-256 of the old bundle's manifest.
    pub old_release: Digest,
    /// SHA-256 of the new bundle's manifest.
    pub new_release: Digest,
    /// Its sections, in the order of the file.
    pub sections: Vec<Section>,
}

/// Length and hash of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of all of it.
    pub sha256: Digest,
}

impl Content {
    /// The plain image that a manifest describes.
    pub fn of_image(image: &Image) -> Content {
        Content { size: image.size, sha256: image.sha256 }
    }

    /// Its index.
    pub fn of_index(image: &Image) -> Content {
        Content { size: image.index.size, sha256: image.index.sha256 }
    }
}

/// What a section makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The chunk index of an image.
    Index,
    /// The image.
    Image,
}

impl Part {
    /// The word for people and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Index => "index",
            Part::Image => "image",
        }
    }
}

/// One run of bytes that a delta makes out of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Role of the image.
    pub role: String,
    /// Whether it makes the image or its index.
    pub part: Part,
    /// What it reads on the device.
    pub old: Content,
    /// What it makes.
    pub new: Content,
    /// Where its segments are, in order.
    pub(super) segments: Vec<Place>,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Index => write!(f, "{}.index", self.role),
            Part::Image => write!(f, "{}", self.role),
        }
    }
}

impl Section {
    /// Bytes that it takes in the file, without its directory entry.
    pub fn stored(&self) -> u64 {
        self.segments.iter().map(|place| u64::from(place.head) + u64::from(place.body)).sum()
    }

    /// Offset behind its last segment in the file.
    pub(super) fn end(&self) -> u64 {
        self.segments.last().map_or(0, |place| place.offset + u64::from(place.head) + u64::from(place.body))
    }

    /// Blocks that a segment makes.
    pub(super) fn blocks_of(&self, segment: u64) -> usize {
        let left = self.new.size.saturating_sub(segment.saturating_mul(SEGMENT_BYTES)).min(SEGMENT_BYTES);
        usize::try_from(left.div_ceil(BLOCK_BYTES as u64)).unwrap_or(0)
    }
}

/// Where a segment is; lengths in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Of the head, from the start of the file.
    pub(super) offset: u64,
    /// Stored length of the head.
    pub(super) head: u32,
    /// Length of the body behind it.
    pub(super) body: u32,
}

/// The fixed part, before the directory has been read.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) total_size: u64,
    pub(super) directory_bytes: usize,
    sections: usize,
    old_release: Digest,
    new_release: Digest,
}

impl Front {
    /// Reads the bytes behind the magic.
    pub(super) fn parse(bytes: &[u8]) -> Result<Front, String> {
        let mut wire = Wire(bytes);
        let total_size = wire.u64()?;
        let sections = wire.u32()? as usize;
        let directory_bytes = wire.u32()? as usize;
        let (old_release, new_release) = (Digest(wire.bytes()?), Digest(wire.bytes()?));
        wire.end()?;
        if sections == 0 || sections > SECTIONS_LIMIT {
            return Err(format!("{sections} sections; a delta has 1 to {SECTIONS_LIMIT}"));
        }
        if directory_bytes > DIRECTORY_LIMIT_BYTES {
            return Err(format!(
                "the directory has {directory_bytes} bytes, the limit is {DIRECTORY_LIMIT_BYTES}"
            ));
        }
        Ok(Front { total_size, directory_bytes, sections, old_release, new_release })
    }

    /// Reads the directory and lays out the segments behind it.
    pub(super) fn directory(self, bytes: &[u8]) -> Result<Header, String> {
        let mut wire = Wire(bytes);
        let mut offset = (HEADER_BYTES + self.directory_bytes) as u64;
        let mut sections: Vec<Section> = Vec::new();
        for number in 0..self.sections {
            let section =
                entry(&mut wire, &mut offset).map_err(|problem| format!("section {number}: {problem}"))?;
            if let Some(before) = sections.last()
                && before.part > section.part
            {
                return Err(format!("section {number}: an index behind an image"));
            }
            if sections.iter().any(|other| other.role == section.role && other.part == section.part) {
                return Err(format!("section {number}: {section} stands there twice"));
            }
            sections.push(section);
        }
        wire.end()?;
        if offset != self.total_size {
            return Err(format!("its parts end at {offset}, the file at {}", self.total_size));
        }
        let Front { total_size, old_release, new_release, .. } = self;
        Ok(Header { total_size, old_release, new_release, sections })
    }
}

fn entry(wire: &mut Wire<'_>, offset: &mut u64) -> Result<Section, String> {
    let role = role(wire.bytes()?)?;
    let part = match wire.bytes()? {
        [0, 0, 0, 0, 0, 0, 0, 0] => Part::Index,
        [1, 0, 0, 0, 0, 0, 0, 0] => Part::Image,
        other => return Err(format!("the part {other:?} is not known")),
    };
    let (old, new) = (wire.u64()?, wire.u64()?);
    if old > CONTENT_LIMIT_BYTES || new == 0 || new > CONTENT_LIMIT_BYTES {
        return Err(format!("from {old} to {new} bytes; the limit is {CONTENT_LIMIT_BYTES}"));
    }
    let old = Content { size: old, sha256: Digest(wire.bytes()?) };
    let new = Content { size: new, sha256: Digest(wire.bytes()?) };
    let mut section = Section { role, part, old, new, segments: Vec::new() };
    for segment in 0..new.size.div_ceil(SEGMENT_BYTES) {
        let (head, body) = (wire.u32()?, wire.u32()?);
        let pieces = section.blocks_of(segment).div_ceil(PIECE_BLOCKS);
        if head == 0 || head as usize > HEAD_LIMIT_BYTES || body as usize > pieces * PIECE_STORED_LIMIT_BYTES
        {
            return Err(format!("segment {segment} has a head of {head} and a body of {body} bytes"));
        }
        section.segments.push(Place { offset: *offset, head, body });
        // Cannot wrap: less than 2^15 segments of less than 2^33 bytes in each of 128 sections.
        *offset += u64::from(head) + u64::from(body);
    }
    Ok(section)
}

fn role(bytes: [u8; ROLE_BYTES]) -> Result<String, String> {
    let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let text = bytes.get(..length).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| "the role is not text".to_owned())?;
    check_role(text)?;
    Ok(text.to_owned())
}

impl Header {
    /// Header and directory as they stand in the file; fills in the offsets and the length of the file.
    pub(super) fn encode(&mut self) -> Vec<u8> {
        let segments: usize = self.sections.iter().map(|section| section.segments.len()).sum();
        let directory = self.sections.len() * ENTRY_BYTES + segments * 8;
        let mut offset = (HEADER_BYTES + directory) as u64;
        for place in self.sections.iter_mut().flat_map(|section| &mut section.segments) {
            place.offset = offset;
            offset += u64::from(place.head) + u64::from(place.body);
        }
        self.total_size = offset;
        let mut out = MAGIC.to_vec();
        out.extend(self.total_size.to_le_bytes());
        // Both are small: what is too large is refused when it is read back.
        out.extend(u32::try_from(self.sections.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(u32::try_from(directory).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(self.old_release.0);
        out.extend(self.new_release.0);
        for section in &self.sections {
            section.encode(&mut out);
        }
        out
    }
}

impl Section {
    fn encode(&self, out: &mut Vec<u8>) {
        let role = self.role.bytes().chain(std::iter::repeat(0)).take(ROLE_BYTES);
        out.extend(role);
        out.extend([u8::from(self.part == Part::Image), 0, 0, 0, 0, 0, 0, 0]);
        out.extend(self.old.size.to_le_bytes());
        out.extend(self.new.size.to_le_bytes());
        out.extend(self.old.sha256.0);
        out.extend(self.new.sha256.0);
        for place in &self.segments {
            out.extend(place.head.to_le_bytes());
            out.extend(place.body.to_le_bytes());
        }
    }
}

/// Length of a segment in blocks never exceeds what its numbers can count.
const _: () = assert!(SEGMENT_BLOCKS <= 1 << 16);
