//! Whether a server is who it says: its certificate, the time by which that counts, and pinned keys.
//!
//! Certificates are judged by the later of the device's clock and the earliest that it can be (signed times and the build time):
//! a device without a battery for its clock still connects. A signed time only ever helps: what is valid by the clock, or by the build
//! time where that is later, is not refused because of it, so a thief of the online key can cut nobody off.
//! Which of the two is wrong, certificate or clock, is told apart as far as anybody can: a certificate that is not valid *yet*
//! means a clock that is behind ([`Code::NetClock`]); one that has expired is the certificate's fault, and the message has both times.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use otad_bundle::Digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use super::papers::{Paper, Papers};
use crate::config::Server;
use crate::failure::{Code, Failure};
use crate::trust::built_at;

/// Seconds since 1970.
type Seconds = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What is known about the time.
#[derive(Clone)]
pub struct Times {
    /// What the device's clock says.
    pub clock: Seconds,
    /// The earliest that it can be.
    pub earliest: Seconds,
}

impl Times {
    /// The system's clock, and a lower bound.
    pub fn bounded(earliest: impl Fn() -> u64 + Send + Sync + 'static) -> Times {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Times { clock: Arc::new(clock), earliest: Arc::new(earliest) }
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Times").field("clock", &(self.clock)()).field("earliest", &(self.earliest)()).finish()
    }
}

/// Who may be at the other end of an encrypted connection, and what this device shows for itself.
#[derive(Clone)]
pub struct Security {
    authorities: Arc<RootCertStore>,
    pub(super) pins: Vec<Digest>,
    /// This device's certificate and its key.
    pub(super) identity: Option<Read<(Paper, Paper)>>,
    pub(super) token: Option<Read<Paper>>,
    times: Times,
}

/// Reads a file of this device, or has it.
pub(super) type Read<T> = Arc<dyn Fn() -> Result<T, Failure> + Send + Sync>;

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("pins", &self.pins)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

impl Security {
    /// The authorities of the public web.
    pub fn public(times: Times) -> Security {
        let roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
        let authorities = Arc::new(RootCertStore { roots });
        Security { authorities, pins: Vec::new(), identity: None, token: None, times }
    }

    /// What `[server]` says. Its secrets are read whenever they are needed, so that a renewed one is used at once.
    ///
    /// # Errors
    /// [`Code::Config`]: the file of authorities cannot be read or holds none.
    pub fn of(server: &Server, times: Times) -> Result<Security, Failure> {
        let ca = server.ca.as_deref().map(Paper::authorities).transpose()?;
        let mut security = Security::believing(ca.as_ref(), &server.pins, times)?;
        security.identity = server.identity.clone().map(|files| {
            let read = move || {
                Ok((Paper::certificate(&files.certificate)?, Paper::secret("client-key", &files.key)?))
            };
            Arc::new(read) as Read<_>
        });
        security.token =
            server.token_file.clone().map(|file| Arc::new(move || Paper::token(&file)) as Read<_>);
        Ok(security)
    }

    /// What somebody else has read.
    ///
    /// # Errors
    /// [`Code::Config`]: the file of authorities holds none.
    pub fn given(papers: Papers, times: Times) -> Result<Security, Failure> {
        let mut security = Security::believing(papers.ca.as_ref(), &papers.pins, times)?;
        security.identity = papers.identity.map(|pair| Arc::new(move || Ok(pair.clone())) as Read<_>);
        security.token = papers.token.map(|token| Arc::new(move || Ok(token.clone())) as Read<_>);
        Ok(security)
    }

    fn believing(ca: Option<&Paper>, pins: &[Digest], times: Times) -> Result<Security, Failure> {
        let mut security = Security { pins: pins.to_vec(), ..Security::public(times) };
        if let Some(paper) = ca {
            let fail = |error: &dyn fmt::Display| paper.unusable("ca", error);
            let mut authorities = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(paper.text.as_bytes()) {
                authorities.add(certificate.map_err(|error| fail(&error))?).map_err(|error| fail(&error))?;
            }
            if authorities.is_empty() {
                return Err(fail(&"there is no certificate in it"));
            }
            security.authorities = Arc::new(authorities);
        }
        Ok(security)
    }
}

/// Verifies servers.
#[derive(Debug)]
pub(super) struct Verifier {
    chain: Arc<WebPkiServerVerifier>,
    pins: Vec<Digest>,
    times: Times,
}

impl Verifier {
    pub(super) fn new(
        security: &Security,
        pins: &[Digest],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, Failure> {
        let chain =
            WebPkiServerVerifier::builder_with_provider(security.authorities.clone(), provider.clone());
        let chain =
            chain.build().map_err(|error| Failure::new(Code::Config, format!("[server] ca: {error}")))?;
        Ok(Verifier { chain, pins: pins.to_vec(), times: security.times.clone() })
    }

    /// Refuses a server whose key is none of those that were pinned.
    fn check_pin(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let key = Digest::of(ParsedCertificate::try_from(certificate)?.subject_public_key_info().as_ref());
        if self.pins.contains(&key) {
            return Ok(());
        }
        let what = format!("the server's certificate is valid, and its key {key} is none that `pin` names");
        Err(refused(Failure::new(Code::NetTls, format!("{what}; add it to [server] if it is the right one"))))
    }

    /// Says what is wrong with the time of a certificate.
    fn explain(&self, error: rustls::Error, (clock, earliest): (u64, u64)) -> rustls::Error {
        use CertificateError::{ExpiredContext, NotValidYetContext};
        let known =
            format!("this device's clock says {}, and it is {} at the least", date(clock), date(earliest));
        match error {
            rustls::Error::InvalidCertificate(NotValidYetContext { not_before, .. }) => {
                let what =
                    format!("the server's certificate is not valid yet: it begins {}", day(not_before));
                refused(Failure::new(Code::NetClock, format!("{what}; {known}; set the clock")))
            }
            rustls::Error::InvalidCertificate(ExpiredContext { not_after, .. }) => {
                let what = format!("the server's certificate expired {}", day(not_after));
                let next = if not_after.as_secs() < earliest {
                    "it has to be renewed"
                } else {
                    "it has to be renewed, if the clock is right"
                };
                refused(Failure::new(Code::NetTls, format!("{what}; {known}; {next}")))
            }
            other => other,
        }
    }
}

/// A failure on its way through rustls and ureq.
fn refused(failure: Failure) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(failure))))
}

/// The failure that [`refused`] wrapped.
pub(super) fn refusal(error: &rustls::Error) -> Option<&Failure> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

fn day(time: UnixTime) -> String {
    date(time.as_secs())
}

fn date(seconds: u64) -> String {
    // Beyond the year 9999 the crate panics; a clock that says so is told as a number.
    const LAST: u64 = 253_402_300_799;
    if seconds > LAST {
        return format!("{seconds} seconds after 1970");
    }
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (clock, earliest) = ((self.times.clock)(), (self.times.earliest)());
        let at = |seconds: u64| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        // A signed time helps where the clock is behind, and shuts nothing out that the clock lets in: one document that was
        // signed with a wrong time would cut devices off from every server, and from the root that replaces its key.
        let verified = at(clock.max(earliest))
            .or_else(|error| at(clock.max(built_at())).map_err(|_| error))
            .map_err(|error| self.explain(error, (clock, earliest)))?;
        self.check_pin(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
