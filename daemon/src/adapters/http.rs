//! The network: bundles by HTTP ranges, the question for updates, and reports.
//!
//! What comes from here is never trusted. The bundle reader verifies every byte; this module's duty is that a bad line
//! or a hostile server costs bounded time and memory, that bytes of one file are not mixed with those of another, and
//! that a person learns from the message what to do. It reads no file and writes none.
//!
//! A proxy is taken from the environment (`HTTPS_PROXY`, `NO_PROXY`, …), as systemd units set it.

mod ahead;
mod board;
mod certificate;
mod client;
mod input;
#[cfg(feature = "testing")]
mod memory;
mod papers;
mod parts;
mod patience;
mod place;
mod plan;
mod range;
mod span;
mod stream;
mod tls;

pub use certificate::{Security, Times};
pub use papers::{Paper, Papers};

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::StatusCode;

use self::client::{Client, Reply, Trouble, from_status, from_ureq, header};
use self::input::HttpInput;
use self::place::Place;
use self::tls::Tls;
use crate::failure::{Code, Failure};
use crate::ports::{Answer, Fetch, Offer, Question, Receipt, Stop};
use otad_bundle::{Digest, Input};

/// Bytes of an answer that is not a bundle; an offer has a few hundred.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Characters of a version number as the server gives it; it is only shown.
const MAX_VERSION_CHARS: usize = 128;

/// How long and how often the network may disappoint. Every phase has a limit; none is endless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Looking up a name.
    pub resolve: Duration,
    /// Connecting, over all addresses of the name, TLS included.
    pub connect: Duration,
    /// Sending a request.
    pub send: Duration,
    /// From the end of the request to the end of the answer's header.
    pub answer: Duration,
    /// Silence in the middle of a transfer.
    pub idle: Duration,
    /// A whole question or report, from the look-up to the last byte.
    pub exchange: Duration,
    /// Tries in a row, without progress in between, before a transfer fails.
    pub tries: u32,
    /// Wait after the first failed try; it doubles with each one after it, and up to half of it is cut off at random.
    pub backoff_first: Duration,
    /// Longest such wait.
    pub backoff_longest: Duration,
    /// Longest `Retry-After` that a transfer waits for instead of failing.
    pub busy_wait: Duration,
    /// Time spent waiting for bytes after which the rate is judged.
    pub window: Duration,
    /// Bytes that must arrive per window; and as many make a try one with progress.
    pub window_bytes: u64,
    /// Bytes asked for at first, before it is known what is wanted.
    pub opening: u64,
    /// Bytes asked for after a jump.
    pub first_span: u64,
    /// Bytes asked for at once after reading on for long.
    pub longest_span: u64,
    /// Bytes that are rather read and dropped than jumped over.
    pub skip: u64,
    /// How far ahead of the reader a request is made, in bytes that will be read; and what each request may hold of them.
    /// 0: nothing is fetched ahead.
    pub ahead: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // A resolver with three servers and one retry needs 5 to 10 seconds to give up on the first two.
            resolve: Duration::from_secs(15),
            // Four handshake round trips over a satellite or a congested mobile cell.
            connect: Duration::from_secs(20),
            send: Duration::from_secs(20),
            // A cache that first fetches the file from elsewhere is slow to begin.
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            exchange: Duration::from_secs(60),
            // With the waits below about two minutes: longer than a cell change or the restart of a server, short
            // enough for somebody who watches. The next poll tries again anyway, and nothing fetched is lost.
            tries: 8,
            backoff_first: Duration::from_millis(500),
            backoff_longest: Duration::from_secs(30),
            busy_wait: Duration::from_secs(60),
            // 136 bytes a second: a tenth of what GPRS gives, many times what somebody who only holds a line gives.
            window: Duration::from_secs(30),
            window_bytes: 4096,
            // What stands before the first index of a usual bundle, and before the first section of a delta. Whoever has read that
            // says what it wants next.
            opening: 4 * 1024,
            // One chunk of average size: after a jump, what follows is often held by another slot.
            first_span: 64 * 1024,
            // At 100 Mbit/s more than a second of data for each round trip, and the most a jump can throw away.
            longest_span: 16 * 1024 * 1024,
            // What a typical line carries in the time that a new request would take.
            skip: 256 * 1024,
            // What 20 Mbit/s bring in a round trip of 100 ms; as much again is on its way from the fetcher to the daemon. More would be
            // lost when power is cut.
            ahead: 256 * 1024,
        }
    }
}

/// The real network. One value serves the whole daemon; every bundle that is opened has its own connections.
#[derive(Debug)]
pub struct HttpFetch {
    server: Option<Place>,
    limits: Limits,
    /// How encrypted connections are made; or why none can be, which is no reason to make others.
    tls: Result<Tls, Failure>,
    line: RwLock<Line>,
    /// When the server wants to be asked again; 0 when it did not say.
    interval_seconds: AtomicU32,
}

