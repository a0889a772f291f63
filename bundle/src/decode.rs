//! From stored bytes to plain bytes, in the only safe order.
//!
//! First the stored bytes are compared with the index, then decrypted if they are encrypted, then a decoder runs whose output is bounded by the plain length,
//! then length and hash of the plain bytes are compared. A decoder therefore never sees a byte that the signer did not
//! produce, and cannot produce more memory than the signer announced. Decoder state is made once and used again.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use crate::digest::{Digest, to_hex};
use crate::error::Error;
use crate::index::{Chunk, ChunkKind};
use crate::seal::{ImageSeal, Part};

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

/// Decoder state, reused from chunk to chunk; one per thread.
pub struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
    deflate: Decompress,
    /// Length and hash of the last zero chunk: nearly all have the same length.
    zeros: (usize, Digest),
}

impl Decoder {
    /// Takes the memory that decoding needs, about 200 KiB.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> io::Result<Decoder> {
        Ok(Decoder {
            zstd: zstd::bulk::Decompressor::new()?,
            deflate: Decompress::new(false),
            zeros: (0, Digest::of(&[])),
        })
    }

    /// Verifies `stored` against `chunk`, decodes it into `plain` and verifies that; `plain`'s allocation is reused and
    /// holds exactly the plain bytes afterwards. After an error the content of `plain` must not be used.
    ///
    /// # Errors
    /// [`Error::StoredMismatch`], [`Error::Decode`], [`Error::SizeExceeded`] or [`Error::HashMismatch`].
    pub fn decode(&mut self, chunk: &Chunk, stored: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        let length = chunk.plain_len as usize;
        // No byte is written twice: only growth beyond what was used before is filled with zeros.
        if plain.len() < length {
            plain.reserve_exact(length - plain.len());
            plain.resize(length, 0);
        } else {
            plain.truncate(length);
        }
        self.decode_into(chunk, stored, plain)
    }

    /// The same into a place of exactly [`Chunk::plain_len`] bytes.
    ///
    /// # Errors
    /// Those of [`Decoder::decode`]; [`Error::Caller`] when the place has another length.
    pub fn decode_into(&mut self, chunk: &Chunk, stored: &[u8], plain: &mut [u8]) -> Result<(), Error> {
        let stored_sha256 = check_stored(chunk, stored)?;
        self.unpack(chunk, stored, Some(stored_sha256), plain)
    }

    /// The same for a chunk of an encrypted image, which is decrypted where it lies between the two: `number` is its number in
    /// the image.
    ///
    /// # Errors
    /// Those of [`Decoder::decode_into`]; [`Error::Decrypt`] when it does not open.
    pub fn decode_sealed_into(
        &mut self,
        chunk: &Chunk,
        (seal, number): (&ImageSeal, u64),
        stored: &mut [u8],
        plain: &mut [u8],
    ) -> Result<(), Error> {
        check_stored(chunk, stored)?;
        let bare = match chunk.kind {
            ChunkKind::Zero => stored,
            ChunkKind::Stored | ChunkKind::Gzip | ChunkKind::Zstd => {
                seal.open(Part::Chunk, number, stored)?
            }
        };
        self.unpack(chunk, bare, None, plain)
    }

    /// Decodes bytes that are what the signer stored; `sha256` is their hash where it was needed.
    fn unpack(
        &mut self,
        chunk: &Chunk,
        stored: &[u8],
        sha256: Option<Digest>,
        plain: &mut [u8],
    ) -> Result<(), Error> {
        let length = chunk.plain_len as usize;
        if plain.len() != length {
            return Err(Error::Caller(format!("a place of {} bytes for a chunk of {length}", plain.len())));
        }
        let (found, bytes) = match chunk.kind {
            ChunkKind::Zero => {
                plain.fill(0);
                if self.zeros.0 != length {
                    self.zeros = (length, Digest::of(plain));
                }
                (self.zeros.1, length)
            }
            // Both are as long as the index says, which wants them equal; a panic would need a record that breaks its rule.
            ChunkKind::Stored => {
                let bytes = if stored.len() == length { length } else { 0 };
                plain
                    .get_mut(..bytes)
                    .unwrap_or_default()
                    .copy_from_slice(stored.get(..bytes).unwrap_or_default());
                (sha256.unwrap_or_else(|| Digest::of(plain)), bytes)
            }
            ChunkKind::Gzip => {
                self.gunzip(stored, chunk.plain_len, plain)?;
                (Digest::of(plain), length)
            }
            ChunkKind::Zstd => {
                let bytes = self.unzstd(stored, chunk.plain_len, plain)?;
                (Digest::of(plain), bytes)
            }
        };
        if bytes != length || found != chunk.sha256 {
            return Err(Error::HashMismatch {
                what: "the decoded chunk".into(),
                found,
                wanted: chunk.sha256,
            });
        }
        Ok(())
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

    fn unzstd(&mut self, stored: &[u8], limit: u32, plain: &mut [u8]) -> Result<usize, Error> {
        let wrong = |problem: String| Error::Decode { kind: "zstd", problem };
        check_frame(stored, limit).map_err(|error| match error {
            FrameProblem::TooLarge => Error::SizeExceeded { limit },
            FrameProblem::Refused(problem) => wrong(problem),
        })?;
        // Decodes in one piece into its place, which serves as window: nothing is allocated.
        self.zstd.decompress_to_buffer(stored, plain).map_err(|error| wrong(error.to_string()))
    }
}

/// Compares stored bytes with the index; returns their hash.
fn check_stored(chunk: &Chunk, stored: &[u8]) -> Result<Digest, Error> {
    let found = Digest::of(stored);
    if found.truncated() == chunk.stored_sha256 && stored.len() == chunk.stored_len as usize {
        return Ok(found);
    }
    Err(Error::StoredMismatch { found: to_hex(&found.truncated()), wanted: to_hex(&chunk.stored_sha256) })
}

/// The length as a gzip trailer writes it; a chunk is far below 2^32 bytes.
fn length_field(plain: &[u8]) -> [u8; 4] {
    u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// Why a frame is not decoded.
pub(crate) enum FrameProblem {
    /// It says that it has more than the limit.
    TooLarge,
    /// It breaks another rule.
    Refused(String),
}

/// Allows exactly one frame, with its content size, without dictionary, with a small window, and nothing behind it.
pub(crate) fn check_frame(stored: &[u8], limit: u32) -> Result<(), FrameProblem> {
    let refused = |problem: &str| FrameProblem::Refused(problem.to_owned());
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
            return Err(FrameProblem::Refused(problem));
        }
    }
    match zstd::zstd_safe::get_frame_content_size(stored) {
        Ok(Some(size)) if size > u64::from(limit) => Err(FrameProblem::TooLarge),
        Ok(Some(size)) if size == u64::from(limit) => Ok(()),
        Ok(Some(size)) => {
            Err(FrameProblem::Refused(format!("the frame has {size} bytes, the index says {limit}")))
        }
        Ok(None) | Err(_) => Err(refused("the frame does not say its content size")),
    }?;
    match zstd::zstd_safe::find_frame_compressed_size(stored) {
        Ok(size) if size == stored.len() => Ok(()),
        Ok(_) => Err(refused("data follows the frame")),
        Err(_) => Err(refused("the frame is damaged")),
    }
}
