//! Getting new bytes out of a delta, in any order, and cheaply in rising order.
//!
//! A [`Delta`] holds one segment's head, one piece and the repeated blocks of that segment: no more than 8 MiB whatever the
//! file says (a test has the kernel measure it). It reads the file front to back when it is asked front to back, and then
//! no byte twice; pieces that nobody asks for are skipped.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use super::error::DeltaError;
use super::header::{Content, Front, HEADER_BYTES, Header, MAGIC, Part, Place, Section};
use super::segment::{Form, Frame, Kind, Run, Segment};
use super::{BLOCK_BYTES, PAGE_BYTES, PATCH_LIMIT_BYTES, PIECE_BLOCKS, SEGMENT_BLOCKS, SEGMENT_BYTES};
use super::{frame, patch};
use crate::container::Cursor;
use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::expand::{Expand, Expander, content_size};
use crate::index::Chunk;
use crate::input::Input;

/// Bytes handled at a time when all of a section is made.
const WINDOW_BYTES: usize = 64 * 1024;

/// Bytes that can be read anywhere: the old image, or the old index.
pub trait ReadAt {
    /// Fills `buf` from `offset`, counted in bytes from the start.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let found = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..buf.len()));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// An open delta.
pub struct Delta<I: Input> {
    cursor: Cursor<I>,
    expand: Box<dyn Expand>,
    header: Header,
    current: Option<Current>,
    buffers: Buffers,
    /// The section whose rest the input was told to expect.
    expected: Option<usize>,
}

/// The segment at hand.
struct Current {
    section: usize,
    number: u64,
    place: Place,
    segment: Segment,
    /// The piece whose plain bytes are in the buffer.
    piece: Option<usize>,
    shelf: Shelf,
}

/// Repeated blocks of a segment that have passed, one slot for each that the head names.
struct Shelf {
    blocks: Vec<u8>,
    filled: Vec<bool>,
}

/// What it takes to get a piece.
struct Means<'a, I: Input> {
    cursor: &'a mut Cursor<I>,
    expand: &'a mut dyn Expand,
    old: &'a mut dyn ReadAt,
}

/// Allocated once and used for every piece.
#[derive(Default)]
struct Buffers {
    stored: Vec<u8>,
    /// Pages of the prefix on their way to where it is kept, and how long it is.
    pages: Vec<u8>,
    prefix: usize,
    patch: Vec<u8>,
    plain: Vec<u8>,
}

impl<I: Input> Delta<I> {
    /// Reads header and directory.
    ///
    /// # Errors
    /// The input is no delta, breaks a rule, or cannot be read.
    pub fn open(input: I) -> Result<Delta<I>, DeltaError> {
        let expand = Expander::new().map_err(|_| DeltaError::Memory)?;
        Delta::open_with(input, Box::new(expand))
    }

    /// The same, and somebody else decompresses.
    ///
    /// # Errors
    /// Those of [`Delta::open`].
    pub fn open_with(input: I, expand: Box<dyn Expand>) -> Result<Delta<I>, DeltaError> {
        let mut cursor = Cursor::new(input);
        let mut magic = [0; MAGIC.len()];
        let count = cursor.read_up_to(&mut magic).map_err(input_error)?;
        if magic != *MAGIC {
            let start: String =
                magic.iter().take(count).map(|byte| byte.escape_ascii().to_string()).collect();
            return Err(DeltaError::NotADelta { start: format!("\"{start}\"") });
        }
        let wrong = |place: &str| {
            let place = place.to_owned();
            move |problem| DeltaError::Directory { place, problem }
        };
        let mut front = [0; HEADER_BYTES - MAGIC.len()];
        cursor.read_exact(&mut front, "header").map_err(input_error)?;
        let front = Front::parse(&front).map_err(wrong("header"))?;
        let mut directory = vec![0; front.directory_bytes];
        cursor.read_exact(&mut directory, "directory").map_err(input_error)?;
        let header = front.directory(&directory).map_err(wrong("directory"))?;
        Ok(Delta { cursor, expand, header, current: None, buffers: Buffers::default(), expected: None })
    }

    /// What the delta is for.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes that the input delivered so far.
    pub fn bytes_read(&self) -> u64 {
        self.cursor.bytes_read()
    }

    /// The section that makes `new`, which the signed manifest vouches for.
    pub fn find(&self, part: Part, new: Content) -> Option<usize> {
        self.header.sections.iter().position(|section| section.part == part && section.new == new)
    }

