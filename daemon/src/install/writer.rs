//! The one writer: contiguous chunks become large aligned writes, and nothing goes where the head is.

use std::ops::Range;

use otad_bundle::MAX_CHUNK_BYTES;

use super::flow::Sink;
use super::progress::Progress;
use super::{Placed, Target};
use crate::aligned::{ALIGNMENT, Aligned};
use crate::failure::{Act, Failure, from_slot};

/// Contiguous bytes collected before a write, up to a multiple of this: large enough for eMMC's erase groups to be written
/// in one go, small enough not to matter for memory.
const BATCH_BYTES: usize = 1024 * 1024;

/// Writes the body of one image in rising order and keeps its head back.
pub struct Writer<'a> {
    target: &'a mut Target,
    progress: &'a Progress,
    /// The head as it will be written at the very end.
    head: Vec<u8>,
    /// Lies in memory as it will lie on the device, so that the device can take it from there.
    batch: Aligned,
    /// The part of `batch` that is filled.
    filled: Range<usize>,
    /// Where on the device the filled part begins.
    batch_at: u64,
    /// A run of zeros that is not written yet: where and how long.
    zeros: (u64, u64),
    written: u64,
}

impl<'a> Writer<'a> {
    /// Makes a writer for a target.
    pub fn new(target: &'a mut Target, progress: &'a Progress) -> Self {
        let head = vec![0; usize::try_from(target.head()).unwrap_or(0)];
        let batch = Aligned::new(BATCH_BYTES);
        Writer { target, progress, head, batch, filled: 0..0, batch_at: 0, zeros: (0, 0), written: 0 }
    }

    /// Writes what is still collected; the head stays back.
    pub fn finish(mut self) -> Result<(Vec<u8>, u64), Failure> {
        self.flush_batch()?;
        self.flush_zeros()?;
        Ok((self.head, self.written))
    }

    /// How many bytes from `offset` belong to the head, and where the body part begins.
    fn split(&self, offset: u64, length: usize) -> (usize, u64) {
        let head = self.target.head();
        let into_head = usize::try_from(head.saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
        (into_head, offset.max(head))
    }

    fn keep(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(place) = self.head.get_mut(at..).and_then(|head| head.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }

    fn append(&mut self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            if offset != self.batch_at + as_u64(self.filled.len()) || self.filled.end == BATCH_BYTES {
                self.flush_batch()?;
                self.batch_at = offset;
                // The first batch after a gap ends where an aligned one would, and begins in memory as on the device.
                let within = usize::try_from(offset % as_u64(BATCH_BYTES)).unwrap_or(0);
                self.filled = within..within;
            }
            let end = self.filled.end;
            let room = self.batch.bytes_mut().get_mut(end..).unwrap_or_default();
            let (now, later) = bytes.split_at(room.len().min(bytes.len()));
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.filled.end += now.len();
            offset += as_u64(now.len());
            bytes = later;
        }
        Ok(())
    }

    fn flush_batch(&mut self) -> Result<(), Failure> {
        let Some(data) = self.batch.bytes().get(self.filled.clone()).filter(|data| !data.is_empty()) else {
            return Ok(());
        };
        let at = self.batch_at;
        self.target.device.write_at(at, data).map_err(|error| failed(self.target, at, &error))?;
        self.written += as_u64(data.len());
        self.batch_at += as_u64(data.len());
        self.filled = self.filled.end..self.filled.end;
        Ok(())
    }

    fn flush_zeros(&mut self) -> Result<(), Failure> {
        let (at, length) = std::mem::take(&mut self.zeros);
        if length == 0 {
            return Ok(());
        }
        self.written += length;
        self.target.device.zero(at, length).map_err(|error| failed(self.target, at, &error))
    }
}

impl Sink for Writer<'_> {
    fn put(&mut self, placed: &Placed, plain: &[u8]) -> Result<(), Failure> {
        let (into_head, body) = self.split(placed.plain, plain.len());
        let (front, rest) = plain.split_at(into_head);
        self.keep(placed.plain, front);
        self.append(body, rest)?;
        self.progress.advance(as_u64(plain.len()));
        Ok(())
    }

    fn zero(&mut self, placed: &Placed) -> Result<(), Failure> {
        let length = placed.chunk.plain_len.min(MAX_CHUNK_BYTES);
        // The head starts as zeros, so only the body needs work.
        let (into_head, body) = self.split(placed.plain, usize::try_from(length).unwrap_or(0));
        let rest = u64::from(length) - as_u64(into_head);
        let (at, before) = self.zeros;
        if at + before == body {
            self.zeros.1 += rest;
        } else if rest > 0 {
            self.flush_zeros()?;
            self.zeros = (body, rest);
        }
        self.progress.advance(length.into());
        Ok(())
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn failed(target: &Target, offset: u64, error: &std::io::Error) -> Failure {
    from_slot(Act::Write, &format!("{} at offset {offset}", target.place), error)
}

const _: () =
    assert!(BATCH_BYTES.is_multiple_of(ALIGNMENT), "batches end on the boundaries of direct writes");
