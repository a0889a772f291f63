//! The flow of chunks from the sources to the writer: fetch, then decode and hash on every core, then write in order.
//!
//! Three plain functions over one [`Parcel`], run by threads or, for the simulator, one after the other in a loop. Threads
//! are tied together by a fixed number of parcels that go round: whoever fetches takes an empty one and waits when there is
//! none. That bounds the memory, whatever the image, and nothing is allocated per chunk.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use otad_bundle::{ChunkKind, Chunking, Decoder, Image, MAX_CHUNK_BYTES};

use super::progress::Progress;
use super::sources::{Form, Sources};
use super::{Placed, stopped};
use crate::failure::{Code, Failure, from_bundle};
use crate::ports::Stop;
use crate::threads;

/// What the parcels of one image may hold together: plain and stored bytes of the largest chunks.
const PARCELS_BYTES: usize = 4 * 1024 * 1024;
/// Parcels beyond this many only wait.
const MOST_PARCELS: usize = 16;

/// A chunk on its way.
pub struct Parcel {
    placed: Placed,
    form: Form,
    /// What the source gave.
    stored: Vec<u8>,
    /// What is written.
    plain: Vec<u8>,
}

impl Parcel {
    fn empty(placed: Placed) -> Self {
        Parcel { placed, form: Form::Stored, stored: Vec::new(), plain: Vec::new() }
    }

    /// Verifies and decodes, unless the source gave verified plain bytes.
    fn decode(&mut self, role: &str, decoder: &mut Decoder) -> Result<(), Failure> {
        match self.form {
            Form::Plain => Ok(()),
            Form::Stored => {
                decoder.decode(&self.placed.chunk, &self.stored, &mut self.plain).map_err(|error| {
                    let failure = from_bundle(&error);
                    let at = self.placed.plain;
                    Failure::new(failure.code, format!("{role} at offset {at}: {}", failure.message))
                })
            }
        }
    }
}

/// Where decoded chunks go, in the order of the image.
pub trait Sink {
    /// Takes the plain bytes of a chunk.
    fn put(&mut self, placed: &Placed, plain: &[u8]) -> Result<(), Failure>;
    /// Takes a chunk of zeros.
    fn zero(&mut self, placed: &Placed) -> Result<(), Failure>;
}

/// One image on its way.
pub struct Flow<'a> {
    /// Its number in the manifest.
    pub number: usize,
    /// What the manifest says of it.
    pub image: &'a Image,
    /// Threads that decode; 0 stands for this one alone, for everything.
    pub lanes: usize,
    /// Is told what was fetched.
    pub progress: &'a Progress,
    /// Whether somebody asked to stop; looked at before every chunk is written.
    pub stop: &'a Stop,
}

/// A parcel and its place in the order of the image, or why there is none.
type Turn = (u64, Result<Parcel, Failure>);

