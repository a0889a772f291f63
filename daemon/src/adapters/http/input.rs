//! A bundle over HTTP as one input: it reads on where a broken connection stopped, and jumps by asking for ranges.
//!
//! The file is asked for in spans. The first one is short, and so is that after a jump; while reading goes straight on, spans
//! grow. So neither the start nor a jump drags unwanted bytes along. A server that ignores ranges gives the whole file: what
//! comes before the wanted byte is dropped, never taken for it.
//!
//! What will be read is fetched ahead by [`super::ahead`]: the extents that the reader announced, or the rest of the file
//! once reading has gone straight on for long. What cannot be had that way is read here, as if nothing had been announced.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use otad_bundle::Input;

use super::Limits;
use super::ahead::Ahead;
use super::client::{Client, Trouble};
use super::patience::Patience;
use super::place::Place;
use super::plan;
use super::span::{Identity, Wanted, judge};
use super::stream::Stream;
use crate::failure::{Code, Failure};
use crate::ports::Stop;

/// How long a request to stop may go unnoticed by somebody who waits.
const STOP_LATENCY: Duration = Duration::from_millis(100);

/// Reading has gone straight on for long when a span is as long as so many first ones: about half a MiB was read by then, as
/// much as the index of a usual image, behind which a reader jumps.
const SPANS_UNTIL_STRAIGHT: u64 = 8;

/// A file on a server, read as if it were local.
pub(super) struct HttpInput {
    client: Client,
    /// What was asked for.
    origin: Place,
    /// Where that led: later requests go there directly, until one fails.
    place: Place,
    limits: Limits,
    stop: Stop,
    patience: Patience,
    identity: Option<Identity>,
    /// Position of the next byte that is handed out.
    offset: u64,
    stream: Option<Stream>,
    /// Bytes of the file that came at the end of a stream, and the position of the first.
    pocket: (u64, Vec<u8>),
    /// Bytes of the last span that was asked for; 0 before the first.
    last_span: u64,
    /// Position up to which the last stream was read.
    reached: u64,
    ahead: Option<Ahead>,
    /// Whether the server gave the whole file when it was asked for a part of it.
    ranges_lost: bool,
    /// Whether the reader announced anything, and whether what is fetched ahead is a guess.
    announced: bool,
    guessed: bool,
    /// Bytes that were handed out.
    given: u64,
    _watch: StopWatch,
}

impl HttpInput {
    /// Asks for the start of the file, so that its size and identity are known.
    pub(super) fn open(
        client: Client,
        place: Place,
        limits: Limits,
        stop: Stop,
    ) -> Result<HttpInput, Failure> {
        let watch = StopWatch::start(client.clone(), stop.clone())?;
        let mut input = HttpInput {
            client,
            origin: place.clone(),
            place,
            patience: Patience::new(&limits),
            limits,
            stop,
            identity: None,
            offset: 0,
            stream: None,
            pocket: (0, Vec::new()),
            last_span: 0,
            reached: 0,
            ahead: None,
            ranges_lost: false,
            announced: false,
            guessed: false,
            given: 0,
            _watch: watch,
        };
        input.persist(|input| input.connect(0))?;
        Ok(input)
    }

    /// Repeats an act until it succeeds or patience ends.
    fn persist<T>(&mut self, mut act: impl FnMut(&mut Self) -> Result<T, Trouble>) -> Result<T, Failure> {
        loop {
            self.heed_stop()?;
            let trouble = match act(self) {
                Ok(done) => return Ok(done),
                Err(trouble) => trouble,
            };
            // A stop breaks connections on purpose: what that looks like is not the reason.
            self.heed_stop()?;
            self.stream = None;
            self.place = self.origin.clone();
            let wait = self.patience.after(trouble)?;
            self.wait(wait)?;
        }
    }

    fn heed_stop(&self) -> Result<(), Failure> {
        if self.stop.requested() {
            Err(Failure::new(Code::Cancelled, "the transfer was cancelled"))
        } else {
            Ok(())
        }
    }