/// Who asks, and the connections on which it has said so.
#[derive(Debug, Clone)]
struct Line {
    user_agent: String,
    polling: Result<Client, Failure>,
}

impl HttpFetch {
    /// Makes a fetcher. `server` is the update server's URL, if there is one; `user_agent` is sent with each request.
    pub fn new(server: Option<&str>, user_agent: &str) -> Result<Self, Failure> {
        HttpFetch::with_limits(server, user_agent, Limits::default())
    }

    /// Makes a fetcher with limits of its own.
    pub fn with_limits(server: Option<&str>, user_agent: &str, limits: Limits) -> Result<Self, Failure> {
        let server = server.map(parse_server).transpose()?;
        let tls = Tls::new(&Security::public(Times::bounded(|| 0)), server.as_ref());
        let line = RwLock::new(Line::new(user_agent, &limits, &tls));
        Ok(HttpFetch { server, limits, tls, line, interval_seconds: AtomicU32::new(0) })
    }

    /// The same with other ideas of who may be at the other end.
    #[must_use]
    pub fn secured(self, security: Result<Security, Failure>) -> Self {
        let tls = security.and_then(|security| Tls::new(&security, self.server.as_ref()));
        let line = RwLock::new(Line::new(&self.line().user_agent, &self.limits, &tls));
        HttpFetch { tls, line, ..self }
    }

    /// Every connection gives these bytes, whatever was asked; for tests with hostile answers.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn answering(self, bytes: &[u8]) -> Self {
        let tls = self.tls.map(|tls| tls.answering(bytes));
        let line = RwLock::new(Line::new("test", &self.limits, &tls));
        HttpFetch { tls, line, ..self }
    }

    fn line(&self) -> Line {
        self.line.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What to ask the update server with.
    fn polling(&self) -> Result<Client, Failure> {
        let tls = self.tls.as_ref().map_err(Clone::clone)?;
        tls.check_identity()?;
        Ok(self.line().polling?.showing(tls.token()?))
    }

    fn server(&self) -> Result<&Place, Failure> {
        let next = "no update server is configured; set url in [server] of otad.toml";
        self.server.as_ref().ok_or_else(|| Failure::new(Code::Config, next))
    }
}

impl Line {
    fn new(user_agent: &str, limits: &Limits, tls: &Result<Tls, Failure>) -> Self {
        let polling = tls.as_ref().map(|tls| Client::new(user_agent, limits, tls)).map_err(Clone::clone);
        Line { user_agent: user_agent.to_owned(), polling }
    }
}

impl Fetch for HttpFetch {
    fn open(&self, url: &str, stop: &Stop) -> Result<Box<dyn Input + Send>, Failure> {
        let place =
            Place::parse(url).map_err(|error| Failure::new(Code::InvalidSource, error.to_string()))?;
        let tls = self.tls.as_ref().map_err(Clone::clone)?;
        let client = Client::new(&self.line().user_agent, &self.limits, tls);
        Ok(Box::new(HttpInput::open(client, place, self.limits.clone(), stop.clone())?))
    }

    fn check(&self, question: &Question) -> Result<Answer, Failure> {
        let server = self.server()?;
        let sequence = question.sequence.to_string();
        let release = question.release.map(|release| release.to_string());
        let mut query = vec![
            ("device", question.device.as_str()),
            ("compatible", question.compatible.as_str()),
            ("version", question.version.as_str()),
            ("sequence", sequence.as_str()),
        ];
        query.extend(release.as_deref().map(|release| ("release", release)));
        let told = [("boot_id", question.boot_id.as_str()), ("state", question.state.as_str())];
        query.extend(told.into_iter().filter(|(_, word)| !word.is_empty()));
        let place = server.with("/device/v1/update", &query).map_err(no_url)?;
        let reply = self.polling()?.ask(&place, &self.limits).map_err(|trouble| trouble.failure)?;
        let interval = header(reply.response.headers(), "otad-interval").ok().flatten();
        let seconds = interval.and_then(|text| text.parse().ok()).unwrap_or(0);
        self.interval_seconds.store(seconds, Ordering::Relaxed);
        match reply.response.status() {
            StatusCode::NO_CONTENT => Ok(Answer::Nothing),
            StatusCode::OK => Ok(Answer::Offer(offer(&small_body(reply)?, server)?)),
            _ => Err(from_status(&reply).failure),
        }
    }

    fn channel(&self, compatible: &str) -> Result<Option<Vec<u8>>, Failure> {
        let place =
            self.server()?.with("/device/v1/channel", &[("compatible", compatible)]).map_err(no_url)?;
        let reply = self.polling()?.ask(&place, &self.limits).map_err(|trouble| trouble.failure)?;
        match reply.response.status() {
            // A server from before there were channel documents knows no such place.
            StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => small_body(reply).map(Some),
            _ => Err(from_status(&reply).failure),
        }
    }

