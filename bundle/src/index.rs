//! The chunk index: what an image is made of.
//!
//! Owns the 60-byte record, its rules, and the sums over a whole index. All integers are little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 32 | SHA-256 of the plain bytes |
//! | 32 | 16 | first 16 bytes of the SHA-256 of the stored bytes |
//! | 48 | 4 | plain length in bytes, 1 to [`MAX_CHUNK_BYTES`] |
//! | 52 | 4 | stored length in bytes |
//! | 56 | 1 | kind: 0 zero, 1 stored, 2 gzip, 3 zstd |
//! | 57 | 3 | zero |
//!
//! In an encrypted bundle *stored bytes* are the encrypted ones, with their tag of 16 bytes.
//!
//! *zero* has no stored bytes; *stored* is the plain bytes; *gzip* is one RFC 1952 member without optional header fields;
//! *zstd* is one RFC 8878 frame with its content size and no dictionary. The last two are always shorter than plain.
//!
//! ```
//! use otad_bundle::{Chunk, ChunkKind, Digest};
//! let text = b"hello";
//! let chunk = Chunk { sha256: Digest::of(text), stored_sha256: Digest::of(text).truncated(),
//!                     plain_len: 5, stored_len: 5, kind: ChunkKind::Stored };
//! let record = chunk.encode();
//! assert_eq!(record[48..], [5, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0]);
//! assert_eq!(Chunk::decode(&record).unwrap(), chunk);
//! ```

use std::io::Read;

use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Chunking, Image};

/// Length of a record in bytes.
pub const RECORD_BYTES: usize = 60;
/// Hard cap on the plain and the stored length of a chunk, in bytes (1 MiB): bounds every buffer of every reader.
pub const MAX_CHUNK_BYTES: u32 = 1024 * 1024;

/// How a chunk stands in the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// All zeros; nothing is stored.
    Zero,
    /// As it is.
    Stored,
    /// One gzip member.
    Gzip,
    /// One zstd frame.
    Zstd,
}

impl ChunkKind {
    /// Every kind, in the order of its number.
    pub const ALL: [ChunkKind; 4] = [ChunkKind::Zero, ChunkKind::Stored, ChunkKind::Gzip, ChunkKind::Zstd];

    /// The byte in the record.
    pub const fn number(self) -> u8 {
        match self {
            ChunkKind::Zero => 0,
            ChunkKind::Stored => 1,
            ChunkKind::Gzip => 2,
            ChunkKind::Zstd => 3,
        }
    }

    /// The word for people and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            ChunkKind::Zero => "zero",
            ChunkKind::Stored => "stored",
            ChunkKind::Gzip => "gzip",
            ChunkKind::Zstd => "zstd",
        }
    }
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// SHA-256 of the plain bytes.
    pub sha256: Digest,
    /// First 16 bytes of the SHA-256 of the stored bytes.
    pub stored_sha256: [u8; 16],
    /// Plain length in bytes.
    pub plain_len: u32,
    /// Stored length in bytes.
    pub stored_len: u32,
    /// How it is stored.
    pub kind: ChunkKind,
}

impl Chunk {
    /// Reads a record and checks every rule that concerns it alone.
    ///
    /// # Errors
    /// [`Error::Index`]; its record number is 0, readers of a whole index fill it in.
    pub fn decode(record: &[u8; RECORD_BYTES]) -> Result<Chunk, Error> {
        Chunk::parse(record, 0).map_err(|problem| Error::Index { record: 0, problem })
    }

    /// `cover` is what encryption adds to what is stored.
    fn parse(record: &[u8; RECORD_BYTES], cover: u32) -> Result<Chunk, String> {
        let mut rest = record.as_slice();
        let (sha256, stored_sha256) = (take(&mut rest), take(&mut rest));
        let (plain_len, stored_len) =
            (u32::from_le_bytes(take(&mut rest)), u32::from_le_bytes(take(&mut rest)));
        let [kind, zeros @ ..] = take::<4>(&mut rest);
        let kind = ChunkKind::ALL
            .into_iter()
            .find(|known| known.number() == kind)
            .ok_or_else(|| format!("kind {kind} is not known"))?;
        if zeros != [0; 3] {
            return Err("bytes 57 to 59 must be zero".into());
        }
        let chunk = Chunk { sha256: Digest(sha256), stored_sha256, plain_len, stored_len, kind };
        chunk.check(cover)?;
        Ok(chunk)
    }

