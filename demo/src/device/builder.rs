//! What a factory decides about a device, and the files that come of it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bootenv::{Environment, Scheme, SchemeKind};

use super::Device;
use crate::bus::Bus;
use crate::console::{Console, Watcher};
use crate::error::Error;
use crate::machine::Machine;
use crate::programs::Binaries;
use crate::slots::{Backing, SLOTS, Slot, detach_leftovers};

/// Size of one copy of the boot environment: a common one on boards.
const ENV_BYTES: u64 = 0x4000;
/// Variables of a board that are not otad's business and must survive everything it does.
const BOARD_VARIABLES: &str = "arch=arm\nbaudrate=115200\nbootdelay=0\nethaddr=02:00:00:00:00:01\n";

/// What otad does once an update is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reboot {
    /// Somebody says when.
    Manual,
    /// At once.
    Immediate,
}

/// What a factory decides.
pub struct Builder {
    dir: PathBuf,
    compatible: String,
    device_id: String,
    image: Option<PathBuf>,
    trust_root: Option<PathBuf>,
    slot_bytes: u64,
    backing: Backing,
    scheme: SchemeKind,
    boot_limit: u8,
    server: Option<(String, u32)>,
    settle_seconds: u32,
    deadline_seconds: u32,
    checks: Vec<(String, String)>,
    reboot: Reboot,
    watcher: Option<Watcher>,
}

impl Builder {
    pub(super) fn new(dir: PathBuf) -> Builder {
        Builder {
            dir,
            compatible: "demo-board".to_owned(),
            device_id: "demo-device".to_owned(),
            image: None,
            trust_root: None,
            slot_bytes: 80 << 20,
            backing: Backing::Files,
            scheme: SchemeKind::Bootcount,
            boot_limit: 3,
            server: None,
            settle_seconds: 1,
            deadline_seconds: 6,
            checks: Vec::new(),
            reboot: Reboot::Manual,
            watcher: None,
        }
    }

    /// The image in slot a. Without one both slots are empty, and the device does not boot.
    #[must_use]
    pub fn factory_image(mut self, image: impl Into<PathBuf>) -> Self {
        self.image = Some(image.into());
        self
    }

