//! One request: the agent with its timeouts and caps, the redirects, and what an error means for the next try.
//!
//! Redirects are followed here and not by ureq, because each hop has to be judged ([`Place::follow`]).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::http::{HeaderMap, Method, Response, StatusCode, Uri};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, TcpConnector};
use ureq::{Agent, Body, config};
use ureq_proto::Error as ProtocolError;

use super::Limits;
use super::certificate::refusal;
use super::place::Place;
use super::range::retry_after;
use super::tls::Tls;
use crate::failure::{Code, Failure};

/// Bytes of a response's header. Real ones have 1 to 8 KiB; more is an attack on memory.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Redirects that are followed. Storage behind a load balancer needs 2.
const MAX_REDIRECTS: usize = 5;

/// Bytes that a request is put together in; the longest URL fits twice.
const OUTPUT_BUFFER_BYTES: usize = 16 * 1024;

/// What went wrong, and whether the same request may succeed later.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) failure: Failure,
    pub(super) next: Next,
}

/// What to do after a [`Trouble`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it would happen again.
    GiveUp,
    /// The line or the server may recover.
    Retry,
    /// The server asks to come back no earlier than this.
    RetryAfter(std::time::Duration),
}

impl Trouble {
    pub(super) fn last(code: Code, message: String) -> Trouble {
        Trouble { failure: Failure::new(code, message), next: Next::GiveUp }
    }

    pub(super) fn passing(code: Code, message: String) -> Trouble {
        Trouble { failure: Failure::new(code, message), next: Next::Retry }
    }

    pub(super) fn cancelled() -> Trouble {
        Trouble::last(Code::Cancelled, "the transfer was cancelled".to_owned())
    }
}

/// A response, and the place that gave it in the end.
pub(super) struct Reply {
    pub(super) place: Place,
    pub(super) response: Response<Body>,
}

/// Makes requests over connections that are kept while the server likes. A clone shares the connections.
#[derive(Debug, Clone)]
pub(super) struct Client {
    line: Arc<Mutex<Line>>,
    tls: Tls,
    traffic: Arc<Traffic>,
    /// The header that tells the update server who this device is; no other place gets it.
    token: Option<String>,
}

#[derive(Debug)]
struct Line {
    agent: Agent,
    open: bool,
}

/// What a client and those beside it did so far.
#[derive(Debug, Default)]
struct Traffic {
    requests: AtomicU64,
    body_bytes: AtomicU64,
}

impl Client {
    /// Makes a client that has no connection yet.
    pub(super) fn new(user_agent: &str, limits: &Limits, tls: &Tls) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(printable(user_agent))
            .accept_encoding("identity")
            .max_response_header_size(MAX_HEADER_BYTES)
            .output_buffer_size(OUTPUT_BUFFER_BYTES)
            .timeout_resolve(Some(limits.resolve))
            .timeout_connect(Some(limits.connect))
            .timeout_send_request(Some(limits.send))
            .timeout_send_body(Some(limits.send))
            .timeout_recv_response(Some(limits.answer))
            .timeout_per_read(Some(limits.idle))
            .timeout_per_write(Some(limits.idle))
            .build();
        Client::over(config, tls.clone(), Arc::default())
    }

    fn over(config: config::Config, tls: Tls, traffic: Arc<Traffic>) -> Client {
        let agent = agent(config, &tls);
        Client { line: Arc::new(Mutex::new(Line { agent, open: true })), tls, traffic, token: None }
    }

    /// The same, on the same connections, with a token.
    pub(super) fn showing(self, token: Option<String>) -> Client {
        Client { token, ..self }
    }

    /// The token, where it belongs.
    fn token(&self, uri: &Uri) -> Option<&str> {
        self.token.as_deref().filter(|_| self.tls.is_own(uri))
    }

    /// Another one with connections of its own; what both do is counted together.
    pub(super) fn beside(&self) -> Client {
        Client::over(self.line().agent.config().clone(), self.tls.clone(), Arc::clone(&self.traffic))
    }

    /// Breaks every connection, so that whoever waits on one wakes up; no request works afterwards.
    pub(super) fn shut_down(&self) {
        let mut line = self.line();
        line.open = false;
        line.agent.clone().shutdown();
    }

    /// Breaks every connection; later requests make new ones.
    pub(super) fn break_off(&self) {
        let mut line = self.line();
        if line.open {
            let fresh = agent(line.agent.config().clone(), &self.tls);
            std::mem::replace(&mut line.agent, fresh).shutdown();
        }
    }

    /// Counts bytes of a body that came.
    pub(super) fn came(&self, bytes: u64) {
        self.traffic.body_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many requests were made, redirects included.
    pub(super) fn requests(&self) -> u64 {
        self.traffic.requests.load(Ordering::Relaxed)
    }

    /// How many bytes of bodies came.
    pub(super) fn body_bytes(&self) -> u64 {
        self.traffic.body_bytes.load(Ordering::Relaxed)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next request goes over.
    fn agent(&self) -> Agent {
        self.traffic.requests.fetch_add(1, Ordering::Relaxed);
        self.line().agent.clone()
    }

    /// Asks for a file. The body has no time limit of its own: it may be gigabytes over a slow line.
    pub(super) fn get(&self, place: &Place, headers: &[(&str, &str)]) -> Result<Reply, Trouble> {
        follow(place, &Method::GET, |uri| {
            let request = self.agent().get(uri);
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).call()
        })
    }

    /// Asks for a small answer, all of it within `limits.exchange`.
    pub(super) fn ask(&self, place: &Place, limits: &Limits) -> Result<Reply, Trouble> {
        follow(place, &Method::GET, |uri| {
            let request = self.agent().get(uri).config().timeout_global(Some(limits.exchange)).build();
            self.token(uri)
                .into_iter()
                .fold(request, |request, token| request.header("authorization", token))
                .call()
        })
    }

    /// Hands over a small JSON document, within `limits.exchange`.
    pub(super) fn post_json(&self, place: &Place, body: &str, limits: &Limits) -> Result<Reply, Trouble> {
        follow(place, &Method::POST, |uri| {
            let request = self.agent().post(uri).config().timeout_global(Some(limits.exchange)).build();
            let request = self
                .token(uri)
                .into_iter()
                .fold(request, |request, token| request.header("authorization", token));
            request.header("content-type", "application/json").send(body)
        })
    }
}

