//! A bundle that a fetcher reads for the daemon.
//!
//! The daemon asks for parts by offset and length, and says what it expects to read. An answer to a part is pieces, each behind a head of
//! fourteen bytes, until there are as many bytes as were asked for, or one is empty: the end of the file. What is expected is asked for
//! ahead, so that the socket is never idle; whatever else is read comes as it is asked for.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use otad_bundle::Input;

use super::frame::{self, Frame, broken, printable};
use super::process::Process;
use crate::failure::{Code, Failure};
use crate::ports::Stop;

/// Bytes of one part that is asked for ahead.
const PART_BYTES: u64 = 128 * 1024;
/// Bytes that are asked for ahead in all: enough for the next part to be under way while one is read.
const AHEAD_BYTES: u64 = 256 * 1024;
/// Extents that are told at most, 16 bytes each: those of 25 GiB in chunks of 64 KiB of which every second is needed. What comes behind
/// them is not asked for ahead.
const MAX_EXTENTS: usize = 200 * 1024;
/// How long a request to stop may go unnoticed by somebody who waits.
pub(super) const STOP_LATENCY: Duration = Duration::from_millis(100);
/// A piece is not longer than this, and no message either.
const MAX_PIECE_BYTES: usize = 64 * 1024;

/// What the daemon asks for.
pub(super) enum Ask {
    Read { offset: u64, length: usize },
    Expect(Vec<Range<u64>>),
}

impl Ask {
    const READ: u8 = 1;
    const EXPECT: u8 = 2;

    pub(super) fn read(frame: &mut Frame) -> io::Result<Ask> {
        match frame.kind {
            Ask::READ => {
                let (offset, length) = (frame.number()?, frame.number()?);
                Ok(Ask::Read { offset, length: usize::try_from(length).map_err(io::Error::other)? })
            }
            Ask::EXPECT => {
                let numbers = frame.bytes()?.as_chunks::<8>().0.as_chunks::<2>().0;
                let of = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
                Ok(Ask::Expect(numbers.iter().map(|[start, end]| of(start)..of(end)).collect()))
            }
            other => Err(broken(format!("a question of kind {other}"))),
        }
    }
}

/// What stands before each piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The piece is a failure: code, line end, message.
    failed: bool,
    random_access: bool,
    fetched: u64,
    length: usize,
}

impl Head {
    const BYTES: usize = 14;

    pub(super) fn data(input: &dyn Input, length: usize) -> Head {
        let fetched = input.fetched().unwrap_or(0);
        Head { failed: false, random_access: input.random_access(), fetched, length }
    }

    pub(super) fn failed(input: &dyn Input, length: usize) -> Head {
        Head { failed: true, ..Head::data(input, length) }
    }

    pub(super) fn write(self, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = [0; Head::BYTES];
        let fields = [u8::from(self.failed), u8::from(self.random_access)].into_iter();
        let length = u32::try_from(self.length).map_err(io::Error::other)?;
        let fields = fields.chain(self.fetched.to_le_bytes()).chain(length.to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
        to.write_all(&bytes)
    }

    fn parse([failed, random_access, rest @ ..]: [u8; Head::BYTES]) -> io::Result<Head> {
        let (fetched, length) = rest.split_first_chunk::<8>().ok_or(io::ErrorKind::InvalidData)?;
        let length = length.first_chunk::<4>().ok_or(io::ErrorKind::InvalidData)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_PIECE_BYTES {
            return Err(broken(format!("a piece of {length} bytes; the limit is {MAX_PIECE_BYTES}")));
        }
        let fetched = u64::from_le_bytes(*fetched);
        Ok(Head { failed: failed != 0, random_access: random_access != 0, fetched, length })
    }
}

/// The bundle, seen from the daemon.
pub(super) struct SeparateInput {
    pub(super) socket: UnixStream,
    /// Ends with this value, where the daemon started it.
    pub(super) process: Option<Process>,
    pub(super) stop: Stop,
    pub(super) length: Option<u64>,
    pub(super) random_access: bool,
    fetched: u64,
    /// Where the next byte is read.
    position: u64,
    /// What will be read, in rising order.
    expected: Vec<Range<u64>>,
    /// What was asked for and has not come, the first that will come first.
    asked: VecDeque<Range<u64>>,
    /// Bytes of the piece that is coming.
    piece: usize,
}

impl SeparateInput {
    pub(super) fn new(
        socket: UnixStream,
        process: Option<Process>,
        stop: &Stop,
        length: u64,
        ranges: bool,
    ) -> Self {
        SeparateInput {
            socket,
            process,
            stop: stop.clone(),
            length: (length != u64::MAX).then_some(length),
            random_access: ranges,
            fetched: 0,
            position: 0,
            expected: Vec::new(),
            asked: VecDeque::new(),
            piece: 0,
        }
    }

