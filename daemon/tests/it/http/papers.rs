//! Certificates, and listeners for the encrypted servers of tests.

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use otad::adapters::http::{Security, Times};
use otad::config;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(super) type Authority = CertifiedIssuer<'static, KeyPair>;

/// The authority that devices trust.
pub(super) fn trusted() -> &'static Authority {
    static TRUSTED: OnceLock<Authority> = OnceLock::new();
    TRUSTED.get_or_init(|| authority("the fleet's authority"))
}

pub(super) fn authority(name: &str) -> Authority {
    let mut params = subject(name, Vec::new());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Parameters with a name of their own: whoever issued a certificate is looked for by its name first.
pub(super) fn subject(name: &str, alternatives: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(alternatives).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A device that believes one authority, and its own clock.
pub(super) fn trusting(authority: &Authority) -> Security {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fs::write(&file, authority.pem()).unwrap();
    Security::of(&config::Server { ca: Some(file), ..anywhere("https://127.0.0.1/") }, Times::bounded(|| 0))
        .unwrap()
}

/// A server section that says nothing but the URL.
pub(super) fn anywhere(url: &str) -> config::Server {
    let interval = Duration::from_secs(60);
    config::Server {
        url: url.to_owned(),
        interval,
        ca: None,
        pins: Vec::new(),
        identity: None,
        token_file: None,
    }
}

pub(super) fn identity(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

/// Accepts connections, each on a thread of its own, until it is dropped.
pub(super) struct Acceptor {
    pub(super) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    pub(super) fn start(
        serve: impl Fn(TcpStream, usize) -> io::Result<()> + Send + Sync + 'static,
    ) -> Acceptor {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, stop, serve) =
            (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)), Arc::new(serve));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let serve = serve.clone();
                // A client that goes away in the middle is part of the game, so errors end the connection and no more.
                thread::spawn(move || {
                    stream.and_then(|stream| {
                        stream.set_nodelay(true)?;
                        serve(stream.try_clone()?, number)?;
                        thread::sleep(Duration::from_millis(30));
                        stream.shutdown(Shutdown::Both)
                    })
                });
            }
        });
        Acceptor { address, stop, thread: Some(thread) }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes `accept`; when this fails the listener is gone already.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