/// Direct connections or through a proxy, encrypted where the URL says so.
fn agent(config: config::Config, tls: &Tls) -> Agent {
    let connector = ();
    #[cfg(feature = "testing")]
    let connector = connector.chain(tls.memory.clone());
    let connector = connector.chain(ConnectProxyConnector::default());
    let connector = connector.chain(TcpConnector::default()).chain(tls.clone());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

fn follow(
    origin: &Place,
    method: &Method,
    mut send: impl FnMut(&Uri) -> Result<Response<Body>, ureq::Error>,
) -> Result<Reply, Trouble> {
    let refused = |message: String| Trouble::last(Code::NetRedirect, message);
    let mut place = origin.clone();
    for _hop in 0..=MAX_REDIRECTS {
        let response = send(place.uri()).map_err(|error| from_ureq(error, &place))?;
        let keeps_method = match response.status() {
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => false,
            _ => return Ok(Reply { place, response }),
        };
        if method != Method::GET && !keeps_method {
            let message =
                format!("{place} answered a {method} with {}, which would lose its body", response.status());
            return Err(refused(message));
        }
        let location = header(response.headers(), "location")
            .map_err(|twice| refused(format!("redirect from {place}: {twice}")))?
            .ok_or_else(|| refused(format!("redirect from {place} does not say where to")))?;
        place = place
            .follow(location, origin)
            .map_err(|error| refused(format!("redirect from {place}: {error}")))?;
    }
    Err(refused(format!("{origin} redirects more than {MAX_REDIRECTS} times")))
}

/// A header that must be there once at most, and in ASCII.
#[derive(Debug, thiserror::Error)]
#[error("header {0} is there twice or is not ASCII")]
pub(super) struct BadHeader(&'static str);

/// The value of a header that may be there once.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, BadHeader> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(|text| Some(text.trim())).map_err(|_| BadHeader(name)),
        (Some(_), Some(_)) => Err(BadHeader(name)),
    }
}

/// What a status that carries nothing of use means.
pub(super) fn from_status(reply: &Reply) -> Trouble {
    let (place, status, headers) = (&reply.place, reply.response.status(), reply.response.headers());
    // A second or unreadable header of these two only loses advice.
    let advice = header(headers, "retry-after").ok().flatten();
    let date = header(headers, "date").ok().flatten();
    let wait = advice.and_then(|text| retry_after(text, date, std::time::SystemTime::now()));
    let failed = |message: String| Failure::new(Code::NetStatus, message);
    match (status, wait) {
        (StatusCode::NETWORK_AUTHENTICATION_REQUIRED, _) => Trouble::last(
            Code::NotABundle,
            format!(
                "{place} answered {status}: this network wants somebody to log in first (captive portal)"
            ),
        ),
        (
            StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::RANGE_NOT_SATISFIABLE,
            Some(wait),
        ) => {
            let message = format!("{place} is busy ({status}); it asks to come back in {} s", wait.as_secs());
            Trouble { failure: failed(message), next: Next::RetryAfter(wait) }
        }
        (
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT,
            _,
        ) => Trouble::passing(Code::NetStatus, format!("{place} answered {status}")),
        _ => Trouble::last(Code::NetStatus, format!("{place} answered {status}; is the URL right?")),
    }
}

