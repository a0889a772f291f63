//! What a misbehaviour is: when a server does what instead of the right answer, and how the install must end.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use otad::adapters::http::{HttpFetch, Limits};
use otad::failure::Code;

use super::super::AGENT;
use super::super::script::{After, Answer, Request, Served, Server, Wire};
use super::device::shelf;
use super::{hasty, hasty_fetch};

/// How an install must end.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// The target holds the image and is armed.
    Resumed,
    /// It failed with this code before anything on the device changed.
    Refused(Code),
    /// It failed with this code while the target was being written.
    Broken(Code),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Resumed => f.pad("resumed"),
            End::Refused(code) => f.pad(&format!("refused {code}")),
            End::Broken(code) => f.pad(&format!("broken off {code}")),
        }
    }
}

/// At which requests a server misbehaves; at all others it answers as HTTP asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    /// The n-th one, from 0. The second one asks for the rest of the metadata.
    Nth(usize),
    /// All.
    Always,
    /// All from the n-th on.
    From(usize),
    /// The first one from the middle of the file on: the target is being written then.
    MiddleOnce,
    /// All from the middle of the file on.
    FromMiddle,
    /// The first one that asks for the last byte.
    LastOnce,
}

/// What a server may look at while it misbehaves.
pub(super) struct Scene<'a> {
    pub(super) request: &'a Request,
    pub(super) file: &'a Served,
    /// What it should send.
    pub(super) right: Answer,
}

/// What it does instead.
pub(super) type Act = Box<dyn Fn(&Scene<'_>, &mut Wire<'_>) -> io::Result<After> + Send + Sync>;

/// Who an install is up against.
pub(super) struct Opponent {
    pub(super) url: String,
    pub(super) fetch: HttpFetch,
    /// Ends the server when it is dropped.
    pub(super) server: Box<dyn Any + Send>,
    /// Somebody cancels the job after this time.
    pub(super) cancel: Option<Duration>,
}

impl Opponent {
    /// A server, fetched from with the usual limits.
    pub(super) fn new(url: String, server: impl Any + Send) -> Opponent {
        Opponent { url, fetch: hasty_fetch(), server: Box::new(server), cancel: None }
    }
}

/// One misbehaviour.
pub(super) struct Case {
    /// Row of the fault matrix.
    pub(super) row: &'static str,
    pub(super) name: String,
    pub(super) end: End,
    /// What the message must say.
    pub(super) words: &'static str,
    begin: Box<dyn FnOnce() -> Opponent + Send>,
}

impl Case {
    /// Starts the server.
    pub(super) fn begin(self) -> Opponent {
        (self.begin)()
    }

    /// A case that brings its own server.
    pub(super) fn of(
        row: &'static str,
        name: impl Into<String>,
        end: End,
        begin: impl FnOnce() -> Opponent + Send + 'static,
    ) -> Case {
        Case { row, name: name.into(), end, words: "", begin: Box::new(begin) }
    }

    /// Asks for words in the message, where the code alone could come from something else.
    pub(super) fn saying(self, words: &'static str) -> Case {
        Case { words, ..self }
    }
}

/// A server that has the bundle and does `act` at some requests.
pub(super) fn case(row: &'static str, name: impl Into<String>, when: When, act: Act, end: End) -> Case {
    case_with(row, name, || served(&shelf().bundle), when, act, end)
}

/// The same with another file.
pub(super) fn case_with(
    row: &'static str,
    name: impl Into<String>,
    file: fn() -> Served,
    when: When,
    act: Act,
    end: End,
) -> Case {
    Case::of(row, name, end, move || {
        let server = misbehaving(file(), when, act);
        Opponent::new(server.url("/x.otab"), server)
    })
}