    fn wait(&self, time: Duration) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            self.heed_stop()?;
            let left = time.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(STOP_LATENCY));
        }
    }

    /// Hands out some bytes from the current position; 0 only at the end of the file.
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        if self.identity.as_ref().is_some_and(|identity| self.offset >= identity.total) {
            return Ok(0);
        }
        let count = if let Some(count) = self.read_pocket(buffer) {
            count
        } else if let Some(count) = self.read_ahead(buffer)? {
            count
        } else {
            self.arrange_stream(buffer.len())?;
            self.receive(buffer)?
        };
        let bytes = u64::try_from(count).unwrap_or(u64::MAX);
        self.offset = self.offset.saturating_add(bytes);
        self.given = self.given.saturating_add(bytes);
        self.patience.progress(bytes);
        if let Some(stream) = self.stream.take_if(|stream| stream.rest() == 0) {
            stream.finish();
        }
        Ok(count)
    }

    /// Hands out bytes that came at the end of a stream, if the next one is among them.
    fn read_pocket(&self, buffer: &mut [u8]) -> Option<usize> {
        let (at, bytes) = &self.pocket;
        let passed = usize::try_from(self.offset.checked_sub(*at)?).ok()?;
        let left = bytes.get(passed..).filter(|left| !left.is_empty())?;
        let count = left.len().min(buffer.len());
        buffer.get_mut(..count)?.copy_from_slice(left.get(..count)?);
        Some(count)
    }

    /// Takes the rest of a stream that is nearly at its end: the bytes are on their way anyway, and its connection is free for
    /// what is fetched ahead then. What does not come is asked for again.
    fn pocket_rest(&mut self) {
        let short = self.limits.opening;
        let Some(mut stream) = self.stream.take_if(|stream| stream.rest() <= short) else { return };
        let (at, mut filled) = (stream.at, 0);
        let mut bytes = vec![0; usize::try_from(stream.rest()).unwrap_or(0)];
        while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
            let started = Instant::now();
            let Ok(count) = stream.receive(room) else { break };
            filled += count;
            let came = u64::try_from(count).unwrap_or(u64::MAX);
            if self.patience.pace(started.elapsed(), came, &self.place).is_err() {
                break;
            }
        }
        bytes.truncate(filled);
        self.reached = stream.at;
        self.pocket = (at, bytes);
        stream.finish();
    }

    /// Hands out bytes that were fetched ahead; nothing if they are to be had here.
    fn read_ahead(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Trouble> {
        if self.way_in_stream().is_some() {
            return Ok(None);
        }
        if self.ahead.is_none() {
            return Ok(None);
        }
        self.leave_stream();
        let Some(ahead) = &self.ahead else { return Ok(None) };
        let count = ahead.read(self.offset, buffer, self.limits.skip, &self.place, &mut self.patience)?;
        if count.is_some() {
            // What is read behind it is a jump.
            self.last_span = 0;
        }
        Ok(count)
    }

    /// Fetches these extents ahead, in place of others. Without threads for it, reading goes on all the same.
    fn fetch_ahead(&mut self, extents: Vec<Range<u64>>) {
        let Some(identity) = self.identity.clone().filter(|identity| identity.ranges) else { return };
        if self.limits.ahead == 0 {
            return;
        }
        let behind = self.behind_what_comes(&extents);
        let extents = plan::tidy(extents, behind, identity.total);
        if self.ahead.is_none() {
            let places = (self.origin.clone(), self.place.clone());
            match Ahead::start(&self.client, places, identity, &self.limits, &self.stop) {
                Ok(ahead) => self.ahead = Some(ahead),
                Err(failure) => return log::warn!("nothing is fetched ahead: {failure}"),
            }
        }
        if let Some(ahead) = &self.ahead {
            ahead.expect(&extents, self.stream.is_none());
        }
    }

    /// Up to where these extents need not be asked for, because that is here or on its way already.
    fn behind_what_comes(&self, extents: &[Range<u64>]) -> u64 {
        let Some(first) = extents.first() else { return 0 };
        let (at, bytes) = &self.pocket;
        let pocket_end = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let wants = |stream: &&Stream| {
            first.end > stream.at
                && first.start <= stream.end
                && first.start <= stream.at.saturating_add(self.limits.skip)
        };
        match self.stream.as_ref().filter(wants) {
            Some(stream) => stream.end,
            None if (*at..=pocket_end).contains(&first.start) => pocket_end,
            None => 0,
        }
    }

    /// How far the wanted byte is down the stream, if reading until there is better than asking anew.
    fn way_in_stream(&self) -> Option<u64> {
        let stream = self.stream.as_ref()?;
        let way = self.offset.checked_sub(stream.at)?;
        // Without ranges every way begins at the start of the file.
        (self.offset < stream.end && (way <= self.limits.skip || self.ranges_lost)).then_some(way)
    }

    /// Sees to it that the next byte of the stream is the wanted one.
    fn arrange_stream(&mut self, length: usize) -> Result<(), Trouble> {
        match self.way_in_stream() {
            Some(way) => self.drop_bytes(way),
            None => {
                self.leave_stream();
                self.connect(u64::try_from(length).unwrap_or(u64::MAX))
            }
        }
    }

    /// Gives up a stream. A short rest is read, because then the connection can be used again.
    fn leave_stream(&mut self) {
        let rest = self.stream.as_ref().map_or(0, Stream::rest);
        // A connection that breaks now is one that is not used again.
        if rest <= self.limits.skip && self.drop_bytes(rest).is_ok() {
            self.stream.take().into_iter().for_each(Stream::finish);
        }
        self.stream = None;
    }

    fn drop_bytes(&mut self, count: u64) -> Result<(), Trouble> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let (patience, place) = (&mut self.patience, &self.place);
        let mut before = Instant::now();
        let outcome = stream.drop_bytes(count, &self.stop, |came| {
            let waited = before.elapsed();
            before = Instant::now();
            patience.pace(waited, came, place)
        });
        self.reached = stream.at;
        outcome
    }

    /// Reads from the stream, at least one byte.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let Some(stream) = &mut self.stream else {
            return Err(Trouble::last(Code::Internal, "read without a stream".to_owned()));
        };
        let started = Instant::now();
        let count = stream.receive(buffer)?;
        self.reached = stream.at;
        self.patience.pace(started.elapsed(), u64::try_from(count).unwrap_or(u64::MAX), &self.place)?;
        Ok(count)
    }

    /// Asks for a span that starts at the current position and holds `length` bytes at least.
    fn connect(&mut self, length: u64) -> Result<(), Trouble> {
        let first = self.offset;
        let span = self.next_span().max(length);
        let total = self.identity.as_ref().map_or(u64::MAX, |identity| identity.total);
        let last = first.saturating_add(span).min(total).saturating_sub(1);
        self.last_span = span;
        let wanted = Wanted { first, last };

        let range = format!("bytes={first}-{last}");
        let mut headers = vec![("range", range.as_str())];
        let tag = self.identity.as_ref().and_then(Identity::strong_tag);
        headers.extend(tag.map(|tag| ("if-range", tag)));
        let reply = self.client.get(&self.place, &headers)?;
        let found = judge(&reply, wanted, self.identity.as_ref(), self.limits.window_bytes)?;
        self.place = reply.place.clone();
        self.ranges_lost = !found.identity.ranges;
        self.identity.get_or_insert(found.identity);
        self.stream = Some(Stream::new(&self.client, reply, found.at, found.end));
        if found.at < first {
            log::info!("{}: the server ignores ranges; dropping the first {first} bytes", self.place);
        }
        self.drop_bytes(first.saturating_sub(found.at))?;
        if self.last_span >= self.limits.first_span.saturating_mul(SPANS_UNTIL_STRAIGHT) && !self.announced {
            self.fetch_ahead(std::iter::once(self.offset..u64::MAX).collect());
            self.guessed = true;
        }
        Ok(())
    }

    /// Longer than the last span when reading goes on about where it stopped, else a short one.
    fn next_span(&self) -> u64 {
        if self.identity.is_none() {
            return self.limits.opening;
        }
        let gap = self.offset.checked_sub(self.reached);
        if self.last_span == 0 || gap.is_none_or(|gap| gap > self.limits.skip) {
            return self.limits.first_span;
        }
        // Whoever reads on behind the opening without a word wants at least about as much as after a jump.
        let factor = if self.last_span < self.limits.first_span { 4 } else { 2 };
        self.last_span.saturating_mul(factor).min(self.limits.longest_span)
    }
}

