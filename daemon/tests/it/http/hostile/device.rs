//! A device made of files, and installs on it by the real engine: only the machine below and the clock's use are played.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bootenv::{BootEnv, Changes, EnvLock, Environment, FileStore, LockDirs, Scheme, SchemeKind};
use otad::adapters::block::SystemDevices;
use otad::adapters::clock::SystemClock;
use otad::adapters::http::HttpFetch;
use otad::adapters::journal::FileTrail;
use otad::adapters::model::ModelMachine;
use otad::adapters::state_fs::DataDirectory;
use otad::config;
use otad::engine::{Engine, Install, JobEnd, Message, Notice, Ports, Request};
use otad::failure::Failure;
use otad::install::prepare::Source;
use otad::lifecycle::event::Origin;
use otad::lifecycle::recover::Standing;
use otad::ports::{Answer, Fetch, HealthChecks, Here, Question, Receipt, Stop};
use otad::testing::edges::{InlineTasks, Watcher};
use otad::trial::BootControl;
use otad::trust::Keeper;
use otad::trust::sequence::Permit;
use otad_bundle::{Chunking, Input, Recipe, Root, Signer as _, SigningKey, Update, build};

/// Bytes of each image; six times what a head is.
const IMAGE_BYTES: usize = 768 * 1024;
/// Bytes of one copy of the boot environment.
const ENV_BYTES: usize = 4096;
/// Where the second copy begins.
const SECOND_COPY: u64 = 8192;

/// Bundles and images that all devices share, made once.
pub(super) struct Shelf {
    /// The image that the bundle brings.
    pub(super) image: Vec<u8>,
    /// The bundle to install.
    pub(super) bundle: Vec<u8>,
    /// The same content with a sequence below the running one.
    pub(super) outdated: Vec<u8>,
    /// The same content signed by a stranger.
    pub(super) foreign: Vec<u8>,
    root: Root,
}

/// The one shelf.
pub(super) fn shelf() -> &'static Shelf {
    static SHELF: OnceLock<Shelf> = OnceLock::new();
    SHELF.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rootfs.img");
        let image = image(2);
        fs::write(&path, &image).unwrap();
        let (key, stranger) = (SigningKey::generate(), SigningKey::generate());
        Shelf {
            bundle: bundle(&path, 2, &key),
            outdated: bundle(&path, 0, &key),
            foreign: bundle(&path, 2, &stranger),
            root: Root::with_release_keys(&[key.public_key()]),
            image,
        }
    })
}

/// Noise, so that chunks are stored as they are and every offset counts; with a stretch of zeros.
fn image(version: u64) -> Vec<u8> {
    let mut state = version.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes: Vec<u8> = (0..IMAGE_BYTES)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()[7]
        })
        .collect();
    bytes[300 * 1024..400 * 1024].fill(0);
    bytes
}

/// Small chunks make an index of more than one span, so that a server can misbehave within the metadata too.
fn bundle(image: &Path, sequence: u64, key: &SigningKey) -> Vec<u8> {
    let update = Update {
        version: format!("{sequence}.0.0").parse().unwrap(),
        sequence,
        compatible: vec!["bench".to_owned()],
        description: String::new(),
        critical: Vec::new(),
    };
    let source = otad_bundle::Source { role: "rootfs".to_owned(), path: image.to_owned() };
    let recipe = Recipe { chunking: Chunking::Fixed { size: 4096 }, ..Recipe::new(update, vec![source]) };
    let output = image.with_extension("otab");
    build(&recipe, &[key], &output, &mut |_| {}).unwrap();
    fs::read(&output).unwrap()
}

/// A device that runs slot a, with another good system in slot b.
pub(super) struct Device {
    dir: tempfile::TempDir,
    engine: Engine,
    boot: Arc<BootControl>,
    tasks: InlineTasks,
    watcher: Watcher,
    line: Arc<Line>,
}

/// The device's way to the network, which may become another one.
struct Line(Mutex<Arc<HttpFetch>>);

impl Line {
    fn now(&self) -> Arc<HttpFetch> {
        self.0.lock().unwrap().clone()
    }
}

impl Fetch for Line {
    fn open(&self, url: &str, stop: &Stop) -> Result<Box<dyn Input + Send>, Failure> {
        self.now().open(url, stop)
    }

    fn check(&self, question: &Question) -> Result<Answer, Failure> {
        self.now().check(question)
    }

    fn report(&self, body: &str) -> Result<Receipt, Failure> {
        self.now().report(body)
    }

    fn introduce(&self, user_agent: &str) {
        self.now().introduce(user_agent);
    }
}

/// What matters of a device: compared before and after.
#[derive(PartialEq, Eq)]
pub(super) struct Picture {
    environment: Vec<u8>,
    running: Vec<u8>,
    /// Content of the slot that is updated.
    pub(super) target: Vec<u8>,
}

struct Healthy;

impl HealthChecks for Healthy {
    fn run(&self, _limit: Duration) -> Result<(), Failure> {
        Ok(())
    }

    fn pre_run(&self, _image: &Path) -> Result<(), Failure> {
        Ok(())
    }
}

