//! Reading an image without reading its holes.
//!
//! A root file system image is often sparse. A hole reads as zeros, but reading it makes the kernel fill page after page of
//! its cache; here it costs a question (`lseek` with `SEEK_DATA`). What is delivered is the same as without.

use std::fs::File;
use std::io::{self, Read};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

/// What the file system says about the bytes from the position on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Not asked yet, or passed.
    Unknown,
    /// Zeros up to this offset.
    Hole(u64),
    /// Data up to this offset.
    Data(u64),
    /// The file system cannot tell, or this is no regular file.
    Untold,
}

/// A file from its start to its end; holes are not read.
pub(super) struct SparseReader {
    file: File,
    position: u64,
    extent: Extent,
}

impl SparseReader {
    /// Takes a file that stands at its start.
    pub(super) fn new(file: File) -> io::Result<SparseReader> {
        let regular = file.metadata()?.is_file();
        Ok(SparseReader { file, position: 0, extent: if regular { Extent::Unknown } else { Extent::Untold } })
    }

    fn seek(&self, offset: u64, whence: Whence) -> Result<u64, Errno> {
        let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        let found = lseek64(&self.file, offset, whence)?;
        u64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }

    /// Asks what follows, and leaves the file's own offset at the position.
    fn explore(&mut self) -> io::Result<()> {
        self.extent = match self.seek(self.position, Whence::SeekData) {
            Ok(data) if data > self.position => Extent::Hole(data),
            Ok(_) => Extent::Data(self.seek(self.position, Whence::SeekHole)?),
            // No data from here on: a hole up to the end, or the end.
            Err(Errno::ENXIO) => Extent::Hole(self.file.metadata()?.len().max(self.position)),
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Extent::Untold,
            Err(errno) => return Err(errno.into()),
        };
        self.seek(self.position, Whence::SeekSet)?;
        Ok(())
    }
}

impl Read for SparseReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Extent::Hole(end) | Extent::Data(end) = self.extent
            && end <= self.position
        {
            self.extent = Extent::Unknown;
        }
        if self.extent == Extent::Unknown {
            self.explore()?;
        }
        let limit = |end: u64| usize::try_from(end - self.position).unwrap_or(usize::MAX).min(buf.len());
        let count = match self.extent {
            Extent::Hole(end) => {
                let zeros = buf.get_mut(..limit(end)).unwrap_or_default();
                zeros.fill(0);
                zeros.len()
            }
            Extent::Data(end) => self.file.read(buf.get_mut(..limit(end)).unwrap_or_default())?,
            Extent::Untold | Extent::Unknown => self.file.read(buf)?,
        };
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn delivers_what_plain_reading_delivers() {
        let file = tempfile::tempfile().unwrap();
        let mut expected = vec![0; 3_000_001];
        for (offset, text) in [(0, "start"), (70_000, "inside"), (1_999_998, "across"), (2_500_000, "last")] {
            file.write_all_at(text.as_bytes(), offset).unwrap();
            let at = usize::try_from(offset).unwrap();
            expected[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        for length in [3_000_001, 2_500_004, 2_000_000, 1, 0] {
            file.set_len(length).unwrap();
            let mut found = Vec::new();
            SparseReader::new(file.try_clone().unwrap()).unwrap().read_to_end(&mut found).unwrap();
            assert!(found == expected[..usize::try_from(length).unwrap()], "length {length}");
        }
    }

    #[test]
    fn reads_what_is_no_regular_file() {
        let mut found = Vec::new();
        let zero = SparseReader::new(File::open("/dev/zero").unwrap()).unwrap();
        zero.take(10_000).read_to_end(&mut found).unwrap();
        assert_eq!(found, vec![0; 10_000]);
    }
}
