//! From plain chunks to stored chunks.
//!
//! Owns the choice of the kind: zeros are not stored at all, and what does not shrink is stored as it is. One encoder per
//! worker; its state is reused, and its output depends on nothing but the chunk and the options.

use std::io;

use flate2::{Compress, FlushCompress, Status};

use super::Compression;
use crate::digest::Digest;
use crate::error::Error;
use crate::index::{Chunk, ChunkKind, EMPTY_SHA256};
use crate::seal::{ImageSeal, Part, TAG_BYTES};

/// What the reader hands to a worker.
pub(super) enum Plain {
    /// So many zero bytes.
    Zeros(u32),
    /// A chunk that is not all zeros, with its length.
    Bytes(Vec<u8>, u32),
}

/// What a worker hands to the collector.
pub(super) struct Encoded {
    pub(super) chunk: Chunk,
    /// Empty for a zero chunk.
    pub(super) stored: Vec<u8>,
}

impl Encoded {
    /// Encrypts what is stored, if anything is.
    pub(super) fn seal(&mut self, seal: &ImageSeal, number: u64) -> Result<(), Error> {
        if self.chunk.kind != ChunkKind::Zero {
            seal.seal(Part::Chunk, number, &mut self.stored)?;
            self.chunk.stored_len += TAG_BYTES;
            self.chunk.stored_sha256 = Digest::of(&self.stored).truncated();
        }
        Ok(())
    }
}

pub(super) struct Encoder {
    compressor: Compressor,
    scratch: Vec<u8>,
    zeros: Option<(u32, Digest)>,
}

enum Compressor {
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    Gzip(Box<Compress>),
    None,
}

impl Encoder {
    pub(super) fn new(compression: Compression) -> io::Result<Encoder> {
        let compressor = match compression {
            Compression::Zstd { level } => {
                Compressor::Zstd(Box::new(zstd::bulk::Compressor::new(i32::from(level))?))
            }
            Compression::Gzip { level } => {
                Compressor::Gzip(Box::new(Compress::new(flate2::Compression::new(u32::from(level)), false)))
            }
            Compression::None => Compressor::None,
        };
        Ok(Encoder { compressor, scratch: Vec::new(), zeros: None })
    }

    pub(super) fn encode(&mut self, plain: Plain) -> io::Result<Encoded> {
        match plain {
            Plain::Zeros(length) => Ok(self.zero(length)),
            Plain::Bytes(bytes, length) => self.bytes(bytes, length),
        }
    }

    fn zero(&mut self, plain_len: u32) -> Encoded {
        let sha256 = match self.zeros {
            Some((known, hash)) if known == plain_len => hash,
            _ => Digest::of(&vec![0; plain_len as usize]),
        };
        self.zeros = Some((plain_len, sha256));
        let chunk =
            Chunk { sha256, stored_sha256: EMPTY_SHA256, plain_len, stored_len: 0, kind: ChunkKind::Zero };
        Encoded { chunk, stored: Vec::new() }
    }

    fn bytes(&mut self, bytes: Vec<u8>, plain_len: u32) -> io::Result<Encoded> {
        let sha256 = Digest::of(&bytes);
        self.scratch.clear();
        let kind = match &mut self.compressor {
            Compressor::Zstd(zstd) => {
                self.scratch.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
                zstd.compress_to_buffer(&bytes, &mut self.scratch)?;
                ChunkKind::Zstd
            }
            Compressor::Gzip(deflate) => gzip(deflate, &bytes, plain_len, &mut self.scratch)?,
            Compressor::None => ChunkKind::Stored,
        };
        let shorter = u32::try_from(self.scratch.len()).ok().filter(|&length| length < plain_len);
        let (kind, stored_len, stored) = match (kind, shorter) {
            (ChunkKind::Zstd | ChunkKind::Gzip, Some(length)) => (kind, length, self.scratch.clone()),
            _ => (ChunkKind::Stored, plain_len, bytes),
        };
        let stored_sha256 = match kind {
            ChunkKind::Stored => sha256.truncated(),
            ChunkKind::Zero | ChunkKind::Gzip | ChunkKind::Zstd => Digest::of(&stored).truncated(),
        };
        Ok(Encoded { chunk: Chunk { sha256, stored_sha256, plain_len, stored_len, kind }, stored })
    }
}

/// One gzip member (RFC 1952) with the shortest header: no name, no time, unknown system.
fn gzip(deflate: &mut Compress, plain: &[u8], plain_len: u32, out: &mut Vec<u8>) -> io::Result<ChunkKind> {
    // No more room than a useful result needs: running out of it means that the chunk does not shrink.
    out.reserve_exact(plain.len() + 18);
    out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    deflate.reset();
    match deflate.compress_vec(plain, out, FlushCompress::Finish).map_err(io::Error::other)? {
        Status::StreamEnd => {}
        Status::Ok | Status::BufError => return Ok(ChunkKind::Stored),
    }
    out.extend_from_slice(&crc32fast::hash(plain).to_le_bytes());
    out.extend_from_slice(&plain_len.to_le_bytes());
    Ok(ChunkKind::Gzip)
}