impl Flow<'_> {
    /// Moves chunks from the sources to the sink.
    pub fn run(
        &self,
        chunks: impl Iterator<Item = Result<Placed, Failure>> + Send,
        sources: &mut Sources,
        sink: &mut dyn Sink,
    ) -> Result<(), Failure> {
        if self.lanes == 0 { self.inline(chunks, sources, sink) } else { self.threads(chunks, sources, sink) }
    }

    fn inline(
        &self,
        chunks: impl Iterator<Item = Result<Placed, Failure>>,
        sources: &mut Sources,
        sink: &mut dyn Sink,
    ) -> Result<(), Failure> {
        let mut decoder = decoder()?;
        let mut parcel = None;
        for placed in chunks {
            let placed = placed?;
            let parcel = parcel.get_or_insert_with(|| Parcel::empty(placed));
            self.fetch(parcel, placed, sources)?;
            parcel.decode(&self.image.role, &mut decoder)?;
            self.write(parcel, sink)?;
        }
        Ok(())
    }

    fn threads(
        &self,
        chunks: impl Iterator<Item = Result<Placed, Failure>> + Send,
        sources: &mut Sources,
        sink: &mut dyn Sink,
    ) -> Result<(), Failure> {
        let parcels = self.parcels();
        // Every channel has room for all parcels: nobody ever waits to hand one on, so nobody waits in a circle.
        let (give_back, empty) = sync_channel(parcels);
        let (fetched, to_decode) = sync_channel(parcels);
        let (decoded, to_write) = sync_channel(parcels);
        let to_decode = Mutex::new(to_decode);
        let mut decoders = (0..self.lanes).map(|_| decoder()).collect::<Result<Vec<_>, _>>()?;
        std::thread::scope(|scope| {
            let mut workers = Vec::new();
            let mut started = Ok(());
            for decoder in decoders.drain(..) {
                let (to_decode, decoded) = (&to_decode, decoded.clone());
                let work = move || self.decode_all(decoder, to_decode, &decoded);
                started =
                    started.and_then(|()| start(scope, "decode", work).map(|handle| workers.push(handle)));
            }
            drop(decoded);
            let fetch = move || self.fetch_all(chunks, sources, parcels, &empty, &fetched);
            started = started.and_then(|()| start(scope, "fetch", fetch).map(|handle| workers.push(handle)));
            // When something could not be started its ends of the channels are gone, and everybody else ends.
            let written = self.write_all(&to_write, &give_back, sink);
            drop((to_write, give_back));
            // The first reason in the order of the flow is the cause, what comes after it the consequence.
            workers.into_iter().rev().map(ended).fold(started, Result::and).and(written)
        })
    }

    /// Gets the bytes from the cheapest source that has them.
    fn fetch(&self, parcel: &mut Parcel, placed: Placed, sources: &mut Sources) -> Result<(), Failure> {
        parcel.placed = placed;
        // Of a chunk of zeros nothing is stored, and nothing has to be decoded.
        parcel.form = Form::Plain;
        if placed.chunk.kind != ChunkKind::Zero {
            parcel.form = sources.fetch(self.number, &placed, &mut parcel.stored, &mut parcel.plain)?;
        }
        self.progress.fetched(sources.fetched());
        Ok(())
    }

    /// How many parcels go round: enough to keep everybody busy, as few as the largest chunks allow.
    fn parcels(&self) -> usize {
        let largest = match self.image.chunking {
            Chunking::Fixed { size } => size,
            Chunking::FastCdc { max, .. } => max,
        };
        let largest = usize::try_from(largest.min(MAX_CHUNK_BYTES)).unwrap_or(PARCELS_BYTES);
        (PARCELS_BYTES / (2 * largest.max(1))).clamp(self.lanes + 1, MOST_PARCELS)
    }

    fn fetch_all(
        &self,
        chunks: impl Iterator<Item = Result<Placed, Failure>>,
        sources: &mut Sources,
        parcels: usize,
        empty: &Receiver<Parcel>,
        fetched: &SyncSender<(u64, Parcel)>,
    ) -> Result<(), Failure> {
        let mut made = 0;
        for (turn, placed) in (0..).zip(chunks) {
            let placed = placed?;
            let mut parcel = if made < parcels {
                made += 1;
                Parcel::empty(placed)
            } else {
                // Nobody gives back any more: the writer has ended and says why.
                let Ok(parcel) = empty.recv() else { return Ok(()) };
                parcel
            };
            self.fetch(&mut parcel, placed, sources)?;
            if fetched.send((turn, parcel)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands its errors on to the writer: that ends everybody, also those who wait for this very chunk.
    fn decode_all(
        &self,
        mut decoder: Decoder,
        to_decode: &Mutex<Receiver<(u64, Parcel)>>,
        decoded: &SyncSender<Turn>,
    ) -> Result<(), Failure> {
        loop {
            let next = to_decode.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((turn, mut parcel)) = next else { return Ok(()) };
            let parcel = parcel.decode(&self.image.role, &mut decoder).map(|()| parcel);
            if decoded.send((turn, parcel)).is_err() {
                return Ok(());
            }
        }
    }

    /// Puts what arrives in any order into the order of the image.
    fn write_all(
        &self,
        to_write: &Receiver<Turn>,
        give_back: &SyncSender<Parcel>,
        sink: &mut dyn Sink,
    ) -> Result<(), Failure> {
        let mut turn = 0;
        // What came too early, by how much; never longer than there are parcels.
        let mut early: VecDeque<Option<Parcel>> = VecDeque::new();
        while let Ok((number, parcel)) = to_write.recv() {
            let ahead = usize::try_from(number - turn).unwrap_or(usize::MAX);
            if early.len() <= ahead {
                early.resize_with(ahead + 1, || None);
            }
            if let Some(place) = early.get_mut(ahead) {
                *place = Some(parcel?);
            }
            while let Some(parcel) = early.front_mut().and_then(Option::take) {
                early.pop_front();
                turn += 1;
                self.write(&parcel, sink)?;
                // Nobody takes it once everything has been fetched.
                let _ = give_back.send(parcel);
            }
        }
        Ok(())
    }

    fn write(&self, parcel: &Parcel, sink: &mut dyn Sink) -> Result<(), Failure> {
        if self.stop.requested() {
            return Err(stopped());
        }
        match parcel.placed.chunk.kind {
            ChunkKind::Zero => sink.zero(&parcel.placed),
            ChunkKind::Stored | ChunkKind::Gzip | ChunkKind::Zstd => sink.put(&parcel.placed, &parcel.plain),
        }
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

fn decoder() -> Result<Decoder, Failure> {
    Decoder::new()
        .map_err(|error| Failure::new(Code::Resource, format!("no memory for the decoder: {error}")))
}
