//! Decompression: the only code, part of it in C, that runs on bytes before their plain form is proven. It decides nothing.
//!
//! Whoever asks has verified what goes in where that is possible, and verifies what comes out. So it can be done in another process
//! without any rights: that is what the trait [`Expand`] is for. Everything is bounded beforehand: the place is as long as the
//! plain bytes must be, a frame says its content size and has no dictionary, and nothing follows it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::{Decompress, FlushDecompress, Status};
use zstd::zstd_safe::{DCtx, get_error_name};

use crate::error::Error;

/// Fixed part of a gzip member before the deflate stream (RFC 1952, section 2.3).
const GZIP_HEADER_BYTES: usize = 10;
/// CRC-32 and length after the deflate stream.
const GZIP_TRAILER_BYTES: usize = 8;
/// First four bytes of a zstd frame (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Frame header bit: the window is the content.
const ZSTD_SINGLE_SEGMENT: u8 = 1 << 5;
/// Frame header bits: unused, reserved, dictionary id.
const ZSTD_REFUSED_BITS: u8 = 1 << 4 | 1 << 3 | 0b11;
/// Largest window a frame may ask for: 8 MiB, the bound that RFC 8878 recommends decoders to support.
const ZSTD_WINDOW_LIMIT_BYTES: u64 = 8 * 1024 * 1024;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// One gzip member (RFC 1952) without optional header fields.
    Gzip,
    /// One zstd frame (RFC 8878) with its content size.
    Zstd,
}

/// Something to decompress.
pub struct Job<'a> {
    /// How it is packed.
    pub packing: Packing,
    /// How much of what was kept for it ([`Expand::keep`]) zstd refers to; 0 for nothing, and for gzip.
    pub prefix: usize,
    /// The packed bytes.
    pub stored: &'a [u8],
    /// Where the plain ones go; as many as this has room for.
    pub plain: &'a mut [u8],
}

