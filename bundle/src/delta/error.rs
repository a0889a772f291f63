//! What can be wrong with a delta, and how much of it is lost then.

use std::io;

use crate::digest::Digest;

/// Why a delta, or a chunk out of it, cannot be used. None of it is an error of the update: the bundle has everything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// The input starts with something else than a delta does.
    #[error("this is not a delta of format 1: it starts with {start}")]
    NotADelta {
        /// The first bytes, printable.
        start: String,
    },
    /// The header or the directory breaks a rule.
    #[error("delta: {place}: {problem}")]
    Directory {
        /// Which part of it.
        place: String,
        /// The rule.
        problem: String,
    },
    /// The head of a segment breaks a rule, or is no frame.
    #[error("delta: segment {segment} of {section}: {problem}")]
    Head {
        /// Role and part.
        section: String,
        /// Segment number, from 0.
        segment: u64,
        /// The rule.
        problem: String,
    },
    /// A piece cannot be decoded.
    #[error("delta: piece {piece} of segment {segment} of {section}: {problem}")]
    Piece {
        /// Role and part.
        section: String,
        /// Segment number, from 0.
        segment: u64,
        /// Piece number in the segment, from 0.
        piece: usize,
        /// What the decoder says.
        problem: String,
    },
    /// The input ends inside the delta.
    #[error("the delta ends at offset {offset}: fetch it again, or go on without it")]
    Truncated {
        /// Length of the input, in bytes.
        offset: u64,
    },
    /// The input cannot be read.
    #[error("cannot read the delta at offset {offset}: {source}")]
    Read {
        /// Where, in bytes.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The old bytes cannot be read.
    #[error("cannot read {length} bytes of the old {section} at offset {offset}: {source}")]
    Old {
        /// Role and part.
        section: String,
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: usize,
        /// Why.
        source: io::Error,
    },
    /// The delta starts from other bytes than the device has.
    #[error("the delta starts from {section} with SHA-256 {wanted}, the device has {found}")]
    OtherOld {
        /// Role and part.
        section: String,
        /// What the device has.
        found: Digest,
        /// What the delta wants.
        wanted: Digest,
    },
    /// What came out is not what the signature vouches for.
    #[error("the delta makes {what} with SHA-256 {found}, the signature vouches for {wanted}")]
    Mismatch {
        /// Which bytes.
        what: String,
        /// The hash found.
        found: Digest,
        /// The hash required.
        wanted: Digest,
    },
    /// What is taken out of the delta cannot be written.
    #[error("cannot write {what}: {source}")]
    Sink {
        /// What was being written.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// There is no memory for a decoder.
    #[error("no memory for the decoder of a delta")]
    Memory,
    /// Whoever decompresses for this process does so no longer.
    #[error("what decompresses the delta is gone: {source}")]
    Expander {
        /// What became of it.
        source: io::Error,
    },
    /// The caller asks for bytes that the delta does not make.
    #[error("defect in the caller: {0}")]
    Caller(String),
}

/// How much of a delta an error takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The chunk that was asked for; others may still be right.
    Chunk,
    /// All of it.
    Delta,
}

impl DeltaError {
    /// Whether it is worth asking the delta for the next chunk.
    pub fn extent(&self) -> Extent {
        match self {
            DeltaError::Head { .. }
            | DeltaError::Piece { .. }
            | DeltaError::Old { .. }
            | DeltaError::Mismatch { .. }
            | DeltaError::Sink { .. }
            | DeltaError::Caller(_) => Extent::Chunk,
            DeltaError::NotADelta { .. }
            | DeltaError::Directory { .. }
            | DeltaError::Truncated { .. }
            | DeltaError::Read { .. }
            | DeltaError::OtherOld { .. }
            | DeltaError::Expander { .. }
            | DeltaError::Memory => Extent::Delta,
        }
    }

    /// The stable code, spelled as in the table of `otad_dbus::Code`.
    pub fn code(&self) -> &'static str {
        match self {
            DeltaError::NotADelta { .. } => "NOT_A_BUNDLE",
            DeltaError::Directory { .. } | DeltaError::Head { .. } | DeltaError::Piece { .. } => {
                "BUNDLE_FORMAT"
            }
            DeltaError::Truncated { .. } => "BUNDLE_TRUNCATED",
            DeltaError::Read { .. } => "BUNDLE_READ",
            DeltaError::Old { .. } => "IO_READ",
            DeltaError::OtherOld { .. } | DeltaError::Mismatch { .. } => "HASH_MISMATCH",
            DeltaError::Sink { .. } => "FILE_IO",
            DeltaError::Memory => "RESOURCE",
            DeltaError::Caller(_) | DeltaError::Expander { .. } => "INTERNAL",
        }
    }
}
