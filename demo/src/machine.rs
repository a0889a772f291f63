//! The machine without otad: a boot loader, a kernel's first second, and the files that otad's boot model reads.
//!
//! One [`Machine::boot`] is one power-on: the boot loader ([`bootenv::model`]) reads the stored environment, saves what
//! it saves, and picks a slot; the "kernel" then unpacks the slot's userland to `rootfs/`. Both can fail as on a board: a
//! slot without a file system cannot be loaded, and a root file system that cannot be read, or that has `/etc/panic`, is a
//! kernel panic.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bootenv::model::{BootLoader, Outcome};
use bootenv::{
    BootEnv, ByteOrder, Config, CopyId, EnvLock, Environment, FileStore, LockDirs, Scheme, Store as _,
};

use crate::console::Console;
use crate::error::Error;
use crate::programs::{run, tool};
use crate::slots::Slot;

/// A root file system with this file panics as soon as it runs.
const PANIC_FILE: &str = "etc/panic";
/// Otad holds the lock of the environment for well under a second.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// How a boot ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// A system runs from this slot, and its userland is in `rootfs/`.
    Running {
        /// The slot.
        slot: String,
    },
    /// The kernel started from this slot and panicked, which resets the machine.
    Panicked {
        /// The slot.
        slot: String,
        /// Why, as on the console.
        why: String,
    },
    /// The boot loader reset the machine.
    Reset,
}

/// The parts of a device that are there without otad.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
    slots: [Slot; 2],
    store: FileStore,
    scheme: Scheme,
    loader: BootLoader,
    console: Arc<Console>,
}

impl Machine {
    /// Takes the directory with `fw_env.config`, the slots and the boot loader's scheme.
    pub(crate) fn new(
        dir: &Path,
        slots: [Slot; 2],
        scheme: Scheme,
        console: Arc<Console>,
    ) -> Result<Machine, Error> {
        let config = Config::from_file(&dir.join("fw_env.config")).map_err(Error::environment)?;
        let store = FileStore::new(&config).map_err(Error::environment)?;
        let loader = BootLoader::new(scheme.clone(), config.layout(), ByteOrder::NATIVE);
        Ok(Machine { dir: dir.to_owned(), slots, store, scheme, loader, console })
    }

    /// The slots.
    pub fn slots(&self) -> &[Slot; 2] {
        &self.slots
    }

    /// The slot of that name.
    pub fn slot(&self, name: &str) -> Result<&Slot, Error> {
        let found = self.slots.iter().find(|slot| slot.name() == name);
        found.ok_or_else(|| Error::Setup(format!("there is no slot `{name}`, only a and b")))
    }

    /// The variables of the boot scheme.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// What the current copy of the boot environment says.
    ///
    /// # Errors
    /// [`Error::Environment`] when both copies are lost.
    pub fn environment(&self) -> Result<Environment, Error> {
        let loaded = BootEnv::new(self.store.clone()).load().map_err(Error::environment)?;
        Ok(loaded.environment)
    }

    /// Writes both copies, as the factory does.
    pub fn write_environment(&self, environment: &Environment) -> Result<(), Error> {
        // Where otad has its lock for this environment.
        let locks = LockDirs::new([self.dir.join("run")]);
        let lock = EnvLock::acquire(&locks, LOCK_TIMEOUT).map_err(Error::environment)?;
        BootEnv::new(self.store.clone()).init(&lock, environment).map_err(Error::environment)
    }

    /// One power-on, up to a running userland.
    ///
    /// # Errors
    /// The files of the device cannot be used; nothing that a board could recover from.
    pub fn boot(&self) -> Result<Boot, Error> {
        self.console.print("power on");
        let copies =
            self.store.layout().copies().iter().map(|&copy| self.read_copy(copy)).collect::<Vec<_>>();
        let loadable = |name: &str| self.slot(name).is_ok_and(Slot::loadable);
        let boot = self.loader.power_on(&copies, &loadable);
        for line in &boot.console {
            self.console.print(format_args!("U-Boot: {line}"));
        }
        for save in &boot.saves {
            self.store.clone().write(save.copy, &save.bytes).map_err(Error::environment)?;
        }
        match boot.outcome {
            Outcome::Reset { .. } => Ok(Boot::Reset),
            Outcome::Started { slot, command_line } => self.start_kernel(slot, &command_line),
        }
    }

    /// A copy that cannot be read has no bytes, which the boot loader takes for a bad one.
    fn read_copy(&self, copy: CopyId) -> Vec<u8> {
        self.store.clone().read(copy).unwrap_or_else(|error| {
            self.console.print(format_args!("U-Boot: {} cannot be read: {error}", self.store.place(copy)));
            Vec::new()
        })
    }

    fn start_kernel(&self, name: String, command_line: &str) -> Result<Boot, Error> {
        let slot = self.slot(&name)?;
        let id = "/proc/sys/kernel/random/uuid";
        let boot_id = fs::read_to_string(id).map_err(Error::io("read", id))?;
        self.write("cmdline", &format!("{command_line}\n"))?;
        self.write("boot-id", &boot_id)?;
        self.write("root-device", &format!("{}\n", slot.device().display()))?;
        self.forget_reboot()?;
        if let Err(error) = self.unpack(slot) {
            return Ok(self.panic(name, format!("cannot mount root from slot {}: {error}", slot.name())));
        }
        match fs::read_to_string(self.rootfs().join(PANIC_FILE)) {
            Ok(why) => Ok(self.panic(name, why.trim().to_owned())),
            Err(_) => {
                self.console.print(format_args!("Linux: root file system of slot {name} mounted"));
                Ok(Boot::Running { slot: name })
            }
        }
    }

    fn panic(&self, slot: String, why: String) -> Boot {
        self.console.print(format_args!("Linux: Kernel panic - not syncing: {why}"));
        Boot::Panicked { slot, why }
    }

    /// Unpacks the userland, so that the device's checks can run the programs of the system that booted.
    fn unpack(&self, slot: &Slot) -> Result<(), Error> {
        let rootfs = self.rootfs();
        match fs::remove_dir_all(&rootfs) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &rootfs)(error));
            }
            _ => {}
        }
        fs::create_dir(&rootfs).map_err(Error::io("create", &rootfs))?;
        // Without root it also says that it cannot change owners; whether anything came out is looked at below.
        let mut debugfs = Command::new(tool("debugfs")?);
        run(debugfs.args(["-R", "rdump / ."]).arg(slot.device()).current_dir(&rootfs))?;
        let mut entries = fs::read_dir(&rootfs).map_err(Error::io("list", &rootfs))?;
        if entries.next().is_none() {
            return Err(Error::Setup(format!("{} holds no readable file system", slot.device().display())));
        }
        Ok(())
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.dir.join("boot").join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))
    }

    /// Takes a wish to reboot; whether there was one.
    pub(crate) fn take_reboot(&self) -> Result<bool, Error> {
        let path = self.dir.join("boot/reboot");
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("remove", &path)(error)),
        }
    }

    fn forget_reboot(&self) -> Result<(), Error> {
        self.take_reboot().map(drop)
    }
}
