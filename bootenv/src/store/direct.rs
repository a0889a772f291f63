//! Reading what the medium holds rather than what the page cache remembers.
//!
//! `O_DIRECT` where the device and its file system take it; elsewhere the clean pages of the range are dropped first
//! (`POSIX_FADV_DONTNEED`), which is advice the kernel may ignore.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

/// Alignment of address, offset and length for `O_DIRECT`, in bytes: the largest logical block in use.
const ALIGNMENT_BYTES: usize = 4096;

/// Reads `len` bytes at `offset` from a fresh descriptor.
pub(super) fn read_at(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    match read_direct(path, offset, len) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => read_dropped(path, offset, len),
        result => result,
    }
}

fn read_direct(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(path)?;
    let align = ALIGNMENT_BYTES as u64;
    let start = offset - offset % align;
    // The distance is below the alignment and fits any type.
    let lead = usize::try_from(offset - start).map_err(io::Error::other)?;
    let span = (lead + len).next_multiple_of(ALIGNMENT_BYTES);
    // An aligned window into a larger buffer: `Vec<u8>` itself promises no alignment.
    let mut buffer = vec![0; span + ALIGNMENT_BYTES];
    let skip = buffer.as_ptr().align_offset(ALIGNMENT_BYTES);
    let window = buffer.get_mut(skip..).and_then(|rest| rest.get_mut(..span)).ok_or_else(short_buffer)?;
    let filled = fill(&file, window, start)?;
    window
        .get(lead..(lead + len).min(filled))
        .filter(|bytes| bytes.len() == len)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| {
            let have = filled.saturating_sub(lead).min(len);
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ends after {have} of {len} bytes"))
        })
}

/// Reads until the window is full or the file ends; returns how much there was.
fn fill(file: &File, window: &mut [u8], start: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = window.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, start + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A direct read at the ragged end of a file starts off the alignment: that is the end.
            Err(error)
                if filled % ALIGNMENT_BYTES != 0 && error.raw_os_error() == Some(Errno::EINVAL as i32) =>
            {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn read_dropped(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let range =
        i64::try_from(offset).and_then(|start| Ok((start, i64::try_from(len)?))).map_err(io::Error::other)?;
    // Only advice: a file system that does not take it (tmpfs) has no medium below its cache either.
    let _ = posix_fadvise(&file, range.0, range.1, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let mut bytes = vec![0; len];
    let filled = fill(&file, &mut bytes, offset)?;
    if filled < len {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("it ends after {filled} of {len} bytes"),
        ));
    }
    Ok(bytes)
}

fn short_buffer() -> io::Error {
    io::Error::other("no aligned window in the buffer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_read_the_same_bytes_at_any_offset() {
        let content: Vec<u8> = (0..20_001_u32).map(|index| (index % 251) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &content).unwrap();
        for (offset, len) in
            [(0, 6), (0, 20_001), (5, 4096), (4095, 2), (4096, 8192), (12_345, 7_656), (20_000, 1)]
        {
            let expected = &content[offset..offset + len];
            assert_eq!(read_at(file.path(), offset as u64, len).unwrap(), expected);
            assert_eq!(read_dropped(file.path(), offset as u64, len).unwrap(), expected);
        }
        for (offset, len, have) in
            [(0, 20_002, 20_001), (20_001, 10, 0), (50_000, 1, 0), (19_000, 4096, 1001)]
        {
            for error in [
                read_at(file.path(), offset, len).unwrap_err(),
                read_dropped(file.path(), offset, len).unwrap_err(),
            ] {
                assert_eq!(error.to_string(), format!("it ends after {have} of {len} bytes"));
            }
        }
    }
}
