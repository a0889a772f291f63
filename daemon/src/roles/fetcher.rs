//! The network, through a fetcher: what the daemon itself would do if it had any.
//!
//! Questions share a fetcher as long as they follow each other; a bundle has one of its own, for as long as it is open. Secrets of this
//! device are read here, each time anew, and handed over: a fetcher need not be able to read them.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use otad_bundle::{Digest, Input};

use super::Role;
use super::fetch::{Setup, answered, asked, write_question};
use super::frame::{self, Frame, broken, printable};
use super::input::{STOP_LATENCY, SeparateInput, is_silence, lost};
use super::process::Process;
use crate::adapters::http::{Papers, check_offer, check_url};
use crate::config::Server;
use crate::failure::{Code, Failure};
use crate::ports::{Answer, Fetch, Offer, Question, Receipt, Stop};

/// Longest wait for the answer to a question: more than the fetcher's own limits come to, so that those strike first.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where fetchers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This daemon starts them.
    Child,
    /// Whoever listens at this socket does: systemd, by `otad-fetch.socket`.
    Socket(PathBuf),
}

/// The network, through fetchers.
pub struct SeparateFetch {
    place: Place,
    server: Option<Server>,
    earliest: Arc<dyn Fn() -> u64 + Send + Sync>,
    user_agent: RwLock<String>,
    /// The fetcher that was asked last.
    line: Mutex<Option<Line>>,
    /// When the server wants to be asked again, in seconds; 0 when it did not say.
    interval: AtomicU64,
}

/// A fetcher that knows who asks.
struct Line {
    setup: Setup,
    socket: UnixStream,
    process: Option<Process>,
}

impl SeparateFetch {
    /// Makes the network of a device; `earliest` is the earliest that it can be, in seconds since 1970.
    ///
    /// # Errors
    /// [`Code::Config`]: the server's URL is none.
    pub fn new(
        place: Place,
        server: Option<&Server>,
        earliest: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<SeparateFetch, Failure> {
        if let Some(server) = server {
            check_url(&server.url)?;
            // No reason not to start: whoever comes to repair the files needs otad.
            if let Err(failure) = Papers::read(server) {
                log::error!("{}: {failure}; the server cannot be asked", failure.code);
            }
        }
        Ok(SeparateFetch {
            place,
            server: server.cloned(),
            earliest: Arc::new(earliest),
            user_agent: RwLock::new("otad".to_owned()),
            line: Mutex::new(None),
            interval: AtomicU64::new(0),
        })
    }

    /// The same with a fetcher at the other end of this socket, which knows who asks.
    #[cfg(feature = "testing")]
    pub(super) fn speaking_through(self, socket: UnixStream) -> Result<SeparateFetch, Failure> {
        let setup = self.setup(Papers::default());
        let line = Some(Line { setup, socket, process: None });
        Ok(SeparateFetch { line: Mutex::new(line), ..self })
    }

    /// What a fetcher is told now.
    fn setup(&self, papers: Papers) -> Setup {
        let user_agent = self.user_agent.read().unwrap_or_else(PoisonError::into_inner).clone();
        let url = self.server.as_ref().map(|server| server.url.clone()).unwrap_or_default();
        Setup { user_agent, earliest: (self.earliest)(), url, papers }
    }

    /// Asks the update server through the fetcher at hand, or a new one.
    fn ask(&self, write: &dyn Fn(&mut UnixStream) -> io::Result<()>) -> Result<Frame, Failure> {
        let next = "no update server is configured; set url in [server] of otad.toml";
        let server = self.server.as_ref().ok_or_else(|| Failure::new(Code::Config, next))?;
        let setup = self.setup(Papers::read(server)?);
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has waited for long may have ended; then another is asked, since it cannot have done anything.
        let kept = line.take().filter(|line| line.setup == setup);
        let (mut asked, frame) = match kept.map(|line| line.ask(write)) {
            Some(Ok(answered)) => answered,
            Some(Err(_)) | None => self.connect(setup)?.ask(write)?,
        };
        let mut frame = frame;
        if frame.kind == answered::FAILED {
            let failure = read_failure(&mut frame).map_err(|error| asked.lost(&error))?;
            *line = Some(asked);
            return Err(failure);
        }
        *line = Some(asked);
        Ok(frame)
    }

    fn connect(&self, setup: Setup) -> Result<Line, Failure> {
        let (process, mut socket) = match &self.place {
            Place::Child => {
                let (process, socket) = Process::start(Role::Fetcher, None)?;
                (Some(process), socket)
            }
            Place::Socket(path) => {
                let socket = UnixStream::connect(path).map_err(|error| {
                    let what = format!("no fetcher at {}: {error}", path.display());
                    Failure::new(Code::RoleFailed, format!("{what}; run systemctl start otad-fetch.socket"))
                })?;
                (None, socket)
            }
        };
        let prepare = |socket: &mut UnixStream| {
            socket.set_read_timeout(Some(STOP_LATENCY))?;
            setup.write(socket)
        };
        match prepare(&mut socket) {
            Ok(()) => Ok(Line { setup, socket, process }),
            Err(error) => Err(Line { setup, socket, process }.lost(&error)),
        }
    }
}

impl Line {
    fn ask(mut self, write: &dyn Fn(&mut UnixStream) -> io::Result<()>) -> Result<(Line, Frame), Failure> {
        let stop = Stop::default();
        write(&mut self.socket).map_err(|error| self.lost(&error))?;
        match answer(&self.socket, &stop, Some(PATIENCE)) {
            Ok(frame) => Ok((self, frame)),
            Err(error) => Err(self.lost(&error)),
        }
    }