    /// The root of trust; it is copied. Without one, otad installs nothing.
    #[must_use]
    pub fn trust_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.trust_root = Some(root.into());
        self
    }

    /// The name of the hardware, `demo-board` by default.
    #[must_use]
    pub fn compatible(mut self, name: &str) -> Self {
        name.clone_into(&mut self.compatible);
        self
    }

    /// The device's id, `demo-device` by default.
    #[must_use]
    pub fn device_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.device_id);
        self
    }

    /// Size of each slot in bytes, 80 MiB by default.
    #[must_use]
    pub fn slot_bytes(mut self, bytes: u64) -> Self {
        self.slot_bytes = bytes;
        self
    }

    /// What the slots are made of, files by default.
    #[must_use]
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// The boot scheme and its limit, `bootcount` with 3 boots by default.
    #[must_use]
    pub fn scheme(mut self, scheme: SchemeKind, boot_limit: u8) -> Self {
        self.scheme = scheme;
        self.boot_limit = boot_limit;
        self
    }

    /// The update server, and how often it is asked. None by default.
    #[must_use]
    pub fn server(mut self, url: &str, interval_seconds: u32) -> Self {
        self.server = Some((url.to_owned(), interval_seconds));
        self
    }

    /// How long health must hold, and until when: 1 and 6 seconds by default.
    #[must_use]
    pub fn health(mut self, settle_seconds: u32, deadline_seconds: u32) -> Self {
        self.settle_seconds = settle_seconds;
        self.deadline_seconds = deadline_seconds;
        self
    }

    /// Adds a health check: a script for `/bin/sh`, run in the device's directory.
    #[must_use]
    pub fn health_check(mut self, name: &str, script: &str) -> Self {
        self.checks.push((name.to_owned(), script.to_owned()));
        self
    }

    /// What happens once an update is armed; nothing by default.
    #[must_use]
    pub fn reboot(mut self, reboot: Reboot) -> Self {
        self.reboot = reboot;
        self
    }

    /// Shows every line of the console to somebody.
    #[must_use]
    pub fn on_console(mut self, watcher: Watcher) -> Self {
        self.watcher = Some(watcher);
        self
    }

    /// Makes the device and starts its bus. The power is off.
    pub fn build(mut self, binaries: &Binaries) -> Result<Device, Error> {
        detach_leftovers(&self.dir);
        self.make_directories()?;
        let console = Arc::new(Console::open(&self.dir.join("console.log"), self.watcher.take())?);
        let [a, b] = SLOTS;
        let make = |name| Slot::make(&self.dir, name, self.slot_bytes, self.backing);
        let slots = [make(a)?, make(b)?];
        let scheme = Scheme::new(self.scheme, SLOTS, self.boot_limit).map_err(Error::environment)?;
        self.write_files(&slots)?;
        let machine = Machine::new(&self.dir, slots, scheme, console.clone())?;
        self.run_factory(&machine, a)?;
        let bus = Bus::start(&self.dir)?;
        let machine = Arc::new(machine);
        Ok(Device { power: None, machine, bus, console, dir: self.dir, binaries: binaries.clone() })
    }

    /// Makes the directory absolute and everything in it that is a directory.
    fn make_directories(&mut self) -> Result<(), Error> {
        fs::create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))?;
        self.dir = self.dir.canonicalize().map_err(Error::io("find", &self.dir))?;
        check_directory(&self.dir)?;
        for name in ["boot", "data", "dev", "disk", "health.d", "run"] {
            let dir = self.dir.join(name);
            fs::create_dir(&dir).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    Error::Setup(format!("{} holds a device already; remove it first", self.dir.display()))
                }
                _ => Error::io("create", &dir)(error),
            })?;
        }
        Ok(())
    }

    fn write_files(&self, slots: &[Slot; 2]) -> Result<(), Error> {
        let env = self.dir.join("disk/uboot.env");
        let file = fs::File::create_new(&env).map_err(Error::io("create", &env))?;
        file.set_len(2 * ENV_BYTES).map_err(Error::io("size", &env))?;
        let env = env.display();
        let places =
            format!("# device offset size\n{env} 0x0 {ENV_BYTES:#x}\n{env} {ENV_BYTES:#x} {ENV_BYTES:#x}\n");
        self.write("fw_env.config", &places)?;
        self.write("default.env", BOARD_VARIABLES)?;
        self.write("boot/device-id", &format!("{}\n", self.device_id))?;
        self.write("otad.toml", &self.configuration(slots))?;
        if let Some(root) = &self.trust_root {
            let copy = self.dir.join("root.toml");
            fs::copy(root, &copy).map_err(Error::io("copy", root))?;
        }
        for (name, script) in &self.checks {
            let name = format!("health.d/{name}");
            self.write(&name, &format!("#!/bin/sh\ncd {} || exit\n{script}\n", self.dir.display()))?;
            let path = self.dir.join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(Error::io("chmod", &path))?;
        }
        Ok(())
    }

    fn run_factory(&self, machine: &Machine, slot: &str) -> Result<(), Error> {
        if let Some(image) = &self.image {
            machine.slot(slot)?.fill(image)?;
        }
        let mut environment: Environment =
            bootenv::script::parse_environment(BOARD_VARIABLES.as_bytes()).map_err(Error::environment)?;
        let factory = machine.scheme().factory(slot).map_err(Error::environment)?;
        environment.apply(&factory).map_err(Error::environment)?;
        machine.write_environment(&environment)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))
    }

    fn configuration(&self, slots: &[Slot; 2]) -> String {
        let path = |name: &str| quoted(&self.dir.join(name));
        let (compatible, scheme) = (quoted(Path::new(&self.compatible)), scheme_name(self.scheme));
        let reboot = match self.reboot {
            Reboot::Manual => "manual",
            Reboot::Immediate => "immediate",
        };
        let mut text = format!(
            "[system]\ncompatible = {compatible}\ndata-dir = {}\nruntime-dir = {}\n\
             image-info = {} # of the slot that runs\n\n\
             [boot]\nbackend = \"file\"\nmodel-dir = {}\nscheme = \"{scheme}\"\nboot-limit = {}\n\
             env-config = {}\ndefault-env = {}\ncmdline = {}\n",
            path("data"),
            path("run"),
            path("rootfs/usr/lib/otad/image.toml"),
            path("boot"),
            self.boot_limit,
            path("fw_env.config"),
            path("default.env"),
            path("boot/cmdline"),
        );
        for slot in slots {
            let (name, device) = (slot.name(), quoted(slot.device()));
            text.push_str(&format!("\n[[slot]]\nname = \"{name}\"\nimages.rootfs = {device}\n"));
        }
        text.push_str(&format!(
            "\n[trust]\nroot = {}\n\n[health]\nchecks = {}\nsettle-seconds = {}\ndeadline-seconds = {}\n",
            path("root.toml"),
            path("health.d"),
            self.settle_seconds,
            self.deadline_seconds
        ));
        if let Some((url, interval)) = &self.server {
            let url = quoted(Path::new(url));
            text.push_str(&format!("\n[server]\nurl = {url}\ninterval-seconds = {interval}\n"));
        }
        text.push_str(&format!("\n[reboot]\npolicy = \"{reboot}\"\n"));
        text
    }
}

/// Whether a device can live in a directory of this path: `fw_env.config` separates by blanks, and scripts, `debugfs` and
/// bus addresses have characters of their own.
pub fn check_directory(dir: &Path) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if dir.to_str().is_some_and(|path| path.chars().all(plain)) {
        return Ok(());
    }
    let what = "a device needs a directory whose path has only letters, digits and / . _ - +";
    Err(Error::Setup(format!("{}: {what}", dir.display())))
}

fn scheme_name(scheme: SchemeKind) -> &'static str {
    match scheme {
        SchemeKind::Bootcount => "bootcount",
        SchemeKind::BootOrder => "boot-order",
    }
}

/// A TOML string.
fn quoted(text: &Path) -> String {
    toml::Value::from(text.to_string_lossy().into_owned()).to_string()
}
