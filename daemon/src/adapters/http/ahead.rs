//! Fetching ahead of the reader: the threads that keep the line busy while somebody else waits for an answer.
//!
//! Each worker has a connection of its own, which is kept, and takes one request after the other from the [`Board`]. The
//! first worker goes on over the reader's own connection, once the reader has left it. Every answer is judged as one to the
//! reader itself is. None of them outlives this value.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::Limits;
use super::board::{Board, MANY, Name, Order, Taken};
use super::client::{Client, Trouble};
use super::parts::{Fault, Parts};
use super::patience::Patience;
use super::place::Place;
use super::span::{Identity, Wanted, judge, judge_several};
use super::stream::Stream;
use crate::failure::Failure;
use crate::ports::Stop;
use crate::threads;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// How long a request to stop may go unnoticed by a reader who waits.
const STOP_LATENCY: Duration = Duration::from_millis(100);

/// What is fetched ahead, and the threads that do it.
pub(super) struct Ahead {
    shared: Arc<Shared>,
    clients: Vec<Client>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    board: Mutex<Board>,
    changed: Condvar,
    identity: Identity,
    least: u64,
    stop: Stop,
}

/// How a request ended that did not fail.
enum End {
    /// With the answer of a server at this place.
    Answered(Place),
    /// Nobody wants its bytes any more.
    Unwanted,
    /// With the whole file instead of a part.
    NoRanges(Place),
}

impl Ahead {
    /// Starts the threads; they have nothing to do yet.
    pub(super) fn start(
        client: &Client,
        (origin, place): (Place, Place),
        identity: Identity,
        limits: &Limits,
        stop: &Stop,
    ) -> Result<Ahead, Failure> {
        let shared = Arc::new(Shared {
            board: Mutex::new(Board::new(limits.ahead, limits.longest_span, origin, place)),
            changed: Condvar::new(),
            identity,
            least: limits.window_bytes,
            stop: stop.clone(),
        });
        let mut ahead = Ahead { shared, clients: Vec::new(), threads: Vec::new() };
        for worker in 0..MANY {
            let client = if worker == 0 { client.clone() } else { client.beside() };
            ahead.clients.push(client.clone());
            let shared = Arc::clone(&ahead.shared);
            let name = format!("fetch-{worker}");
            let thread = Builder::new()
                .name(name.clone())
                .spawn(move || shared.work(worker, &client))
                .map_err(|error| threads::not_started(&name, &error))?;
            ahead.threads.push(thread);
        }
        Ok(ahead)
    }

    /// Fetches these extents from now on, and none of those before. A reader who is still busy with a connection of its own
    /// comes later.
    pub(super) fn expect(&self, extents: &[Range<u64>], reader_came: bool) {
        self.shared.board().expect(extents, reader_came);
        self.shared.changed.notify_all();
    }