/// Decompresses, here or elsewhere.
pub trait Expand: Send {
    /// Does every job.
    ///
    /// # Errors
    /// [`Error::Decode`], [`Error::SizeExceeded`], or [`Error::Expander`] when whoever does it is gone; with the number of the job.
    /// What the places hold then must not be used.
    fn expand(&mut self, jobs: &mut [Job<'_>]) -> Result<(), (usize, Error)>;

    /// Keeps bytes that the next jobs refer to, from `at` on; what was kept behind them is forgotten. They are kept where they are needed
    /// and nowhere else: there may be megabytes of them.
    ///
    /// # Errors
    /// [`Error::Caller`]: a gap, or more than there is room for.
    fn keep(&mut self, at: usize, bytes: &[u8]) -> Result<(), Error>;

    /// Gives kept bytes back, from `at` on; false when there are not so many. Nothing vouches for them any more.
    fn kept(&self, at: usize, bytes: &mut [u8]) -> bool;
}

/// One place that decompresses, for several threads, one after the other. Only one of them may keep anything there.
#[derive(Clone)]
pub struct SharedExpander(Arc<Mutex<Box<dyn Expand>>>);

impl SharedExpander {
    /// Makes it everybody's.
    pub fn new(expand: Box<dyn Expand>) -> SharedExpander {
        SharedExpander(Arc::new(Mutex::new(expand)))
    }

    fn hold(&self) -> MutexGuard<'_, Box<dyn Expand>> {
        // What a panic left half done is the business of whoever asked for it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expand for SharedExpander {
    fn expand(&mut self, jobs: &mut [Job<'_>]) -> Result<(), (usize, Error)> {
        self.hold().expand(jobs)
    }

    fn keep(&mut self, at: usize, bytes: &[u8]) -> Result<(), Error> {
        self.hold().keep(at, bytes)
    }

    fn kept(&self, at: usize, bytes: &mut [u8]) -> bool {
        self.hold().kept(at, bytes)
    }
}

/// Decompresses in this process; its state is used again for every job.
pub struct Expander {
    zstd: DCtx<'static>,
    deflate: Decompress,
    kept: Vec<u8>,
}

impl Expander {
    /// Takes the memory that decompressing needs, about 200 KiB.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> io::Result<Expander> {
        let zstd = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Expander { zstd, deflate: Decompress::new(false), kept: Vec::new() })
    }

    /// Does a job whose prefix is elsewhere.
    ///
    /// # Errors
    /// As [`Expand::expand`].
    pub fn expand_with(&mut self, prefix: &[u8], job: &mut Job<'_>) -> Result<(), Error> {
        let limit = u32::try_from(job.plain.len())
            .map_err(|_| Error::Caller(format!("a place of {} bytes to decompress into", job.plain.len())))?;
        match job.packing {
            Packing::Gzip => self.gunzip(job.stored, limit, job.plain),
            Packing::Zstd => self.unzstd(prefix, job, limit),
        }
    }

    fn gunzip(&mut self, stored: &[u8], limit: u32, plain: &mut [u8]) -> Result<(), Error> {
        let wrong = |problem: &str| Error::Decode { kind: "gzip", problem: problem.to_owned() };
        let (header, rest) = stored.split_at_checked(GZIP_HEADER_BYTES).ok_or_else(|| wrong("too short"))?;
        if !header.starts_with(&[0x1f, 0x8b, 8, 0]) {
            return Err(wrong("the header is not a plain deflate one without optional fields"));
        }
        let (body, trailer) = rest
            .len()
            .checked_sub(GZIP_TRAILER_BYTES)
            .and_then(|at| rest.split_at_checked(at))
            .ok_or_else(|| wrong("too short"))?;
        self.deflate.reset(false);
        let ended = self.inflate(body, plain)? || {
            // The place is full or the input is at its end; one byte more than announced shows a stream that goes on.
            let read = usize::try_from(self.deflate.total_in()).unwrap_or(usize::MAX);
            self.inflate(body.get(read..).unwrap_or_default(), &mut [0])?
        };
        if self.deflate.total_out() > u64::from(limit) {
            return Err(Error::SizeExceeded { limit });
        }
        if !ended || self.deflate.total_in() != body.len() as u64 {
            return Err(wrong("the deflate stream does not end where the member does"));
        }
        let sums = [crc32fast::hash(plain).to_le_bytes(), length_field(plain)].concat();
        if trailer != sums || self.deflate.total_out() != u64::from(limit) {
            return Err(wrong("CRC-32 or length differ"));
        }
        Ok(())
    }

    /// Tells whether the stream has ended.
    fn inflate(&mut self, body: &[u8], plain: &mut [u8]) -> Result<bool, Error> {
        // Not `Finish`: a stream that does not fit the place could not be asked for its next byte after it.
        match self.deflate.decompress(body, plain, FlushDecompress::None) {
            Ok(status) => Ok(status == Status::StreamEnd),
            Err(error) => Err(Error::Decode { kind: "gzip", problem: error.to_string() }),
        }
    }

    fn unzstd(&mut self, prefix: &[u8], job: &mut Job<'_>, limit: u32) -> Result<(), Error> {
        let wrong = |problem: String| Error::Decode { kind: "zstd", problem };
        check_frame(job.stored, limit)?;
        // Decodes in one piece into its place, which serves as window: nothing is allocated.
        let count = if prefix.is_empty() {
            self.zstd.decompress(job.plain, job.stored)
        } else {
            // A context refers to its prefix for as long as it lives, so each of these has its own (about 100 KiB).
            let mut context = DCtx::try_create().ok_or_else(|| wrong("no memory for a decoder".into()))?;
            context.ref_prefix(prefix).and_then(|_| context.decompress(job.plain, job.stored))
        };
        let count = count.map_err(|code| wrong(get_error_name(code).to_owned()))?;
        if count == job.plain.len() {
            return Ok(());
        }
        Err(wrong(format!("the frame made {count} of {limit} bytes")))
    }
}

impl Expand for Expander {
    fn expand(&mut self, jobs: &mut [Job<'_>]) -> Result<(), (usize, Error)> {
        let kept = std::mem::take(&mut self.kept);
        let mut done = jobs.iter_mut().enumerate();
        let result = done.try_for_each(|(at, job)| {
            let prefix = kept.get(..job.prefix).ok_or_else(|| Error::Caller("a prefix was not kept".into()));
            prefix.and_then(|prefix| self.expand_with(prefix, job)).map_err(|error| (at, error))
        });
        self.kept = kept;
        result
    }

    fn keep(&mut self, at: usize, bytes: &[u8]) -> Result<(), Error> {
        if at > self.kept.len() {
            return Err(Error::Caller(format!("{at} bytes are to be kept, {} are", self.kept.len())));
        }
        self.kept.truncate(at);
        // Growing in steps of its own, it would take up to twice the memory.
        self.kept.reserve_exact(bytes.len());
        self.kept.extend_from_slice(bytes);
        Ok(())
    }

    fn kept(&self, at: usize, bytes: &mut [u8]) -> bool {
        let found = at.checked_add(bytes.len()).and_then(|end| self.kept.get(at..end));
        found.map(|found| bytes.copy_from_slice(found)).is_some()
    }
}

/// The content size that a zstd frame announces, if it is within the limit. Read without the decoder, which may be elsewhere.
pub(crate) fn content_size(stored: &[u8], limit: usize) -> Result<usize, String> {
    let size = frame_size(stored).and_then(|size| usize::try_from(size).ok()).filter(|&size| size <= limit);
    size.ok_or_else(|| format!("no frame of up to {limit} bytes"))
}

/// The field Frame_Content_Size (RFC 8878, section 3.1.1.1) of a frame that has one.
fn frame_size(stored: &[u8]) -> Option<u64> {
    let (&descriptor, fields) = stored.strip_prefix(&ZSTD_MAGIC)?.split_first()?;
    let is_single = descriptor & ZSTD_SINGLE_SEGMENT != 0;
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 0b11)).copied()?;
    let (width, more) = match descriptor >> 6 {
        0 if is_single => (1, 0),
        0 => return None,
        1 => (2, 256),
        2 => (4, 0),
        _ => (8, 0),
    };
    let field = fields.get(usize::from(!is_single) + dictionary..)?.get(..width)?;
    let little_endian = field.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    little_endian.checked_add(more)
}

