//! Decompression in a process of its own, seen from the daemon.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use otad_bundle::{Error, Expand, Job, Packing};

use super::Role;
use super::expand::{DONE, EXPAND, Sort};
use super::frame::{self, Frame};
use super::memory::{IN_BYTES, OUT_BYTES, Shared};
use super::process::Process;
use crate::failure::{Code, Failure, from_bundle};
use crate::ports::Decoders;

/// How long a decoder may take for 2 MiB of plain bytes: the slowest processor in use needs less than a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a decoder for whoever asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processes;

impl Decoders for Processes {
    fn start(&self) -> Result<Box<dyn Expand>, Failure> {
        Ok(Box::new(Decoder::start()?))
    }

    fn ready(&self) -> Result<(), Failure> {
        // It answers from within its sandbox.
        Decoder::start()?.round(&mut []).map_err(|(_, error)| from_bundle(&error))
    }
}

impl Decoder {
    fn start() -> Result<Decoder, Failure> {
        let fail = |error: io::Error| Failure::new(Code::Resource, format!("no memory to share: {error}"));
        let (memory, file) = Shared::new().map_err(fail)?;
        let (process, socket) = Process::start(Role::Decoder, Some(file))?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
        Ok(Decoder { process, socket, memory, kept: 0, gone: None })
    }
}

/// One decoder.
struct Decoder {
    process: Process,
    socket: UnixStream,
    memory: Shared,
    /// Bytes at the front of the memory that jobs may refer to.
    kept: usize,
    /// Why it is of no use any more.
    gone: Option<String>,
}

impl Expand for Decoder {
    fn expand(&mut self, jobs: &mut [Job<'_>]) -> Result<(), (usize, Error)> {
        let mut done = 0;
        while let Some(rest) = jobs.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let count = fitting(rest, self.kept);
            let now = rest.get_mut(..count).filter(|now| !now.is_empty());
            let now = now.ok_or_else(|| (done, Error::Caller("a job too large for a decoder".into())))?;
            self.round(now).map_err(|(at, error)| (done + at, error))?;
            done += count;
        }
        Ok(())
    }

    fn keep(&mut self, at: usize, bytes: &[u8]) -> Result<(), Error> {
        let end = at.checked_add(bytes.len()).filter(|end| at <= self.kept && *end <= IN_BYTES);
        let end = end.ok_or_else(|| Error::Caller("more than a decoder has room for, or a gap".into()))?;
        self.memory.put(at, bytes);
        self.kept = end;
        Ok(())
    }

    /// A decoder that was taken over may have changed them; whoever makes something of them verifies what was made.
    fn kept(&self, at: usize, bytes: &mut [u8]) -> bool {
        at.checked_add(bytes.len()).is_some_and(|end| end <= self.kept) && self.memory.take(at, bytes)
    }
}

/// How many of these jobs fit into the shared memory together, behind what is kept there.
fn fitting(jobs: &[Job<'_>], kept: usize) -> usize {
    let mut room = (IN_BYTES.saturating_sub(kept), OUT_BYTES);
    let fits = |job: &&Job<'_>| {
        let packed = room.0.checked_sub(job.stored.len());
        let plain = room.1.checked_sub(job.plain.len());
        packed.zip(plain).inspect(|left| room = *left).is_some()
    };
    jobs.iter().take_while(fits).count()
}

impl Decoder {
    /// Does jobs that fit.
    fn round(&mut self, jobs: &mut [Job<'_>]) -> Result<(), (usize, Error)> {
        if let Some(why) = &self.gone {
            return Err((0, gone(why)));
        }
        if let Some(at) = jobs.iter().position(|job| job.prefix > self.kept) {
            return Err((at, Error::Caller("a prefix was not kept".into())));
        }
        match self.ask(jobs) {
            Ok(None) => Ok(()),
            Ok(Some(wrong)) => Err(wrong),
            Err(error) => {
                let why = format!("{}: {error}", self.process.end());
                log::error!("{why}");
                let failed = gone(&why);
                self.gone = Some(why);
                Err((0, failed))
            }
        }
    }

    /// What the decoder says is wrong with one of the jobs, if anything.
    fn ask(&mut self, jobs: &mut [Job<'_>]) -> io::Result<Option<(usize, Error)>> {
        let (mut table, mut offset) = (Vec::with_capacity(13 * jobs.len()), self.kept);
        let start = (offset as u64).to_le_bytes();
        for job in &*jobs {
            table.push(u8::from(job.packing == Packing::Zstd));
            self.memory.put(offset, job.stored);
            offset += job.stored.len();
            for length in [job.prefix, job.stored.len(), job.plain.len()] {
                table.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        frame::write(&mut &self.socket, EXPAND, &[&start, &table])?;
        let answer = frame::read(&mut &self.socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if let Some(wrong) = read_answer(answer, jobs)? {
            return Ok(Some(wrong));
        }
        let mut offset = IN_BYTES;
        for job in jobs {
            self.memory.take(offset, job.plain);
            offset += job.plain.len();
        }
        Ok(None)
    }
}

/// Reads what a decoder says of jobs: which is wrong and why, or nothing.
pub(super) fn read_answer(mut answer: Frame, jobs: &[Job<'_>]) -> io::Result<Option<(usize, Error)>> {
    if answer.kind == DONE {
        return Ok(None);
    }
    let at = usize::try_from(answer.number()?).unwrap_or(usize::MAX);
    let limit = jobs.get(at).map(|job| job.plain.len());
    let limit = limit.ok_or_else(|| frame::broken(format!("it speaks of job {at} of {}", jobs.len())))?;
    match Sort::of(answer.kind) {
        Some(sort) => Ok(Some((at, sort.error(limit, frame::printable(&answer.text()?))))),
        None => Err(frame::broken(format!("an answer of kind {}", answer.kind))),
    }
}

fn gone(why: &str) -> Error {
    let failure = Failure::new(Code::RoleFailed, format!("{why}; nothing it gave was used; try again"));
    Error::Expander { source: io::Error::other(failure) }
}
