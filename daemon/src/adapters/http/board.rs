//! What is fetched ahead of the reader: the requests in their order, what came of each, and who may ask for what when.
//!
//! Pure state behind one lock; [`super::ahead`] has the threads. Memory is bounded: a request is only made when its first
//! byte is no further than `ahead` from the reader, and none of them holds more than `ahead` bytes that were not read yet.
//!
//! A request that fails goes back to its place with what is still missing. If the reader waits for it next, the reader is
//! told, judges it with its patience and says when to go on; until then nobody asks for anything. If it is further ahead,
//! it is only taken for a hint that the server or the line does not like so much at once: one request at a time from then
//! on, and after some that work, more again. So a failure ends a transfer only where it would have without looking ahead.

use std::collections::VecDeque;
use std::ops::Range;

use super::client::{Client, Trouble};
use super::place::Place;
use super::plan::{self, Form, length};

/// Requests at a time where a server gives several ranges at once: while one waits for its answer, the other brings bytes.
const FEW: usize = 2;
/// Where it does not, requests are shorter, and more of them cover a round trip.
pub(super) const MANY: usize = 4;
/// Servers that give fewer ranges at once than this are asked for single ones, which may reach over gaps.
const FEWEST_RANGES: usize = 4;
/// Requests that must work in a row before more than one is made at a time again.
const WORKED: u32 = 8;

/// Names a try at a request; another try has another name.
pub(super) type Name = u64;

/// A request that somebody shall make.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) name: Name,
    pub(super) asks: Vec<Range<u64>>,
    pub(super) place: Place,
}

/// What the reader gets.
#[derive(Debug)]
pub(super) enum Taken {
    /// So many bytes.
    Bytes(usize),
    /// They will come.
    Later,
    /// What is in the way.
    Trouble(Trouble),
    /// They were not expected.
    NotExpected,
}

/// Whether a server gives several ranges at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Several {
    Unknown,
    Given,
    Refused,
}

/// Whether requests are made.
#[derive(Debug)]
enum Rest {
    No,
    /// They failed, and the reader must hear of it.
    ToTell(Trouble),
    /// It has heard, and comes back when it has waited.
    Told,
}

#[derive(Debug)]
enum State {
    Waiting,
    /// Somebody is at it, over this client.
    Running(Client),
    Done,
}

/// Bytes that came.
#[derive(Debug)]
struct Piece {
    at: u64,
    bytes: Vec<u8>,
    /// How many of them the reader has.
    used: usize,
}

/// One request, and what came of it.
#[derive(Debug)]
struct Job {
    name: Name,
    state: State,
    /// What has not come yet.
    asks: VecDeque<Range<u64>>,
    pieces: VecDeque<Piece>,
    held: u64,
}

/// The state of all that is fetched ahead.
#[derive(Debug)]
pub(super) struct Board {
    jobs: VecDeque<Job>,
    names: Name,
    ahead: u64,
    longest: u64,
    several: Several,
    /// Ranges in a request for several.
    most: usize,
    /// The form for a server that does not give several.
    single: Form,
    width: usize,
    /// Requests that worked since one failed.
    worked: u32,
    rest: Rest,
    /// Whether the reader has left its own connection to the first of those who work here.
    reader_came: bool,
    origin: Place,
    /// Where that led.
    place: Place,
    closed: bool,
}

impl Board {
    pub(super) fn new(ahead: u64, longest: u64, origin: Place, place: Place) -> Board {
        Board {
            jobs: VecDeque::new(),
            names: 0,
            ahead,
            longest,
            several: Several::Unknown,
            most: plan::MOST_RANGES,
            single: plan::single(&[]),
            width: FEW,
            worked: 0,
            rest: Rest::No,
            reader_came: false,
            origin,
            place,
            closed: false,
        }
    }

    /// Plans the requests for these extents, in place of what was planned before.
    pub(super) fn expect(&mut self, extents: &[Range<u64>], reader_came: bool) {
        self.jobs.clear();
        self.reader_came = reader_came;
        self.rest = Rest::No;
        self.single = plan::single(extents);
        self.plan(extents);
    }

