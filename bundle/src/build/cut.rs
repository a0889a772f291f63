//! Cutting an image into chunks.
//!
//! Content-defined cuts follow FastCDC 2020 (Xia et al.) with normalisation level 1 as the `fastcdc` crate does it: a cut
//! depends only on the bytes since the cut before, so equal data is cut equally wherever it stands.

use std::io::{self, Read};

use crate::digest::{Digest, Hasher};
use crate::manifest::Chunking;

/// Bytes held at a time: several of the longest chunks, so that moving the rest to the front costs little.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Cuts what `input` delivers into the chunks that a bundle made of it would have.
pub struct Cutter<R> {
    input: R,
    chunking: Chunking,
    window: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    size: u64,
    /// Of everything read, where somebody wants to know it.
    hasher: Option<Hasher>,
}

impl<R: Read> Cutter<R> {
    /// Takes an input that stands at its start, and 4 MiB of memory.
    pub fn new(input: R, chunking: Chunking) -> Self {
        Cutter {
            input,
            chunking,
            window: vec![0; WINDOW_BYTES],
            start: 0,
            end: 0,
            at_end: false,
            size: 0,
            hasher: None,
        }
    }

    /// The same, hashing all of it on the way.
    pub(super) fn hashing(input: R, chunking: Chunking) -> Self {
        Cutter { hasher: Some(Hasher::new()), ..Cutter::new(input, chunking) }
    }

    /// The next chunk, or `None` at the end of the input.
    ///
    /// # Errors
    /// The input cannot be read.
    #[expect(clippy::should_implement_trait, reason = "it lends its window, which an iterator cannot")]
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.end - self.start < self.chunking.max() as usize && !self.at_end {
            self.refill()?;
        }
        let rest = self.window.get(self.start..self.end).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let length = cut(self.chunking, rest);
        self.start += length;
        Ok(rest.get(..length))
    }

    /// Length and SHA-256 of everything read.
    pub(super) fn finish(self) -> (u64, Digest) {
        (self.size, self.hasher.unwrap_or_default().finish())
    }

    fn refill(&mut self) -> io::Result<()> {
        self.window.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while let Some(room) = self.window.get_mut(self.end..).filter(|room| !room.is_empty()) {
            match self.input.read(room) {
                Ok(0) => {
                    self.at_end = true;
                    break;
                }
                Ok(count) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(room.get(..count).unwrap_or_default());
                    }
                    self.end += count;
                    self.size += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Length of the first chunk of `rest`, which holds at least the longest chunk or all that is left.
fn cut(chunking: Chunking, rest: &[u8]) -> usize {
    match chunking {
        Chunking::Fixed { size } => rest.len().min(size as usize),
        Chunking::FastCdc { min, average, max } => {
            let rest = rest.get(..max as usize).unwrap_or(rest);
            let cutter = fastcdc::v2020::FastCDC::new(rest, min as usize, average as usize, max as usize);
            let (_, length) = cutter.cut(0, rest.len());
            length
        }
    }
}

/// Whether every byte is zero; the overlapping comparison is one call of `memcmp`.
pub(crate) fn is_zero(chunk: &[u8]) -> bool {
    match (chunk.split_first(), chunk.split_last()) {
        (Some((first, tail)), Some((_, head))) => *first == 0 && head == tail,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(step).take(length).collect()
    }

    /// Delivers a few bytes at a time, as pipes do.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let count = buf.len().min(7777);
            self.0.read(&mut buf[..count])
        }
    }

    fn lengths(data: &[u8], chunking: Chunking) -> Vec<usize> {
        let mut cutter = Cutter::hashing(Drip(data), chunking);
        let mut lengths = Vec::new();
        while let Some(chunk) = cutter.next().unwrap() {
            lengths.push(chunk.len());
        }
        assert_eq!(cutter.finish(), (data.len() as u64, Digest::of(data)));
        lengths
    }

    #[test]
    fn agrees_with_cutting_the_whole_at_once() {
        let data = noise(11_000_000);
        let whole: Vec<_> =
            fastcdc::v2020::FastCDC::new(&data, 8192, 32768, 131_072).map(|chunk| chunk.length).collect();
        assert_eq!(lengths(&data, Chunking::DEFAULT), whole);
        let fixed = lengths(&data, Chunking::DEFAULT_FIXED);
        assert_eq!((fixed.len(), fixed.last()), (168, Some(&(11_000_000 % 65536))));
        assert!(lengths(&[], Chunking::DEFAULT).is_empty());
    }

    #[test]
    fn finds_zeros() {
        assert!(is_zero(&[]) && is_zero(&[0]) && is_zero(&[0; 4096]));
        for at in [0, 1, 2047, 4094, 4095] {
            let mut chunk = [0; 4096];
            chunk[at] = 1;
            assert!(!is_zero(&chunk), "{at}");
        }
        assert!(!is_zero(&[7; 64]));
    }
}
