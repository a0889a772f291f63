//! The encrypted index: a table of hashes, then runs of records, each encrypted by itself.
//!
//! So that nothing has to be decrypted before its stored bytes were checked, and no index has to fit into memory either, an
//! encrypted `<role>.index` begins with the SHA-256 of each *frame* as it is stored. The manifest vouches for the table.
//!
//! | part | bytes |
//! |---|---|
//! | table | 32 for each frame |
//! | frame | 1024 records of 60 bytes (the last frame: what is left), encrypted, and the tag |

use crate::index::RECORD_BYTES;

/// Records in a frame.
const FRAME_RECORDS: usize = 1024;
/// Plain bytes of a whole frame.
pub(crate) const FRAME_BYTES: usize = FRAME_RECORDS * RECORD_BYTES;
/// Bytes of a hash in the table.
pub(crate) const HASH_BYTES: usize = 32;
/// Bytes of a tag.
pub(crate) const TAG: usize = super::TAG_BYTES as usize;

/// How many frames so many records make.
pub(crate) fn frames(records: u64) -> u64 {
    records.div_ceil(FRAME_RECORDS as u64)
}

/// Bytes of the encrypted index of so many records; cannot wrap below 2^57 records.
pub(crate) fn stored_bytes(records: u64) -> u64 {
    records * RECORD_BYTES as u64 + frames(records) * (HASH_BYTES + TAG) as u64
}

/// How many records an encrypted index of that length has, if there is such a number.
pub(crate) fn records(stored: u64) -> Option<u64> {
    let frames = stored.div_ceil((FRAME_BYTES + HASH_BYTES + TAG) as u64);
    let records = stored.checked_sub(frames * (HASH_BYTES + TAG) as u64)? / RECORD_BYTES as u64;
    (records > 0 && stored_bytes(records) == stored).then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_one_meaning() {
        for count in (1..3000).chain([1 << 20, (1 << 27) + 1]) {
            assert_eq!(records(stored_bytes(count)), Some(count));
            assert_eq!(records(stored_bytes(count) + 1), None);
        }
        assert_eq!((records(0), records(47), records(48)), (None, None, None));
        assert_eq!(stored_bytes(1), 108);
    }
}