    fn lost(&mut self, error: &io::Error) -> Failure {
        lost(self.process.as_mut(), error)
    }
}

/// Waits for an answer, until somebody asks to stop or patience ends.
fn answer(socket: &UnixStream, stop: &Stop, patience: Option<Duration>) -> io::Result<Frame> {
    let began = Instant::now();
    let mut patient = Patient { socket, stop, until: patience.map(|patience| began + patience) };
    frame::read(&mut patient)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Reads a socket with a short time limit again and again.
struct Patient<'a> {
    socket: &'a UnixStream,
    stop: &'a Stop,
    until: Option<Instant>,
}

impl io::Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(buffer) {
                Err(error) if is_silence(&error) => {}
                other => return other,
            }
            if self.stop.requested() {
                let failure = Failure::new(Code::Cancelled, "the transfer was cancelled");
                return Err(io::Error::other(failure));
            }
            if self.until.is_some_and(|until| Instant::now() > until) {
                return Err(broken("it gives no answer".to_owned()));
            }
        }
    }
}

fn read_failure(frame: &mut Frame) -> io::Result<Failure> {
    let code = frame.text()?;
    let code = Code::from_text(&code).ok_or_else(|| broken(format!("there is no code `{code}`")))?;
    Ok(Failure::new(code, printable(&frame.text()?)))
}

/// What of an answer cannot be read is the fetcher's fault.
fn unreadable(error: io::Error) -> Failure {
    lost(None, &error)
}

impl Fetch for SeparateFetch {
    fn open(&self, url: &str, stop: &Stop) -> Result<Box<dyn Input + Send>, Failure> {
        // A bundle may come from anywhere: secrets that cannot be read stop only what is for the update server.
        let papers = match &self.server {
            Some(server) => Papers::read(server).or_else(|failure| {
                log::warn!("{}: {failure}; this device shows no certificate", failure.code);
                Papers::believed(server)
            })?,
            None => Papers::default(),
        };
        let mut line = self.connect(self.setup(papers))?;
        frame::write(&mut line.socket, asked::OPEN, &[url.as_bytes()]).map_err(|error| line.lost(&error))?;
        let mut frame = answer(&line.socket, stop, None).map_err(|error| {
            crate::failure::failure_of(&error).cloned().unwrap_or_else(|| line.lost(&error))
        })?;
        if frame.kind == answered::FAILED {
            return Err(read_failure(&mut frame).map_err(|error| line.lost(&error))?);
        }
        let (length, ranges) =
            frame.number().and_then(|length| Ok((length, frame.number()?))).map_err(unreadable)?;
        let Line { socket, process, .. } = line;
        Ok(Box::new(SeparateInput::new(socket, process, stop, length, ranges != 0)))
    }

    fn check(&self, question: &Question) -> Result<Answer, Failure> {
        let mut frame = self.ask(&|socket| write_question(question, socket))?;
        self.interval.store(frame.number().map_err(unreadable)?, Ordering::Relaxed);
        if frame.kind == answered::NOTHING {
            return Ok(Answer::Nothing);
        }
        let read = |frame: &mut Frame| -> io::Result<Offer> {
            let release =
                frame.bytes()?.try_into().map_err(|_| broken("a release has not 32 bytes".to_owned()))?;
            let (version, url, delta) = (frame.text()?, frame.text()?, frame.text()?);
            let delta = (!delta.is_empty()).then_some(delta);
            Ok(Offer { release: Digest(release), version, url, delta })
        };
        let offer = read(&mut frame).map_err(unreadable)?;
        check_offer(&offer)?;
        Ok(Answer::Offer(offer))
    }

    fn channel(&self, compatible: &str) -> Result<Option<Vec<u8>>, Failure> {
        let mut frame = self.ask(&|socket| frame::write(socket, asked::CHANNEL, &[compatible.as_bytes()]))?;
        if frame.kind == answered::NOTHING {
            return Ok(None);
        }
        Ok(Some(frame.bytes().map_err(unreadable)?.to_vec()))
    }

    fn ready(&self) -> Result<(), Failure> {
        match &self.server {
            Some(_) => self.ask(&|socket| frame::write(socket, asked::READY, &[])).map(drop),
            None => Ok(()),
        }
    }

    fn report(&self, body: &str) -> Result<Receipt, Failure> {
        receipt(self.ask(&|socket| frame::write(socket, asked::REPORT, &[body.as_bytes()]))?)
    }

    fn progress(&self, body: &str) -> Result<Receipt, Failure> {
        receipt(self.ask(&|socket| frame::write(socket, asked::PROGRESS, &[body.as_bytes()]))?)
    }

    fn interval(&self) -> Option<Duration> {
        let seconds = self.interval.load(Ordering::Relaxed);
        (seconds > 0).then(|| Duration::from_secs(seconds.min(u32::MAX.into())))
    }

    fn introduce(&self, user_agent: &str) {
        user_agent.clone_into(&mut self.user_agent.write().unwrap_or_else(PoisonError::into_inner));
    }
}

fn receipt(mut frame: Frame) -> Result<Receipt, Failure> {
    match frame.kind {
        answered::REFUSED => Ok(Receipt::Refused(printable(&frame.text().map_err(unreadable)?))),
        _ => Ok(Receipt::Taken),
    }
}