    fn plan(&mut self, extents: &[Range<u64>]) {
        let form = match self.several {
            Several::Refused => self.single,
            Several::Unknown | Several::Given => Form::Several { most: self.most },
        };
        let group = self.ahead.saturating_mul(2).min(self.longest);
        for asks in plan::requests(extents, form, group, self.longest) {
            let name = self.next_name();
            let asks = VecDeque::from(asks);
            self.jobs.push_back(Job { name, state: State::Waiting, asks, pieces: VecDeque::new(), held: 0 });
        }
    }

    fn next_name(&mut self) -> Name {
        self.names += 1;
        self.names
    }

    /// Whether something is planned.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Nobody reads any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.jobs.clear();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next request to make, if there is one for this worker.
    pub(super) fn order(&mut self, worker: usize, client: &Client) -> Option<Order> {
        let running = |job: &&Job| matches!(job.state, State::Running(_));
        let busy = self.jobs.iter().filter(running).count();
        // The first worker's connection may still be the reader's; no more workers than needed, for each connects.
        let workers = if self.reader_came { 0..self.width } else { 1..self.width.max(FEW) };
        let needed = worker <= workers.start + busy;
        if !workers.contains(&worker) || !needed || busy >= self.width || !matches!(self.rest, Rest::No) {
            return None;
        }
        // The first answer to a request for several ranges tells whether others are worth it.
        let trying = self.several == Several::Unknown
            && self.jobs.iter().filter(running).any(|job| job.asks.len() > 1);
        let (ahead, place) = (self.ahead, self.place.clone());
        let mut distance = 0_u64;
        for job in &mut self.jobs {
            if distance > ahead {
                return None;
            }
            if matches!(job.state, State::Waiting) {
                if trying && job.asks.len() > 1 {
                    return None;
                }
                job.state = State::Running(client.clone());
                return Some(Order { name: job.name, asks: job.asks.iter().cloned().collect(), place });
            }
            distance = distance.saturating_add(job.held).saturating_add(job.missing());
        }
        None
    }

    /// Whether a request may bring more; nothing if nobody wants it any more.
    pub(super) fn has_room(&self, name: Name) -> Option<bool> {
        self.jobs.iter().find(|job| job.name == name).map(|job| job.held < self.ahead)
    }

    /// Takes bytes that a request brought, the next ones that it lacked.
    pub(super) fn deliver(&mut self, name: Name, bytes: &[u8]) {
        let Some(job) = self.jobs.iter_mut().find(|job| job.name == name) else { return };
        let Some(ask) = job.asks.front_mut() else { return };
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        job.pieces.push_back(Piece { at: ask.start, bytes: bytes.to_vec(), used: 0 });
        job.held = job.held.saturating_add(count);
        ask.start = ask.start.saturating_add(count);
        if ask.is_empty() {
            job.asks.pop_front();
        }
    }

    /// An answer was read to its end; it may have been shorter than what was asked for.
    pub(super) fn answered(&mut self, name: Name, place: Place) {
        self.place = place;
        self.worked = self.worked.saturating_add(1);
        if self.worked >= WORKED {
            self.width = if self.several == Several::Refused { MANY } else { FEW };
        }
        // The reader may have all of it already.
        if let Some(job) = self.jobs.iter_mut().find(|job| job.name == name) {
            job.state = if job.asks.is_empty() { State::Done } else { State::Waiting };
        }
    }

    /// A server gave several ranges.
    pub(super) fn gave_several(&mut self) {
        if self.several == Several::Unknown {
            self.several = Several::Given;
        }
    }

    /// A server left out all but so many of the ranges; no more are asked for from now on.
    pub(super) fn gave_fewer(&mut self, name: Name, count: usize) {
        if count < FEWEST_RANGES {
            self.refused_several(name);
        } else if self.several == Several::Given {
            self.most = self.most.min(count);
            self.plan_anew(name);
        }
    }

    /// A server does not give several ranges. Tells whether that is news.
    pub(super) fn refused_several(&mut self, name: Name) -> bool {
        let news = self.several != Several::Refused;
        self.several = Several::Refused;
        if news && self.width == FEW {
            self.width = MANY;
        }
        self.plan_anew(name);
        news
    }

