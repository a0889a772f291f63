//! The `.otad-delta` file: what turns the images of one release, which a device runs, into those of the next.
//!
//! A delta is a *source of chunks* and nothing more. It carries no signature and is believed in nothing: the manifest comes
//! from the new bundle, its index is accepted only with the hash that the manifest vouches for, every chunk only with the
//! hash of the index. What fails is fetched from the bundle, chunk by chunk. So this format only promises that no bytes
//! whatsoever make a reader panic, take more memory than the constants below, or read anything but the old image.
//!
//! This page is the specification. Integers are little-endian; *varint* is LEB128 of at most 32 bits in its shortest form,
//! *zigzag* maps 0, -1, 1, -2, … to 0, 1, 2, 3, …; a *block* is 4096 bytes, a *page* 16384.
//!
//! # File
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 16 | `otad-delta 1` newline, three zero bytes: the format and its version |
//! | 16 | 8 | length of the whole file |
//! | 24 | 4 | number of sections, 1 to 128 |
//! | 28 | 4 | length of the directory, at most [`DIRECTORY_LIMIT_BYTES`] |
//! | 32 | 32 | SHA-256 of the old bundle's manifest: the release it starts from |
//! | 64 | 32 | SHA-256 of the new bundle's manifest: the release it leads to |
//! | 96 | … | the directory: one entry for each section |
//! | … | … | the segments of the first section, those of the next, and so on; nothing behind them |
//!
//! A *section* makes one run of bytes (the *new* one) out of another that the device has (the *old* one): the chunk index
//! of an image, or the image. All indexes come before all images.
//!
//! | offset | bytes | field of a directory entry |
//! |---|---|---|
//! | 0 | 32 | role of the image, then zeros |
//! | 32 | 1 | part: 0 index, 1 image |
//! | 33 | 7 | zero |
//! | 40 | 8 | length of the old bytes, 0 to [`CONTENT_LIMIT_BYTES`] |
//! | 48 | 8 | length of the new bytes, 1 to [`CONTENT_LIMIT_BYTES`] |
//! | 56 | 32 | SHA-256 of the old bytes |
//! | 88 | 32 | SHA-256 of the new bytes |
//! | 120 | 8 each | for each 64 MiB of the new bytes a *segment*: length of its stored head (u32), of its body (u32) |
//!
//! # Segment
//!
//! A segment makes up to 16384 blocks. Its *head* is one zstd frame with content size, of at most [`HEAD_LIMIT_BYTES`]
//! plain bytes, which are:
//!
//! 1. the *block map*: varint number of runs, then for each run varint `4 * blocks + kind`, blocks ≥ 1. Together the runs
//!    make exactly the blocks of the segment; the last block of the new bytes may be cut short.
//! 2. for each *copy* run, in order: zigzag varint of its first old block minus the one behind the copy run before it
//!    (minus the segment's own first block for the first). Copied blocks lie entirely in the old bytes.
//! 3. for each *repeat* run, in order: varint distance, from the number of literal blocks in the segment so far back to the
//!    number of the first literal block that is repeated; the run ends before that number of literal blocks. At most
//!    [`SHELF_BLOCKS`] distinct blocks of a segment are repeated, so that a reader can put them aside when they pass.
//! 4. for each *piece*, in order: varint `2 * stored length + form`, varint number of page runs, and for each page run varint
//!    gap since the end of the one before and varint number of pages minus one. A piece has at most [`PREFIX_PAGES`] pages, all
//!    of which start in the old bytes.
//!
//! | kind | blocks are |
//! |---|---|
//! | 0 zero | zeros |
//! | 1 copy | those of the old bytes |
//! | 2 repeat | literal blocks of this segment, once more |
//! | 3 literal | the next literal blocks |
//!
//! The *body* is the stored pieces, one after the other. A piece is 64 literal blocks, the last one of a segment what is
//! left. It is stored as one zstd frame with content size and without dictionary id, whose *prefix* (`ZSTD_DCtx_refPrefix`)
//! is the listed pages of the old bytes in order; the last page of the old bytes may be short. Pieces do not depend
//! on each other. In form 0 the plain bytes of the frame are the blocks. In form 1 they are a *patch* of the prefix, at most
//! [`PATCH_LIMIT_BYTES`] long:
//!
//! 1. varint number of steps, then for each step: zigzag varint *seek*, varint *add*, varint *extra*;
//! 2. the differences of all steps, one after the other;
//! 3. the extra bytes of all steps, one after the other.
//!
//! Each step moves the position in the prefix (0 at first) by *seek*, makes *add* bytes by adding differences to those of the
//! prefix (modulo 256), which moves the position along, and then *extra* bytes as they are.
//!
//! ```
//! let start = b"otad-delta 1\n\0\0\0";
//! assert_eq!(otad_bundle::delta::MAGIC, start);
//! // Zigzag, least significant seven bits first: 300 blocks before the end of the last copy run.
//! let zigzag = 2 * 300 - 1;
//! assert_eq!([zigzag & 0x7f | 0x80, zigzag >> 7], [0xd7, 0x04]);
//! ```

mod decode;
mod encode;
mod error;
mod frame;
mod header;
mod patch;
mod sealed;
mod segment;
mod wire;

pub use decode::{Delta, ReadAt};
pub use encode::{MadeDelta, make_delta, make_delta_with_key};
pub use error::{DeltaError, Extent};
pub use header::{Content, Header, MAGIC, Part, Section};
pub use sealed::{Announced, DeltaInput, SEALED_MAGIC, SealedInput};

/// Unit of the block map: what file systems allocate, so that moved files are found.
pub const BLOCK_BYTES: usize = 4096;
/// Unit of prefixes: small enough to leave out what does not help, large enough for short lists.
pub const PAGE_BYTES: usize = 16 * 1024;
/// Literal blocks in a piece (256 KiB): what is lost, fetched again or decoded for one chunk.
pub const PIECE_BLOCKS: usize = 64;
/// Most pages in a prefix (2 MiB): with a piece, nearly all the memory that decoding takes.
pub const PREFIX_PAGES: usize = 128;
/// Most bytes of a patch: a piece, and its steps.
pub const PATCH_LIMIT_BYTES: usize = PIECE_BLOCKS * BLOCK_BYTES + 64 * 1024;
/// Blocks in a segment (64 MiB): bounds the head that is held in memory.
pub const SEGMENT_BLOCKS: usize = 16384;
/// Most distinct repeated blocks in a segment (2 MiB).
pub const SHELF_BLOCKS: usize = 512;
/// Most plain, and most stored, bytes of a head; a full one with the longest lists has less.
pub const HEAD_LIMIT_BYTES: usize = 256 * 1024;
/// Most bytes of a directory: that of an image of 1 TiB.
pub const DIRECTORY_LIMIT_BYTES: usize = 256 * 1024;
/// Longest old or new bytes (1 TiB).
pub const CONTENT_LIMIT_BYTES: u64 = 1 << 40;

/// Bytes of new content that a segment makes.
pub(crate) const SEGMENT_BYTES: u64 = (SEGMENT_BLOCKS * BLOCK_BYTES) as u64;
/// Plain bytes of a whole piece.
pub(crate) const PIECE_BYTES: usize = PIECE_BLOCKS * BLOCK_BYTES;
/// Most stored bytes of a piece: zstd adds less than this to what does not shrink.
pub(crate) const PIECE_STORED_LIMIT_BYTES: usize = PIECE_BYTES + 1024;
