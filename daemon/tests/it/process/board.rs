//! A device whose otad is started by hand, so that it can run under a tracer and die without being restarted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bootenv::model::{BootLoader, Outcome};
use bootenv::{ByteOrder, Environment, Layout, Store as _};
use otad_bundle::{Chunking, Compression, Recipe, Root, Signer as _, SigningKey, Source, Update, build};
use otad_demo::{Backing, Binaries, Device, Status};

use super::tracer::Tracer;
use crate::e2e::shelf::noise;

/// How long anything that works may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Chunks of an image: enough for every stage to make several calls, few enough to be killed at each.
const CHUNKS: usize = 20;
const CHUNK_BYTES: usize = 64 * 1024;
/// Length of an image, and of a slot.
pub(super) const IMAGE_BYTES: usize = CHUNKS * CHUNK_BYTES;
/// Size of one copy of the environment, as the demo's factory makes it.
const ENV_BYTES: u64 = 0x4000;
/// Pause between two looks while waiting.
const LOOK: Duration = Duration::from_millis(10);

/// The images and the bundle that every test takes from.
pub(super) struct Goods {
    dir: tempfile::TempDir,
    /// What runs, what the other slot holds at first, and what the bundle brings.
    pub(super) running: Vec<u8>,
    pub(super) old: Vec<u8>,
    pub(super) new: Vec<u8>,
    /// Name of the bundle's chunk index in the data directory.
    pub(super) index: String,
}

impl Goods {
    pub(super) fn get() -> &'static Goods {
        static GOODS: OnceLock<Goods> = OnceLock::new();
        GOODS.get_or_init(Goods::make)
    }

    fn make() -> Goods {
        let dir = tempfile::Builder::new().prefix("otad-goods-").tempdir().unwrap();
        let key = SigningKey::generate();
        fs::write(dir.path().join("root.toml"), Root::with_release_keys(&[key.public_key()]).to_toml())
            .unwrap();
        // Data and zeros in turn: no two chunks can be put into one write.
        let new = image(2, |chunk| chunk % 2 == 1);
        fs::write(dir.path().join("new.img"), &new).unwrap();
        let update = Update {
            version: "2.0.0".parse().unwrap(),
            sequence: 2,
            compatible: vec!["demo-board".to_owned()],
            description: String::new(),
            critical: Vec::new(),
        };
        let source = Source { role: "rootfs".to_owned(), path: dir.path().join("new.img") };
        let recipe = Recipe {
            chunking: Chunking::Fixed { size: u32::try_from(CHUNK_BYTES).unwrap() },
            compression: Compression::None,
            ..Recipe::new(update, vec![source])
        };
        let manifest = build(&recipe, &[&key], &dir.path().join("new.otab"), &mut |_| {}).unwrap().manifest;
        let index = otad::install::index_name(&manifest.images[0]);
        Goods { dir, running: image(1, |_| false), old: image(0, |_| false), new, index }
    }

    pub(super) fn bundle(&self) -> PathBuf {
        self.dir.path().join("new.otab")
    }
}

