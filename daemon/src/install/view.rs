//! A device seen piece by piece: read once, in large aligned pieces, and handed on from where it was read to.

use std::io;
use std::ops::Range;

use crate::aligned::{ALIGNMENT, Aligned};
use crate::ports::SlotReader;

/// Most bytes of one read.
const WINDOW_BYTES: usize = 512 * 1024;

/// A window on a device.
pub struct View {
    reader: Box<dyn SlotReader>,
    /// Where the device ends.
    size: u64,
    memory: Aligned,
    /// What of the device is in memory.
    seen: Range<u64>,
}

impl View {
    /// Takes a reader of a device of so many bytes.
    pub fn new(reader: Box<dyn SlotReader>, size: u64) -> Self {
        View { reader, size, memory: Aligned::new(WINDOW_BYTES), seen: 0..0 }
    }

    /// Hands on what the device holds in `range`, in as many pieces as it takes. What follows up to `ahead` is wanted next, so
    /// it may be read as well.
    pub fn each(&mut self, range: Range<u64>, ahead: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            if !self.seen.contains(&at) {
                self.read(at, range.end.max(ahead))?;
            }
            let end = range.end.min(self.seen.end);
            let within = |offset: u64| usize::try_from(offset - self.seen.start).unwrap_or(usize::MAX);
            take(self.memory.bytes().get(within(at)..within(end)).unwrap_or_default());
            at = end;
        }
        Ok(())
    }

    fn read(&mut self, from: u64, until: u64) -> io::Result<()> {
        let alignment = ALIGNMENT as u64;
        let start = from - from % alignment;
        let end = until.next_multiple_of(alignment).min(start + WINDOW_BYTES as u64).min(self.size);
        if end <= from {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(end - start).unwrap_or(0);
        self.seen = 0..0;
        self.reader.read_at(start, self.memory.bytes_mut().get_mut(..length).unwrap_or_default())?;
        self.seen = start..end;
        Ok(())
    }
}