    /// Compares what a section starts from with what the device has.
    ///
    /// # Errors
    /// [`DeltaError::OtherOld`]: the section is of no use on this device.
    pub fn check_old(&self, section: usize, found: Digest) -> Result<(), DeltaError> {
        let section = self.section(section)?;
        let wanted = section.old.sha256;
        if wanted == found {
            return Ok(());
        }
        Err(DeltaError::OtherOld { section: section.to_string(), found, wanted })
    }

    /// Puts the chunk at `offset` of the new bytes into `plain`, whose allocation is reused, and checks its SHA-256. After
    /// an error the content of `plain` must not be used.
    ///
    /// # Errors
    /// Any; [`DeltaError::extent`] says whether to ask for the next chunk.
    pub fn chunk(
        &mut self,
        section: usize,
        offset: u64,
        chunk: &Chunk,
        old: &mut dyn ReadAt,
        plain: &mut Vec<u8>,
    ) -> Result<(), DeltaError> {
        // No byte is written twice: only growth beyond what was used before is filled with zeros.
        plain.resize(chunk.plain_len as usize, 0);
        self.read(section, offset, plain, old)?;
        let found = Digest::of(plain);
        if found == chunk.sha256 {
            return Ok(());
        }
        let what = format!("the chunk at offset {offset} of {}", self.section(section)?);
        Err(DeltaError::Mismatch { what, found, wanted: chunk.sha256 })
    }

    /// Writes all new bytes of a section to `sink` and checks their SHA-256: for an index, whose records are needed first.
    ///
    /// What `sink` received must not be used unless this returns `Ok`: the hash is known only at the end.
    pub fn write_all(
        &mut self,
        section: usize,
        old: &mut dyn ReadAt,
        sink: &mut dyn Write,
    ) -> Result<(), DeltaError> {
        let (new, what) = (self.section(section)?.new, self.section(section)?.to_string());
        let mut window = vec![0; WINDOW_BYTES];
        let mut hasher = Hasher::new();
        let mut offset = 0;
        while offset < new.size {
            let count = usize::try_from(new.size - offset).unwrap_or(usize::MAX).min(WINDOW_BYTES);
            let part = window.get_mut(..count).unwrap_or_default();
            self.read(section, offset, part, old)?;
            hasher.update(part);
            sink.write_all(part).map_err(|source| DeltaError::Sink { what: what.clone(), source })?;
            offset += count as u64;
        }
        let found = hasher.finish();
        if found == new.sha256 {
            Ok(())
        } else {
            Err(DeltaError::Mismatch { what, found, wanted: new.sha256 })
        }
    }