impl Device {
    /// A device that fetches with `fetch`.
    pub(super) fn new(fetch: HttpFetch) -> Device {
        let line = Arc::new(Line(Mutex::new(Arc::new(fetch))));
        let dir = tempfile::Builder::new().prefix("otad-hostile-").tempdir().unwrap();
        let root = dir.path();
        furnish(root);
        let config =
            Arc::new(config::parse(&config_text(root), Path::new("otad.toml"), &Path::exists).unwrap());
        let ports = Ports {
            fs: Arc::new(DataDirectory::open(&config.data_dir).unwrap()),
            devices: Arc::new(SystemDevices),
            fetch: line.clone(),
            decoders: Arc::new(Here),
            clock: Arc::new(SystemClock::default()),
            machine: Arc::new(ModelMachine::new(&config, &root.join("model"))),
            health: Arc::new(Healthy),
            trail: Arc::new(FileTrail::new(root.join("data/trial.log"))),
            lanes: 2,
        };
        let boot =
            Arc::new(BootControl::new(Box::new(store(root)), scheme(), LockDirs::new([root.to_owned()])));
        let (tasks, watcher) = (InlineTasks::default(), Watcher::default());
        let trust = Keeper::of(&shelf().root, ports.fs.clone()).map(Arc::new);
        let listener = Box::new(watcher.clone());
        let engine =
            Engine::start(config, ports, boot.clone(), trust, Box::new(tasks.clone()), listener).unwrap();
        Device { dir, engine, boot, tasks, watcher, line }
    }

    /// Fetches with another one from now on.
    pub(super) fn fetch_with(&self, fetch: HttpFetch) {
        *self.line.0.lock().unwrap() = Arc::new(fetch);
    }

    /// Installs from a URL until somebody asks to stop, and returns how the job ended.
    pub(super) fn install(&mut self, url: &str, stop: Stop) -> JobEnd {
        let request = Install {
            source: Source::Url { url: url.to_owned(), delta: None },
            origin: Origin::Url(url.to_owned()),
            stop,
            reboot: false,
            permit: Permit::Granted,
        };
        let taken =
            |answer: Result<_, Failure>| assert!(answer.is_ok(), "the request was refused: {answer:?}");
        self.engine.handle(Message::Ask(Request::Install(request), Box::new(taken)));
        while let Some(message) = self.tasks.run_next() {
            self.engine.handle(message);
        }
        let ends = self.watcher.notices().into_iter().filter_map(|notice| match notice {
            Notice::JobRemoved(end) => Some(end),
            Notice::Rebooting => None,
        });
        let ends: Vec<_> = ends.collect();
        assert_eq!(ends.len(), 1, "a job ends once: {ends:?}");
        ends.into_iter().next().unwrap()
    }

    /// Everything that an update may change.
    pub(super) fn picture(&self) -> Picture {
        let read = |name| fs::read(self.dir.path().join(name)).unwrap();
        Picture { environment: read("env"), running: read("a.img"), target: read("b.img") }
    }

    /// What the boot environment says of slot b, and which slot it starts.
    pub(super) fn boot_view(&self) -> (Standing, String) {
        let view = self.boot.view("a", "b").unwrap().unwrap();
        (view.standings.other, view.primary.unwrap())
    }
}

impl Picture {
    /// The running slot is nobody's business.
    pub(super) fn same_running(&self, other: &Picture) -> bool {
        self.running == other.running
    }
}

fn furnish(root: &Path) {
    for dir in ["model", "data", "run"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    for (name, text) in [
        ("model/boot-id", "boot-1"),
        ("model/device-id", "hostile"),
        ("cmdline", "otad.slot=a"),
        ("image.toml", "version = \"1.0.0\"\nsequence = 1\n"),
        ("default.env", ""),
        ("root.toml", ""),
    ] {
        fs::write(root.join(name), text).unwrap();
    }
    fs::write(root.join("a.img"), image(1)).unwrap();
    fs::write(root.join("b.img"), image(0)).unwrap();
    fs::write(root.join("env"), vec![0xff; 16 * 1024]).unwrap();
    let mut environment = Environment::new();
    environment.apply(&scheme().factory("a").unwrap()).unwrap();
    environment.apply(&Changes::new().set("otad_b_ok", "1")).unwrap();
    BootEnv::new(store(root)).init(&EnvLock::of_nothing(), &environment).unwrap();
}

fn scheme() -> Scheme {
    Scheme::new(SchemeKind::Bootcount, ["a", "b"], 3).unwrap()
}

fn store(root: &Path) -> FileStore {
    let env = root.join("env").display().to_string();
    let text = format!("{env} 0x0 {ENV_BYTES:#x}\n{env} {SECOND_COPY:#x} {ENV_BYTES:#x}\n");
    FileStore::new(&bootenv::Config::parse(&text).unwrap()).unwrap()
}

fn config_text(root: &Path) -> String {
    let at = |name: &str| -> PathBuf { root.join(name) };
    format!(
        "[system]\ncompatible = \"bench\"\ndata-dir = {:?}\nruntime-dir = {:?}\nimage-info = {:?}\n\
         [boot]\nbackend = \"file\"\nmodel-dir = {:?}\nenv-config = {:?}\ndefault-env = {:?}\ncmdline = {:?}\n\
         root-device-check = false\n\
         [[slot]]\nname = \"a\"\nimages.rootfs = {:?}\n[[slot]]\nname = \"b\"\nimages.rootfs = {:?}\n\
         [trust]\nroot = {:?}\n",
        at("data"),
        at("run"),
        at("image.toml"),
        at("model"),
        at("fw_env.config"),
        at("default.env"),
        at("cmdline"),
        at("a.img"),
        at("b.img"),
        at("root.toml"),
    )
}
