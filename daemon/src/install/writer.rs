//! The one writer: batches become large aligned writes, no page is written in two pieces, and nothing goes where the head is.

use std::ops::Range;

use super::Target;
use super::batch::Batch;
use super::flow::Sink;
use super::progress::Progress;
use super::view::View;
use crate::aligned::ALIGNMENT;
use crate::failure::{Act, Failure, from_slot};

/// What is compared with what the target holds, and written where it differs: the page of flash and file systems.
const BLOCK_BYTES: usize = 4096;

/// Writes the body of one image in rising order and keeps its head back.
pub struct Writer<'a> {
    target: &'a mut Target,
    progress: &'a Progress,
    /// The head as it will be written at the very end.
    head: Vec<u8>,
    /// The end of what came last, less than a page, and where it begins: it is written with what follows.
    tail: Vec<u8>,
    tail_at: u64,
    /// What the target holds, where it is worth comparing.
    before: Option<View>,
}

impl<'a> Writer<'a> {
    /// Makes a writer for a target. With a view of it, blocks that it holds are not written again.
    pub fn new(target: &'a mut Target, before: Option<View>, progress: &'a Progress) -> Self {
        let head = vec![0; usize::try_from(target.head()).unwrap_or(0)];
        let tail = Vec::with_capacity(ALIGNMENT);
        Writer { target, progress, head, tail, tail_at: 0, before }
    }

    /// Writes what is still kept; the head stays back.
    pub fn finish(mut self) -> Result<Vec<u8>, Failure> {
        self.flush_tail()?;
        Ok(self.head)
    }

    /// How much of `length` bytes at `offset` belongs to the head.
    fn part_of_head(&self, offset: u64, length: usize) -> usize {
        usize::try_from(self.target.head().saturating_sub(offset)).unwrap_or(usize::MAX).min(length)
    }

    fn keep(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(place) = self.head.get_mut(at..).and_then(|head| head.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }

    /// Writes the tail by itself: nothing follows it.
    fn flush_tail(&mut self) -> Result<(), Failure> {
        let (at, tail) = (self.tail_at, std::mem::take(&mut self.tail));
        self.write(at, &tail)?;
        self.tail = tail;
        self.tail.clear();
        Ok(())
    }

    /// Writes where the target does not hold it already.
    fn write_body(&mut self, at: u64, data: &[u8]) -> Result<(), Failure> {
        let Some(mut before) = self.before.take() else { return self.write(at, data) };
        let runs = differing(&mut before, at, data).map_err(|error| {
            from_slot(Act::Read, &format!("{} at offset {at}", self.target.place), &error)
        })?;
        self.before = Some(before);
        let mut differing = 0;
        for run in runs {
            differing += run.len();
            self.write(at + as_u64(run.start), data.get(run).unwrap_or_default())?;
        }
        self.progress.unchanged(as_u64(data.len() - differing));
        Ok(())
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Failure> {
        if data.is_empty() {
            return Ok(());
        }
        self.target.device.write_at(at, data).map_err(|error| failed(self.target, at, &error))?;
        self.progress.wrote(as_u64(data.len()));
        Ok(())
    }
}

impl Sink for Writer<'_> {
    fn put(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        self.progress.advance(as_u64(batch.plain().len()));
        if self.tail_at + as_u64(self.tail.len()) == batch.at() && batch.prepend(&self.tail) {
            self.tail.clear();
        } else {
            self.flush_tail()?;
        }
        let (at, plain) = (batch.at(), batch.plain());
        let (front, body) = plain.split_at(self.part_of_head(at, plain.len()));
        self.keep(at, front);
        let at = at + as_u64(front.len());
        let end = at + as_u64(body.len());
        let whole = usize::try_from((end - end % ALIGNMENT as u64).saturating_sub(at)).unwrap_or(usize::MAX);
        let (whole, tail) = body.split_at(whole.min(body.len()));
        self.write_body(at, whole)?;
        self.tail_at = at + as_u64(whole.len());
        self.tail.extend_from_slice(tail);
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) -> Result<(), Failure> {
        // The head starts as zeros, so only the body needs work.
        let (at, length) = (range.start.max(self.target.head()), range.end - range.start);
        if at < range.end {
            let body = range.end - at;
            self.target.device.zero(at, body).map_err(|error| failed(self.target, at, &error))?;
            self.progress.wrote(body);
        }
        self.progress.advance(length);
        Ok(())
    }
}

/// The parts of `data` that differ from what is at `at`, in whole blocks of the device.
fn differing(before: &mut View, at: u64, data: &[u8]) -> std::io::Result<Vec<Range<usize>>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut done = 0;
    let end = at + as_u64(data.len());
    before.each(at..end, 0, |mut held| {
        while !held.is_empty() {
            // Blocks end where those of the device do; pieces end there too.
            let block = BLOCK_BYTES as u64;
            let left = usize::try_from(block - (at + as_u64(done)) % block).unwrap_or(BLOCK_BYTES);
            let (now, later) = held.split_at(left.min(held.len()));
            let next = done + now.len();
            if data.get(done..next) != Some(now) {
                match runs.last_mut() {
                    Some(last) if last.end == done => last.end = next,
                    Some(_) | None => runs.push(done..next),
                }
            }
            (done, held) = (next, later);
        }
    })?;
    Ok(runs)
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn failed(target: &Target, offset: u64, error: &std::io::Error) -> Failure {
    from_slot(Act::Write, &format!("{} at offset {offset}", target.place), error)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "what a test makes fits")]
