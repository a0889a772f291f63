//! Images, keys and bundles that every test takes from, made once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;
use std::time::Duration;

use otad_bundle::{Recipe, Root, Signer as _, SigningKey, Source, Update, build};
use otad_demo::{Backing, Binaries, Builder, Device, Status, image};

/// Length of every image; two and a half times what a head is, and then some chunks.
pub(super) const IMAGE_BYTES: u64 = 16 << 20;
/// How long anything that works may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What the tests take from.
pub(super) struct Shelf {
    dir: tempfile::TempDir,
    key: SigningKey,
}

/// The one shelf. It is left to the system's temporary directory when the tests end.
pub(super) fn shelf() -> &'static Shelf {
    static SHELF: OnceLock<Shelf> = OnceLock::new();
    SHELF.get_or_init(Shelf::stock)
}

impl Shelf {
    fn stock() -> Shelf {
        let dir = tempfile::Builder::new().prefix("otad-shelf-").tempdir().unwrap();
        let key = SigningKey::generate();
        let root = Root::with_release_keys(&[key.public_key()]);
        fs::write(dir.path().join("root.toml"), root.to_toml()).unwrap();
        let shelf = Shelf { dir, key };
        // Version 3's own self-test fails; version 4 panics before any userland; version 5 was built with another kernel.
        for (number, selftest) in [
            (1, "exit 0"),
            (2, "exit 0"),
            (3, "echo no calibration table >&2; exit 1"),
            (4, "exit 0"),
            (5, "exit 0"),
        ] {
            shelf.make_image(number, selftest);
            shelf.make_bundle(number, "demo-board", number, &shelf.bundle(number), &shelf.key);
        }
        shelf
    }

    fn make_image(&self, number: u64, selftest: &str) {
        let tree = self.path(&format!("tree-{number}"));
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::create_dir_all(tree.join("usr/lib/otad")).unwrap();
        fs::write(tree.join("selftest"), format!("{selftest}\n")).unwrap();
        let mut info = format!("version = \"{number}.0.0\"\nsequence = {number}\n");
        let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        match number {
            2 => info.push_str(&format!("kernel = \"{}\"\n", running.trim())),
            5 => info.push_str("kernel = \"2.6.39-other\"\n"),
            _ => {}
        }
        fs::write(tree.join("usr/lib/otad/image.toml"), info).unwrap();
        if number == 4 {
            fs::write(tree.join("etc/panic"), "").unwrap();
        }
        // Content that does not compress and differs from version to version, with a part that does not.
        for (name, seed) in [("same", 0), ("own", number)] {
            fs::write(tree.join(name), noise(seed, 3 << 20)).unwrap();
        }
        image::make(&tree, &self.image(number), IMAGE_BYTES).unwrap();
    }

    /// Makes a bundle of an image of the shelf.
    pub(super) fn make_bundle(
        &self,
        image: u64,
        compatible: &str,
        sequence: u64,
        output: &Path,
        key: &SigningKey,
    ) {
        let update = Update {
            version: format!("{image}.0.0").parse().unwrap(),
            sequence,
            compatible: vec![compatible.to_owned()],
            description: String::new(),
            critical: Vec::new(),
        };
        let source = Source { role: "rootfs".to_owned(), path: self.image(image) };
        build(&Recipe::new(update, vec![source]), &[key], output, &mut |_| {}).unwrap();
    }

    /// A file on the shelf.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The image of a version.
    pub(super) fn image(&self, number: u64) -> PathBuf {
        self.path(&format!("v{number}.img"))
    }

    /// The bundle of a version.
    pub(super) fn bundle(&self, number: u64) -> PathBuf {
        self.path(&format!("v{number}.otab"))
    }

    /// The key that the trust root lists.
    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// A device with version 1 in slot a, which knows whether it works.
    pub(super) fn factory(&self, dir: &Path) -> Builder {
        Device::builder(dir.join("device"))
            .factory_image(self.image(1))
            .trust_root(self.path("root.toml"))
            .slot_bytes(IMAGE_BYTES + (1 << 20))
            .backing(Backing::Best)
            .health(1, 4)
            .health_check("10-selftest", "sh rootfs/selftest")
    }
}

/// A device and the directory it lives in.
pub(super) struct Rig {
    pub(super) device: Device,
    pub(super) dir: tempfile::TempDir,
}

impl Rig {
    /// Builds a device, switches it on and waits until it is up.
    pub(super) fn start(adjust: impl FnOnce(Builder) -> Builder) -> Rig {
        let dir = tempfile::Builder::new().prefix("otad-rig-").tempdir().unwrap();
        let builder = adjust(shelf().factory(dir.path()));
        let mut device = builder.build(&Binaries::find().unwrap()).unwrap();
        device.power_on().unwrap();
        device.wait_for("otad to answer", PATIENCE, |status| status.state == "idle").unwrap();
        Rig { device, dir }
    }

    /// Runs `otactl` and returns what it said.
    pub(super) fn otactl(&self, arguments: &[&str]) -> Output {
        self.device.otactl(arguments).unwrap()
    }

    /// Installs the bundle of a version and lets it arm.
    pub(super) fn install(&self, number: u64) -> Output {
        self.otactl(&["install", shelf().bundle(number).to_str().unwrap()])
    }

    /// Installs and reboots into the trial, whatever comes of it.
    pub(super) fn update(&self, number: u64) {
        let output = self.install(number);
        assert!(output.status.success(), "{output:?}");
        assert!(self.otactl(&["reboot"]).status.success());
    }

    /// Updates and waits until the version is committed in `slot`.
    pub(super) fn update_for_good(&self, number: u64, slot: &str) -> Status {
        self.update(number);
        let version = format!("{number}.0.0");
        self.wait(&format!("version {number} to be committed"), |status| {
            status.rests_in(slot) && status.version == version && status.last_outcome() == "committed"
        })
    }

    /// Waits for a status.
    pub(super) fn wait(&self, what: &str, expected: impl FnMut(&Status) -> bool) -> Status {
        self.device.wait_for(what, PATIENCE, expected).unwrap()
    }

    /// Whether a slot holds exactly the image of a version.
    pub(super) fn holds(&self, slot: &str, number: u64) -> bool {
        let image = fs::read(shelf().image(number)).unwrap();
        self.device.slot_bytes(slot, image.len()).unwrap() == image
    }
}

/// What a command wrote to standard error, for messages.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bytes that look random and are the same every time (a linear congruential generator, MMIX's constants).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}
