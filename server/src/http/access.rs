//! Who is an operator, and who is a device: whoever holds a token. On a server without any, whoever sits on the same machine is
//! an operator, until the first operator gets a token. Every request to a route of operators passes [`require_operator`]; every change is written into the audit log there.

use std::convert::Infallible;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{ApiError, App, Certified, Peer, routes};
use crate::role::Role;
use crate::store::hash;

/// Longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 1024;
/// Shorter tokens can be guessed over the network: 16 characters of base64 are 96 bits.
const MIN_TOKEN_BYTES: usize = 16;
/// What a proxy on this machine adds. With one in front, "from this machine" says nothing about who asks.
const PROXY_HEADERS: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Longest path in the audit log.
const MAX_SUBJECT_CHARS: usize = 512;
/// What stands before a token that is named as the protocol of a WebSocket, as it is or in base64url without padding: a token may
/// have characters that no protocol's name has.
const BEARER_PROTOCOL: &str = "bearer.";
const BEARER64_PROTOCOL: &str = "bearer64.";

/// The rule by which an operator is recognised.
pub enum Access {
    /// Requests from this machine's own addresses that no proxy or browser page sent.
    LoopbackOnly,
    /// Requests with this token. Only its hash is kept: equal lengths make the comparison simple.
    Token([u8; 32]),
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Access::LoopbackOnly => "LoopbackOnly",
            Access::Token(_) => "Token(…)",
        })
    }
}

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its content is no token.
    #[error("{path} holds no usable token: {problem}; `openssl rand -base64 32` makes a good one")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Access {
    /// Reads a token file: one line of visible ASCII, 16 to 1024 bytes.
    pub fn from_token_file(path: &Path) -> Result<Access, TokenError> {
        let unreadable = |source| TokenError::Read { path: path.to_path_buf(), source };
        let mut file = fs::File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        // One byte more than allowed plus line end, so that a longer file shows itself.
        let most = u64::try_from(MAX_TOKEN_BYTES).unwrap_or(u64::MAX) + 3;
        file.by_ref().take(most).read_to_string(&mut text).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            log::warn!("{} can be read by others (mode {:04o}): chmod 600 it", path.display(), mode & 0o7777);
        }
        let token = text.trim_end_matches(['\r', '\n']);
        let problem = if !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len()) {
            Some(format!("{} bytes, allowed are {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES}", token.len()))
        } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Some("a space or a character that is not ASCII".into())
        } else {
            None
        };
        match problem {
            Some(problem) => Err(TokenError::Content { path: path.to_path_buf(), problem }),
            None => Ok(Access::Token(Sha256::digest(token).into())),
        }
    }

    fn check(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Result<(), ApiError> {
        match self {
            Access::Token(expected) => {
                let given: [u8; 32] = Sha256::digest(token_of(headers).unwrap_or_default()).into();
                if bool::from(given.ct_eq(expected)) {
                    return Ok(());
                }
                let message =
                    "this needs `Authorization: Bearer` with the token of the server's --upload-token-file";
                Err(ApiError::new(StatusCode::UNAUTHORIZED, "NOT_AUTHORIZED", message))
            }
            Access::LoopbackOnly => {
                let proxied = PROXY_HEADERS.iter().any(|name| headers.contains_key(*name));
                let browser = headers.contains_key(header::ORIGIN) && !is_own_page(headers);
                if peer.is_some_and(is_loopback) && !proxied && !browser && names_this_machine(headers) {
                    return Ok(());
                }
                let message = "without --upload-token-file this works only from the server's own machine, directly; \
                               start otaserver with a token file and send `Authorization: Bearer`";
                Err(ApiError::new(StatusCode::FORBIDDEN, "NOT_AUTHORIZED", message))
            }
        }
    }
}

/// A web page can point a name of its own at 127.0.0.1 (DNS rebinding), and then its reads carry no `Origin`; but they
/// carry that name.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

/// Whether a request comes from a page that this server itself gave out: the only pages that may change anything.
pub(super) fn is_own_page(headers: &HeaderMap) -> bool {
    let (Some(origin), Some(host)) = (headers.get(header::ORIGIN), headers.get(header::HOST)) else {
        return false;
    };
    let (origin, host) = (origin.as_bytes(), host.as_bytes());
    [&b"http://"[..], b"https://"].iter().any(|scheme| origin.strip_prefix(*scheme) == Some(host))
}

/// An operator, as the audit log knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) role: Role,
}

/// What somebody showed to be let in, kept for as long as they stay.
pub(super) struct Credential {
    pub(super) peer: Option<IpAddr>,
    pub(super) headers: HeaderMap,
}

impl Credential {
    /// Whether it would still let the same operator in, in the same role.
    pub(super) async fn still_opens(&self, app: &App, identity: &Identity) -> bool {
        identify(app, self.peer, &self.headers).await.is_ok_and(|now| now == *identity)
    }
}

/// What a change was about, where its path does not say: routes add it to their answer.
#[derive(Debug, Clone)]
pub(super) struct Subject(pub(super) String);

