//! From stored bytes to plain bytes, in the only safe order.
//!
//! First the stored bytes are compared with the index, then a decoder runs whose output is bounded by the plain length,
//! then length and hash of the plain bytes are compared. A decoder therefore never sees a byte that the signer did not
//! produce, and cannot produce more memory than the signer announced. Decoder state is made once and used again.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use crate::digest::{Digest, to_hex};
use crate::error::Error;
use crate::index::{Chunk, ChunkKind};

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
    /// The last zero chunk and its hash: nearly all have the same length.
    zeros: (Vec<u8>, Digest),
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
            zeros: (Vec::new(), Digest::of(&[])),
        })
    }

    /// Verifies `stored` against `chunk`, decodes it into `plain` and verifies that; `plain`'s allocation is reused and
    /// holds exactly the plain bytes afterwards. After an error the content of `plain` must not be used.
    ///
    /// # Errors
    /// [`Error::StoredMismatch`], [`Error::Decode`], [`Error::SizeExceeded`] or [`Error::HashMismatch`].
    pub fn decode(&mut self, chunk: &Chunk, stored: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        let stored_sha256 = Digest::of(stored);
        if stored_sha256.truncated() != chunk.stored_sha256 || stored.len() != chunk.stored_len as usize {
            return Err(Error::StoredMismatch {
                found: to_hex(&stored_sha256.truncated()),
                wanted: to_hex(&chunk.stored_sha256),
            });
        }
        let length = chunk.plain_len as usize;
        plain.clear();
        plain.reserve_exact(length);
        let found = match chunk.kind {
            ChunkKind::Zero => {
                if self.zeros.0.len() != length {
                    let zeros = vec![0; length];
                    let hash = Digest::of(&zeros);
                    self.zeros = (zeros, hash);
                }
                plain.extend_from_slice(&self.zeros.0);
                self.zeros.1
            }
            ChunkKind::Stored => {
                plain.extend_from_slice(stored);
                stored_sha256
            }
            ChunkKind::Gzip => {
                self.gunzip(stored, chunk.plain_len, plain)?;
                Digest::of(plain)
            }
            ChunkKind::Zstd => {
                self.unzstd(stored, chunk.plain_len, plain)?;
                Digest::of(plain)
            }
        };
        if plain.len() != length || found != chunk.sha256 {
            return Err(Error::HashMismatch {
                what: "the decoded chunk".into(),
                found,
                wanted: chunk.sha256,
            });
        }
        Ok(())
    }

    fn gunzip(&mut self, stored: &[u8], limit: u32, plain: &mut Vec<u8>) -> Result<(), Error> {
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
        // Writes into the spare capacity only; one byte more than announced shows a stream that goes on.
        plain.reserve_exact(limit as usize + 1);
        let status = self
            .deflate
            .decompress_vec(body, plain, FlushDecompress::Finish)
            .map_err(|error| wrong(&error.to_string()))?;
        if plain.len() > limit as usize {
            return Err(Error::SizeExceeded { limit });
        }
        if status != Status::StreamEnd || self.deflate.total_in() != body.len() as u64 {
            return Err(wrong("the deflate stream does not end where the member does"));
        }
        let sums = [crc32fast::hash(plain).to_le_bytes(), length_field(plain)].concat();
        if trailer != sums {
            return Err(wrong("CRC-32 or length differ"));
        }
        Ok(())
    }

    fn unzstd(&mut self, stored: &[u8], limit: u32, plain: &mut Vec<u8>) -> Result<(), Error> {
        let wrong = |problem: String| Error::Decode { kind: "zstd", problem };
        check_frame(stored, limit).map_err(|error| match error {
            FrameProblem::TooLarge => Error::SizeExceeded { limit },
            FrameProblem::Refused(problem) => wrong(problem),
        })?;
        // Decodes in one piece into the spare capacity, which serves as window: nothing else is allocated.
        self.zstd.decompress_to_buffer(stored, plain).map_err(|error| wrong(error.to_string()))?;
        Ok(())
    }
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