    fn ready(&self) -> Result<(), Failure> {
        self.server.as_ref().map_or(Ok(()), |_| self.polling().map(drop))
    }

    fn report(&self, body: &str) -> Result<Receipt, Failure> {
        let place = self.server()?.with("/device/v1/reports", &[]).map_err(no_url)?;
        let reply =
            self.polling()?.post_json(&place, body, &self.limits).map_err(|trouble| trouble.failure)?;
        match reply.response.status() {
            status if status.is_success() => Ok(Receipt::Taken),
            // What these say of a body does not change when it is sent again.
            status @ (StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY) => Ok(Receipt::Refused(status.to_string())),
            _ => Err(from_status(&reply).failure),
        }
    }

    fn progress(&self, body: &str) -> Result<Receipt, Failure> {
        let place = self.server()?.with("/device/v1/progress", &[]).map_err(no_url)?;
        let reply =
            self.polling()?.post_json(&place, body, &self.limits).map_err(|trouble| trouble.failure)?;
        match reply.response.status() {
            status if status.is_success() => Ok(Receipt::Taken),
            // A server from before there was progress knows no such place.
            status => Ok(Receipt::Refused(status.to_string())),
        }
    }

    fn interval(&self) -> Option<Duration> {
        let seconds = self.interval_seconds.load(Ordering::Relaxed);
        (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
    }

    fn introduce(&self, user_agent: &str) {
        let mut line = self.line.write().unwrap_or_else(PoisonError::into_inner);
        if line.user_agent != user_agent {
            *line = Line::new(user_agent, &self.limits, &self.tls);
        }
    }
}

/// The answer to a check as it is on the wire; fields that are not known are left alone.
#[derive(Deserialize)]
struct WireOffer {
    version: String,
    release: String,
    url: String,
    #[serde(default)]
    delta: Option<WireDelta>,
}

/// A delta from the release that the device said it runs.
#[derive(Deserialize)]
struct WireDelta {
    url: String,
}

fn offer(body: &[u8], server: &Place) -> Result<Offer, Failure> {
    let wire: WireOffer = serde_json::from_slice(body).map_err(unusable)?;
    let release: Digest = wire.release.parse().map_err(|error| unusable(format!("release: {error}")))?;
    let place = server.join(&wire.url).map_err(|error| unusable(format!("url: {error}")))?;
    let delta = wire.delta.map(|delta| server.join(&delta.url)).transpose();
    let delta = delta.map_err(|error| unusable(format!("url of the delta: {error}")))?;
    let delta = delta.map(|place| place.uri().to_string());
    let offer = Offer { release, version: wire.version, url: place.uri().to_string(), delta };
    check_offer(&offer)?;
    Ok(offer)
}

/// Refuses an offer that cannot be shown to anybody; it may come from another process that was taken over.
///
/// # Errors
/// The code of any answer that is of no use.
pub fn check_offer(offer: &Offer) -> Result<(), Failure> {
    let urls = std::iter::once(&offer.url).chain(&offer.delta);
    if urls.into_iter().any(|url| Place::parse(url).is_err()) {
        return Err(unusable("a URL of the offer is none"));
    }
    if offer.version.chars().count() > MAX_VERSION_CHARS || offer.version.chars().any(char::is_control) {
        return Err(unusable(format!(
            "version is longer than {MAX_VERSION_CHARS} characters or not printable"
        )));
    }
    Ok(())
}

/// Refuses what is no URL of an update server.
///
/// # Errors
/// [`Code::Config`].
pub fn check_url(url: &str) -> Result<(), Failure> {
    parse_server(url).map(drop)
}

fn parse_server(url: &str) -> Result<Place, Failure> {
    Place::parse(url).map_err(|error| Failure::new(Code::Config, format!("[server] url: {error}")))
}

fn small_body(mut reply: Reply) -> Result<Vec<u8>, Failure> {
    if is_html(&reply) {
        return Err(portal(&reply.place).failure);
    }
    let body = reply.response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
    body.map_err(|error| from_ureq(error, &reply.place).failure)
}

fn no_url(error: place::PlaceError) -> Failure {
    Failure::new(Code::Config, format!("[server] url cannot be asked for updates: {error}"))
}

fn unusable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::NetStatus, format!("the update server's answer is of no use: {error}"))
}

/// Whether a person's browser was meant: bundles and answers to devices are never web pages.
fn is_html(reply: &Reply) -> bool {
    let kind = header(reply.response.headers(), "content-type").ok().flatten().unwrap_or_default();
    kind.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("text/html"))
}

fn portal(place: &Place) -> Trouble {
    let message =
        format!("{place} gave a web page; does this network want somebody to log in first (captive portal)?");
    Trouble::last(Code::NotABundle, message)
}