    /// Reads some bytes; 0 only at the end.
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.drop_until(self.position)?;
        if self.asked.is_empty() {
            self.ask(self.part(self.position, buffer.len() as u64))?;
        }
        if self.piece == 0 {
            self.piece = self.head()?;
            if self.piece == 0 {
                self.asked.pop_front();
                return Ok(0);
            }
        }
        self.ask_ahead()?;
        let room = buffer.len().min(self.piece);
        let count = self.receive(buffer.get_mut(..room).unwrap_or_default())?;
        self.came(count)?;
        Ok(count)
    }

    /// The part to ask for at `offset`: as far as is expected, or what is wanted now.
    fn part(&self, offset: u64, wanted: u64) -> Range<u64> {
        let behind = self.expected.partition_point(|extent| extent.end <= offset);
        let extent = self.expected.get(behind).filter(|extent| extent.start <= offset);
        let length = extent.map_or(wanted, |extent| (extent.end - offset).min(PART_BYTES));
        offset..offset.saturating_add(length)
    }

    /// Asks for what is expected behind all that was asked for.
    fn ask_ahead(&mut self) -> io::Result<()> {
        loop {
            let under_way: u64 = self.asked.iter().map(|part| part.end - part.start).sum();
            let Some(last) = self.asked.back().map(|part| part.end) else { return Ok(()) };
            let behind = self.expected.partition_point(|extent| extent.end <= last);
            let Some(extent) = self.expected.get(behind) else { return Ok(()) };
            if under_way >= AHEAD_BYTES {
                return Ok(());
            }
            self.ask(self.part(extent.start.max(last), 0))?;
        }
    }

    fn ask(&mut self, part: Range<u64>) -> io::Result<()> {
        let (offset, length) = (part.start.to_le_bytes(), (part.end - part.start).to_le_bytes());
        frame::write(&mut &self.socket, Ask::READ, &[&offset, &length]).map_err(|error| self.lost(&error))?;
        self.asked.push_back(part);
        Ok(())
    }

    /// Reads and drops what was asked for and is not wanted. What lies behind `position` is kept where it can be: it would have to be
    /// fetched again.
    fn drop_until(&mut self, position: u64) -> io::Result<()> {
        let mut dropped = [0; 16 * 1024];
        let keeps = self.asked.iter().any(|part| part.contains(&position));
        while let Some(first) = self.asked.front() {
            let unwanted = first.start..if keeps { first.end.min(position) } else { first.end };
            if unwanted.is_empty() {
                return Ok(());
            }
            let unwanted = usize::try_from(unwanted.end - unwanted.start).unwrap_or(usize::MAX);
            if self.piece == 0 {
                self.piece = self.head()?;
                if self.piece == 0 {
                    self.asked.pop_front();
                    continue;
                }
            }
            let room = dropped.len().min(self.piece).min(unwanted);
            let count = self.receive(dropped.get_mut(..room).unwrap_or_default())?;
            let position = self.position;
            self.came(count)?;
            self.position = position;
        }
        Ok(())
    }

    /// Counts bytes of the first part that was asked for.
    fn came(&mut self, count: usize) -> io::Result<()> {
        self.piece -= count;
        self.position += count as u64;
        let over = self.asked.front_mut().map(|first| {
            first.start += count as u64;
            first.start >= first.end
        });
        match over {
            Some(true) if self.piece == 0 => drop(self.asked.pop_front()),
            Some(true) | None => return Err(self.lost(&broken("it gave more than was asked for".to_owned()))),
            Some(false) => {}
        }
        Ok(())
    }

