//! zstd frames with a prefix: how heads and pieces are stored.
//!
//! A frame of a delta is decoded before anything vouches for it, so everything is bounded beforehand: its content size is
//! written in it and must be the one expected, it has no dictionary id, nothing follows it, and it is decoded in one step
//! into a buffer of that size, which needs no window.

use zstd::zstd_safe::{CCtx, CParameter, Strategy, compress_bound, get_error_name};

use super::HEAD_LIMIT_BYTES;
use super::error::DeltaError;
use crate::error::Error;
use crate::expand::{Expand, Job, Packing, content_size};

/// Level that zstd's defaults for everything not set below are taken from.
const LEVEL: i32 = 19;

/// Decodes a head.
pub(super) fn head(expand: &mut dyn Expand, stored: &[u8]) -> Result<Vec<u8>, Error> {
    let length = content_size(stored, HEAD_LIMIT_BYTES).map_err(wrong)?;
    let mut plain = Vec::new();
    decode(expand, stored, 0, length, &mut plain)?;
    Ok(plain)
}

/// Decodes exactly one frame of exactly `length` plain bytes into `plain`, whose allocation is reused; it refers to `prefix` kept bytes.
pub(super) fn decode(
    expand: &mut dyn Expand,
    stored: &[u8],
    prefix: usize,
    length: usize,
    plain: &mut Vec<u8>,
) -> Result<(), Error> {
    // No byte is written twice: only growth beyond what was used before is filled with zeros.
    plain.truncate(length);
    plain.reserve_exact(length - plain.len());
    plain.resize(length, 0);
    expand.expand(&mut [Job { packing: Packing::Zstd, prefix, stored, plain }]).map_err(|(_, error)| error)
}

/// Something that is wrong with a frame or what is in it.
pub(super) fn wrong(problem: impl Into<String>) -> Error {
    Error::Decode { kind: "zstd", problem: problem.into() }
}

/// Tells what is wrong with a delta from what is wrong with whoever decompresses it.
pub(super) fn blame(error: Error, otherwise: impl FnOnce(String) -> DeltaError) -> DeltaError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other error says for itself what is wrong")]
    match error {
        Error::Expander { source } => DeltaError::Expander { source },
        Error::Decode { problem, .. } => otherwise(problem),
        other => otherwise(other.to_string()),
    }
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