    /// Plans anew what nobody is at, and what has not come of this request.
    fn plan_anew(&mut self, name: Name) {
        let mut together = Vec::new();
        for mut job in std::mem::take(&mut self.jobs) {
            let waits = job.name == name || matches!(job.state, State::Waiting);
            let asks = if waits { std::mem::take(&mut job.asks) } else { VecDeque::new() };
            if !waits || !job.pieces.is_empty() {
                self.plan(&std::mem::take(&mut together));
                // What did come of it stays in its place.
                job.state = if waits { State::Done } else { job.state };
                self.jobs.push_back(job);
            }
            together.extend(asks);
        }
        self.plan(&together);
    }

    /// A server stopped giving ranges: looking ahead makes no sense there.
    pub(super) fn lost_ranges(&mut self) {
        self.jobs.clear();
    }

    /// A request failed. Gives back what is to be told to nobody, and connections to break.
    pub(super) fn failed(&mut self, name: Name, trouble: Trouble) -> (Option<Trouble>, Vec<Client>) {
        // Nobody waits for it any more.
        let Some(job) = self.jobs.iter_mut().find(|job| job.name == name) else { return (None, Vec::new()) };
        job.state = State::Waiting;
        let next = self.jobs.iter().find(|job| !matches!(job.state, State::Done));
        let waited_for = next.is_some_and(|job| job.name == name);
        let broken = self.narrow();
        if waited_for {
            self.rest = Rest::ToTell(trouble);
            return (None, broken);
        }
        (Some(trouble), broken)
    }

    /// Leaves only the request that comes next. One further ahead could hold its server up for ever: it ends when the reader
    /// has come there.
    fn narrow(&mut self) -> Vec<Client> {
        self.width = 1;
        self.worked = 0;
        self.place = self.origin.clone();
        let mut names = self.names;
        let later = self.jobs.iter_mut().skip_while(|job| matches!(job.state, State::Done)).skip(1);
        let broken = later.filter_map(|job| {
            names += 1;
            job.again(names)
        });
        let broken = broken.collect();
        self.names = names;
        broken
    }

    /// The reader is here, and has waited if it had to.
    pub(super) fn arrive(&mut self) {
        self.reader_came = true;
        if matches!(self.rest, Rest::Told) {
            self.rest = Rest::No;
        }
    }

    /// Gives the reader bytes from `offset` on.
    pub(super) fn take(&mut self, offset: u64, buffer: &mut [u8]) -> Taken {
        loop {
            let Some(job) = self.jobs.front_mut() else { return Taken::NotExpected };
            job.forget_before(offset);
            if let Some(count) = job.copy(offset, buffer) {
                return Taken::Bytes(count);
            }
            if job.asks.iter().any(|ask| ask.contains(&offset)) {
                break;
            }
            if !job.pieces.is_empty() || job.asks.iter().any(|ask| ask.start > offset) {
                return Taken::NotExpected;
            }
            self.jobs.pop_front();
        }
        if matches!(self.rest, Rest::ToTell(_))
            && let Rest::ToTell(trouble) = std::mem::replace(&mut self.rest, Rest::Told)
        {
            return Taken::Trouble(trouble);
        }
        Taken::Later
    }

    /// Gives up the try that the reader waits for, and all further ahead; their connections are to be broken. The reader
    /// comes back to have another.
    pub(super) fn give_up_first(&mut self) -> Vec<Client> {
        let mut broken = self.narrow();
        self.rest = Rest::Told;
        let name = self.next_name();
        broken.extend(self.jobs.front_mut().and_then(|job| job.again(name)));
        broken
    }

    /// Makes the first request begin at `offset` if it has further than `skip` to go until there.
    pub(super) fn jump(&mut self, offset: u64, skip: u64) -> Option<Client> {
        let job = self.jobs.front()?;
        let until = |ask: &Range<u64>| length(&(ask.start..offset.min(ask.end)));
        let way: u64 = job.asks.iter().map(until).sum();
        if way <= skip {
            return None;
        }
        let name = self.next_name();
        let job = self.jobs.front_mut()?;
        for ask in &mut job.asks {
            ask.start = ask.start.max(offset);
        }
        job.asks.retain(|ask| !ask.is_empty());
        job.again(name)
    }
}