    /// The length of the next piece.
    fn head(&mut self) -> io::Result<usize> {
        let mut bytes = [0; Head::BYTES];
        self.receive_all(&mut bytes)?;
        let head = Head::parse(bytes).map_err(|error| self.lost(&error))?;
        (self.fetched, self.random_access) = (head.fetched, head.random_access);
        if !head.failed {
            return Ok(head.length);
        }
        self.asked.pop_front();
        let mut text = vec![0; head.length];
        self.receive_all(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let (code, message) = text.split_once('\n').unwrap_or(("", &text));
        Err(io::Error::other(Failure::new(
            Code::from_text(code).unwrap_or(Code::Internal),
            printable(message),
        )))
    }

    fn receive_all(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let count = self.receive(buffer)?;
            buffer = buffer.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Receives some bytes, at least one.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.requested() {
                let failure = Failure::new(Code::Cancelled, "the transfer was cancelled");
                return Err(io::Error::other(failure));
            }
            match (&self.socket).read(buffer) {
                Ok(0) => return Err(self.lost(&io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => return Ok(count),
                Err(error) if is_silence(&error) => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
    }

    fn lost(&mut self, error: &io::Error) -> io::Error {
        io::Error::other(lost(self.process.as_mut(), error))
    }
}

/// Whether a socket with a time limit was only silent.
pub(super) fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// The failure of a fetcher that is gone or does not keep to the protocol.
pub(super) fn lost(process: Option<&mut Process>, error: &io::Error) -> Failure {
    let what = process.map_or_else(|| "the fetcher has ended".to_owned(), Process::end);
    Failure::new(Code::RoleFailed, format!("{what}: {error}; what was fetched is kept; try again"))
}

/// What a source's error without a code of its own is.
pub(super) fn read_failed(error: &io::Error) -> Failure {
    Failure::new(Code::NetFailed, error.to_string())
}

impl Read for SeparateInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }
}

impl Input for SeparateInput {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        if offset < self.position && !self.random_access {
            let what = "the server does not support ranges, so nothing can be read again";
            return Err(io::Error::other(Failure::new(Code::NetRange, what)));
        }
        self.position = offset;
        Ok(())
    }

    fn random_access(&self) -> bool {
        self.random_access
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    fn fetched(&self) -> Option<u64> {
        Some(self.fetched)
    }

    fn expect(&mut self, mut extents: Vec<Range<u64>>) {
        extents.truncate(MAX_EXTENTS);
        let numbers = extents.iter().flat_map(|extent| [extent.start, extent.end]);
        let bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        // What was expected before may still be coming. An error shows at the next read.
        let told =
            self.drop_until(u64::MAX).and_then(|()| frame::write(&mut &self.socket, Ask::EXPECT, &[&bytes]));
        if told.is_ok() {
            self.expected = extents;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fetch::serve_input;
    use super::*;

    const LENGTH: usize = 1 << 20;

    /// A bundle in memory, whose reads give as much as a network may.
    struct Memory {
        bytes: Vec<u8>,
        at: usize,
        fetched: u64,
        fails_at: usize,
    }

    impl Read for Memory {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.at >= self.fails_at {
                return Err(io::Error::other(Failure::new(Code::NetStalled, "the line\nis dead")));
            }
            let room = buffer.len().min(1 + self.at % 40_000).min(self.fails_at - self.at);
            let some = self.bytes.get(self.at..).unwrap_or_default();
            let count = some.len().min(room);
            buffer[..count].copy_from_slice(&some[..count]);
            self.at += count;
            self.fetched += count as u64;
            Ok(count)
        }
    }

    impl Input for Memory {
        fn seek_to(&mut self, offset: u64) -> io::Result<()> {
            self.at = usize::try_from(offset).unwrap();
            Ok(())
        }

        fn random_access(&self) -> bool {
            true
        }

        fn length(&self) -> Option<u64> {
            Some(self.bytes.len() as u64)
        }

        fn fetched(&self) -> Option<u64> {
            Some(self.fetched)
        }
    }

    fn bytes() -> Vec<u8> {
        (0..LENGTH).map(|at| ((at * 2_654_435_761) >> 13).to_le_bytes()[0]).collect()
    }

    /// The daemon's end of a socket with a time limit, and the other one.
    fn sockets() -> (SeparateInput, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(STOP_LATENCY)).unwrap();
        (SeparateInput::new(ours, None, &Stop::default(), LENGTH as u64, true), theirs)
    }

    fn served(fails_at: usize) -> SeparateInput {
        let (input, mut theirs) = sockets();
        let memory = Memory { bytes: bytes(), at: 0, fetched: 0, fails_at };
        // It ends with the daemon's end.
        std::thread::spawn(move || serve_input(Box::new(memory), &mut theirs));
        input
    }

    /// Whatever is expected, jumped over and read: what comes is what is there.
    #[test]
    fn what_is_read_is_what_is_there() {
        let (bytes, mut input) = (bytes(), served(usize::MAX));
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let mut buffer = vec![0; 200_000];
        let mut at = 0;
        for round in 0..400 {
            if round % 40 == 0 {
                let mut starts: Vec<usize> = (0..20).map(|_| next(LENGTH)).collect();
                starts.sort_unstable();
                let pairs = starts.as_chunks::<2>().0.iter();
                input.expect(pairs.map(|[start, end]| *start as u64..*end as u64).collect());
                at = starts[0];
                input.seek_to(at as u64).unwrap();
            } else if next(4) == 0 {
                at = next(LENGTH + 10);
                input.seek_to(at as u64).unwrap();
            }
            let length = 1 + next(buffer.len());
            let mut have = 0;
            while have < length {
                let count = input.read(&mut buffer[have..length]).unwrap();
                if count == 0 {
                    break;
                }
                have += count;
            }
            let wanted = bytes.get(at..).unwrap_or_default();
            let wanted = &wanted[..wanted.len().min(length)];
            assert!(buffer[..have] == *wanted, "round {round}: {have} bytes at {at}");
            at += have;
        }
    }

    /// What is expected and then read in order is asked for once.
    #[test]
    fn nothing_that_is_expected_comes_twice() {
        let (bytes, mut input) = (bytes(), served(usize::MAX));
        let extents = [1_000..300_000, 400_000..400_001, 500_000..900_000];
        input.expect(extents.iter().map(|extent| extent.start as u64..extent.end as u64).collect());
        let mut sum = 0;
        for extent in extents {
            for piece in extent.clone().step_by(30_000) {
                let mut buffer = vec![0; 30_000.min(extent.end - piece)];
                input.seek_to(piece as u64).unwrap();
                input.read_exact(&mut buffer).unwrap();
                assert!(buffer == bytes[piece..piece + buffer.len()]);
                sum += buffer.len() as u64;
            }
        }
        assert_eq!(input.fetched(), Some(sum));
    }

    /// The source's own failure comes through with its code, where it happens and not before.
    #[test]
    fn failures_come_through() {
        let mut input = served(100_000);
        input.expect(std::iter::once(0..200_000).collect());
        input.read_exact(&mut vec![0; 100_000]).unwrap();
        let error = input.read(&mut [0; 10]).unwrap_err();
        let failure = crate::failure::failure_of(&error).unwrap();
        assert_eq!((failure.code, failure.message.as_str()), (Code::NetStalled, "the line is dead"));
    }

    /// A fetcher that was taken over says what it likes: too much, nothing, or that it is over.
    #[test]
    fn nonsense_is_refused() {
        let head = |length| Head { failed: false, random_access: true, fetched: 0, length };
        for (length, sent) in [(200, 200), (MAX_PIECE_BYTES + 1, 0), (50, 20)] {
            let (mut input, mut theirs) = sockets();
            std::thread::spawn(move || {
                let _ = frame::read(&mut theirs);
                head(length).write(&mut theirs).unwrap();
                theirs.write_all(&vec![0; sent]).unwrap();
            });
            let error = loop {
                match input.read(&mut [0; 100]) {
                    Ok(count) => assert!(count > 0),
                    Err(error) => break error,
                }
            };
            let failure = crate::failure::failure_of(&error).unwrap();
            assert_eq!(failure.code, Code::RoleFailed, "{length}: {failure}");
        }
    }

    #[test]
    fn a_stop_is_heeded_while_nothing_comes() {
        let (input, _theirs) = sockets();
        let stop = Stop::default();
        let mut input = SeparateInput { stop: stop.clone(), ..input };
        stop.request();
        let error = input.read(&mut [0; 10]).unwrap_err();
        assert_eq!(crate::failure::failure_of(&error).unwrap().code, Code::Cancelled);
    }
}