/// What an error of a request, or of reading its body, means.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "ureq's enum is non-exhaustive: new kinds are final failures"
)]
pub(super) fn from_ureq(error: ureq::Error, place: &Place) -> Trouble {
    use ureq::Error::*;
    match error {
        Timeout(phase) => {
            Trouble::passing(Code::NetStalled, format!("{place}: nothing happened for too long ({phase})"))
        }
        Io(error) => match tls_error(&error) {
            Some(error) => from_tls(error, place),
            // What rustls says of it is meant for programmers.
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Trouble::passing(Code::NetFailed, format!("{place}: the connection ended in mid-answer"))
            }
            None => Trouble::passing(Code::NetFailed, format!("{place}: connection failed: {error}")),
        },
        HostNotFound => Trouble::passing(Code::NetFailed, format!("{place}: the name has no address")),
        LargeResponseHeader(..) | Protocol(ProtocolError::HttpParseTooManyHeaders) => Trouble::last(
            Code::SizeExceeded,
            format!(
                "{place}: the header of the answer is larger than {MAX_HEADER_BYTES} bytes or has too many lines"
            ),
        ),
        BodyExceedsLimit(limit) => {
            Trouble::last(Code::SizeExceeded, format!("{place}: the answer is larger than {limit} bytes"))
        }
        Protocol(
            error @ (ProtocolError::TooManyContentLengthHeaders
            | ProtocolError::BadContentLengthHeader
            | ProtocolError::ConflictingBodyHeaders),
        ) => Trouble::last(Code::NetLength, format!("{place}: {error}")),
        // Half an answer of a dying server or middlebox looks like this, so it may pass.
        Protocol(error) => Trouble::passing(Code::NetFailed, format!("{place} does not speak HTTP: {error}")),
        other => Trouble::last(Code::NetFailed, format!("{place}: {other}")),
    }
}

/// Finds what rustls says in an error of the connection.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What an error of the encryption means. There is no going on without it.
fn from_tls(error: &rustls::Error, place: &Place) -> Trouble {
    use rustls::AlertDescription::{
        AccessDenied, BadCertificate, BadRecordMac, CertificateExpired, CertificateRequired,
        CertificateRevoked, CertificateUnknown, HandshakeFailure, InternalError, ProtocolVersion, UnknownCA,
        UnsupportedCertificate,
    };
    use rustls::Error::{AlertReceived, DecryptError, PeerIncompatible};
    if let Some(Failure { code, message }) = refusal(error) {
        return Trouble::last(*code, format!("{place}: no trusted connection: {message}"));
    }
    let untrusted =
        |next: &str| Trouble::last(Code::NetTls, format!("{place}: no trusted connection: {error}; {next}"));
    match error {
        // A record was damaged on the way, here or there: whoever did it cannot read or forge one, and may be gone.
        DecryptError | AlertReceived(BadRecordMac | InternalError) => {
            Trouble::passing(Code::NetFailed, format!("{place}: an encrypted record was damaged: {error}"))
        }
        AlertReceived(
            AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | UnknownCA
            | UnsupportedCertificate,
        ) => untrusted(
            "the server wants another certificate of this device; look at client-certificate in [server]",
        ),
        AlertReceived(ProtocolVersion | HandshakeFailure) | PeerIncompatible(_) => {
            untrusted("the server has to speak TLS 1.3")
        }
        _ => untrusted("look at the server's certificate"),
    }
}

/// What an error of reading a body through `io::Read` means.
pub(super) fn from_body(error: io::Error, place: &Place) -> Trouble {
    // ureq's own conversion unpacks what ureq packed and wraps the rest as `Io`.
    from_ureq(ureq::Error::from(error), place)
}

/// A header value may hold neither line ends nor anything beyond ASCII; the parts come from a configuration file.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_agent_cannot_smuggle_headers() {
        assert_eq!(printable("otad/1 (größe;\r\nx: y)"), "otad/1 (gr??e;??x: y)");
    }
}
