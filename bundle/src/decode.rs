//! From stored bytes to plain bytes, in the only safe order.
//!
//! First the stored bytes are compared with the index, then decrypted if they are encrypted, then decompressed into a place of the
//! plain length ([`crate::expand`]), then length and hash of the plain bytes are compared. What decompresses therefore never sees a byte that the
//! signer did not produce, and need not be believed: it may be another process, without any rights.

use std::io;

use crate::digest::{Digest, to_hex};
use crate::error::Error;
use crate::expand::{Expand, Expander, Job, Packing};
use crate::index::{Chunk, ChunkKind};
use crate::seal::{ImageSeal, Part};

/// Decoder state, reused from chunk to chunk; one per thread.
pub struct Decoder {
    expand: Box<dyn Expand>,
    /// Length and hash of the last zero chunk: nearly all have the same length.
    zeros: (usize, Digest),
}

/// A chunk that is decoded with others ([`Decoder::decode_all`]).
pub struct Piece<'a> {
    /// What the index says.
    pub chunk: Chunk,
    /// Its number in the image.
    pub number: u64,
    /// Its stored bytes, decrypted where they lie if they are encrypted.
    pub stored: &'a mut [u8],
    /// Where its plain bytes go: exactly [`Chunk::plain_len`].
    pub plain: &'a mut [u8],
}

impl Decoder {
    /// Takes the memory that decoding in this process needs, about 200 KiB.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> io::Result<Decoder> {
        Ok(Decoder::with(Box::new(Expander::new()?)))
    }

    /// One that lets somebody else decompress.
    pub fn with(expand: Box<dyn Expand>) -> Decoder {
        Decoder { expand, zeros: (0, Digest::of(&[])) }
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
        if let Some(job) = place(chunk, stored, plain)? {
            self.expand.expand(&mut [job]).map_err(|(_, error)| error)?;
        }
        self.check_plain(chunk, Some(stored_sha256), plain)
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
        let mut piece = [Piece { chunk: *chunk, number, stored, plain }];
        self.decode_all(&mut piece, Some(seal)).map_err(|(_, error)| error)
    }

    /// The same for several chunks at once, which saves journeys where somebody else decompresses; `seal` is that of their image if
    /// it is encrypted.
    ///
    /// # Errors
    /// Those of [`Decoder::decode_into`], with the place of the piece that is wrong; [`Error::Decrypt`] when it does not open.
    pub fn decode_all(
        &mut self,
        pieces: &mut [Piece<'_>],
        seal: Option<&ImageSeal>,
    ) -> Result<(), (usize, Error)> {
        let (mut hashes, mut jobs, mut places) = (Vec::with_capacity(pieces.len()), Vec::new(), Vec::new());
        for (at, Piece { chunk, number, stored, plain }) in pieces.iter_mut().enumerate() {
            let hash = check_stored(chunk, stored).map_err(|error| (at, error))?;
            let seal = seal.filter(|_| chunk.kind != ChunkKind::Zero);
            let bare = match seal {
                Some(seal) => seal.open(Part::Chunk, *number, stored).map_err(|error| (at, error))?,
                None => stored,
            };
            hashes.push(seal.is_none().then_some(hash));
            if let Some(job) = place(chunk, bare, plain).map_err(|error| (at, error))? {
                jobs.push(job);
                places.push(at);
            }
        }
        let of_piece = |job: usize| places.get(job).copied().unwrap_or_default();
        self.expand.expand(&mut jobs).map_err(|(job, error)| (of_piece(job), error))?;
        for (at, (piece, hash)) in pieces.iter().zip(hashes).enumerate() {
            self.check_plain(&piece.chunk, hash, piece.plain).map_err(|error| (at, error))?;
        }
        Ok(())
    }

    /// Compares decoded bytes with the index; `stored` is the hash of the stored ones where they are not encrypted.
    fn check_plain(&mut self, chunk: &Chunk, stored: Option<Digest>, plain: &[u8]) -> Result<(), Error> {
        let found = match (chunk.kind, stored) {
            (ChunkKind::Zero, _) => {
                if self.zeros.0 != plain.len() {
                    self.zeros = (plain.len(), Digest::of(plain));
                }
                self.zeros.1
            }
            (ChunkKind::Stored, Some(hash)) => hash,
            (ChunkKind::Stored | ChunkKind::Gzip | ChunkKind::Zstd, _) => Digest::of(plain),
        };
        if found == chunk.sha256 {
            return Ok(());
        }
        Err(Error::HashMismatch { what: "the decoded chunk".into(), found, wanted: chunk.sha256 })
    }
}

/// Puts plain bytes into their place, where nothing has to be decompressed for them; else says what has to be.
fn place<'a>(chunk: &Chunk, bare: &'a [u8], plain: &'a mut [u8]) -> Result<Option<Job<'a>>, Error> {
    if plain.len() != chunk.plain_len as usize {
        let what = format!("a place of {} bytes for a chunk of {}", plain.len(), chunk.plain_len);
        return Err(Error::Caller(what));
    }
    let packing = match chunk.kind {
        ChunkKind::Zero => {
            plain.fill(0);
            return Ok(None);
        }
        ChunkKind::Stored => {
            // Both are as long as the index says, which wants them equal; only a record that breaks its rule gets here.
            if bare.len() != plain.len() {
                let problem = format!("{} bytes are not {}", bare.len(), plain.len());
                return Err(Error::Decode { kind: "stored", problem });
            }
            plain.copy_from_slice(bare);
            return Ok(None);
        }
        ChunkKind::Gzip => Packing::Gzip,
        ChunkKind::Zstd => Packing::Zstd,
    };
    Ok(Some(Job { packing, prefix: 0, stored: bare, plain }))
}

/// Compares stored bytes with the index; returns their hash.
fn check_stored(chunk: &Chunk, stored: &[u8]) -> Result<Digest, Error> {
    let found = Digest::of(stored);
    if found.truncated() == chunk.stored_sha256 && stored.len() == chunk.stored_len as usize {
        return Ok(found);
    }
    Err(Error::StoredMismatch { found: to_hex(&found.truncated()), wanted: to_hex(&chunk.stored_sha256) })
}
