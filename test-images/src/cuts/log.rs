//! The log of everything a drive was told to store, as QEMU's `blklogwrites` and Linux' dm-log-writes write it.
//!
//! All numbers are little-endian. The log is cut into sectors of the size that its header names (512 here):
//!
//! | offset | bytes | header, the first sector |
//! |---|---|---|
//! | 0 | 8 | magic, 0x6a736677736872 |
//! | 8 | 8 | version, 1 |
//! | 16 | 8 | number of entries |
//! | 24 | 4 | sector size in bytes |
//!
//! Entries follow one another, each a sector and the sectors that were written, if any:
//!
//! | offset | bytes | entry |
//! |---|---|---|
//! | 0 | 8 | first sector on the drive |
//! | 8 | 8 | number of sectors |
//! | 16 | 8 | flags: 1 flush, 2 forced unit access, 4 discard, 8 mark |
//! | 24 | 8 | length of the data of a mark |
//!
//! A write of zeros is logged as a write with its zeros; a discard has no data and is taken as zeros. A flush has no
//! sectors; it vouches for every entry before it. QEMU turns forced unit access into a write and a flush.
//!
//! Sources: Linux, `Documentation/admin-guide/device-mapper/log-writes.rst`; QEMU, `block/blklogwrites.c`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The smallest unit that a drive stores whole, and the log's.
pub const SECTOR_BYTES: u64 = SECTOR as u64;
const SECTOR: usize = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLAG_FLUSH: u64 = 1;
const FLAG_DISCARD: u64 = 4;
const FLAG_MARK: u64 = 8;
const FLAGS_KNOWN: u64 = 0b1_1111;

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the log {}: {source}", path.display())]
    Read {
        /// The log.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no such log, or is damaged.
    #[error("{} is no log of writes: {why}", path.display())]
    Format {
        /// The log.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
}

/// What the drive was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// To store sectors; their bytes are in the log at this offset.
    Write {
        /// Where in the log.
        data_offset: u64,
    },
    /// To forget sectors.
    Discard,
    /// To make everything before durable.
    Flush,
    /// Nothing.
    Mark,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What the drive was told.
    pub act: Act,
    /// The first sector.
    pub sector: u64,
    /// How many.
    pub sectors: u64,
}

/// A log whose entries are known; their bytes are read when they are needed.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    /// The entries, in order.
    pub entries: Vec<Entry>,
}

/// Reads how many entries a log has, also while it is being written. 0 while it has no header yet.
pub fn count(file: &File) -> io::Result<u64> {
    let mut header = [0; 24];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        other => other?,
    }
    Ok(if number(&header, 0) == MAGIC { number(&header, 16) } else { 0 })
}

impl Log {
    /// Reads the entries of a log that is complete.
    pub fn open(path: &Path) -> Result<Log, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let wrong = |why: String| Error::Format { path: path.to_owned(), why };
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let mut sector = [0; SECTOR];
        file.read_exact_at(&mut sector, 0).map_err(failed)?;
        let [magic, version, count] = [0, 8, 16].map(|offset| number(&sector, offset));
        let sector_bytes = number(&sector, 24) & u64::from(u32::MAX);
        if (magic, version, sector_bytes) != (MAGIC, VERSION, SECTOR_BYTES) {
            let found = format!("magic {magic:#x}, version {version}, sectors of {sector_bytes} bytes");
            return Err(wrong(format!("{found}; expected {MAGIC:#x}, {VERSION}, {SECTOR_BYTES}")));
        }
        let mut entries = Vec::new();
        let mut offset = SECTOR_BYTES;
        for index in 0..count {
            file.read_exact_at(&mut sector, offset).map_err(failed)?;
            let at = format!("entry {index} at byte {offset}");
            offset += SECTOR_BYTES;
            let entry = entry(&sector, offset).map_err(|why| wrong(format!("{at}: {why}")))?;
            if let Act::Write { .. } = entry.act {
                let length =
                    entry.sectors.checked_mul(SECTOR_BYTES).and_then(|length| offset.checked_add(length));
                offset = length.filter(|end| *end <= bytes).ok_or_else(|| {
                    wrong(format!("{at}: {} sectors, and the log ends at byte {bytes}", entry.sectors))
                })?;
            } else if entry.act == Act::Mark {
                offset = offset.saturating_add(number(&sector, 24).next_multiple_of(SECTOR_BYTES));
            }
            entries.push(entry);
        }
        Ok(Log { file, path: path.to_owned(), entries })
    }

    /// The bytes of one sector of an entry; `None` if it has none.
    pub fn sector(&self, entry: &Entry, index: u64) -> Result<Option<[u8; SECTOR]>, Error> {
        let mut bytes = [0; SECTOR];
        match entry.act {
            _ if index >= entry.sectors => return Ok(None),
            Act::Flush | Act::Mark => return Ok(None),
            Act::Discard => {}
            Act::Write { data_offset } => self.read(&mut bytes, data_offset + index * SECTOR_BYTES)?,
        }
        Ok(Some(bytes))
    }

    /// The first bytes of an entry, as many sectors as are asked for and there are.
    pub fn bytes(&self, entry: &Entry, sectors: u64) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(entry.sectors.min(sectors) * SECTOR_BYTES).unwrap_or_default();
        let mut bytes = vec![0; length];
        match entry.act {
            Act::Flush | Act::Mark => bytes.clear(),
            Act::Discard => {}
            Act::Write { data_offset } => self.read(&mut bytes, data_offset)?,
        }
        Ok(bytes)
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), Error> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|source| Error::Read { path: self.path.clone(), source })
    }
}

