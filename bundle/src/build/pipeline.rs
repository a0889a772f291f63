//! One image through the threads: reader, workers, collector.
//!
//! Chunk `i` goes to worker `i mod n` and is collected from there, so the order is kept without a reorder buffer, and no
//! more than `n * (2 * DEPTH + 1)` chunks are in memory. Whoever fails drops its channel ends; the others then run dry and
//! end, and the first cause is returned.

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::assemble::Spool;
use super::cut::{Cutter, is_zero};
use super::encode::{Encoded, Encoder, Plain};
use super::sparse::SparseReader;
use super::{Compression, Source};
use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::header::MEMBER_LIMIT_BYTES;
use crate::index::RECORD_BYTES;
use crate::manifest::{Chunking, Image, ImageKind, IndexRef};
use crate::seal::ImageSeal;

/// Chunks that wait before and behind each worker.
const DEPTH: usize = 8;

/// A chunk and its number in the image.
type Numbered = (u64, Plain);

/// What to do with one image.
pub(super) struct Job<'a> {
    pub(super) source: &'a Source,
    pub(super) chunking: Chunking,
    pub(super) compression: Compression,
    pub(super) workers: NonZeroUsize,
    /// What encrypts its chunks, if anything.
    pub(super) seal: Option<&'a ImageSeal>,
}

/// Sends the image in `file` through; `progress` hears of plain bytes.
pub(super) fn run(
    job: &Job<'_>,
    file: File,
    spool: &mut Spool,
    progress: &mut dyn FnMut(u64),
) -> Result<Image, Error> {
    std::thread::scope(|scope| {
        let mut to_workers = Vec::new();
        let mut from_workers = Vec::new();
        let mut workers = Vec::new();
        for _ in 0..job.workers.get() {
            let (plain_in, plain_out) = sync_channel(DEPTH);
            let (encoded_in, encoded_out) = sync_channel(DEPTH);
            to_workers.push(plain_in);
            from_workers.push(encoded_out);
            workers.push(spawn(scope, "encode", move || work(job, &plain_out, &encoded_in))?);
        }
        let reader = spawn(scope, "read", move || read(job, file, &to_workers))?;
        let mut collector = Collector::new(spool, &job.source.role);
        let collected = collector.collect(&from_workers, progress);
        // Frees workers that wait with a result, when collecting failed.
        drop(from_workers);
        let read = join(reader);
        for worker in workers {
            join(worker)?;
        }
        let (size, sha256) = read?;
        collected?;
        collector.image(job, size, sha256)
    })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder
        .spawn_scoped(scope, body)
        .map_err(|source| Error::Sink { what: format!("the thread {name}"), source })
}

fn join<T>(handle: ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn read(job: &Job<'_>, file: File, workers: &[SyncSender<Numbered>]) -> Result<(u64, Digest), Error> {
    let image = SparseReader::new(file).map_err(Error::file("read", &job.source.path))?;
    let mut cutter = Cutter::hashing(image, job.chunking);
    let mut turn = workers.iter().cycle();
    let mut number = 0;
    while let Some(chunk) = cutter.next().map_err(Error::file("read", &job.source.path))? {
        let length = u32::try_from(chunk.len()).map_err(|_| Error::Caller("a chunk above 4 GiB".into()))?;
        let plain = if is_zero(chunk) { Plain::Zeros(length) } else { Plain::Bytes(chunk.to_vec(), length) };
        // A closed channel means that the other side failed; it reports why.
        if turn.next().is_none_or(|worker| worker.send((number, plain)).is_err()) {
            break;
        }
        number += 1;
    }
    Ok(cutter.finish())
}

fn work(job: &Job<'_>, jobs: &Receiver<Numbered>, results: &SyncSender<Encoded>) -> Result<(), Error> {
    let failed = |source| Error::Sink { what: "a compressed chunk".into(), source };
    let mut encoder = Encoder::new(job.compression).map_err(failed)?;
    while let Ok((number, plain)) = jobs.recv() {
        let mut encoded = encoder.encode(plain).map_err(failed)?;
        if let Some(seal) = job.seal {
            encoded.seal(seal, number)?;
        }
        if results.send(encoded).is_err() {
            break;
        }
    }
    Ok(())
}

struct Collector<'a> {
    spool: &'a mut Spool,
    role: &'a str,
    hasher: Hasher,
    chunks: u64,
    payload_size: u64,
}

impl<'a> Collector<'a> {
    fn new(spool: &'a mut Spool, role: &'a str) -> Self {
        Collector { spool, role, hasher: Hasher::new(), chunks: 0, payload_size: 0 }
    }

    fn collect(&mut self, workers: &[Receiver<Encoded>], progress: &mut dyn FnMut(u64)) -> Result<(), Error> {
        // The first worker that has nothing more for its turn marks the end: chunks are dealt out in turn.
        for worker in workers.iter().cycle() {
            let Ok(encoded) = worker.recv() else { break };
            self.take(&encoded)?;
            progress(u64::from(encoded.chunk.plain_len));
        }
        Ok(())
    }

    fn take(&mut self, encoded: &Encoded) -> Result<(), Error> {
        let record = encoded.chunk.encode();
        self.hasher.update(&record);
        self.chunks += 1;
        self.payload_size += encoded.stored.len() as u64;
        if self.payload_size > MEMBER_LIMIT_BYTES {
            let member = format!("{}.chunks", self.role);
            return Err(Error::MemberSize { member, size: self.payload_size, limit: MEMBER_LIMIT_BYTES });
        }
        self.spool.push(&record, &encoded.stored)
    }

    fn image(self, job: &Job<'_>, size: u64, sha256: Digest) -> Result<Image, Error> {
        if size == 0 {
            return Err(Error::Order(format!(
                "image {} ({}) is empty",
                self.role,
                job.source.path.display()
            )));
        }
        self.spool.flush()?;
        Ok(Image {
            role: self.role.to_owned(),
            kind: ImageKind::Raw,
            size,
            sha256,
            chunking: job.chunking,
            index: IndexRef { size: self.chunks * RECORD_BYTES as u64, sha256: self.hasher.finish() },
            payload_size: self.payload_size,
            sealed: None,
        })
    }
}
