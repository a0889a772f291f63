//! The fetcher: asks the update server, and fetches bundles, for a daemon that has no network.
//!
//! The first frame says who asks and what to believe ([`Setup`]). Then questions come one at a time, until one opens a bundle: from then on
//! the socket is that bundle's ([`super::input`]).

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use otad_bundle::{Digest, Input};

use super::frame::{self, Frame, broken};
use super::input::{self, Ask};
use crate::adapters::http::{HttpFetch, Paper, Papers, Security, Times};
use crate::failure::{Failure, failure_of};
use crate::ports::{Answer, Fetch as _, Offer, Question, Receipt, Stop};
use crate::threads::spawn;

/// Without a question for so long, a fetcher ends; whoever has one later starts another.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes that are taken from the network at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Kinds of questions.
pub(super) mod asked {
    pub(in crate::roles) const SETUP: u8 = 1;
    pub(in crate::roles) const CHECK: u8 = 2;
    pub(in crate::roles) const CHANNEL: u8 = 3;
    pub(in crate::roles) const READY: u8 = 4;
    pub(in crate::roles) const REPORT: u8 = 5;
    pub(in crate::roles) const PROGRESS: u8 = 6;
    pub(in crate::roles) const OPEN: u8 = 7;
}

/// Kinds of answers.
pub(super) mod answered {
    pub(in crate::roles) const FAILED: u8 = 0;
    pub(in crate::roles) const DONE: u8 = 1;
    pub(in crate::roles) const NOTHING: u8 = 2;
    pub(in crate::roles) const REFUSED: u8 = 3;
}

/// What a fetcher is told first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) user_agent: String,
    /// The earliest that it can be, in seconds since 1970.
    pub(super) earliest: u64,
    /// The update server; empty when there is none.
    pub(super) url: String,
    pub(super) papers: Papers,
}

impl Setup {
    pub(super) fn write(&self, to: &mut UnixStream) -> io::Result<()> {
        let Papers { ca, pins, identity, token } = &self.papers;
        let pins: Vec<u8> = pins.iter().flat_map(|pin| pin.0).collect();
        let (certificate, key) = identity.as_ref().map_or((None, None), |(one, two)| (Some(one), Some(two)));
        let earliest = self.earliest.to_le_bytes();
        let mut fields: Vec<&[u8]> = vec![self.user_agent.as_bytes(), &earliest, self.url.as_bytes(), &pins];
        for paper in [ca.as_ref(), certificate, key, token.as_ref()] {
            let path = paper.map(|paper| paper.path.as_os_str().as_encoded_bytes());
            fields.extend([path.unwrap_or_default(), paper.map_or(&[], |paper| paper.text.as_bytes())]);
        }
        frame::write(to, asked::SETUP, &fields)
    }

    fn read(frame: &mut Frame) -> io::Result<Setup> {
        let (user_agent, earliest, url) = (frame.text()?, frame.number()?, frame.text()?);
        let pins = frame.bytes()?.as_chunks::<32>().0.iter().map(|pin| Digest(*pin)).collect();
        let mut paper = || -> io::Result<Option<Paper>> {
            let (path, text) = (PathBuf::from(frame.text()?), frame.text()?);
            Ok((!path.as_os_str().is_empty()).then_some(Paper { path, text }))
        };
        let (ca, certificate, key, token) = (paper()?, paper()?, paper()?, paper()?);
        let papers = Papers { ca, pins, identity: certificate.zip(key), token };
        Ok(Setup { user_agent, earliest, url, papers })
    }

    fn fetch(self) -> Result<HttpFetch, Failure> {
        let url = (!self.url.is_empty()).then_some(self.url.as_str());
        let fetch = HttpFetch::new(url, &self.user_agent)?;
        Ok(fetch.secured(Security::given(self.papers, Times::bounded(move || self.earliest))))
    }
}

/// Answers what comes through standard input.
pub(super) fn serve() -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    leave_with(socket.try_clone()?)?;
    socket.set_read_timeout(Some(IDLE))?;
    let Some(mut first) = next(&mut socket)? else { return Ok(()) };
    if first.kind != asked::SETUP {
        return Err(broken("it did not say who asks".to_owned()));
    }
    let fetch = Setup::read(&mut first)?.fetch();
    while let Some(mut question) = next(&mut socket)? {
        let opened = match &fetch {
            Ok(fetch) => answer(fetch, &mut question, &mut socket)?,
            Err(failure) => fail(&mut socket, failure).map(|()| None)?,
        };
        if let Some(input) = opened {
            socket.set_read_timeout(None)?;
            return serve_input(input, &mut socket);
        }
    }
    Ok(())
}

/// The next question; `None` when there was none for long, or will be none.
fn next(socket: &mut UnixStream) -> io::Result<Option<Frame>> {
    match frame::read(socket) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
        other => other,
    }
}

/// Ends this process as soon as nobody listens: then nothing that is under way matters.
fn leave_with(socket: UnixStream) -> io::Result<()> {
    let watch = move || {
        let mut watched = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        // Nothing is asked for but the end of the other side, which is always told.
        let _ = poll(&mut watched, PollTimeout::NONE);
        std::process::exit(0);
    };
    spawn("leave", watch).map_err(|failure| io::Error::other(failure.message))
}

