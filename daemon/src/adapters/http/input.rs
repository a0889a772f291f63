//! A bundle over HTTP as one input: it reads on where a broken connection stopped, and jumps by asking for ranges.
//!
//! The file is asked for in spans. After a jump the span is short; while reading goes straight on, spans double. So
//! scattered chunks come over one kept connection and do not drag unwanted megabytes along, and a whole bundle costs
//! few requests. A server that ignores ranges gives the whole file: what comes before the wanted byte is dropped,
//! never taken for it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use otad_bundle::Input;
use ureq::BodyReader;

use super::Limits;
use super::client::{Client, Trouble, from_body};
use super::patience::Patience;
use super::place::Place;
use super::span::{Identity, Wanted, judge};
use crate::failure::{Code, Failure};
use crate::ports::Stop;

/// How long a request to stop may go unnoticed by somebody who waits.
const STOP_LATENCY: Duration = Duration::from_millis(100);

/// Bytes that are read at once when they are only dropped.
const SCRAP_BYTES: usize = 16 * 1024;

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
    /// Bytes of the last span that was asked for; 0 before the first.
    last_span: u64,
    /// Position up to which the last stream was read.
    reached: u64,
    _watch: StopWatch,
}

/// The body of one response.
struct Stream {
    body: BodyReader<'static>,
    /// Position in the file of the body's next byte.
    at: u64,
    /// Position behind its last one.
    end: u64,
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
            last_span: 0,
            reached: 0,
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
        self.arrange_stream(buffer.len())?;
        let count = self.receive(buffer)?;
        self.offset = self.offset.saturating_add(count);
        self.patience.progress(count);
        self.retire_stream_at_end();
        usize::try_from(count).map_err(|_| Trouble::last(Code::Internal, format!("read of {count} bytes")))
    }

    /// Sees to it that the next byte of the stream is the wanted one.
    fn arrange_stream(&mut self, length: usize) -> Result<(), Trouble> {
        let span = self.stream.as_ref().map(|stream| (stream.at, stream.end));
        if let Some((at, end)) = span {
            let gap = self.offset.checked_sub(at);
            if let Some(gap) = gap.filter(|gap| *gap <= self.limits.skip && self.offset < end) {
                return self.drop_bytes(gap);
            }
            self.leave_stream(end.saturating_sub(at));
        }
        self.connect(u64::try_from(length).unwrap_or(u64::MAX))
    }

    /// Gives up a stream. A short rest is read, because then the connection can be used again.
    fn leave_stream(&mut self, rest: u64) {
        // A connection that breaks now is one that is not used again.
        if rest <= self.limits.skip && self.drop_bytes(rest).is_ok() {
            self.retire_stream_at_end();
        }
        self.stream = None;
    }

    /// Lets ureq see the end of a body that was read to its last byte: that returns the connection to its pool.
    fn retire_stream_at_end(&mut self) {
        if let Some(mut stream) = self.stream.take_if(|stream| stream.at >= stream.end) {
            // All bytes are here already; an error here only means that the connection is not used again.
            let _ = stream.body.read(&mut [0]);
        }
    }

    fn drop_bytes(&mut self, mut count: u64) -> Result<(), Trouble> {
        let mut scrap = [0; SCRAP_BYTES];
        while count > 0 {
            if self.stop.requested() {
                return Err(Trouble::last(Code::Cancelled, "the transfer was cancelled".to_owned()));
            }
            let length = usize::try_from(count).unwrap_or(SCRAP_BYTES).min(SCRAP_BYTES);
            let part = scrap.get_mut(..length).unwrap_or_default();
            count = count.saturating_sub(self.receive(part)?);
        }
        Ok(())
    }

    /// Reads from the stream, at least one byte.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<u64, Trouble> {
        let (place, offset) = (&self.place, self.offset);
        let Some(stream) = &mut self.stream else {
            return Err(Trouble::last(Code::Internal, "read without a stream".to_owned()));
        };
        let left = stream.end.saturating_sub(stream.at);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let started = Instant::now();
        let outcome = stream.body.read(buffer.get_mut(..length).unwrap_or_default());
        let waited = started.elapsed();
        let missing = |code| {
            Trouble::passing(
                code,
                format!("{place}: connection broke off at byte {offset}, {left} bytes early"),
            )
        };
        let count = match outcome {
            Ok(0) => return Err(missing(self.patience.code_of_short_body())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(missing(self.patience.code_of_short_body()));
            }
            Err(error) => return Err(from_body(error, place)),
            Ok(count) => u64::try_from(count).unwrap_or(left),
        };
        stream.at = stream.at.saturating_add(count);
        self.reached = stream.at;
        self.patience.pace(waited, count, place)?;
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
        self.patience.new_response();
        let reply = self.client.get(&self.place, &headers)?;
        let found = judge(&reply, wanted, self.identity.as_ref(), self.limits.window_bytes)?;
        self.place = reply.place;
        self.identity.get_or_insert(found.identity);
        let body = reply.response.into_body().into_reader();
        self.stream = Some(Stream { body, at: found.at, end: found.end });
        if found.at < first {
            log::info!("{}: the server ignores ranges; dropping the first {first} bytes", self.place);
        }
        self.drop_bytes(first.saturating_sub(found.at))
    }

    /// Twice the last span when reading goes on about where it stopped, else a short one.
    fn next_span(&self) -> u64 {
        let gap = self.offset.checked_sub(self.reached);
        if self.last_span == 0 || gap.is_none_or(|gap| gap > self.limits.skip) {
            return self.limits.first_span;
        }
        self.last_span.saturating_mul(2).min(self.limits.longest_span)
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
        self.offset = offset;
        Ok(())
    }

    fn random_access(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.ranges)
    }

    fn length(&self) -> Option<u64> {
        self.identity.as_ref().map(|identity| identity.total)
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