impl Read for HttpInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.persist(|input| input.read_some(buffer)).map_err(io::Error::other)
    }
}

impl Input for HttpInput {
    /// Moves without any traffic; the next read finds out. Behind the end there is nothing to read, as with a file.
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        if offset < self.offset && !self.random_access() {
            let message =
                format!("{}: the server does not support ranges, so nothing can be read again", self.origin);
            return Err(io::Error::other(Failure::new(Code::NetRange, message)));
        }
        let on = offset.checked_sub(self.offset).is_some_and(|way| way <= self.limits.skip);
        if self.guessed && !on {
            self.fetch_ahead(Vec::new());
            self.guessed = false;
            self.last_span = 0;
        }
        self.offset = offset;
        Ok(())
    }

    fn random_access(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.ranges)
    }

    fn length(&self) -> Option<u64> {
        self.identity.as_ref().map(|identity| identity.total)
    }

    fn fetched(&self) -> Option<u64> {
        Some(self.client.body_bytes())
    }

    fn expect(&mut self, extents: Vec<Range<u64>>) {
        (self.announced, self.guessed) = (true, false);
        if self.random_access() {
            self.pocket_rest();
        }
        self.fetch_ahead(extents);
    }
}

impl Drop for HttpInput {
    fn drop(&mut self) {
        // The threads first: what they fetched counts.
        self.ahead = None;
        let (fetched, requests) = (self.client.body_bytes(), self.client.requests());
        let unused = fetched.saturating_sub(self.given);
        log::info!(
            "{}: fetched {fetched} bytes in {requests} requests, {unused} of them not used",
            self.origin
        );
    }
}

/// Breaks the connections of a client when somebody asks to stop: a read that hangs on a dead line then ends at once
/// and not after its timeout.
struct StopWatch {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StopWatch {
    fn start(client: Client, stop: Stop) -> Result<StopWatch, Failure> {
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let watch = move || {
            while !seen.load(Ordering::Acquire) {
                if stop.requested() {
                    client.shut_down();
                    return;
                }
                thread::park_timeout(STOP_LATENCY);
            }
        };
        let thread = thread::Builder::new()
            .name("fetch-stop".to_owned())
            .spawn(watch)
            .map_err(|error| Failure::new(Code::Resource, format!("cannot start a thread: {error}")))?;
        Ok(StopWatch { done, thread: Some(thread) })
    }
}

impl Drop for StopWatch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot fail but by a panic, which the daemon does not survive anyway.
            let _ = thread.join();
        }
    }
}