impl Job {
    /// Waits to be tried again. Whoever was at it brings what nobody waits for by the new name.
    fn again(&mut self, name: Name) -> Option<Client> {
        if !matches!(self.state, State::Running(_)) {
            return None;
        }
        self.name = name;
        match std::mem::replace(&mut self.state, State::Waiting) {
            State::Running(client) => Some(client),
            State::Waiting | State::Done => None,
        }
    }

    fn missing(&self) -> u64 {
        self.asks.iter().map(length).sum()
    }

    /// Drops what the reader has passed.
    fn forget_before(&mut self, offset: u64) {
        while let Some(piece) = self.pieces.front_mut() {
            let passed = usize::try_from(offset.saturating_sub(piece.at)).unwrap_or(usize::MAX);
            let passed = passed.min(piece.bytes.len());
            let newly = passed.saturating_sub(piece.used);
            self.held = self.held.saturating_sub(u64::try_from(newly).unwrap_or(u64::MAX));
            piece.used = piece.used.max(passed);
            if piece.used < piece.bytes.len() {
                break;
            }
            self.pieces.pop_front();
        }
    }

    /// Copies what is there from `offset` on, the first byte that is left.
    fn copy(&mut self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let piece = self.pieces.front_mut()?;
        let from = usize::try_from(offset.checked_sub(piece.at)?).ok()?;
        let bytes = piece.bytes.get(from..)?;
        let count = bytes.len().min(buffer.len());
        buffer.get_mut(..count)?.copy_from_slice(bytes.get(..count)?);
        piece.used = from.saturating_add(count);
        self.held = self.held.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Some(count)
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a list of one extent is meant")]
mod tests {
    use super::super::client::Client;
    use super::super::tls::Tls;
    use super::super::{Limits, Security, Times};
    use super::*;
    use crate::failure::Code;

    fn client() -> Client {
        let security = Security::public(Times::bounded(|| 0));
        Client::new("test", &Limits::default(), &Tls::new(&security, None).unwrap())
    }

    fn place(text: &str) -> Place {
        Place::parse(text).unwrap()
    }

    /// Requests of up to 200 bytes, made 100 bytes ahead; one of an extent may have 1000.
    fn board(extents: &[Range<u64>]) -> Board {
        let mut board = Board::new(100, 1000, place("http://origin/"), place("http://mirror/"));
        board.expect(extents, true);
        board
    }

    fn trouble() -> Trouble {
        Trouble::passing(Code::NetFailed, "broke".to_owned())
    }

    fn read(board: &mut Board, offset: u64) -> Option<usize> {
        match board.take(offset, &mut [0; 1000]) {
            Taken::Bytes(count) => Some(count),
            Taken::Later => Some(0),
            Taken::NotExpected => None,
            Taken::Trouble(trouble) => panic!("{}", trouble.failure),
        }
    }

    #[test]
    fn requests_are_made_when_the_reader_is_near() {
        let (mut board, client) = (board(&[0..2500]), client());
        let first = board.order(0, &client).unwrap();
        assert_eq!(first.asks, [0..1000]);
        assert!(board.order(1, &client).is_none(), "900 bytes too early");
        board.deliver(first.name, &[1; 950]);
        assert!(board.order(1, &client).is_none(), "the reader has nothing yet");
        assert_eq!(board.has_room(first.name), Some(false));
        assert_eq!(read(&mut board, 0), Some(950));
        assert_eq!(board.has_room(first.name), Some(true));
        assert_eq!(board.order(1, &client).unwrap().asks, [1000..2000]);
        assert!(board.order(2, &client).is_none(), "two are enough");
        board.deliver(first.name, &[2; 50]);
        assert_eq!(read(&mut board, 950), Some(50));
        assert_eq!(read(&mut board, 1000), Some(0));
        assert_eq!(board.has_room(first.name), None);
    }

    #[test]
    fn the_first_worker_waits_for_the_connection_of_the_reader() {
        let (mut board, client) = (board(&[]), client());
        board.expect(&[0..100, 1000..1100], false);
        assert!(board.order(0, &client).is_none());
        assert!(board.order(2, &client).is_none());
        assert!(board.order(1, &client).is_some());
        board.arrive();
        assert!(board.order(0, &client).is_none(), "there is nothing left");
    }

    #[test]
    fn one_request_needs_one_worker() {
        let (mut board, client) = (board(&[0..250]), client());
        assert!(board.order(1, &client).is_none(), "it would have to connect");
        assert!(board.order(0, &client).is_some());
    }

    #[test]
    fn a_failure_that_the_reader_waits_for_is_told_and_rests() {
        let (mut board, client) = (board(&[0..1000, 5000..6000]), client());
        let first = board.order(0, &client).unwrap();
        board.deliver(first.name, &[1; 600]);
        assert!(board.failed(first.name, trouble()).0.is_none());
        assert!(board.order(0, &client).is_none());
        assert_eq!(read(&mut board, 0), Some(600), "what came is used first");
        assert!(matches!(board.take(600, &mut [0; 10]), Taken::Trouble(_)));
        assert!(board.order(0, &client).is_none(), "not before the reader has waited");
        board.arrive();
        let again = board.order(0, &client).unwrap();
        assert_eq!((again.asks, again.place), (vec![600..1000], place("http://origin/")));
    }

    #[test]
    fn a_failure_further_ahead_only_narrows() {
        let (mut board, client) = (board(&[0..250, 1000..1250, 2000..2250]), client());
        let first = board.order(0, &client).unwrap();
        board.deliver(first.name, &[1; 200]);
        assert_eq!(read(&mut board, 0), Some(200));
        let second = board.order(1, &client).unwrap();
        assert!(board.failed(second.name, trouble()).0.is_some());
        assert!(board.order(1, &client).is_none() && board.order(0, &client).is_none());
        board.deliver(first.name, &[1; 50]);
        board.answered(first.name, place("http://mirror/"));
        assert!(board.order(1, &client).is_none(), "one worker is enough");
        assert_eq!(board.order(0, &client).unwrap().asks, [1000..1250]);
    }

    #[test]
    fn a_stall_is_given_up_under_its_old_name() {
        let (mut board, client) = (board(&[0..1000]), client());
        let first = board.order(0, &client).unwrap();
        board.deliver(first.name, &[1; 10]);
        assert_eq!(board.give_up_first().len(), 1);
        board.deliver(first.name, &[9; 10]);
        assert_eq!(board.has_room(first.name), None);
        assert!(board.failed(first.name, trouble()).0.is_none());
        board.arrive();
        assert_eq!(board.order(0, &client).unwrap().asks, [10..1000]);
    }

    #[test]
    fn refused_ranges_are_planned_anew_in_their_order() {
        let extents: Vec<_> = (0..30).map(|n| n * 50_000..n * 50_000 + 60).collect();
        let (mut board, client) = (board(&extents), client());
        let first = board.order(0, &client).unwrap();
        assert_eq!(first.asks.len(), 4);
        assert!(board.order(1, &client).is_none(), "one try is enough to know");
        board.deliver(first.name, &[1; 60]);
        board.deliver(first.name, &[1; 20]);
        assert!(board.refused_several(first.name));
        assert!(!board.refused_several(first.name));
        let mut asked = Vec::new();
        assert_eq!(read(&mut board, 0), Some(60));
        assert_eq!(read(&mut board, 50_000), Some(20));
        while let Some(order) = board.order(0, &client) {
            assert_eq!(order.asks.len(), 1);
            let at = order.asks[0].start;
            let count = usize::try_from(length(&order.asks[0])).unwrap();
            board.deliver(order.name, &vec![1; count]);
            board.answered(order.name, place("http://mirror/"));
            assert_eq!(read(&mut board, at), Some(count));
            asked.extend(order.asks);
        }
        let mut expected = extents[1..].to_vec();
        expected[0].start += 20;
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_long_jump_begins_anew_and_a_short_one_does_not() {
        let (mut board, client) = (board(&[0..1000]), client());
        board.order(0, &client).unwrap();
        assert_eq!(read(&mut board, 200), Some(0));
        assert!(board.jump(200, 300).is_none());
        assert!(board.jump(500, 300).is_some());
        assert_eq!(board.order(0, &client).unwrap().asks, [500..1000]);
        assert_eq!(read(&mut board, 100), None);
    }
}
