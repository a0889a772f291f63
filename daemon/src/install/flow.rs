//! The flow of chunks from the sources to the writer: fetch, then decode and hash on every core, then write in order.
//!
//! Three plain functions over one [`Batch`], run by threads or, for the simulator, one after the other in a loop. Threads
//! are tied together by a fixed number of batches that go round: whoever fetches takes an empty one and waits when there is
//! none. That bounds the memory, whatever the image.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use otad_bundle::{ChunkKind, Decoder, Image, ImageSeal};

use super::batch::{self, Batch};
use super::progress::Progress;
use super::sources::Sources;
use super::{Placed, stopped};
use crate::failure::Failure;
use crate::ports::{Decoders, Stop};
use crate::threads;

/// What the batches of one image may hold together, plain and stored, where cores and chunks allow it.
const BATCHES_BYTES: usize = 4 * 1024 * 1024;
/// Batches beyond those that are decoded: one is filled, one is written, one waits.
const MORE_BATCHES: usize = 3;

/// Zeros that are one load: a device that has to write them is busy for a second at most before somebody looks again
/// whether the install still moves, or should stop.
const ZEROS_BYTES: u64 = 16 * 1024 * 1024;

/// What the writer does next.
enum Load {
    /// Chunks to write.
    Chunks(Batch),
    /// A part of the image that is zeros.
    Zeros(Range<u64>),
}

/// Where decoded chunks go, in the order of the image.
pub trait Sink {
    /// Takes plain bytes; may change the batch.
    fn put(&mut self, batch: &mut Batch) -> Result<(), Failure>;
    /// Takes a part of the image that is zeros.
    fn zero(&mut self, range: Range<u64>) -> Result<(), Failure>;
}

/// One image on its way.
pub struct Flow<'a> {
    /// Its number in the manifest.
    pub number: usize,
    /// What the manifest says of it.
    pub image: &'a Image,
    /// What decrypts its chunks, if they are encrypted.
    pub seal: Option<ImageSeal>,
    /// Where chunks are decompressed.
    pub decoders: &'a dyn Decoders,
    /// Threads that decode; 0 stands for this one alone, for everything.
    pub lanes: usize,
    /// Is told what was fetched.
    pub progress: &'a Progress,
    /// Whether somebody asked to stop; looked at before anything is written.
    pub stop: &'a Stop,
}

/// A load and its place in the order of the image, or why there is none.
type Turn = (u64, Result<Load, Failure>);

