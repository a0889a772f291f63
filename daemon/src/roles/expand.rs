//! The decoder: decompresses what lies in shared memory, for as long as it is asked to.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use otad_bundle::{Error, Expander, Job, Packing};

use super::frame;
use super::memory::Shared;

/// Asks for jobs: where in shared memory the packed bytes begin, and a table with an entry for each: packing (0 gzip, 1 zstd), then the
/// lengths of prefix, packed and plain bytes. A prefix is at the front of the memory, packed bytes lie one job's behind the other's.
pub(super) const EXPAND: u8 = 1;
/// Bytes of an entry.
const ENTRY_BYTES: usize = 13;
/// All of them are done.
pub(super) const DONE: u8 = 0;

/// What can be wrong with a job; as the kind of an answer, with the number of the job and a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Gzip = 1,
    Zstd = 2,
    TooLarge = 3,
}

impl Sort {
    pub(super) fn of(kind: u8) -> Option<Sort> {
        [Sort::Gzip, Sort::Zstd, Sort::TooLarge].into_iter().find(|sort| *sort as u8 == kind)
    }

    /// The error that it stands for; `limit` is the length of the place.
    pub(super) fn error(self, limit: usize, problem: String) -> Error {
        match self {
            Sort::Gzip => Error::Decode { kind: "gzip", problem },
            Sort::Zstd => Error::Decode { kind: "zstd", problem },
            Sort::TooLarge => Error::SizeExceeded { limit: u32::try_from(limit).unwrap_or(u32::MAX) },
        }
    }
}

/// Everything a decoder ever opens.
pub(super) struct Station {
    socket: UnixStream,
    memory: Shared,
}

impl Station {
    /// Takes the socket that standard input is, and the memory that standard output is.
    pub(super) fn take() -> io::Result<Station> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let memory = Shared::of(&File::from(io::stdout().as_fd().try_clone_to_owned()?))?;
        Ok(Station { socket, memory })
    }

    /// Does what comes through the socket.
    pub(super) fn serve(mut self) -> io::Result<()> {
        let mut expander = Expander::new()?;
        while let Some(mut asked) = frame::read(&mut &self.socket)? {
            let start = usize::try_from(asked.number()?).unwrap_or(usize::MAX);
            match answer(start, asked.bytes()?, &mut self.memory, &mut expander) {
                Ok(()) => frame::write(&mut &self.socket, DONE, &[])?,
                Err((at, error)) => {
                    let (sort, problem) = say(error);
                    let at = (at as u64).to_le_bytes();
                    frame::write(&mut &self.socket, sort as u8, &[&at, problem.as_bytes()])?;
                }
            }
        }
        Ok(())
    }
}

fn answer(
    start: usize,
    table: &[u8],
    memory: &mut Shared,
    expander: &mut Expander,
) -> Result<(), (usize, Error)> {
    let (packed, mut room) = memory.parts();
    let entries = table.as_chunks::<ENTRY_BYTES>().0;
    let lengths = |entry: &[u8; ENTRY_BYTES]| {
        let [_, lengths @ ..] = entry;
        let mut lengths = lengths.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes) as usize);
        Some((lengths.next()?, lengths.next()?, lengths.next()?))
    };
    let misfit = |at: usize| (at, Error::Caller("the jobs do not fit into the shared memory".into()));
    let (kept, mut packed) = packed.split_at_checked(start).ok_or_else(|| misfit(0))?;
    for (at, entry) in entries.iter().enumerate() {
        let [packing, ..] = entry;
        let packing = if *packing == 0 { Packing::Gzip } else { Packing::Zstd };
        let fits = lengths(entry).and_then(|(prefix, stored, plain)| {
            let (stored, rest) = packed.split_at_checked(stored)?;
            packed = rest;
            Some((kept.get(..prefix)?, stored, room.split_off_mut(..plain)?))
        });
        let (prefix, stored, plain) = fits.ok_or_else(|| misfit(at))?;
        let mut job = Job { packing, prefix: prefix.len(), stored, plain };
        expander.expand_with(prefix, &mut job).map_err(|error| (at, error))?;
    }
    Ok(())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is wrong, the chunk cannot be decoded")]
fn say(error: Error) -> (Sort, String) {
    match error {
        Error::SizeExceeded { .. } => (Sort::TooLarge, String::new()),
        Error::Decode { kind: "gzip", problem } => (Sort::Gzip, problem),
        Error::Decode { problem, .. } => (Sort::Zstd, problem),
        other => (Sort::Zstd, other.to_string()),
    }
}
