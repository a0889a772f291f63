//! zstd frames with a prefix: how heads and pieces are stored.
//!
//! A frame of a delta is decoded before anything vouches for it, so everything is bounded beforehand: its content size is
//! written in it and must be the one expected, it has no dictionary id, nothing follows it, and it is decoded in one step
//! into a buffer of that size, which needs no window.

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, Strategy, compress_bound, get_error_name, get_frame_content_size,
};

use super::HEAD_LIMIT_BYTES;
use crate::decode::{FrameProblem, check_frame};

/// Level that zstd's defaults for everything not set below are taken from.
const LEVEL: i32 = 19;

/// Decodes a head.
pub(super) fn head(stored: &[u8]) -> Result<Vec<u8>, String> {
    let length = content_size(stored, HEAD_LIMIT_BYTES)?;
    let mut plain = Vec::new();
    decode(stored, &[], length, &mut plain)?;
    Ok(plain)
}

/// The content size that a frame announces, if it is within the limit.
pub(super) fn content_size(stored: &[u8], limit: usize) -> Result<usize, String> {
    let size = match get_frame_content_size(stored) {
        Ok(Some(size)) => usize::try_from(size).ok().filter(|&size| size <= limit),
        Ok(None) | Err(_) => None,
    };
    size.ok_or_else(|| format!("no frame of up to {limit} bytes"))
}

/// Decodes exactly one frame of exactly `length` plain bytes into `plain`, whose allocation is reused.
pub(super) fn decode(stored: &[u8], prefix: &[u8], length: usize, plain: &mut Vec<u8>) -> Result<(), String> {
    let limit = u32::try_from(length).map_err(|_| "too long".to_owned())?;
    check_frame(stored, limit).map_err(|problem| match problem {
        FrameProblem::TooLarge => format!("the frame has more than {limit} bytes"),
        FrameProblem::Refused(problem) => problem,
    })?;
    plain.clear();
    plain.reserve_exact(length);
    // A context refers to its prefix for as long as it lives, so each piece has its own (about 100 KiB).
    let mut context = DCtx::try_create().ok_or("no memory for a decoder")?;
    let text = |code| get_error_name(code).to_owned();
    context.ref_prefix(prefix).map_err(text)?;
    let count = context.decompress(plain, stored).map_err(text)?;
    if count == length && plain.len() == length { Ok(()) } else { Err(format!("{count} of {length} bytes")) }
}

/// Encodes one frame.
pub(super) fn encode(plain: &[u8], prefix: &[u8]) -> Result<Vec<u8>, String> {
    let mut context = CCtx::try_create().ok_or("no memory for an encoder")?;
    let text = |code| get_error_name(code).to_owned();
    // The whole prefix must stay in reach of the last byte.
    let window_log = (plain.len() + prefix.len()).max(1 << 17).next_power_of_two().ilog2();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(window_log),
        CParameter::HashLog(window_log),
        CParameter::ChainLog(window_log + 1),
        CParameter::SearchLog(9),
        CParameter::MinMatch(3),
        CParameter::TargetLength(512),
        CParameter::Strategy(Strategy::ZSTD_btultra2),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(false),
    ] {
        context.set_parameter(parameter).map_err(text)?;
    }
    context.ref_prefix(prefix).map_err(text)?;
    let mut stored = Vec::with_capacity(compress_bound(plain.len()));
    context.compress2(&mut stored, plain).map_err(text)?;
    Ok(stored)
}