    /// Fills `buf` with new bytes from `offset`. **Nothing vouches for them**: the caller compares hashes.
    pub fn read(
        &mut self,
        section: usize,
        mut offset: u64,
        mut buf: &mut [u8],
        old: &mut dyn ReadAt,
    ) -> Result<(), DeltaError> {
        let size = self.section(section)?.new.size;
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > size) {
            let (length, what) = (buf.len(), self.section(section)?);
            return Err(DeltaError::Caller(format!(
                "{length} bytes at {offset} of {what}, which has {size}"
            )));
        }
        while !buf.is_empty() {
            self.enter(section, offset / SEGMENT_BYTES)?;
            let count = self.fill(offset % SEGMENT_BYTES, buf, old)?;
            buf = buf.get_mut(count..).unwrap_or_default();
            offset += count as u64;
        }
        Ok(())
    }

    fn section(&self, number: usize) -> Result<&Section, DeltaError> {
        self.header.sections.get(number).ok_or_else(|| DeltaError::Caller(format!("no section {number}")))
    }

    /// Makes a segment the one at hand.
    fn enter(&mut self, section: usize, number: u64) -> Result<(), DeltaError> {
        if self.current.as_ref().is_some_and(|now| now.section == section && now.number == number) {
            return Ok(());
        }
        // Whatever happens, the one before is over; its memory is free before more is taken.
        self.current = None;
        let named = self.section(section)?;
        let place = usize::try_from(number).ok().and_then(|number| named.segments.get(number)).copied();
        let place = place.ok_or_else(|| DeltaError::Caller(format!("no segment {number} of {named}")))?;
        let shape = Frame {
            first_block: number * SEGMENT_BLOCKS as u64,
            blocks: named.blocks_of(number),
            old_size: named.old.size,
        };
        let name = named.to_string();
        // Whoever begins with the first segment wants about all of it. Behind it begins who was interrupted, and what of this
        // segment is wanted then is known when its head is.
        if self.expected != Some(section) && number == 0 {
            let whole = place.offset..place.offset + named.stored();
            self.cursor.expect(std::iter::once(whole).collect());
            self.expected = Some(section);
        } else if self.expected != Some(section) {
            let head = place.offset..place.offset + u64::from(place.head);
            self.cursor.expect(std::iter::once(head).collect());
        }
        read_at(&mut self.cursor, place.offset, place.head as usize, &mut self.buffers.stored)?;
        let stored = &self.buffers.stored;
        let plain = frame::head(&mut *self.expand, stored);
        let segment = plain.and_then(|plain| Segment::parse(&plain, shape, place.body).map_err(frame::wrong));
        let segment = segment.map_err(|error| {
            frame::blame(error, |problem| DeltaError::Head { section: name, segment: number, problem })
        })?;
        let shelf = Shelf {
            blocks: vec![0; segment.repeated.len() * BLOCK_BYTES],
            filled: vec![false; segment.repeated.len()],
        };
        self.current = Some(Current { section, number, place, segment, piece: None, shelf });
        Ok(())
    }

    /// Fills the front of `buf` from `offset` in the segment at hand, up to the end of a run or piece; returns how far.
    fn fill(&mut self, offset: u64, buf: &mut [u8], old: &mut dyn ReadAt) -> Result<usize, DeltaError> {
        let defect = || DeltaError::Caller("the block map has a gap".into());
        let current = self.current.as_mut().ok_or_else(defect)?;
        let section = self.header.sections.get(current.section).ok_or_else(defect)?;
        let (block, within) = split(offset);
        let run = current.segment.run_at(block).ok_or_else(defect)?;
        let into = block - run.first;
        let left = (run.blocks - into) as usize * BLOCK_BYTES - within;
        let room = left.min(buf.len());
        match run.kind {
            Kind::Zero => {
                buf.get_mut(..room).unwrap_or_default().fill(0);
                Ok(room)
            }
            Kind::Copy => {
                let offset = u64::from(run.at + into) * BLOCK_BYTES as u64 + within as u64;
                read_old(section, old, offset, buf.get_mut(..room).unwrap_or_default())?;
                Ok(room)
            }
            Kind::Literal | Kind::Repeat => {
                let literal = run.at + into;
                let found = match current.shelf.get(&current.segment, literal) {
                    Some(block) if run.kind == Kind::Repeat => block.get(within..),
                    _ => {
                        let piece = literal as usize / PIECE_BLOCKS;
                        if self.expected != Some(current.section) {
                            let rest = current.place_of(piece).ok_or_else(defect)?..section.end();
                            self.cursor.expect(std::iter::once(rest).collect());
                            self.expected = Some(current.section);
                        }
                        let means = Means { cursor: &mut self.cursor, expand: &mut *self.expand, old };
                        current.load(piece, section, means, &mut self.buffers)?;
                        let start = literal as usize % PIECE_BLOCKS * BLOCK_BYTES + within;
                        self.buffers.plain.get(start..)
                    }
                };
                let found = found.ok_or_else(defect)?;
                let count = found.len().min(room);
                let (from, into) = (found.get(..count), buf.get_mut(..count));
                into.ok_or_else(defect)?.copy_from_slice(from.ok_or_else(defect)?);
                Ok(count)
            }
        }
    }
}

impl Buffers {
    /// Makes the plain bytes of a piece out of its frame and prefix.
    fn decode(&mut self, expand: &mut dyn Expand, form: Form, length: usize) -> Result<(), Error> {
        match form {
            Form::Plain => frame::decode(expand, &self.stored, self.prefix, length, &mut self.plain),
            Form::Patch => {
                let patch = content_size(&self.stored, PATCH_LIMIT_BYTES).map_err(frame::wrong)?;
                frame::decode(expand, &self.stored, self.prefix, patch, &mut self.patch)?;
                let prefix = |at: usize, into: &mut [u8]| {
                    at.checked_add(into.len()).is_some_and(|end| end <= self.prefix) && expand.kept(at, into)
                };
                patch::apply(&self.patch, &prefix, length, &mut self.plain).map_err(frame::wrong)
            }
        }
    }
}

impl Segment {
    /// The run that makes a block.
    fn run_at(&self, block: u32) -> Option<Run> {
        let behind = self.runs.partition_point(|run| run.first <= block);
        self.runs.get(behind.checked_sub(1)?).copied().filter(|run| block - run.first < run.blocks)
    }
}

