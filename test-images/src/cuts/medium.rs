//! A medium that is put into the state of one moment after the other.
//!
//! The copy of the image that the recording began with moves forward through the log; what a cut leaves of pending writes is
//! written on top, and taken back before the next state.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::Error;
use super::log::{Act, Log, SECTOR_BYTES};
use super::state::Stored;

/// A drive's image on its way through a log.
#[derive(Debug)]
pub struct Medium<'log> {
    log: &'log Log,
    file: File,
    path: PathBuf,
    applied: usize,
    /// What was there before pending writes came, in the order in which they came.
    before: Vec<(u64, Vec<u8>)>,
}

impl<'log> Medium<'log> {
    /// Takes an image as it was when the log began.
    pub fn new(image: &Path, log: &'log Log) -> Result<Medium<'log>, Error> {
        let file = File::options().read(true).write(true).open(image).map_err(Error::io("open", image))?;
        Ok(Medium { log, file, path: image.to_owned(), applied: 0, before: Vec::new() })
    }

    /// Its image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it into a state that is not before the last one.
    ///
    /// # Errors
    /// [`Error::Backwards`] when it is.
    pub fn become_state(&mut self, stored: &Stored) -> Result<(), Error> {
        self.take_back()?;
        if stored.durable < self.applied {
            return Err(Error::Backwards { from: self.applied, to: stored.durable });
        }
        for index in self.applied..stored.durable {
            self.apply(index, u64::MAX, Keep::Nothing)?;
            self.applied = index + 1;
        }
        stored.kept.iter().try_for_each(|(index, sectors)| self.apply(*index, *sectors, Keep::WhatWasThere))
    }

    fn take_back(&mut self) -> Result<(), Error> {
        while let Some((offset, bytes)) = self.before.pop() {
            self.file.write_all_at(&bytes, offset).map_err(Error::io("write", &self.path))?;
        }
        Ok(())
    }

    fn apply(&mut self, index: usize, sectors: u64, keep: Keep) -> Result<(), Error> {
        let Some(entry) = self.log.entries.get(index) else { return Ok(()) };
        if matches!(entry.act, Act::Flush | Act::Mark) {
            return Ok(());
        }
        let bytes = self.log.bytes(entry, sectors)?;
        let offset = entry.sector * SECTOR_BYTES;
        if keep == Keep::WhatWasThere {
            let mut old = vec![0; bytes.len()];
            read_or_zero(&self.file, &mut old, offset).map_err(Error::io("read", &self.path))?;
            self.before.push((offset, old));
        }
        self.file.write_all_at(&bytes, offset).map_err(Error::io("write", &self.path))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    WhatWasThere,
    Nothing,
}

/// Reads what is there; behind the end of an image there are zeros.
fn read_or_zero(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    match file.read_exact_at(bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::log::Log;
    use super::super::state::{Fate, pending_on_disk, store};
    use super::{Error, Medium};

    /// First bytes of the sectors that the golden log writes: 0, 1, 8, 16, 17.
    fn sectors(path: &Path) -> [u8; 5] {
        let bytes = std::fs::read(path).unwrap();
        [0, 1, 8, 16, 17].map(|sector| bytes[sector * 512])
    }

    #[test]
    fn states_follow_one_another_and_leave_nothing_behind() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/blklogwrites.log");
        let log = Log::open(Path::new(golden)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        std::fs::write(&image, vec![0xee; 1 << 20]).unwrap();
        let mut medium = Medium::new(&image, &log).unwrap();
        let state = |count, fate| {
            let (durable, pending) = pending_on_disk(&log, count);
            store(&log, durable, pending, fate, 7)
        };
        for (count, fate, expected) in [
            (0, Fate::All, [0xee, 0xee, 0xee, 0xee, 0xee]),
            (1, Fate::All, [0x11, 0x11, 0xee, 0xee, 0xee]),
            (1, Fate::None, [0xee, 0xee, 0xee, 0xee, 0xee]),
            (1, Fate::Torn, [0x11, 0xee, 0xee, 0xee, 0xee]),
            (2, Fate::None, [0x11, 0x11, 0xee, 0xee, 0xee]),
            (4, Fate::All, [0x11, 0x11, 0x22, 0, 0]),
            (4, Fate::None, [0x11, 0x11, 0xee, 0xee, 0xee]),
            (9, Fate::None, [0x11, 0x33, 0x22, 0, 0]),
        ] {
            medium.become_state(&state(count, fate)).unwrap();
            assert_eq!(sectors(&image), expected, "{count} {fate}");
        }
        let backwards = medium.become_state(&state(1, Fate::None));
        assert!(matches!(backwards, Err(Error::Backwards { from: 9, to: 0 })));
    }
}
