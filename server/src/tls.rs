//! TLS in the process: the server's certificate, and who a device's certificate says it is.
//!
//! TLS 1.3 only. The files are read when the server starts, which refuses what cannot work, and again when they change or on SIGHUP; a
//! certificate that cannot be used then is named in the log and the one before stays. Connections that are open keep what they were made
//! with. No session is resumed: every connection proves anew what it claims, so a certificate that has expired opens nothing.
//!
//! A device's certificate comes from an authority of `--device-ca`, and names its device as the URI `otad:device:ID` among its subject
//! alternative names, once. The common name says nothing: other systems fill it with whatever they like.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use webpki::{EndEntityCert, KeyUsage};

use crate::names::check_name;

/// What stands before the id of a device in its certificate.
const DEVICE_URI: &str = "otad:device:";
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// A certificate that ends within so many seconds is worth a word in the log: a week.
const SOON_SECONDS: u64 = 7 * 24 * 3600;

/// The files that the command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and those that lead to its authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The authorities of devices, in PEM.
    pub device_ca: Option<PathBuf>,
}

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing that is looked for.
    #[error("cannot read {what} from {path}: {problem}; it is PEM, readable by otaserver")]
    Unreadable {
        /// What is looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The key is not that of the certificate.
    #[error(
        "{key} is not the private key of the certificate in {certificate}; bring those that were made together"
    )]
    KeyMismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificate cannot be used.
    #[error("the certificate in {path} cannot be used: {problem}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// The files as they were when they were looked at last: time of change, length and inode of each.
type Stamp = Vec<Option<(i64, i64, u64, u64)>>;

/// TLS as new connections get it.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files, and refuses what no client would accept.
    pub fn open(files: Files) -> Result<Tls, TlsError> {
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Tls { files, current })
    }

    /// What the next connection begins with.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Reads the files again; what cannot be used changes nothing.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = Arc::new(read(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn stamp(&self) -> Stamp {
        let stamp = |file: Metadata| (file.mtime(), file.mtime_nsec(), file.size(), file.ino());
        let files = [Some(&self.files.certificate), Some(&self.files.key), self.files.device_ca.as_ref()];
        files.into_iter().flatten().map(|path| fs::metadata(path).ok().map(stamp)).collect()
    }

    /// Reloads on SIGHUP and whenever a file has changed, until the server ends.
    ///
    /// # Errors
    /// The signal cannot be waited for.
    pub fn keep_fresh(self: Arc<Self>) -> std::io::Result<impl Future<Output = ()> + use<>> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut known = self.stamp();
        Ok(async move {
            loop {
                let by_signal = tokio::select! {
                    _ = hangup.recv() => true,
                    () = tokio::time::sleep(LOOK) => false,
                };
                let now = self.stamp();
                if !by_signal && now == known {
                    continue;
                }
                known = now;
                match self.reload() {
                    Ok(()) => log::info!("{} is read again", self.files.certificate.display()),
                    Err(error) => log::error!("{error}; what was in use before stays in use"),
                }
            }
        })
    }
}

fn read(files: &Files) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let identity = identity(files, &provider)?;
    let broken = |error: rustls::Error| TlsError::Certificate {
        path: files.certificate.clone(),
        problem: error.to_string(),
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(broken)?;
    let builder = match &files.device_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = authorities(path)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                // Operators and dashboards have none; the gate of the devices' routes asks for it.
                .allow_unauthenticated()
                .build()
                .map_err(|error| unreadable("the authorities of devices", path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn identity(files: &Files, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates("a certificate", &files.certificate)?;
    if let Some(leaf) = chain.first() {
        check_time(&files.certificate, leaf)?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unreadable("a private key", &files.key, &error))?;
    let mode = fs::metadata(&files.key)
        .map_err(|error| unreadable("a private key", &files.key, &error))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        log::warn!(
            "{} can be read by others (mode {:04o}): chmod 600 it",
            files.key.display(),
            mode & 0o7777
        );
    }
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::KeyMismatch { certificate: files.certificate.clone(), key: files.key.clone() }
        }
        error => unreadable("a private key", &files.key, &error),
    })
}

/// Refuses a certificate whose time is not now. No authority is given, so that a path is found to none; but the time is looked at
/// before that.
fn check_time(path: &Path, leaf: &CertificateDer<'_>) -> Result<(), TlsError> {
    let refused = |problem| TlsError::Certificate { path: path.to_path_buf(), problem };
    let certificate = EndEntityCert::try_from(leaf).map_err(|error| refused(error.to_string()))?;
    let look = |at| {
        certificate.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[],
            &[],
            at,
            KeyUsage::server_auth(),
            None,
            None,
        )
    };
    let now = UnixTime::now();
    match look(now) {
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            Err(refused(format!("it expired {}, and it is {}; renew it", date(not_after), date(now))))
        }
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => {
            let what = format!("it begins {}, and this machine's clock says {}", date(not_before), date(now));
            Err(refused(format!("{what}; set the clock, if that is what is wrong")))
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(_)) => {
            Err(refused("it is not for servers (extended key usage); have one made with serverAuth".into()))
        }
        Ok(_) | Err(_) => {
            let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + SOON_SECONDS));
            if let Err(webpki::Error::CertExpired { not_after, .. }) = look(soon) {
                log::warn!("the certificate in {} ends {}: renew it", path.display(), date(not_after));
            }
            Ok(())
        }
    }
}

fn date(at: UnixTime) -> String {
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(at.as_secs()))
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the authorities of devices", path)? {
        roots.add(certificate).map_err(|error| unreadable("the authorities of devices", path, &error))?;
    }
    Ok(roots)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error: &dyn std::fmt::Display| unreadable(what, path, error);
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?.collect();
    let chain = chain.map_err(|error| failed(&error))?;
    if chain.is_empty() { Err(failed(&"there is no certificate in it")) } else { Ok(chain) }
}

fn unreadable(what: &'static str, path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Unreadable { what, path: path.to_path_buf(), problem: error.to_string() }
}

/// The device that a verified certificate speaks for; `None` when it names none, or more than one.
pub fn device(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut named = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(DEVICE_URI));
    match (named.next(), named.next()) {
        (Some(device), None) => check_name("device", device).ok().map(|()| device.to_owned()),
        _ => None,
    }
}