/// An image that the boot loader takes for a file system, with zeros in some of its chunks.
fn image(seed: u64, zero: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut image = noise(seed, IMAGE_BYTES);
    for chunk in (2..CHUNKS).filter(|&chunk| zero(chunk)) {
        image[chunk * CHUNK_BYTES..][..CHUNK_BYTES].fill(0);
    }
    // The magic number of ext4.
    image[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    image
}

/// A device with loop devices as slots.
pub(super) struct Board {
    device: Device,
    _dir: tempfile::TempDir,
    bus: String,
    /// The slot that runs and the one that is written.
    pub(super) slots: [&'static str; 2],
}

impl Board {
    pub(super) fn new() -> Board {
        let dir = tempfile::Builder::new().prefix("otad-board-").tempdir().unwrap();
        let device = Device::builder(dir.path().join("device"))
            .trust_root(Goods::get().dir.path().join("root.toml"))
            .slot_bytes(IMAGE_BYTES as u64)
            .backing(Backing::LoopDevices)
            .build(&Binaries::find().unwrap())
            .unwrap();
        let bus = device.bus_address().to_owned();
        let board = Board { device, _dir: dir, bus, slots: ["a", "b"] };
        board.write("boot/boot-id", "the only boot\n");
        board
    }

    /// Makes everything as it was on a device that runs `slots[0]`, whose other slot holds `content`, confirmed.
    pub(super) fn reset(&mut self, slots: [&'static str; 2], content: &[u8]) {
        self.slots = slots;
        let [running, other] = slots;
        self.fill(running, &Goods::get().running);
        self.fill(other, content);
        let scheme = self.device.machine().scheme();
        let mut environment = Environment::new();
        environment.apply(&scheme.factory(running).unwrap()).unwrap();
        environment.set(format!("otad_{other}_ok").as_bytes(), b"1").unwrap();
        self.device.machine().write_environment(&environment).unwrap();
        fs::remove_dir_all(self.path("data")).unwrap();
        fs::create_dir(self.path("data")).unwrap();
        self.write("boot/cmdline", &format!("otad.slot={running}\n"));
        self.write("boot/root-device", &format!("{}\n", self.slot(running).display()));
        let _ = fs::remove_file(self.device.otad_log_path());
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn fill(&self, slot: &str, content: &[u8]) {
        let mut device = fs::File::options().write(true).open(self.slot(slot)).unwrap();
        device.write_all(content).unwrap();
        device.sync_all().unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.device.dir().join(name)
    }

    /// The block device of a slot.
    pub(super) fn slot(&self, name: &str) -> PathBuf {
        self.device.machine().slot(name).unwrap().device().canonicalize().unwrap()
    }

    /// The file below the block device of a slot.
    pub(super) fn medium(&self, name: &str) -> PathBuf {
        self.device.machine().slot(name).unwrap().medium().to_owned()
    }

    /// The block device that is written.
    pub(super) fn target(&self) -> PathBuf {
        self.slot(self.slots[1])
    }

    /// The bus that it is on.
    pub(super) fn bus(&self) -> &str {
        &self.bus
    }

    /// Uses another bus than the device's own.
    pub(super) fn use_bus(&mut self, address: &str) {
        address.clone_into(&mut self.bus);
    }

    /// Starts otad as whatever `command` makes of it, and waits until it answers or has ended.
    pub(super) fn start_as(&self, mut command: Command) -> Otad {
        let log = fs::File::options().create(true).append(true).open(self.device.otad_log_path()).unwrap();
        command.arg(env!("CARGO_BIN_EXE_otad")).arg("--config").arg(self.device.config_path());
        command.args(["--bus", &self.bus]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let spawned =
            command.spawn().expect("cannot start otad; `scripts/need test` installs what the tests use");
        let mut otad = Otad { process: spawned, tracer: None };
        let started = Instant::now();
        while otad.runs() && self.status().is_none() {
            assert!(started.elapsed() < PATIENCE, "otad does not answer:\n{}", self.log());
            std::thread::sleep(LOOK);
        }
        otad
    }

    /// Starts otad as it is; it must come up.
    pub(super) fn start(&self) -> Otad {
        let mut otad = self.start_as(Command::new("env"));
        assert!(otad.runs(), "otad does not start:\n{}", self.log());
        otad
    }

    pub(super) fn start_traced(&self, tracer: &Tracer) -> Otad {
        self.start_as(tracer.command())
    }

    pub(super) fn status(&self) -> Option<Status> {
        let output = self.otactl(&["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Waits for a status.
    pub(super) fn wait(&self, what: &str, mut expected: impl FnMut(&Status) -> bool) -> Status {
        let started = Instant::now();
        loop {
            let status = self.status();
            match &status {
                Some(status) if expected(status) => return status.clone(),
                _ => assert!(started.elapsed() < PATIENCE, "{what} did not come: {status:?}\n{}", self.log()),
            }
            std::thread::sleep(LOOK);
        }
    }

    pub(super) fn otactl(&self, arguments: &[&str]) -> Output {
        self.otactl_command().args(arguments).output().unwrap()
    }

    pub(super) fn install(&self) -> Output {
        self.otactl(&["install", Goods::get().bundle().to_str().unwrap()])
    }

    /// An `otactl` that gives up one day: a job that never ends must fail a test, not hang it.
    pub(super) fn otactl_command(&self) -> Command {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).arg(self.device.otactl_command().get_program());
        command.env("OTAD_BUS", &self.bus);
        command
    }

    /// What otad has said since the last reset.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.device.otad_log_path()).unwrap_or_default()
    }

    pub(super) fn content(&self, slot: &str) -> Vec<u8> {
        let mut content = Vec::with_capacity(IMAGE_BYTES);
        fs::File::open(self.slot(slot)).unwrap().read_to_end(&mut content).unwrap();
        content
    }

    /// The slot that the boot loader would start now, with the environment as it is.
    pub(super) fn next_boot(&self) -> String {
        let config = bootenv::Config::from_file(&self.path("fw_env.config")).unwrap();
        let mut store = bootenv::FileStore::new(&config).unwrap();
        let copies = Layout::Redundant.copies().iter().map(|&copy| store.read(copy).unwrap_or_default());
        self.boots(&copies.collect::<Vec<_>>())
    }

    /// The same with both copies of the environment lost.
    pub(super) fn next_boot_without_environment(&self) -> String {
        self.boots(&vec![vec![0xff; usize::try_from(ENV_BYTES).unwrap()]; 2])
    }

    fn boots(&self, copies: &[Vec<u8>]) -> String {
        let machine = self.device.machine();
        let loader = BootLoader::new(machine.scheme().clone(), Layout::Redundant, ByteOrder::NATIVE);
        let loadable = |name: &str| machine.slot(name).is_ok_and(otad_demo::slots::Slot::loadable);
        match loader.power_on(copies, &loadable).outcome {
            Outcome::Started { slot, .. } => slot,
            Outcome::Reset { reason } => panic!("the device does not boot: {reason}\n{}", self.log()),
        }
    }

    /// I1 to I4 (`what` names the moment): the running slot is as it was, and whatever the boot loader would start,
    /// with its environment or without, is whole.
    pub(super) fn assert_bootable(&self, what: &str) {
        let goods = Goods::get();
        let [running, target] = self.slots;
        assert!(self.content(running) == goods.running, "{what}: the running slot has changed");
        let content = self.content(target);
        let whole = content == goods.new || content == goods.old;
        for next in [self.next_boot(), self.next_boot_without_environment()] {
            assert!(next == running || whole, "{what}: slot {next} would boot, torn:\n{}", self.log());
        }
        let loadable = self.device.machine().slot(target).unwrap().loadable();
        assert!(whole || !loadable, "{what}: slot {target} can be loaded, torn");
    }

    /// The target holds the new image and boots next.
    pub(super) fn assert_installed(&self, what: &str) {
        assert!(self.content(self.slots[1]) == Goods::get().new, "{what}: another content than the bundle's");
        assert_eq!(self.next_boot(), self.slots[1], "{what}\n{}", self.log());
        assert_eq!(
            self.wait("the armed slot", |status| status.job.is_none()).state,
            "post-upgrade",
            "{what}"
        );
    }
}

/// A running otad; killed when dropped.
pub(super) struct Otad {
    process: Child,
    tracer: Option<Child>,
}

impl Otad {
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Lets a tracer come in now; it stays until otad ends.
    pub(super) fn trace(&mut self, tracer: &Tracer) {
        self.tracer = Some(tracer.attach(self.id()));
    }

    /// Lets the tracer go: it would fail the same call of the next thread again. Not while something is being killed.
    pub(super) fn untrace(&self) {
        let started = Instant::now();
        while let Some(tracer) = super::tracer::of(self.id()) {
            // It may take a moment until it listens.
            let _ = nix::sys::signal::kill(tracer, nix::sys::signal::Signal::SIGTERM);
            assert!(started.elapsed() < PATIENCE, "the tracer stays");
            std::thread::sleep(LOOK);
        }
    }

    /// How it ended; it must have, or be about to.
    pub(super) fn ended(&mut self) -> std::process::ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "otad goes on");
            std::thread::sleep(LOOK);
        }
    }
}

impl Otad {
    /// Kills it, and its tracer goes with it.
    pub(super) fn stop(&mut self) {
        let _ = self.process.kill();
        // A tracer takes notice of the end first, and ends with it.
        if let Some(tracer) = &mut self.tracer {
            let _ = tracer.wait();
        }
        let _ = self.process.wait();
    }
}

impl Drop for Otad {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An install from a pipe that has brought part of the bundle and waits for the rest.
pub(super) struct Halfway {
    otactl: Child,
    rest: Vec<u8>,
}

impl Halfway {
    /// Starts it and waits until the target is being written.
    pub(super) fn start(board: &Board) -> Halfway {
        let mut command = board.otactl_command();
        command.args(["install", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut otactl = command.spawn().unwrap();
        let bundle = fs::read(Goods::get().bundle()).unwrap();
        let (front, rest) = bundle.split_at(bundle.len() / 2);
        otactl.stdin.as_mut().unwrap().write_all(front).unwrap();
        board.wait("the install to write", |status| {
            status.job.as_ref().is_some_and(|job| job.phase == "writing")
        });
        Halfway { otactl, rest: rest.to_vec() }
    }

    /// Brings the rest and waits for the end of `otactl`.
    pub(super) fn finish(mut self) -> Output {
        let mut stdin = self.otactl.stdin.take().unwrap();
        // Whoever reads may be dead by now.
        let _ = stdin.write_all(&self.rest);
        drop(stdin);
        let status = self.otactl.wait().unwrap();
        let mut stderr = Vec::new();
        self.otactl.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        Output { status, stdout: Vec::new(), stderr }
    }
}

impl Halfway {
    /// The same without waiting.
    pub(super) fn finish_later(self) -> std::thread::JoinHandle<Output> {
        std::thread::spawn(move || self.finish())
    }
}

impl Drop for Halfway {
    fn drop(&mut self) {
        let _ = self.otactl.kill();
        let _ = self.otactl.wait();
    }
}