/// Lets operators through to the routes under `/api/`, as far as their role goes, and writes down what they change.
pub(super) async fn require_operator(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|Peer(address)| address.ip());
    let refuse = |request: Request, error: ApiError| {
        let method = request.method();
        log::info!("{method} {} refused: not an operator", peer.map_or("?".into(), |ip| ip.to_string()));
        super::upload::answer_and_linger(request, &app.limits, error.into_response())
    };
    let identity = match identify(&app, peer, request.headers()).await {
        Ok(identity) => identity,
        Err(error) => return refuse(request, error),
    };
    let Some(path) = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()) else {
        return next.run(request).await;
    };
    let least = routes::role(&app.rules, request.method(), &path);
    if identity.role < least {
        let message =
            format!("this asks for role {}, the token is for {}", least.as_str(), identity.role.as_str());
        return refuse(request, ApiError::new(StatusCode::FORBIDDEN, "NOT_AUTHORIZED", message));
    }
    run_and_record(&app, request, next, identity, &path).await
}

async fn run_and_record(
    app: &App,
    mut request: Request,
    next: Next,
    identity: Identity,
    path: &str,
) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let action = format!("{} {path}", request.method());
    let subject: String = request.uri().path().chars().take(MAX_SUBJECT_CHARS).collect();
    let who = identity.name.clone();
    request.extensions_mut().insert(identity);
    if reads {
        return next.run(request).await;
    }
    // A full database must not keep an operator from making room.
    let id = app.store.audit(&who, &action, &subject).await;
    let id = id
        .inspect_err(|error| log::error!("{who}: {action} {subject} is not in the audit log: {error}"))
        .ok();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let subject = response.extensions().get::<Subject>().map(|Subject(text)| text.as_str());
    if let Some(id) = id
        && let Err(error) = app.store.audit_done(id, status, subject).await
    {
        log::error!("the audit log does not know that {who}: {action} ended with {status}: {error}");
    }
    response
}

/// Says who asks: the holder of the token file's token, an operator with a token of their own, or somebody on this machine.
async fn identify(app: &App, peer: Option<IpAddr>, headers: &HeaderMap) -> Result<Identity, ApiError> {
    let by_rule = app.access.check(peer, headers);
    if let (Access::Token(_), Ok(())) = (&app.access, &by_rule) {
        return Ok(Identity { name: "token file".into(), role: Role::Admin });
    }
    if let Some(token) = token_of(headers)
        && let Some((name, role)) = app.store.operator_of(&token).await?
    {
        return Ok(Identity { name, role });
    }
    // The first token that is handed out ends the rule of whoever is on this machine.
    if matches!(app.access, Access::LoopbackOnly) && app.store.had_operators().await? {
        let message =
            "this needs `Authorization: Bearer` with the token of an operator (otaserver admin add-token)";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "NOT_AUTHORIZED", message));
    }
    by_rule.map(|()| Identity { name: "this machine".into(), role: Role::Admin })
}

/// The token of a request. A page cannot add a header to a WebSocket, so it names the token as a protocol there.
fn token_of(headers: &HeaderMap) -> Option<Vec<u8>> {
    if let Some(token) = bearer(headers) {
        return Some(token.to_vec());
    }
    let protocols = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    protocols.split(',').map(str::trim).find_map(|protocol| {
        let plain = protocol.strip_prefix(BEARER_PROTOCOL).map(|token| token.as_bytes().to_vec());
        plain.or_else(|| URL_SAFE_NO_PAD.decode(protocol.strip_prefix(BEARER64_PROTOCOL)?).ok())
    })
}

/// What somebody shows who asks as a device.
pub(super) struct Caller {
    pub(super) headers: HeaderMap,
    certified: Option<Certified>,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Caller { headers: parts.headers.clone(), certified: parts.extensions.get().cloned() })
    }
}

/// Refuses whoever speaks for a device without its token or its certificate. A device that has a token must show it; whether others may
/// speak at all, and whether certificates are asked for, is for the operator to say. The answer is the same whether the device exists or
/// not.
pub(super) async fn require_device(app: &App, caller: &Caller, device: &str) -> Result<(), ApiError> {
    if require_certificate(app, caller)?.is_some_and(|named| named != device) {
        return Err(certificate_refused());
    }
    let expected = app.store.device_token(device).await?;
    let given = bearer(&caller.headers).map(hash);
    let allowed = match (expected, given) {
        (Some(expected), Some(given)) => bool::from(given.as_bytes().ct_eq(expected.as_bytes())),
        (Some(_), None) => false,
        (None, _) => !app.limits.require_device_tokens,
    };
    if allowed {
        return Ok(());
    }
    let message = "this needs `Authorization: Bearer` with the token of this device";
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "NOT_AUTHORIZED", message))
}

/// Refuses whoever shows no device's certificate where those are asked for, and says which device it is.
pub(super) fn require_certificate<'a>(app: &App, caller: &'a Caller) -> Result<Option<&'a str>, ApiError> {
    match &caller.certified {
        // A certificate binds whoever shows it. Without --device-ca nobody is asked for one.
        Some(Certified(Some(device))) => Ok(Some(device)),
        Some(Certified(None)) => Err(certificate_refused()),
        None if app.limits.require_device_certificates => Err(certificate_refused()),
        None => Ok(None),
    }
}

