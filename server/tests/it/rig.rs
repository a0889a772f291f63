//! A server inside the test process, on a free port with a directory of its own, and real bundles to give it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use object_store::ObjectStore;
use otad_bundle::{Recipe, Root, Signer, SigningKey, Source, Update};
use otaserver::blobs::Blobs;
use otaserver::catalog::Catalog;
use otaserver::http::{Access, App, router};
use otaserver::store::Store;
use otaserver::tls::{Files, Tls};
use otaserver::webhooks::{Client, Plain};
use otaserver::{Limits, rounds, serve, webhooks};
use sha2::Digest;
use tokio::sync::oneshot;

use crate::database::{self, Data};
use crate::http::{Answer, send};

/// Seed of the key that the server trusts.
const TRUSTED: u8 = 1;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32]).expect("a key")
}

/// The trust root that goes with [`Spec::bundle`].
pub(crate) fn root() -> String {
    Root::with_release_keys(&[key(TRUSTED).public_key()]).to_toml()
}

/// What a bundle of a test is like.
#[derive(Clone)]
pub(crate) struct Spec<'a> {
    pub(crate) version: &'a str,
    pub(crate) sequence: u64,
    pub(crate) compatible: &'a [&'a str],
    /// Length of the image, whose bytes do not compress.
    pub(crate) random_bytes: usize,
    /// Which bytes; those of no other sequence if `None`.
    pub(crate) seed: Option<u64>,
    pub(crate) signed_by: u8,
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Spec {
            version: "2.0.0",
            sequence: 2,
            compatible: &["acme"],
            random_bytes: 100_000,
            seed: None,
            signed_by: TRUSTED,
        }
    }
}

impl Spec<'_> {
    /// Builds the bundle with the library that `otactl` uses.
    pub(crate) fn bundle(&self) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("rootfs.img");
        std::fs::write(&image, noise(self.random_bytes, self.seed.unwrap_or(self.sequence))).unwrap();
        let update = Update {
            version: self.version.parse().unwrap(),
            sequence: self.sequence,
            compatible: self.compatible.iter().map(|&name| name.to_owned()).collect(),
            description: "a test".into(),
            critical: Vec::new(),
        };
        let recipe = Recipe::new(update, vec![Source { role: "rootfs".into(), path: image }]);
        let output = directory.path().join("out.otab");
        otad_bundle::build(&recipe, &[&key(self.signed_by)], &output, &mut |_| {}).expect("a bundle");
        std::fs::read(output).unwrap()
    }
}

/// Makes the delta between two bundles with the library that `otactl` uses.
pub(crate) fn delta(from: &[u8], to: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let [old, new, output] =
        ["old.otab", "new.otab", "out.otad-delta"].map(|name| directory.path().join(name));
    std::fs::write(&old, from).unwrap();
    std::fs::write(&new, to).unwrap();
    otad_bundle::delta::make_delta(&old, &new, &output, None, &mut |_| {}).expect("a delta");
    std::fs::read(output).unwrap()
}

/// The same bundle with one more signature, by a key that the server does not know: another file, the same release.
pub(crate) fn signed_again(bundle: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let [old, new] = ["old.otab", "new.otab"].map(|name| directory.path().join(name));
    std::fs::write(&old, bundle).unwrap();
    otad_bundle::add_signature(&old, &key(9), &new, &mut |_| {}).expect("a signature");
    std::fs::read(new).unwrap()
}

/// Bytes that do not compress, the same for the same seed (xorshift64*, Vigna 2016).
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a test may change.
pub(crate) struct Options {
    pub(crate) limits: Limits,
    pub(crate) token: Option<String>,
    pub(crate) root: Option<String>,
    /// Where the files are, if not in the directory of the server.
    pub(crate) objects: Option<Arc<dyn ObjectStore>>,
    pub(crate) tls: Option<Files>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    data: Data,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Server {
        let mut options = Options {
            limits: Limits { keep_free_bytes: 0, ..Limits::default() },
            token: None,
            root: Some(root()),
            objects: None,
            tls: None,
        };
        change(&mut options);
        let data = Data::in_directory(tempfile::tempdir().unwrap());
        let (ready, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let directory = data.path().to_path_buf();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let limits = options.limits.clone();
                let tls = options.tls.clone().map(|files| Arc::new(Tls::open(files).unwrap()));
                let (app, store) = app(&directory, options).await;
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                let rounds =
                    [tokio::spawn(rounds::run(app.clone())), tokio::spawn(webhooks::run(app.clone()))];
                serve::serve(listener, router(app), &limits, tls, async { drop(stopped.await) }).await;
                rounds.iter().for_each(tokio::task::JoinHandle::abort);
                store.close().await;
            });
        });
        let address = address.recv().expect("the server starts");
        Server { address, data, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    pub(crate) fn upload(&self, bundle: &[u8]) -> Answer {
        send(self.address, "POST", "/api/v1/artifacts", &[], bundle)
    }

    pub(crate) fn upload_delta(&self, delta: &[u8]) -> Answer {
        send(self.address, "POST", "/api/v1/deltas", &[], delta)
    }

    /// Names of the files in a directory of the server.
    pub(crate) fn files(&self, directory: &str) -> Vec<String> {
        files(&self.data().join(directory))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
    }
}

pub(crate) fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The paths of the router itself, as it shows them for debugging.
pub(crate) fn routes() -> Vec<String> {
    let data = crate::process::directory();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = Options {
            limits: Limits { keep_free_bytes: 0, ..Limits::default() },
            token: None,
            root: None,
            objects: None,
            tls: None,
        };
        let (app, store) = app(data.path(), options).await;
        let shown = format!("{:?}", router(app));
        store.close().await;
        let texts = shown.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/'));
        // What catches everything else.
        texts.filter(|text| !text.contains("__private__")).map(str::to_owned).collect()
    })
}

async fn app(data: &Path, options: Options) -> (Arc<App>, Store) {
    let root = data.join("root.toml");
    if let Some(text) = &options.root {
        std::fs::write(&root, text).unwrap();
    }
    let access = match &options.token {
        Some(token) => {
            let path = data.join("token");
            std::fs::write(&path, token).unwrap();
            Access::from_token_file(&path).unwrap()
        }
        None => Access::LoopbackOnly,
    };
    let store = Store::at(&database::location(data, options.limits.max_database_bytes)).await.unwrap();
    let blobs = match options.objects {
        Some(objects) => Blobs::over(data, objects),
        None => Blobs::open(data),
    };
    let catalog = Catalog::open(store.clone(), blobs.unwrap(), root).await.unwrap();
    let webhooks = Client::new(None, Plain::Here).unwrap();
    let app = App::open(catalog, store.clone(), access, webhooks, options.limits).await.unwrap();
    (Arc::new(app), store)
}