fn entry(sector: &[u8], data_offset: u64) -> Result<Entry, String> {
    let flags = number(sector, 16);
    if flags & !FLAGS_KNOWN != 0 {
        return Err(format!("unknown flags {flags:#x}"));
    }
    let sectors = number(sector, 8);
    let act = match flags {
        _ if flags & FLAG_MARK != 0 => Act::Mark,
        _ if flags & FLAG_DISCARD != 0 => Act::Discard,
        _ if sectors > 0 => Act::Write { data_offset },
        _ if flags & FLAG_FLUSH != 0 => Act::Flush,
        _ => return Err("neither sectors nor a flag".to_owned()),
    };
    Ok(Entry { act, sector: number(sector, 0), sectors })
}

/// The number at an offset; the caller's buffers are long enough.
fn number(bytes: &[u8], offset: usize) -> u64 {
    let eight = bytes.get(offset..offset + 8).and_then(|eight| eight.try_into().ok());
    u64::from_le_bytes(eight.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Act, Error, Log};

    /// Made by `qemu-io` 10.0: write 1 KiB of 0x11 at 0, flush, write 512 bytes of 0x22 at 4096, write 4 KiB of zeros at 8192,
    /// discard 4 KiB at 16384, flush, write 512 bytes of 0x33 at 512 with forced unit access.
    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/blklogwrites.log");

    #[test]
    fn reads_a_log_of_qemu() {
        let log = Log::open(Path::new(GOLDEN)).unwrap();
        let told: Vec<(&str, u64, u64)> = log
            .entries
            .iter()
            .map(|entry| {
                let act = match entry.act {
                    Act::Write { .. } => "write",
                    Act::Discard => "discard",
                    Act::Flush => "flush",
                    Act::Mark => "mark",
                };
                (act, entry.sector, entry.sectors)
            })
            .collect();
        // qemu-io flushes once more behind zeros that may have been unmapped.
        let expected = [
            ("write", 0, 2),
            ("flush", 0, 0),
            ("write", 8, 1),
            ("write", 16, 8),
            ("flush", 0, 0),
            ("discard", 32, 8),
            ("flush", 0, 0),
            ("write", 1, 1),
            ("flush", 0, 0),
        ];
        assert_eq!(told, expected);
        let first_bytes: Vec<Option<u8>> =
            log.entries.iter().map(|entry| log.bytes(entry, 1).unwrap().first().copied()).collect();
        assert_eq!(
            first_bytes,
            [Some(0x11), None, Some(0x22), Some(0), None, Some(0), None, Some(0x33), None]
        );
        assert_eq!(log.sector(&log.entries[0], 1).unwrap(), Some([0x11; 512]));
        assert_eq!(log.sector(&log.entries[0], 2).unwrap(), None);
    }

    #[test]
    fn every_truncation_and_every_wrong_header_is_an_error() {
        let whole = std::fs::read(GOLDEN).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // The last entry is a flush: without its sector the log is short.
        for length in (0..whole.len()).step_by(509) {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Log::open(&path).is_err(), "{length} bytes");
        }
        for offset in [0, 8, 24, 512 + 16 + 1] {
            let mut wrong = whole.clone();
            wrong[offset] ^= 0x40;
            std::fs::write(&path, &wrong).unwrap();
            assert!(matches!(Log::open(&path), Err(Error::Format { .. })), "byte {offset}");
        }
    }
}