/// The same for a device with all the patience in the world, whose user has not: the job is cancelled after half a
/// second.
pub(super) fn cancelled(row: &'static str, name: impl Into<String>, when: When, act: Act, end: End) -> Case {
    Case::of(row, name, end, move || {
        let minute = Duration::from_secs(60);
        let limits = Limits {
            answer: minute,
            idle: minute,
            window: minute,
            backoff_first: minute,
            backoff_longest: minute,
            ..hasty()
        };
        let server = misbehaving(served(&shelf().bundle), when, act);
        let fetch = HttpFetch::with_limits(None, AGENT, limits).unwrap();
        let cancel = Some(Duration::from_millis(500));
        Opponent { fetch, cancel, ..Opponent::new(server.url("/x.otab"), server) }
    })
}

/// A file with a strong tag.
pub(super) fn served(bytes: &[u8]) -> Served {
    Served { bytes: bytes.to_vec(), tag: Some("\"v1\"") }
}

fn misbehaving(file: Served, when: When, act: Act) -> Server {
    let done = AtomicBool::new(false);
    Server::start(move |number, request, wire| {
        let (first, last) = request.range().unwrap();
        let middle = first >= file.bytes.len() / 2;
        let now = match when {
            When::Nth(nth) => number == nth,
            When::Always => true,
            When::From(nth) => number >= nth,
            When::FromMiddle => middle,
            When::MiddleOnce => middle && !done.swap(true, Ordering::SeqCst),
            When::LastOnce => last + 1 >= file.bytes.len() && !done.swap(true, Ordering::SeqCst),
        };
        let scene = Scene { request, file: &file, right: file.answer(request) };
        if now { act(&scene, wire) } else { wire.send(&scene.right) }
    })
}

/// Sends the right answer, spoilt.
pub(super) fn spoil(spoil: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Act {
    Box::new(move |scene, wire| wire.send(&spoil(scene.right.clone())))
}

/// Sends something else.
pub(super) fn instead(answer: Answer) -> Act {
    Box::new(move |_, wire| wire.send(&answer))
}

/// Sends these bytes and closes.
pub(super) fn raw(bytes: Vec<u8>) -> Act {
    Box::new(move |_, wire| wire.raw(&bytes).map(|()| After::Close))
}

/// Where an answer stops.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    /// After so many bytes of all of it.
    Answer(usize),
    /// Between header and body.
    Header,
    /// After so many bytes of the body.
    Body(usize),
    /// Before the last byte.
    LastByte,
}

/// Stops in the middle of the right answer.
pub(super) fn cut(at: Cut, after: After) -> Act {
    Box::new(move |scene, wire| {
        send_until(scene, wire, at)?;
        // What was written must leave before a reset does: a reset may overtake bytes in the client's buffer.
        thread::sleep(Duration::from_millis(30));
        Ok(after)
    })
}

/// Stops in the middle of the right answer and holds the line.
pub(super) fn fall_silent(at: Cut) -> Act {
    Box::new(move |scene, wire| {
        send_until(scene, wire, at)?;
        wire.hold()
    })
}

/// Sends the right answer up to a point, then goes on in pieces with pauses.
pub(super) fn drip(at: Cut, piece: usize, pause: Duration) -> Act {
    Box::new(move |scene, wire| {
        let sent = send_until(scene, wire, at)?;
        for bytes in scene.right.bytes()[sent..].chunks(piece) {
            thread::sleep(pause);
            wire.raw(bytes)?;
        }
        Ok(After::Keep)
    })
}

/// Sends a beginning, and then the same over and over.
pub(super) fn endless(beginning: &'static [u8], piece: Vec<u8>, pause: Duration) -> Act {
    Box::new(move |_, wire| {
        wire.raw(beginning)?;
        loop {
            wire.raw(&piece)?;
            thread::sleep(pause);
        }
    })
}

fn send_until(scene: &Scene<'_>, wire: &mut Wire<'_>, at: Cut) -> io::Result<usize> {
    let (bytes, head) = (scene.right.bytes(), scene.right.head().len());
    let count = match at {
        Cut::Answer(count) => count,
        Cut::Header => head,
        Cut::Body(count) => head + count,
        Cut::LastByte => bytes.len() - 1,
    };
    let count = count.min(bytes.len());
    wire.raw(&bytes[..count])?;
    Ok(count)
}