mod tests {
    use std::sync::{Arc, Mutex};

    use otad_bundle::{Chunking, Digest, Image, ImageKind, IndexRef};

    use super::*;
    use crate::install::{HEAD_BYTES, Held};
    use crate::ports::{DeviceId, SlotDevice, SlotReader};

    const SIZE: u64 = 1024 * 1024 + 1000;

    /// Bytes, and where they were written.
    #[derive(Clone)]
    struct Plate {
        bytes: Arc<Mutex<Vec<u8>>>,
        writes: Arc<Mutex<Vec<Range<u64>>>>,
    }

    impl SlotDevice for Plate {
        fn id(&self) -> DeviceId {
            DeviceId::Block(1)
        }
        fn size(&self) -> u64 {
            SIZE.next_multiple_of(4096)
        }
        fn reader(&self) -> std::io::Result<Box<dyn SlotReader>> {
            Ok(Box::new(self.clone()))
        }
        fn write_at(&mut self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            let end = offset + data.len() as u64;
            self.writes.lock().unwrap().push(offset..end);
            self.bytes.lock().unwrap()[offset as usize..end as usize].copy_from_slice(data);
            Ok(())
        }
        fn zero(&mut self, offset: u64, length: u64) -> std::io::Result<()> {
            self.write_at(offset, &vec![0; length as usize])
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
        fn drop_caches(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl SlotReader for Plate {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            buffer.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..buffer.len()]);
            Ok(())
        }
    }

    /// A target that holds `before`.
    fn target(before: Vec<u8>) -> (Plate, Target) {
        let mut before = before;
        before.resize((SIZE.next_multiple_of(4096)) as usize, 0xee);
        let plate = Plate { bytes: Arc::new(Mutex::new(before)), writes: Arc::default() };
        let none = Digest::of(&[]);
        let image = Image {
            role: "rootfs".into(),
            kind: ImageKind::Raw,
            size: SIZE,
            sha256: none,
            chunking: Chunking::Fixed { size: 65536 },
            index: IndexRef { size: 0, sha256: none },
            payload_size: 0,
            sealed: None,
        };
        let target =
            Target { image, device: Box::new(plate.clone()), place: "plate".into(), held: Held::default() };
        (plate, target)
    }

    fn image() -> Vec<u8> {
        (0..SIZE).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8 | 1).collect()
    }

    #[test]
    fn no_page_is_written_twice_whatever_the_batches() {
        for step in [4096, 4097, 70_001, 500, 300_000] {
            let (plate, mut target) = target(Vec::new());
            let progress = Progress::default();
            let mut writer = Writer::new(&mut target, None, &progress);
            let image = image();
            for (number, piece) in image.chunks(step).enumerate() {
                writer.put(&mut Batch::of((number * step) as u64, piece)).unwrap();
            }
            let head = writer.finish().unwrap();
            let front = HEAD_BYTES as usize;
            assert!(head == image[..front], "{step}: the head");
            assert!(plate.bytes.lock().unwrap()[front..SIZE as usize] == image[front..], "{step}: the body");
            assert!(plate.bytes.lock().unwrap()[..front].iter().all(|byte| *byte == 0xee), "{step}");
            let counts = progress.counts();
            assert_eq!((counts.written, counts.unchanged), (SIZE - HEAD_BYTES, 0));
            let mut end = HEAD_BYTES;
            for write in plate.writes.lock().unwrap().iter() {
                assert!(write.start == end && write.start % 4096 == 0, "{step}: {write:?} after {end}");
                end = write.end;
            }
            assert_eq!(end, SIZE);
        }
    }

    /// Issue 5: blocks which the target holds are not written again, inside a chunk that differs too.
    #[test]
    fn blocks_that_are_there_are_not_written() {
        let image = image();
        let mut before = image.clone();
        let differs = [HEAD_BYTES as usize, 300_000, 700_000, SIZE as usize - 1];
        differs.iter().for_each(|&at| before[at] ^= 0x55);
        let (plate, mut target) = target(before);
        let progress = Progress::default();
        let view = View::new(target.device.reader().unwrap(), target.device.size());
        let mut writer = Writer::new(&mut target, Some(view), &progress);
        writer.put(&mut Batch::of(0, &image[..400_001])).unwrap();
        writer.put(&mut Batch::of(400_001, &image[400_001..])).unwrap();
        writer.finish().unwrap();
        assert!(
            plate.bytes.lock().unwrap()[HEAD_BYTES as usize..SIZE as usize] == image[HEAD_BYTES as usize..]
        );
        // Three whole blocks and the end, which is no whole block and is always written.
        let end = SIZE % 4096;
        let counts = progress.counts();
        assert_eq!((counts.written, counts.unchanged), (3 * 4096 + end, SIZE - HEAD_BYTES - 3 * 4096 - end));
        let writes = plate.writes.lock().unwrap();
        assert_eq!(writes.len(), 4, "{writes:?}");
    }
}