/// Answers a question; with the bundle, if it opened one.
fn answer(
    fetch: &HttpFetch,
    question: &mut Frame,
    socket: &mut UnixStream,
) -> io::Result<Option<Box<dyn Input + Send>>> {
    let answered = match question.kind {
        asked::CHECK => fetch.check(&read_question(question)?).map(|answer| say_offer(fetch, &answer)),
        asked::CHANNEL => fetch.channel(&question.text()?).map(|document| match document {
            Some(document) => (answered::DONE, vec![document]),
            None => (answered::NOTHING, Vec::new()),
        }),
        asked::READY => fetch.ready().map(|()| (answered::DONE, Vec::new())),
        asked::REPORT => fetch.report(&question.text()?).map(say_receipt),
        asked::PROGRESS => fetch.progress(&question.text()?).map(say_receipt),
        asked::OPEN => match fetch.open(&question.text()?, &Stop::default()) {
            Ok(input) => {
                let length = input.length().map_or(u64::MAX, |length| length).to_le_bytes();
                let ranges = u64::from(input.random_access()).to_le_bytes();
                frame::write(socket, answered::DONE, &[&length, &ranges])?;
                return Ok(Some(input));
            }
            Err(failure) => Err(failure),
        },
        other => return Err(broken(format!("a question of kind {other}"))),
    };
    match answered {
        Ok((kind, fields)) => {
            let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
            frame::write(socket, kind, &fields)?;
        }
        Err(failure) => fail(socket, &failure)?,
    }
    Ok(None)
}

fn fail(socket: &mut UnixStream, failure: &Failure) -> io::Result<()> {
    frame::write(socket, answered::FAILED, &[failure.code.as_str().as_bytes(), failure.message.as_bytes()])
}

fn say_offer(fetch: &HttpFetch, answer: &Answer) -> (u8, Vec<Vec<u8>>) {
    let interval = fetch.interval().map_or(0, |interval| interval.as_secs()).to_le_bytes().to_vec();
    match answer {
        Answer::Nothing => (answered::NOTHING, vec![interval]),
        Answer::Offer(Offer { release, version, url, delta }) => {
            let delta = delta.clone().unwrap_or_default();
            let fields = [release.0.to_vec(), version.clone().into(), url.clone().into(), delta.into()];
            (answered::DONE, std::iter::once(interval).chain(fields).collect())
        }
    }
}

fn say_receipt(receipt: Receipt) -> (u8, Vec<Vec<u8>>) {
    match receipt {
        Receipt::Taken => (answered::DONE, Vec::new()),
        Receipt::Refused(why) => (answered::REFUSED, vec![why.into()]),
    }
}

pub(super) fn write_question(question: &Question, to: &mut UnixStream) -> io::Result<()> {
    let Question { device, compatible, version, sequence, release, boot_id, state } = question;
    let release = release.map_or(Vec::new(), |release| release.0.to_vec());
    let sequence = sequence.to_le_bytes();
    let texts = [device, compatible, version].map(|text| text.as_bytes());
    let [device, compatible, version] = texts;
    let fields = [device, compatible, version, &sequence, &release, boot_id.as_bytes(), state.as_bytes()];
    frame::write(to, asked::CHECK, &fields)
}

fn read_question(frame: &mut Frame) -> io::Result<Question> {
    let (device, compatible, version) = (frame.text()?, frame.text()?, frame.text()?);
    let sequence = frame.number()?;
    let release = frame.bytes()?.try_into().ok().map(Digest);
    Ok(Question {
        device,
        compatible,
        version,
        sequence,
        release,
        boot_id: frame.text()?,
        state: frame.text()?,
    })
}

/// Gives the daemon the parts of a bundle that it asks for.
pub(super) fn serve_input(mut input: Box<dyn Input + Send>, socket: &mut UnixStream) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut position = 0;
    while let Some(mut question) = frame::read(socket)? {
        match Ask::read(&mut question)? {
            Ask::Expect(extents) => input.expect(extents),
            Ask::Read { offset, length } => {
                let done = send(&mut input, (&mut position, offset), length, &mut piece, socket)?;
                if let Err(error) = done {
                    let failure = failure_of(&error).cloned().unwrap_or_else(|| input::read_failed(&error));
                    let text = format!("{}\n{}", failure.code, failure.message);
                    input::Head::failed(&*input, text.len()).write(socket)?;
                    socket.write_all(text.as_bytes())?;
                }
            }
        }
    }
    Ok(())
}

/// Sends a part; what is wrong with the bundle's source is the inner error.
fn send(
    input: &mut Box<dyn Input + Send>,
    (position, offset): (&mut u64, u64),
    length: usize,
    piece: &mut [u8],
    socket: &mut UnixStream,
) -> io::Result<io::Result<()>> {
    if *position != offset {
        if let Err(error) = input.seek_to(offset) {
            return Ok(Err(error));
        }
        *position = offset;
    }
    let mut left = length;
    while left > 0 {
        let room = piece.len().min(left);
        let count = match input.read(piece.get_mut(..room).unwrap_or_default()) {
            Ok(count) => count,
            Err(error) => return Ok(Err(error)),
        };
        input::Head::data(&**input, count).write(socket)?;
        if count == 0 {
            break;
        }
        socket.write_all(piece.get(..count).unwrap_or_default())?;
        *position += count as u64;
        left -= count;
    }
    Ok(Ok(()))
}