impl Flow<'_> {
    /// Moves chunks from the sources to the sink.
    pub fn run(
        &self,
        chunks: impl Iterator<Item = Result<Placed, Failure>> + Send,
        sources: &mut Sources,
        sink: &mut dyn Sink,
    ) -> Result<(), Failure> {
        let loader = Loader { flow: self, chunks: chunks.peekable(), sources, late: None };
        if self.lanes == 0 { self.inline(loader, sink) } else { self.threads(loader, sink) }
    }

    fn inline(
        &self,
        mut loader: Loader<'_, impl Iterator<Item = Result<Placed, Failure>>>,
        sink: &mut dyn Sink,
    ) -> Result<(), Failure> {
        let mut decoder = self.decoder()?;
        let mut batch = Some(Batch::new(self.image));
        while let Some(load) = loader.next(|| batch.take())? {
            let load = self.decode(load, &mut decoder)?;
            batch = self.write(load, sink)?.or(batch);
        }
        Ok(())
    }

    fn threads(
        &self,
        loader: Loader<'_, impl Iterator<Item = Result<Placed, Failure>> + Send>,
        sink: &mut dyn Sink,
    ) -> Result<(), Failure> {
        // A source that decodes does most of it: its decoder is enough for the rest, and it takes memory that others would need.
        let shared = loader.sources.decoder();
        let batches = self.batches(shared.is_some());
        let mut decoders = match shared {
            Some(decoder) => vec![Decoder::with(Box::new(decoder))],
            None => (0..self.lanes).map(|_| self.decoder()).collect::<Result<_, _>>()?,
        };
        // Every channel has room for all batches. Zeros may have to wait, but only for the writer, who waits for nobody: so nobody
        // waits in a circle. Each end belongs to those who use it alone: who waits for somebody who has ended is woken.
        let (give_back, empty) = sync_channel(batches);
        let (fetched, to_decode) = sync_channel(batches);
        let (decoded, to_write) = sync_channel(batches);
        let to_decode = Arc::new(Mutex::new(to_decode));
        std::thread::scope(|scope| {
            let mut workers = Vec::new();
            let mut started = Ok(());
            for decoder in decoders.drain(..) {
                let (to_decode, decoded) = (to_decode.clone(), decoded.clone());
                let work = move || self.decode_all(decoder, &to_decode, &decoded);
                started =
                    started.and_then(|()| start(scope, "decode", work).map(|handle| workers.push(handle)));
            }
            drop((to_decode, decoded));
            let fetch = move || self.fetch_all(loader, batches, &empty, &fetched);
            started = started.and_then(|()| start(scope, "fetch", fetch).map(|handle| workers.push(handle)));
            // When something could not be started its ends of the channels are gone, and everybody else ends.
            let written = self.write_all(&to_write, &give_back, sink);
            drop((to_write, give_back));
            // The first reason in the order of the flow is the cause, what comes after it the consequence.
            workers.into_iter().rev().map(ended).fold(started, Result::and).and(written)
        })
    }

    fn decoder(&self) -> Result<Decoder, Failure> {
        Ok(Decoder::with(self.decoders.start()?))
    }

    /// How many batches go round: enough to keep everybody busy, as few as memory allows. Where a source decodes, the others wait for it
    /// most of the time: one batch is filled while one is decoded or written.
    fn batches(&self, source_decodes: bool) -> usize {
        if source_decodes {
            return 2;
        }
        let most = BATCHES_BYTES / (2 * batch::room(self.image));
        most.clamp(self.lanes + 1, self.lanes + MORE_BATCHES)
    }

    fn fetch_all(
        &self,
        mut loader: Loader<'_, impl Iterator<Item = Result<Placed, Failure>>>,
        batches: usize,
        empty: &Receiver<Batch>,
        fetched: &SyncSender<(u64, Load)>,
    ) -> Result<(), Failure> {
        let mut made = 0;
        let mut spare = || {
            if made < batches {
                made += 1;
                return Some(Batch::new(self.image));
            }
            // Nobody gives back any more: the writer has ended and says why.
            empty.recv().ok()
        };
        for turn in 0.. {
            let Some(load) = loader.next(&mut spare)? else { break };
            if fetched.send((turn, load)).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Hands its errors on to the writer: that ends everybody, also those who wait for this very batch.
    fn decode_all(
        &self,
        mut decoder: Decoder,
        to_decode: &Mutex<Receiver<(u64, Load)>>,
        decoded: &SyncSender<Turn>,
    ) -> Result<(), Failure> {
        loop {
            let next = to_decode.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((turn, load)) = next else { return Ok(()) };
            if decoded.send((turn, self.decode(load, &mut decoder))).is_err() {
                return Ok(());
            }
        }
    }

    fn decode(&self, mut load: Load, decoder: &mut Decoder) -> Result<Load, Failure> {
        if let Load::Chunks(batch) = &mut load {
            batch.decode(&self.image.role, self.seal.as_ref(), decoder)?;
        }
        Ok(load)
    }

    /// Puts what arrives in any order into the order of the image.
    fn write_all(
        &self,
        to_write: &Receiver<Turn>,
        give_back: &SyncSender<Batch>,
        sink: &mut dyn Sink,
    ) -> Result<(), Failure> {
        let mut turn = 0;
        // What came too early, by how much: batches are few, and runs of zeros lie between them.
        let mut early: VecDeque<Option<Load>> = VecDeque::new();
        while let Ok((number, load)) = to_write.recv() {
            let ahead = usize::try_from(number - turn).unwrap_or(usize::MAX);
            if early.len() <= ahead {
                early.resize_with(ahead + 1, || None);
            }
            if let Some(place) = early.get_mut(ahead) {
                *place = Some(load?);
            }
            while let Some(load) = early.front_mut().and_then(Option::take) {
                early.pop_front();
                turn += 1;
                if let Some(batch) = self.write(load, sink)? {
                    // Nobody takes it once everything has been fetched.
                    let _ = give_back.send(batch);
                }
            }
        }
        Ok(())
    }

    /// Gives the batch back, if it was one.
    fn write(&self, load: Load, sink: &mut dyn Sink) -> Result<Option<Batch>, Failure> {
        if self.stop.requested() {
            return Err(stopped());
        }
        match load {
            Load::Zeros(range) => sink.zero(range).map(|()| None),
            Load::Chunks(mut batch) => sink.put(&mut batch).map(|()| Some(batch)),
        }
    }
}

/// Turns chunks into loads.
struct Loader<'a, I: Iterator<Item = Result<Placed, Failure>>> {
    flow: &'a Flow<'a>,
    chunks: Peekable<I>,
    sources: &'a mut Sources,
    /// Why there is nothing more; what was fetched before is written all the same, and need not be fetched again.
    late: Option<Failure>,
}

