//! A device in memory with two small slots, and one install on it: what may be on its target afterwards, and what may not.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bootenv::{ByteOrder, Environment, Layout, LockDirs, Scheme, SchemeKind};
use otad::config::{self, Config};
use otad::failure::Failure;
use otad::install::prepare::{Current, Prepared, Source};
use otad::install::progress::Progress;
use otad::install::worker::Worker;
use otad::ports::{DeviceId, Stop};
use otad::testing::edges::{self, ENVIRONMENT, MemoryInput, RigStore, SECOND_COPY};
use otad::testing::medium::Medium;
use otad::testing::rig::Rig;
use otad::testing::storage::{Names, Storage};
use otad::trial::BootControl;
use otad::trust::Keeper;
use otad::trust::sequence::Permit;
use otad_bundle::{Input, StreamInput};

use crate::{encrypted, fixture};

const ENV_BYTES: usize = 1024;
/// What the target holds before: bytes that no image of ours has.
const BEFORE: u8 = 0xa5;
/// Media of slot a and of slot b, behind the environment.
const RUNNING: [usize; 2] = [1, 2];
const TARGET: [usize; 2] = [3, 4];
const ROLES: [&str; 2] = ["kernel", "rootfs"];

/// How the bundle comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Front to back.
    Pipe,
    /// With jumps.
    File,
}

/// Installs a bundle on a fresh device and asserts that the running slot is untouched and that nothing is on the target but what was
/// there, zeros, and bytes of the genuine images at their places. Says whether the install succeeded.
pub(crate) fn install(bytes: &[u8], way: Way) -> Result<(), Failure> {
    let rig = Rig::new(factory().clone(), paths());
    {
        let mut inner = rig.inner();
        inner.running = RUNNING.to_vec();
        inner.root = DeviceId::Block(RUNNING[1] as u64);
        inner.command_line = "otad.slot=a".to_owned();
        inner.network = true;
        inner.device_key = Some(encrypted::DEVICE_KEY);
    }
    let outcome = attempt(&rig, bytes, way);
    check(&rig, outcome.is_ok());
    outcome
}

fn attempt(rig: &Rig, bytes: &[u8], way: Way) -> Result<(), Failure> {
    let ports = edges::ports(rig);
    let keeper = Keeper::of(fixture::root(), ports.fs.clone())?;
    let scheme = Scheme::new(SchemeKind::Bootcount, ["a", "b"], 3).unwrap();
    let boot = BootControl::new(Box::new(RigStore::new(rig, ENV_BYTES)), scheme, LockDirs::new([]));
    let configuration = configuration();
    let slot = |name: &str| configuration.slot(name).unwrap().clone();
    let worker = Worker {
        running: slot("a"),
        target: slot("b"),
        config: configuration,
        ports,
        current: Current::default(),
        held: None,
        progress: Progress::default(),
        stop: Stop::default(),
    };
    let input: Box<dyn Input + Send> = match way {
        Way::Pipe => Box::new(StreamInput::new(std::io::Cursor::new(bytes.to_vec()))),
        Way::File => Box::new(MemoryInput::new(rig, bytes.into())),
    };
    match worker.prepare(Source::Open(input), Permit::Granted, &keeper)? {
        Prepared::ToWrite(plan) => worker.write(&boot, *plan).map(drop),
        Prepared::AlreadyInstalled | Prepared::AlreadyHeld(..) => panic!("the target held nothing before"),
    }
}

fn check(rig: &Rig, succeeded: bool) {
    let inner = rig.inner();
    assert!(inner.violations.is_empty(), "{:?}", inner.violations);
    let before = factory();
    for number in RUNNING {
        let (now, then) = (&inner.storage.live.medium(number), before.live.medium(number));
        assert_eq!(now.hash(), then.hash(), "the running slot was written");
    }
    for (number, image) in TARGET.into_iter().zip(fixture::images()) {
        let found = inner.storage.live.medium(number).bytes();
        if succeeded {
            assert!(found.starts_with(image), "an install that succeeded left another image");
        }
        let wrong = found
            .iter()
            .enumerate()
            .position(|(at, byte)| !(*byte == BEFORE || *byte == 0 || image.get(at) == Some(byte)));
        assert_eq!(wrong, None, "a byte that nobody vouched for is on the target");
    }
}

fn paths() -> Vec<Option<PathBuf>> {
    let slots = ["a", "b"].into_iter().flat_map(|slot| ROLES.map(|role| Some(path(slot, role))));
    std::iter::once(None).chain(slots).collect()
}

fn path(slot: &str, role: &str) -> PathBuf {
    PathBuf::from(format!("/dev/{role}-{slot}"))
}

fn configuration() -> Arc<Config> {
    static CONFIG: OnceLock<Arc<Config>> = OnceLock::new();
    let parse = || Arc::new(config::parse(&configuration_text(), Path::new("otad.toml"), &|_| true).unwrap());
    CONFIG.get_or_init(parse).clone()
}

/// The configuration of the device.
pub(crate) fn configuration_text() -> String {
    let mut text = "[system]\ncompatible = \"acme-gateway\"\ndata-dir = \"/data\"\n\
         [boot]\nbackend = \"uboot\"\nscheme = \"bootcount\"\nenv-config = \"/env\"\nboot-limit = 3\n"
        .to_owned();
    for slot in ["a", "b"] {
        text += &format!("[[slot]]\nname = \"{slot}\"\n");
        for role in ROLES {
            text += &format!("images.{role} = \"{}\"\n", path(slot, role).display());
        }
    }
    text + "[trust]\nroot = \"/root.toml\"\n[health]\nsettle-seconds = 1\ndeadline-seconds = 3\n\
            [server]\nurl = \"https://updates.example.com\"\ninterval-seconds = 60\n[reboot]\npolicy = \"manual\"\n"
}

/// A stored copy of the factory's environment.
pub(crate) fn environment_copy(flags: u8) -> Vec<u8> {
    let scheme = Scheme::new(SchemeKind::Bootcount, ["a", "b"], 3).unwrap();
    let mut environment = Environment::new();
    environment.apply(&scheme.factory("a").unwrap()).unwrap();
    let data = environment.serialise(ENV_BYTES - Layout::Redundant.header_bytes(), 0).unwrap();
    bootenv::format::Copy { flags, data }.encode(Layout::Redundant, ByteOrder::NATIVE)
}

/// The device as it left the factory.
fn factory() -> &'static Storage {
    static FACTORY: OnceLock<Storage> = OnceLock::new();
    FACTORY.get_or_init(|| {
        assert_eq!(ENVIRONMENT, 0);
        let second = usize::try_from(SECOND_COPY).unwrap();
        let mut env = vec![0; 2 * second];
        for (at, flags) in [(0, 2), (second, 1)] {
            env[at..at + ENV_BYTES].copy_from_slice(&environment_copy(flags));
        }
        let mut media = vec![Medium::new(&env)];
        for filled in [0x11, BEFORE] {
            media
                .extend(fixture::images().iter().map(|image| Medium::new(&vec![filled; image.len() + 4096])));
        }
        Storage::new(media, Names::Ordered)
    })
}
