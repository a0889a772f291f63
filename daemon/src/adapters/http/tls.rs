//! Encrypted connections: TLS 1.3 on top of whatever connection ureq makes.
//!
//! A server is always verified ([`super::certificate`]); there is deliberately no way to say otherwise. What `[server]` says of
//! pinned keys and of this device's own certificate counts for that server (its name and port) alone: other places that a
//! bundle may be fetched from have keys of their own, and need not learn who this device is.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, SignatureScheme, StreamOwned};
use ureq::http::Uri;
use ureq::unversioned::transport::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use super::certificate::{Read, Security, Verifier};
use super::papers::Paper;
use super::place::Place;
use crate::failure::{Code, Failure};

/// What the server takes at most.
const MAX_TOKEN_BYTES: usize = 1024;

/// Wraps connections to `https` places; a clone shares what servers gave to be recognised by.
#[derive(Clone)]
pub(super) struct Tls {
    /// The update server, and how to talk to it alone.
    own: Option<(Uri, Arc<ClientConfig>)>,
    others: Arc<ClientConfig>,
    identity: Option<Arc<DeviceKey>>,
    token: Option<Read<Paper>>,
    /// What every connection gives instead of the network.
    #[cfg(feature = "testing")]
    pub(super) memory: super::memory::Memory,
}

impl Tls {
    /// Prepares connections to the update server and to others.
    pub(super) fn new(security: &Security, server: Option<&Place>) -> Result<Tls, Failure> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let others = config(&provider, Verifier::new(security, &[], &provider)?, None)?;
        let identity = security.identity.clone().map(|files| DeviceKey { files, provider: provider.clone() });
        let identity = identity.map(Arc::new);
        let own = server.map(|place| {
            let verifier = Verifier::new(security, &security.pins, &provider)?;
            Ok((place.uri().clone(), config(&provider, verifier, identity.clone())?))
        });
        Ok(Tls {
            own: own.transpose()?,
            others,
            identity,
            token: security.token.clone(),
            #[cfg(feature = "testing")]
            memory: super::memory::Memory::default(),
        })
    }

    /// See [`super::HttpFetch::answering`].
    #[cfg(feature = "testing")]
    pub(super) fn answering(self, bytes: &[u8]) -> Tls {
        Tls { memory: super::memory::Memory(Some(bytes.into())), ..self }
    }

    /// Refuses while the files of this device's certificate cannot be used: better said here than guessed from the server's alert.
    pub(super) fn check_identity(&self) -> Result<(), Failure> {
        self.identity.as_ref().map_or(Ok(()), |key| key.read().map(drop))
    }

    /// What this device shows to the update server beside the certificate, as a header's value.
    ///
    /// # Errors
    /// [`Code::Config`]: the file is there for everybody, or not what it should be.
    pub(super) fn token(&self) -> Result<Option<String>, Failure> {
        let Some(read) = &self.token else { return Ok(None) };
        let paper = read()?;
        let token = paper.text.trim_end_matches(['\r', '\n']);
        if token.is_empty()
            || token.len() > MAX_TOKEN_BYTES
            || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            let rule = format!("a token is one line of 1 to {MAX_TOKEN_BYTES} visible ASCII characters");
            return Err(paper.unusable("token-file", &rule));
        }
        Ok(Some(format!("Bearer {token}")))
    }

    /// Whether this is a place of the update server, over an encrypted connection.
    pub(super) fn is_own(&self, uri: &Uri) -> bool {
        let port = |uri: &Uri| uri.port_u16().unwrap_or(443);
        let https = uri.scheme_str() == Some("https");
        https && self.own.as_ref().is_some_and(|(own, _)| own.host() == uri.host() && port(own) == port(uri))
    }

    fn config(&self, uri: &Uri) -> Arc<ClientConfig> {
        match &self.own {
            Some((_, config)) if self.is_own(uri) => config.clone(),
            Some(_) | None => self.others.clone(),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn config(
    provider: &Arc<CryptoProvider>,
    verifier: Verifier,
    identity: Option<Arc<DeviceKey>>,
) -> Result<Arc<ClientConfig>, Failure> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Failure::new(Code::Internal, format!("no TLS 1.3: {error}")))?
        // The name warns of verifiers that verify less; this one verifies more.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(Arc::new(match identity {
        Some(key) => builder.with_client_cert_resolver(key),
        None => builder.with_no_client_auth(),
    }))
}

/// This device's certificate, read when a server asks for it.
struct DeviceKey {
    files: Read<(Paper, Paper)>,
    provider: Arc<CryptoProvider>,
}

impl DeviceKey {
    fn read(&self) -> Result<CertifiedKey, Failure> {
        let (certificate, key) = (self.files)()?;
        let unusable = |error: &dyn fmt::Display| certificate.unusable("client-certificate", error);
        let chain =
            CertificateDer::pem_slice_iter(certificate.text.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| unusable(&error))?;
        if chain.is_empty() {
            return Err(unusable(&"there is no certificate in it"));
        }
        let unusable = |error: &dyn fmt::Display| key.unusable("client-key", error);
        let private = PrivateKeyDer::from_pem_slice(key.text.as_bytes()).map_err(|error| unusable(&error))?;
        CertifiedKey::from_der(chain, private, &self.provider).map_err(|error| unusable(&error))
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceKey").finish_non_exhaustive()
    }
}

impl ResolvesClientCert for DeviceKey {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Without it the server decides; most refuse, and the message then points at the same keys of the configuration.
        self.read().inspect_err(|failure| log::error!("{}: {failure}", failure.code)).ok().map(Arc::new)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Encrypted>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(below) = chained else { return Ok(None) };
        if !details.needs_tls() || below.is_tls() {
            return Ok(Some(Either::A(below)));
        }
        let invalid = |error: &dyn fmt::Display| ureq::Error::Io(io::Error::other(error.to_string()));
        // An IPv6 address stands in brackets in a URL, and without them in a certificate.
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|error| invalid(&error))?;
        let mut conn = ClientConnection::new(self.config(details.uri), name).map_err(io::Error::other)?;
        let mut sock = TransportAdapter::new(below.boxed(), details.current_time.clone());
        sock.set_timeout(remaining(details));
        conn.complete_io(&mut sock)?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Encrypted { buffers, stream: StreamOwned { conn, sock } })))
    }
}

/// What the connection below has left of the time for connecting.
fn remaining(details: &ConnectionDetails<'_>) -> NextTimeout {
    let mut timeout = details.timeout;
    let now = (details.current_time)();
    if let (Duration::Exact(whole), Instant::Exact(began), Instant::Exact(now)) =
        (timeout.after, details.now, now)
    {
        timeout.after = Duration::Exact(whole.saturating_sub(now.saturating_duration_since(began)));
    }
    timeout
}

/// An encrypted connection.
pub(super) struct Encrypted {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted").finish_non_exhaustive()
    }
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let whole = self.buffers.output();
        self.stream.write_all(whole.get(..amount).unwrap_or(whole))?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let came = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(came);
        Ok(came > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
