//! One POST over HTTP/1.1: signed, within a time that the caller sets, of which nothing but the status of the answer is read.
//!
//! No proxy, no redirect, no cookie, no second try. Plain HTTP goes to this machine's own addresses alone, unless the server is told otherwise.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::clock::unix_seconds;
use crate::store::Due;

/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 2000;

/// Why a POST was not answered, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL leads nowhere.
    #[error(
        "the URL is not http://HOST/… or https://HOST/…, without name and password, of up to {MAX_URL_BYTES} visible ASCII characters"
    )]
    Url,
    /// Plain HTTP beyond this machine.
    #[error("plain http:// leads to this machine only; use https://, or start otaserver with --webhook-http")]
    Plain,
    /// The authorities cannot be read.
    #[error("cannot read authorities from {path}: {problem}; it is PEM, readable by otaserver")]
    Authorities {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// No connection.
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    /// No answer.
    #[error("no answer: {0}")]
    Answer(#[from] hyper::Error),
    /// Not in time.
    #[error("no answer within {0} s")]
    Slow(u64),
}

/// Where plain HTTP may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// To this machine.
    Here,
    /// Anywhere.
    Anywhere,
}

/// A URL that a POST can go to.
#[derive(Debug, Clone)]
pub struct Target {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Target, ClientError> {
        if url.len() > MAX_URL_BYTES || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ClientError::Url);
        }
        let uri: Uri = url.parse().map_err(|_| ClientError::Url)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(ClientError::Url),
        };
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(ClientError::Url)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // What stands after the host and is no port.
        let odd = authority.port_u16().is_none() && authority.as_str() != authority.host();
        if host.is_empty() || odd {
            return Err(ClientError::Url);
        }
        Ok(Target {
            secure,
            host,
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// Refuses what is certain to be refused when it comes to sending.
    pub fn check(&self, plain: Plain) -> Result<(), ClientError> {
        let here = self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if self.secure || here || plain == Plain::Anywhere { Ok(()) } else { Err(ClientError::Plain) }
    }
}

/// What POSTs are made with.
pub struct Client {
    tls: TlsConnector,
    /// Where plain HTTP may lead.
    pub plain: Plain,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("plain", &self.plain).finish_non_exhaustive()
    }
}

impl Client {
    /// Trusts the authorities of the public web, and those of `ca`.
    pub fn new(ca: Option<&Path>, plain: Plain) -> Result<Client, ClientError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = ca {
            let failed = |problem: &dyn std::fmt::Display| ClientError::Authorities {
                path: path.display().to_string(),
                problem: problem.to_string(),
            };
            let before = roots.len();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
                roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
            }
            if roots.len() == before {
                return Err(failed(&"there is no certificate in it"));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| std::io::Error::other(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client { tls: TlsConnector::from(Arc::new(config)), plain })
    }

    /// Sends a delivery, and returns the status of the answer.
    pub async fn post(&self, due: &Due) -> Result<u16, ClientError> {
        let target = Target::parse(&due.url)?;
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
        let peer: SocketAddr = stream.peer_addr()?;
        if !target.secure && self.plain == Plain::Here && !peer.ip().to_canonical().is_loopback() {
            return Err(ClientError::Plain);
        }
        let request = request(&target, due, unix_seconds())?;
        if target.secure {
            let name = ServerName::try_from(target.host).map_err(|_| ClientError::Url)?;
            exchange(self.tls.connect(name, stream).await?, request).await
        } else {
            exchange(stream, request).await
        }
    }
}

fn request(target: &Target, due: &Due, now: i64) -> Result<Request<Full<Bytes>>, ClientError> {
    Request::post(&target.path)
        .header(header::HOST, &target.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("otaserver/", env!("CARGO_PKG_VERSION")))
        .header("otad-event", &due.event)
        .header("otad-delivery", due.id)
        .header("otad-signature", format!("t={now},v1={}", signature(&due.secret, now, &due.body)))
        .body(Full::new(Bytes::from(due.body.clone())))
        .map_err(|_| ClientError::Url)
}

/// HMAC-SHA256 of `TIMESTAMP.BODY`, in hex.
fn signature(secret: &str, timestamp: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{timestamp}.{body}").as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<u16, ClientError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with this function, also when that is given up.
    let mut background = JoinSet::new();
    background.spawn(connection);
    Ok(sender.send_request(request).await?.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, here, anywhere) in [
            ("https://hooks.example.com/x?y=z", true, true),
            ("https://10.0.0.1:8443", true, true),
            ("http://127.0.0.1:9000/x", true, true),
            ("http://localhost/x", true, true),
            ("http://[::1]:9000/", true, true),
            ("http://hooks.example.com/", false, true),
            ("http://169.254.169.254/latest", false, true),
            ("https://user:password@hooks.example.com/", false, false),
            ("ftp://hooks.example.com/", false, false),
            ("file:///etc/passwd", false, false),
            ("/x", false, false),
            ("https://", false, false),
            ("https://x:99999/", false, false),
            ("https://x/ y", false, false),
            ("", false, false),
        ] {
            let taken = |plain| Target::parse(url).is_ok_and(|target| target.check(plain).is_ok());
            assert_eq!((taken(Plain::Here), taken(Plain::Anywhere)), (here, anywhere), "{url}");
        }
    }
}