    fn check(&self, cover: u32) -> Result<(), String> {
        let (plain, stored) = (self.plain_len, self.stored_len);
        if plain == 0 || plain > MAX_CHUNK_BYTES {
            return Err(format!("plain length {plain} is not in 1..={MAX_CHUNK_BYTES}"));
        }
        let bare = stored.checked_sub(cover);
        let sound = match self.kind {
            ChunkKind::Zero => stored == 0 && self.stored_sha256 == EMPTY_SHA256,
            ChunkKind::Stored => {
                bare == Some(plain) && (cover > 0 || self.stored_sha256 == self.sha256.truncated())
            }
            ChunkKind::Gzip | ChunkKind::Zstd => bare.is_some_and(|bare| 0 < bare && bare < plain),
        };
        if sound {
            return Ok(());
        }
        Err(format!("stored length {stored} or hash does not fit kind {} of {plain} bytes", self.kind.name()))
    }

    /// Writes the record.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        let fields = self
            .sha256
            .0
            .into_iter()
            .chain(self.stored_sha256)
            .chain(self.plain_len.to_le_bytes())
            .chain(self.stored_len.to_le_bytes())
            .chain([self.kind.number()]);
        for (place, byte) in record.iter_mut().zip(fields) {
            *place = byte;
        }
        record
    }
}

/// First 16 bytes of the SHA-256 of nothing: the stored hash of every zero chunk.
pub(crate) const EMPTY_SHA256: [u8; 16] =
    [0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24];

/// Takes `N` bytes off the front; the callers' fields add up to the record.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk::<N>() {
        Some((head, tail)) => {
            *rest = tail;
            *head
        }
        None => [0; N],
    }
}

/// Sums over an index while its records pass, and what the manifest says they must come to.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    chunking: Chunking,
    size: u64,
    payload_size: u64,
    cover: u32,
    count: u64,
    seen: u64,
    plain: u64,
    stored: u64,
}

impl Tally {
    pub(crate) fn new(image: &Image) -> Tally {
        Tally {
            chunking: image.chunking,
            size: image.size,
            payload_size: image.payload_size,
            cover: image.cover(),
            count: image.chunk_count(),
            seen: 0,
            plain: 0,
            stored: 0,
        }
    }

    /// Records not seen yet.
    pub(crate) fn remaining(&self) -> u64 {
        self.count.saturating_sub(self.seen)
    }

    /// Takes in the next record; after the last one the sums must be exact.
    pub(crate) fn admit(&mut self, record: &[u8; RECORD_BYTES]) -> Result<Chunk, Error> {
        let number = self.seen;
        self.judge(record).map_err(|problem| Error::Index { record: number, problem })
    }

    fn judge(&mut self, record: &[u8; RECORD_BYTES]) -> Result<Chunk, String> {
        let chunk = Chunk::parse(record, self.cover)?;
        self.seen += 1;
        // Neither sum can wrap: at most 2^33 records of at most 2^20 bytes.
        self.plain += u64::from(chunk.plain_len);
        self.stored += u64::from(chunk.stored_len);
        let last = self.seen == self.count;
        let (min, max) = (self.chunking.min(), self.chunking.max());
        if chunk.plain_len > max || (chunk.plain_len < min && !last) {
            return Err(format!("plain length {} is not in {min}..={max}", chunk.plain_len));
        }
        if self.plain > self.size || (last && self.plain != self.size) {
            return Err(format!("plain lengths add up to {}, the image has {} bytes", self.plain, self.size));
        }
        if self.stored > self.payload_size || (last && self.stored != self.payload_size) {
            return Err(format!(
                "stored lengths add up to {}, the payload has {}",
                self.stored, self.payload_size
            ));
        }
        Ok(chunk)
    }
}

/// Iterates over the chunks of an index whose SHA-256 was verified before ([`crate::Bundle::read_index`] does that).
///
/// Yields an error, and then ends, when a record breaks a rule or the sums are not those of the manifest.
pub struct IndexReader<R: Read> {
    input: std::io::BufReader<R>,
    tally: Tally,
    failed: bool,
}

impl<R: Read> IndexReader<R> {
    /// Reads the index of `image` from `input`, which stands at its first record.
    pub fn new(input: R, image: &Image) -> Self {
        IndexReader { input: std::io::BufReader::new(input), tally: Tally::new(image), failed: false }
    }

    fn read(&mut self) -> Result<Chunk, Error> {
        let mut record = [0; RECORD_BYTES];
        self.input.read_exact(&mut record).map_err(|source| {
            if source.kind() == std::io::ErrorKind::UnexpectedEof {
                return Error::Index { record: self.tally.seen, problem: "the index ends early".into() };
            }
            Error::Read { offset: self.tally.seen * RECORD_BYTES as u64, source }
        })?;
        self.tally.admit(&record)
    }
}

impl<R: Read> Iterator for IndexReader<R> {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.tally.remaining() == 0 {
            return None;
        }
        let chunk = self.read();
        self.failed = chunk.is_err();
        Some(chunk)
    }
}