fn certificate_refused() -> ApiError {
    let message = "this needs a TLS certificate of this device: one of an authority that the server's --device-ca names, \
                   with the URI otad:device:ID among its subject alternative names";
    ApiError::new(StatusCode::FORBIDDEN, "NOT_AUTHORIZED", message)
}

/// `::ffff:127.0.0.1` is how a socket for both families sees 127.0.0.1.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The token of the one `Authorization` header. Two of them are none: proxies and servers disagree about which counts.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    /// W3: what is not exactly the token is not the token.
    #[test]
    fn only_names_that_cannot_be_rebound_are_this_machine() {
        let says = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            names_this_machine(&headers)
        };
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "192.0.2.7"] {
            assert!(says(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "[evil]",
        ] {
            assert!(!says(host), "{host}");
        }
        assert!(names_this_machine(&HeaderMap::new()), "programs without a Host are no browsers");
    }

    #[test]
    fn w3_only_the_token_opens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, format!("{TOKEN}\n")).unwrap();
        let access = Access::from_token_file(&path).unwrap();
        assert!(!format!("{access:?}").contains("horse"));
        let good = format!("Bearer {TOKEN}");
        let check = |given: &HeaderMap| access.check(Some([127, 0, 0, 1].into()), given).is_ok();
        assert!(check(&headers(&[("authorization", &good)])));
        assert!(check(&headers(&[("authorization", &good.replace("Bearer", "bearer"))])));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer  ",
            TOKEN,
            "Bearer correct-horse-batter",
            "Bearer correct-horse-batteryy",
            "Bearer Correct-horse-battery",
            "Basic correct-horse-battery",
            "Bearer  correct-horse-battery",
            "Token x",
        ] {
            assert!(!check(&headers(&[("authorization", bad)])), "{bad:?}");
        }
        assert!(!check(&HeaderMap::new()));
        assert!(!check(&headers(&[("authorization", &good), ("authorization", &good)])));
    }

    #[test]
    fn token_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let long = "a".repeat(MAX_TOKEN_BYTES + 1);
        for bad in [
            "",
            "\n",
            "short",
            "has a space in the middle",
            "zwölf-und-mehr-zeichen",
            "two-lines-of-it\nmore",
            &long,
        ] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(Access::from_token_file(&path), Err(TokenError::Content { .. })), "{bad:?}");
        }
        fs::write(&path, "a".repeat(MAX_TOKEN_BYTES) + "\r\n").unwrap();
        assert!(Access::from_token_file(&path).is_ok());
        assert!(Access::from_token_file(&directory.path().join("missing")).is_err());
    }

    /// W3: a page names the token as a protocol; base64url carries what a protocol's name may not hold.
    #[test]
    fn w3_the_token_as_a_protocol() {
        const RICH: &str = "a+b/c=d,e;f?g>h~i";
        let access = Access::Token(Sha256::digest(RICH).into());
        let good = format!("otad.progress, bearer64.{}", URL_SAFE_NO_PAD.encode(RICH));
        for (protocols, opens) in [
            (good.as_str(), true),
            (&format!("{good}="), false),
            (&good.replace("bearer64.", "bearer."), false),
            ("otad.progress, bearer64.", false),
            ("otad.progress, bearer64.!", false),
            ("otad.progress", false),
        ] {
            let given = headers(&[("sec-websocket-protocol", protocols)]);
            assert_eq!(access.check(None, &given).is_ok(), opens, "{protocols}");
        }
        let plain = Access::Token(Sha256::digest(TOKEN).into());
        let given = headers(&[("sec-websocket-protocol", &format!("bearer.{TOKEN}"))]);
        assert!(plain.check(None, &given).is_ok());
    }

    /// W3: without a token, only this machine, and not through a proxy or a web page.
    #[test]
    fn w3_without_a_token_only_this_machine() {
        let none: &[(&str, &str)] = &[];
        for (peer, given, expected) in [
            ("127.0.0.1", none, true),
            ("127.9.9.9", none, true),
            ("::1", none, true),
            ("::ffff:127.0.0.1", none, true),
            ("10.0.0.1", none, false),
            ("::ffff:10.0.0.1", none, false),
            ("fe80::1", none, false),
            ("127.0.0.1", &[("x-forwarded-for", "127.0.0.1")], false),
            ("127.0.0.1", &[("forwarded", "for=127.0.0.1")], false),
            ("127.0.0.1", &[("via", "1.1 proxy")], false),
            ("127.0.0.1", &[("origin", "http://127.0.0.1:8080")], false),
        ] {
            let allowed = Access::LoopbackOnly.check(Some(peer.parse().unwrap()), &headers(given)).is_ok();
            assert_eq!(allowed, expected, "{peer} {given:?}");
        }
        assert!(Access::LoopbackOnly.check(None, &HeaderMap::new()).is_err());
    }
}