impl<I: Iterator<Item = Result<Placed, Failure>>> Loader<'_, I> {
    /// The next load; `None` at the end, or when there is no batch any more.
    fn next(&mut self, mut spare: impl FnMut() -> Option<Batch>) -> Result<Option<Load>, Failure> {
        if let Some(failure) = self.late.take() {
            return Err(failure);
        }
        let first = match self.chunks.peek() {
            Some(Ok(first)) => *first,
            Some(Err(_)) => return self.chunks.next().map_or(Ok(None), |next| next.map(|_| None)),
            None => return Ok(None),
        };
        if first.chunk.kind == ChunkKind::Zero {
            return Ok(Some(Load::Zeros(self.zeros(first.plain))));
        }
        let Some(mut batch) = spare() else { return Ok(None) };
        batch.begin(first.plain);
        let belongs = |batch: &Batch, next: &Result<Placed, Failure>| {
            next.as_ref().is_ok_and(|placed| placed.chunk.kind != ChunkKind::Zero && batch.fits(placed))
        };
        while let Some(Ok(placed)) = self.chunks.next_if(|next| belongs(&batch, next)) {
            if let Err(failure) = batch.fetch(self.flow.number, placed, self.sources) {
                if batch.plain().is_empty() {
                    return Err(failure);
                }
                self.late = Some(failure);
                break;
            }
            self.flow.progress.fetched(self.sources.fetched());
        }
        Ok(Some(Load::Chunks(batch)))
    }

    /// Takes the run of zeros that begins here. Of a chunk of zeros nothing is stored, and nothing has to be decoded.
    fn zeros(&mut self, start: u64) -> Range<u64> {
        let mut end = start;
        let follows = |next: &Result<Placed, Failure>, end: u64| {
            next.as_ref().is_ok_and(|placed| placed.chunk.kind == ChunkKind::Zero && placed.plain == end)
        };
        while end - start < ZEROS_BYTES
            && let Some(Ok(placed)) = self.chunks.next_if(|next| follows(next, end))
        {
            end += u64::from(placed.chunk.plain_len);
        }
        start..end
    }
}

fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> Result<(), Failure> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<(), Failure>>, Failure> {
    Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work)
        .map_err(|error| threads::not_started(name, &error))
}

fn ended(handle: ScopedJoinHandle<'_, Result<(), Failure>>) -> Result<(), Failure> {
    handle.join().unwrap_or_else(|_| Err(threads::panicked("flow")))
}