    /// Hands out bytes from `offset` on, waiting for them if need be; nothing if they are not expected.
    pub(super) fn read(
        &self,
        offset: u64,
        buffer: &mut [u8],
        skip: u64,
        place: &Place,
        patience: &mut Patience,
    ) -> Result<Option<usize>, Trouble> {
        let shared = &self.shared;
        let mut board = shared.board();
        if board.is_empty() {
            return Ok(None);
        }
        board.arrive();
        shared.changed.notify_all();
        loop {
            match board.take(offset, buffer) {
                Taken::Bytes(count) => {
                    shared.changed.notify_all();
                    drop(board);
                    patience.pace(Duration::ZERO, u64::try_from(count).unwrap_or(u64::MAX), place)?;
                    return Ok(Some(count));
                }
                Taken::NotExpected => return Ok(None),
                Taken::Trouble(trouble) => return Err(trouble),
                Taken::Later => {}
            }
            if shared.stop.requested() {
                return Err(Trouble::cancelled());
            }
            if let Some(client) = board.jump(offset, skip) {
                client.break_off();
                shared.changed.notify_all();
            }
            let started = Instant::now();
            board = shared.wait(board);
            if let Err(trouble) = patience.pace(started.elapsed(), 0, place) {
                board.give_up_first().iter().for_each(Client::break_off);
                return Err(trouble);
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.board().close();
        self.shared.changed.notify_all();
        self.clients.iter().for_each(Client::shut_down);
        for thread in self.threads.drain(..) {
            // It cannot fail but by a panic, which the daemon does not survive anyway.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, board: MutexGuard<'a, Board>) -> MutexGuard<'a, Board> {
        self.changed.wait_timeout(board, STOP_LATENCY).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The life of a worker.
    fn work(&self, worker: usize, client: &Client) {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Some(order) = self.next_order(worker, client) {
            let outcome = match order.asks.as_slice() {
                [ask] => self.fetch_one(client, &order, ask, &mut buffer).map_err(Fault::from),
                asks => self.fetch_several(client, &order, asks, &mut buffer),
            };
            self.conclude(order.name, outcome);
            self.changed.notify_all();
        }
    }

    fn next_order(&self, worker: usize, client: &Client) -> Option<Order> {
        let mut board = self.board();
        loop {
            if board.is_closed() || self.stop.requested() {
                return None;
            }
            if let Some(order) = board.order(worker, client) {
                return Some(order);
            }
            board = self.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn conclude(&self, name: Name, outcome: Result<End, Fault>) {
        let mut board = self.board();
        match outcome {
            Ok(End::Answered(place)) => board.answered(name, place),
            Ok(End::Unwanted) => {}
            Ok(End::NoRanges(place)) => {
                board.lost_ranges();
                log::info!("{place}: the server ignores ranges now; reading on from front to back");
            }
            Err(Fault::Unsuited(why)) => {
                if board.refused_several(name) {
                    log::info!("one range at a time, because several are not given: {why}");
                }
            }
            Err(Fault::Trouble(trouble)) => {
                let (trouble, broken) = board.failed(name, trouble);
                broken.iter().for_each(Client::break_off);
                if let Some(trouble) = trouble {
                    log::info!("{}; going on with one request at a time", trouble.failure);
                }
            }
        }
    }

    fn get(&self, client: &Client, place: &Place, range: &str) -> Result<super::client::Reply, Trouble> {
        let mut headers = vec![("range", range)];
        headers.extend(self.identity.strong_tag().map(|tag| ("if-range", tag)));
        client.get(place, &headers)
    }

    fn fetch_one(
        &self,
        client: &Client,
        order: &Order,
        ask: &Range<u64>,
        buffer: &mut [u8],
    ) -> Result<End, Trouble> {
        let wanted = Wanted { first: ask.start, last: ask.end.saturating_sub(1) };
        let reply = self.get(client, &order.place, &format!("bytes={}-{}", wanted.first, wanted.last))?;
        let found = judge(&reply, wanted, Some(&self.identity), self.least)?;
        let place = reply.place.clone();
        if !found.identity.ranges {
            return Ok(End::NoRanges(place));
        }
        let mut stream = Stream::new(client, reply, found.at, found.end);
        while stream.rest() > 0 {
            if !self.wait_for_room(order.name) {
                return Ok(End::Unwanted);
            }
            let count = stream.receive(buffer)?;
            self.deliver(order.name, buffer, count);
        }
        stream.finish();
        Ok(End::Answered(place))
    }

    fn fetch_several(
        &self,
        client: &Client,
        order: &Order,
        asks: &[Range<u64>],
        buffer: &mut [u8],
    ) -> Result<End, Fault> {
        let ranges: Vec<_> =
            asks.iter().map(|ask| format!("{}-{}", ask.start, ask.end.saturating_sub(1))).collect();
        let reply = self.get(client, &order.place, &format!("bytes={}", ranges.join(",")))?;
        let several = judge_several(&reply, &self.identity)?;
        let place = reply.place.clone();
        let stream = Stream::new(client, reply, 0, several.length);
        let mut parts = Parts::new(stream, several.boundary, self.identity.total);
        for (count, ask) in asks.iter().enumerate() {
            if !parts.next(ask)? {
                self.board().gave_fewer(order.name, count);
                break;
            }
            self.board().gave_several();
            while parts.left() > 0 {
                if !self.wait_for_room(order.name) {
                    return Ok(End::Unwanted);
                }
                let count = parts.read(buffer)?;
                self.deliver(order.name, buffer, count);
            }
        }
        parts.finish(&self.stop);
        Ok(End::Answered(place))
    }

    fn deliver(&self, name: Name, buffer: &[u8], count: usize) {
        self.board().deliver(name, buffer.get(..count).unwrap_or_default());
        self.changed.notify_all();
    }

    /// Waits until the bytes of a request can be held; false if nobody wants them any more.
    fn wait_for_room(&self, name: Name) -> bool {
        let mut board = self.board();
        loop {
            match board.has_room(name) {
                _ if self.stop.requested() => return false,
                None => return false,
                Some(true) => return true,
                Some(false) => {}
            }
            board = self.wait(board);
        }
    }
}