/// The length as a gzip trailer writes it; a chunk is far below 2^32 bytes.
fn length_field(plain: &[u8]) -> [u8; 4] {
    u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// Allows exactly one frame, with its content size, without dictionary, with a small window, and nothing behind it.
fn check_frame(stored: &[u8], limit: u32) -> Result<(), Error> {
    let refused = |problem: &str| Error::Decode { kind: "zstd", problem: problem.to_owned() };
    let (magic, rest) = stored.split_first_chunk::<4>().ok_or_else(|| refused("too short"))?;
    if *magic != ZSTD_MAGIC {
        return Err(refused("not a zstd frame"));
    }
    let (&descriptor, rest) = rest.split_first().ok_or_else(|| refused("too short"))?;
    if descriptor & ZSTD_REFUSED_BITS != 0 {
        return Err(refused("the frame has reserved bits or a dictionary id"));
    }
    if descriptor & ZSTD_SINGLE_SEGMENT == 0 {
        let &window = rest.first().ok_or_else(|| refused("too short"))?;
        let base = 1u64 << (10 + u32::from(window >> 3));
        let size = base + base / 8 * u64::from(window & 7);
        if size > ZSTD_WINDOW_LIMIT_BYTES {
            let problem = format!(
                "the frame asks for a window of {size} bytes, the limit is {ZSTD_WINDOW_LIMIT_BYTES}"
            );
            return Err(refused(&problem));
        }
    }
    match frame_size(stored) {
        Some(size) if size == u64::from(limit) => {}
        Some(size) if size > u64::from(limit) => return Err(Error::SizeExceeded { limit }),
        Some(size) => return Err(refused(&format!("the frame has {size} bytes, the index says {limit}"))),
        None => return Err(refused("the frame does not say its content size")),
    }
    match zstd::zstd_safe::find_frame_compressed_size(stored) {
        Ok(size) if size == stored.len() => Ok(()),
        Ok(_) => Err(refused("data follows the frame")),
        Err(_) => Err(refused("the frame is damaged")),
    }
}