impl Shelf {
    fn get(&self, segment: &Segment, literal: u32) -> Option<&[u8]> {
        let slot = segment.repeated.binary_search(&literal).ok()?;
        let filled = self.filled.get(slot).copied().unwrap_or(false);
        self.blocks
            .as_chunks::<BLOCK_BYTES>()
            .0
            .get(slot)
            .filter(|_| filled)
            .map(<[u8; BLOCK_BYTES]>::as_slice)
    }

    /// Puts aside what will be repeated of a piece that starts with literal block `first`.
    fn keep(&mut self, segment: &Segment, first: usize, plain: &[u8]) {
        let slots = segment.repeated.iter().zip(self.blocks.as_chunks_mut::<BLOCK_BYTES>().0);
        let literals = plain.as_chunks::<BLOCK_BYTES>().0;
        for ((&literal, slot), filled) in slots.zip(&mut self.filled) {
            if let Some(block) = (literal as usize).checked_sub(first).and_then(|at| literals.get(at)) {
                slot.copy_from_slice(block);
                *filled = true;
            }
        }
    }
}

impl Current {
    /// Where in the file a piece begins.
    fn place_of(&self, piece: usize) -> Option<u64> {
        let piece = self.segment.pieces.get(piece)?;
        Some(self.place.offset + u64::from(self.place.head) + u64::from(piece.offset))
    }

    /// Decodes a piece into the buffer unless it is there.
    fn load<I: Input>(
        &mut self,
        number: usize,
        section: &Section,
        means: Means<'_, I>,
        buffers: &mut Buffers,
    ) -> Result<(), DeltaError> {
        let Means { cursor, expand, old } = means;
        if self.piece == Some(number) {
            return Ok(());
        }
        self.piece = None;
        let defect = || DeltaError::Caller(format!("no piece {number}"));
        let piece = self.segment.pieces.get(number).ok_or_else(defect)?;
        let offset = self.place_of(number).ok_or_else(defect)?;
        read_at(cursor, offset, piece.stored as usize, &mut buffers.stored)?;
        let spans = piece.pages.iter().map(|run| {
            let from = u64::from(run.first) * PAGE_BYTES as u64;
            let length =
                (u64::from(run.pages) * PAGE_BYTES as u64).min(section.old.size.saturating_sub(from));
            // Its pages are limited when the head is read.
            (from, usize::try_from(length).unwrap_or(0))
        });
        let blame = |error| {
            frame::blame(error, |problem| DeltaError::Piece {
                section: section.to_string(),
                segment: self.number,
                piece: number,
                problem,
            })
        };
        buffers.prefix = 0;
        for (from, length) in spans {
            for done in (0..length).step_by(WINDOW_BYTES) {
                buffers.pages.resize(WINDOW_BYTES.min(length - done), 0);
                read_old(section, old, from + done as u64, &mut buffers.pages)?;
                expand.keep(buffers.prefix, &buffers.pages).map_err(blame)?;
                buffers.prefix += buffers.pages.len();
            }
        }
        let length = self.segment.piece_blocks(number) * BLOCK_BYTES;
        buffers.decode(expand, piece.form, length).map_err(blame)?;
        self.piece = Some(number);
        self.shelf.keep(&self.segment, number * PIECE_BLOCKS, &buffers.plain);
        Ok(())
    }
}

/// The block at an offset in a segment, and the offset in that block.
fn split(offset: u64) -> (u32, usize) {
    let block = offset / BLOCK_BYTES as u64;
    let within = offset % BLOCK_BYTES as u64;
    (u32::try_from(block).unwrap_or(u32::MAX), usize::try_from(within).unwrap_or(0))
}

/// Reads `length` stored bytes, which the parsers have limited.
fn read_at<I: Input>(
    cursor: &mut Cursor<I>,
    offset: u64,
    length: usize,
    buf: &mut Vec<u8>,
) -> Result<(), DeltaError> {
    buf.resize(length, 0);
    cursor.seek_to(offset).and_then(|()| cursor.read_exact(buf, "delta")).map_err(input_error)
}

fn read_old(section: &Section, old: &mut dyn ReadAt, offset: u64, buf: &mut [u8]) -> Result<(), DeltaError> {
    let length = buf.len();
    old.read_at(offset, buf).map_err(|source| DeltaError::Old {
        section: section.to_string(),
        offset,
        length,
        source,
    })
}

/// What the reader of a bundle's bytes says, in the words of a delta.
fn input_error(error: Error) -> DeltaError {
    match error {
        Error::Truncated { offset, .. } => DeltaError::Truncated { offset },
        Error::Read { offset, source } => DeltaError::Read { offset, source },
        other => DeltaError::Caller(other.to_string()),
    }
}
