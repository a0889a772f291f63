//! Making a delta between two bundles.
//!
//! Old and new image are held in memory, with an index of the old one of half its size; the output appears by one
//! rename, after it was read back and found to make the new bytes. The same bundles give the same delta, whatever the
//! number of threads. Nobody vouches for the bundles here, and nobody needs to: devices believe the new bundle's
//! signature, not the delta.

mod anchors;
mod map;
mod pieces;
mod release;

use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::Path;

use self::anchors::Anchors;
use self::map::OldBlocks;
use self::pieces::Pieces;
use self::release::Release;
use super::decode::Delta;
use super::frame;
use super::header::{Content, Header, Part, Place, Section};
use super::sealed::{self, SealedInput};
use super::segment::Frame;
use super::{SEGMENT_BLOCKS, SEGMENT_BYTES};
use crate::build::{NewFile, Progress};
use crate::digest::{Digest, HashWriter, Hasher};
use crate::error::Error;
use crate::input::{FileInput, StreamInput};
use crate::seal::DeviceKey;

/// What was made.
#[derive(Debug, Clone)]
pub struct MadeDelta {
    /// Header and directory.
    pub header: Header,
    /// Length of the file in bytes.
    pub size: u64,
    /// Length of the new bundle in bytes, to compare with.
    pub bundle_size: u64,
    /// Roles of the new bundle that the old one does not have: their chunks come from the bundle.
    pub left_out: Vec<String>,
}

/// Makes the delta from the bundle at `from` to the bundle at `to`, with so many threads (all processors if `None`).
///
/// # Errors
/// A bundle cannot be read or is damaged, they have no image in common, or the output cannot be written.
pub fn make_delta(
    from: &Path,
    to: &Path,
    output: &Path,
    threads: Option<NonZeroUsize>,
    progress: &mut dyn FnMut(Progress),
) -> Result<MadeDelta, Error> {
    make_delta_with_key(from, to, output, threads, None, progress)
}

