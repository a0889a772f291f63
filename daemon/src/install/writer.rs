//! The one writer: contiguous chunks become large writes, and nothing goes where the head is.

use crate::failure::{Act, Failure, from_slot};
use crate::install::Target;

/// Contiguous bytes collected before a write; large enough for eMMC's erase groups to be written in one go, small
/// enough not to matter for memory.
const BATCH_BYTES: usize = 1024 * 1024;

/// Writes the body of one image in rising order and keeps its head back.
pub struct Writer {
    /// The head as it will be written at the very end.
    head: Vec<u8>,
    batch: Vec<u8>,
    batch_at: u64,
    written: u64,
}

impl Writer {
    /// Makes a writer for a target whose head is `length` bytes.
    pub fn new(head: usize) -> Self {
        Writer { head: vec![0; head], batch: Vec::with_capacity(BATCH_BYTES), batch_at: 0, written: 0 }
    }

    /// Puts the plain bytes of a chunk at `offset`.
    pub fn put(&mut self, target: &mut Target, offset: u64, plain: &[u8]) -> Result<(), Failure> {
        let (into_head, body) = self.split(offset, plain.len());
        let (front, rest) = plain.split_at(into_head);
        self.keep(offset, front);
        self.append(target, body, rest)
    }

    /// Makes a range read as zeros.
    pub fn zero(&mut self, target: &mut Target, offset: u64, length: usize) -> Result<(), Failure> {
        // The head starts as zeros, so only the body needs work.
        let (into_head, body) = self.split(offset, length);
        let rest = u64::try_from(length - into_head).unwrap_or(u64::MAX);
        if rest == 0 {
            return Ok(());
        }
        self.flush_batch(target)?;
        self.written += rest;
        target.device.zero(body, rest).map_err(|error| failed(target, body, &error))
    }

    /// Writes what is still collected; the head stays back.
    pub fn finish(mut self, target: &mut Target) -> Result<(Vec<u8>, u64), Failure> {
        self.flush_batch(target)?;
        Ok((self.head, self.written))
    }

    /// How many bytes from `offset` belong to the head, and where the body part begins.
    fn split(&self, offset: u64, length: usize) -> (usize, u64) {
        let head = u64::try_from(self.head.len()).unwrap_or(u64::MAX);
        let into_head = usize::try_from(head.saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
        (into_head, offset.max(head))
    }

    fn keep(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(place) = self.head.get_mut(at..).and_then(|head| head.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }

    fn append(&mut self, target: &mut Target, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let end = self.batch_at + u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        if offset != end || self.batch.len() + bytes.len() > BATCH_BYTES {
            self.flush_batch(target)?;
            self.batch_at = offset;
        }
        self.batch.extend_from_slice(bytes);
        Ok(())
    }

    fn flush_batch(&mut self, target: &mut Target) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let at = self.batch_at;
        target.device.write_at(at, &self.batch).map_err(|error| failed(target, at, &error))?;
        let length = u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        self.written += length;
        self.batch_at += length;
        self.batch.clear();
        Ok(())
    }
}

fn failed(target: &Target, offset: u64, error: &std::io::Error) -> Failure {
    from_slot(Act::Write, &format!("{} at offset {offset}", target.place), error)
}
