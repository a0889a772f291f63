//! A slow source is not a hang: whatever it brings is told to the progress, which the watchdog looks at.

use otad_bundle::Input;

use crate::install::progress::Progress;

/// An input with a sign of life for every piece that arrives.
pub(crate) struct Alive {
    input: Box<dyn Input + Send>,
    position: u64,
    progress: Progress,
}

impl Alive {
    /// Takes an input that stands at its start.
    pub(crate) fn new(input: Box<dyn Input + Send>, progress: Progress) -> Self {
        Alive { input, position: 0, progress }
    }
}

impl std::io::Read for Alive {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.position = self.position.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        self.progress.alive();
        Ok(length)
    }
}

impl Input for Alive {
    fn seek_to(&mut self, offset: u64) -> std::io::Result<()> {
        // What a pipe skips it reads, which takes as long as reading: every piece of it is a sign of life.
        while !self.random_access() && self.position < offset {
            let left = usize::try_from(offset - self.position).unwrap_or(usize::MAX);
            let mut dropped = [0; 16 * 1024];
            let piece = left.min(dropped.len());
            if std::io::Read::read(self, dropped.get_mut(..piece).unwrap_or_default())? == 0 {
                break;
            }
        }
        self.position = offset;
        self.input.seek_to(offset)
    }

    fn random_access(&self) -> bool {
        self.input.random_access()
    }

    fn length(&self) -> Option<u64> {
        self.input.length()
    }

    fn fetched(&self) -> Option<u64> {
        self.input.fetched()
    }

    fn expect(&mut self, extents: Vec<std::ops::Range<u64>>) {
        self.input.expect(extents);
    }
}