/// The same between encrypted bundles, which `key` unlocks. A delta to an encrypted bundle is encrypted under its content key, with a
/// salt of its own: no two are the same.
///
/// # Errors
/// As [`make_delta`]; and from an encrypted bundle to one that is not, which would give away what the old one holds.
pub fn make_delta_with_key(
    from: &Path,
    to: &Path,
    output: &Path,
    threads: Option<NonZeroUsize>,
    key: Option<&dyn DeviceKey>,
    progress: &mut dyn FnMut(Progress),
) -> Result<MadeDelta, Error> {
    let threads = match threads {
        Some(count) => count,
        None => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let (mut old, mut new) = (Release::open(from, key)?, Release::open(to, key)?);
    if old.unlocked().is_some() && new.unlocked().is_none() {
        let text = format!(
            "{} is encrypted and {} is not: the delta would give the old one away",
            from.display(),
            to.display()
        );
        return Err(Error::Order(text));
    }
    let pairs = old.pairs(&new);
    let left_out = new.roles().filter(|role| !pairs.iter().any(|pair| pair.role == *role)).map(str::to_owned);
    let left_out: Vec<_> = left_out.collect();
    if pairs.is_empty() {
        let text = format!("{} and {} have no image of the same role", from.display(), to.display());
        return Err(Error::Order(text));
    }
    let total = pairs.iter().map(|pair| pair.new_size).sum();
    let mut body = Vec::new();
    let mut sections = Vec::new();
    for pair in &pairs {
        let job = Job { role: &pair.role, part: Part::Index, threads };
        sections.push(job.run(&old.index(pair.old)?, &new.index(pair.new)?, &mut body, &mut |_| ())?);
    }
    let mut done = 0;
    for pair in &pairs {
        let job = Job { role: &pair.role, part: Part::Image, threads };
        let (old_image, new_image) = (old.image(pair.old)?, new.image(pair.new)?);
        let mut step = |bytes: u64| progress(Progress { done: done + bytes, total });
        sections.push(job.run(&old_image, &new_image, &mut body, &mut step)?);
        done += new_image.len() as u64;
    }
    let mut header = Header { total_size: 0, old_release: old.id, new_release: new.id, sections };
    let start = header.encode();
    prove(&start, &body, &pairs, &mut old)?;
    let size = write(output, &header, &start, &body, &new)?;
    Ok(MadeDelta { header, size, bundle_size: new.size, left_out })
}

/// Writes the file, encrypted if the new bundle is; returns its length.
fn write(output: &Path, header: &Header, start: &[u8], body: &[u8], new: &Release) -> Result<u64, Error> {
    let mut file = NewFile::create(output)?;
    let Some(unlocked) = new.unlocked() else {
        file.write(start).and_then(|()| file.write(body))?;
        file.publish()?;
        return Ok(header.total_size);
    };
    let releases = (header.old_release, header.new_release);
    sealed::write(&unlocked.content, releases, (&mut start.chain(body), header.total_size), &mut file.file)?;
    let size = file.file.metadata().map_err(Error::file("look at", &file.temporary))?.len();
    let mut back = SealedInput::open(FileInput::open(&file.temporary)?, &unlocked.content)?;
    let mut hasher = HashWriter(Hasher::new());
    std::io::copy(&mut back, &mut hasher).map_err(Error::file("read back", output))?;
    let mut wanted = Hasher::new();
    wanted.update(start);
    wanted.update(body);
    if hasher.0.finish() != wanted.finish() {
        return Err(Error::Caller("the encrypted delta does not decrypt to the delta".into()));
    }
    file.publish()?;
    Ok(size)
}

/// Reads the delta as a device does, front to back: what cannot be read must not be published.
fn prove(start: &[u8], body: &[u8], pairs: &[release::Pair], old: &mut Release) -> Result<(), Error> {
    let mut delta = Delta::open(StreamInput::new(start.chain(body)))?;
    for (number, pair) in pairs.iter().enumerate() {
        let index = old.index(pair.old)?;
        delta.write_all(number, &mut index.as_slice(), &mut std::io::sink())?;
    }
    for (number, pair) in (pairs.len()..).zip(pairs) {
        let image = old.image(pair.old)?;
        delta.write_all(number, &mut image.as_slice(), &mut std::io::sink())?;
    }
    match delta.bytes_read() {
        count if count == delta.header().total_size => Ok(()),
        count => Err(Error::Caller(format!("{count} of {} bytes were read", delta.header().total_size))),
    }
}

/// One section.
struct Job<'a> {
    role: &'a str,
    part: Part,
    threads: NonZeroUsize,
}

impl Job<'_> {
    /// Appends the segments to `body`; `progress` hears of new bytes.
    fn run(
        &self,
        old: &[u8],
        new: &[u8],
        body: &mut Vec<u8>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Section, Error> {
        let content = |bytes: &[u8]| Content { size: bytes.len() as u64, sha256: Digest::of(bytes) };
        let mut section = Section {
            role: self.role.to_owned(),
            part: self.part,
            old: content(old),
            new: content(new),
            segments: Vec::new(),
        };
        let blocks = OldBlocks::of(old);
        let anchors = Anchors::of(old, self.threads);
        let pieces = Pieces { old, anchors: &anchors, threads: self.threads };
        let length = usize::try_from(SEGMENT_BYTES).unwrap_or(usize::MAX);
        for (number, part) in (0u64..).zip(new.chunks(length)) {
            let first_block = number * SEGMENT_BLOCKS as u64;
            let (mut segment, literals) = map::map(&blocks, part, first_block);
            let before = number * SEGMENT_BYTES;
            let share = part.len() as u64 / u64::from(segment.literals).max(1);
            let stored = pieces.encode(&literals, &mut |blocks| progress(before + share * blocks))?;
            let mut offset = 0;
            let mut frames = Vec::new();
            for (mut piece, bytes) in stored {
                piece.offset = offset;
                offset += piece.stored;
                segment.pieces.push(piece);
                frames.extend_from_slice(&bytes);
            }
            let shape = Frame { first_block, blocks: 0, old_size: old.len() as u64 };
            let head = frame::encode(&segment.encode(shape), &[]).map_err(Error::Caller)?;
            let head_length = u32::try_from(head.len()).unwrap_or(u32::MAX);
            section.segments.push(Place { offset: 0, head: head_length, body: offset });
            body.extend_from_slice(&head);
            body.append(&mut frames);
            progress(before + part.len() as u64);
        }
        Ok(section)
    }
}
