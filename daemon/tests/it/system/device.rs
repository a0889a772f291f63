//! The smallest devices on which otad runs: of files for a bus test, of loop devices for a booted systemd.

use std::fs;
use std::path::{Path, PathBuf};

use bootenv::{BootEnv, EnvLock, Environment, FileStore, LockDirs, Scheme, SchemeKind};

use super::{run, said};

/// Length of a slot.
pub(crate) const SLOT_BYTES: u64 = 32 << 20;
/// Length of one copy of the environment.
const COPY_BYTES: u64 = 0x4000;

/// A device whose configuration is at `config`.
pub(crate) struct Device {
    pub(crate) config: PathBuf,
}

impl Device {
    /// Slots, environment and machine are files in `dir`.
    pub(crate) fn of_files(dir: &Path) -> Device {
        for slot in ["slot-a", "slot-b"] {
            fs::File::create(dir.join(slot)).unwrap().set_len(SLOT_BYTES).unwrap();
        }
        fs::File::create(dir.join("env")).unwrap().set_len(2 * COPY_BYTES).unwrap();
        let at = |name: &str| dir.join(name).display().to_string();
        for (name, text) in
            [("boot-id", "1\n"), ("device-id", "1\n"), ("root-device", &format!("{}\n", at("slot-a")))]
        {
            fs::write(dir.join(name), text).unwrap();
        }
        let boot = format!("backend = \"file\"\nmodel-dir = \"{}\"\n", dir.display());
        let system = format!("data-dir = \"{}\"\nruntime-dir = \"{}\"\n", at("data"), at("run"));
        Device::write(dir, dir, &boot, &system, [&at("slot-a"), &at("slot-b")], &at("env"))
    }

    /// Writes the configuration into `dir`, which the device will see as `seen`, and puts the environment in order.
    pub(crate) fn write(
        dir: &Path,
        seen: &Path,
        boot: &str,
        system: &str,
        slots: [&str; 2],
        env: &str,
    ) -> Device {
        let at = |name: &str| seen.join(name).display().to_string();
        let fw_env = format!("{env} 0 {COPY_BYTES:#x}\n{env} {COPY_BYTES:#x} {COPY_BYTES:#x}\n");
        fs::write(dir.join("fw_env.config"), &fw_env).unwrap();
        fs::write(dir.join("cmdline"), "console=ttyS0 otad.slot=a\n").unwrap();
        fs::write(dir.join("root.toml"), "").unwrap();
        let [a, b] = slots;
        let text = format!(
            "[system]\ncompatible = \"board\"\n{system}\
             [boot]\n{boot}env-config = \"{}\"\ncmdline = \"{}\"\n\
             [[slot]]\nname = \"a\"\nimages.rootfs = \"{a}\"\n[[slot]]\nname = \"b\"\nimages.rootfs = \"{b}\"\n\
             [trust]\nroot = \"{}\"\n",
            at("fw_env.config"),
            at("cmdline"),
            at("root.toml"),
        );
        let config = dir.join("otad.toml");
        fs::write(&config, text).unwrap();
        factory(&dir.join("fw_env.config"), dir);
        Device { config }
    }
}

/// The environment as the factory writes it.
fn factory(fw_env: &Path, lock: &Path) {
    let mut env = open(fw_env);
    let lock = EnvLock::acquire(&LockDirs::new([lock.to_owned()]), bootenv::lock::DEFAULT_TIMEOUT).unwrap();
    let scheme = Scheme::new(SchemeKind::Bootcount, ["a", "b"], 3).unwrap();
    let mut factory = Environment::new();
    factory.apply(&scheme.factory("a").unwrap()).unwrap();
    env.init(&lock, &factory).unwrap();
}

/// The environment that a `fw_env.config` names.
pub(crate) fn open(fw_env: &Path) -> BootEnv<FileStore> {
    BootEnv::new(FileStore::new(&bootenv::Config::from_file(fw_env).unwrap()).unwrap())
}

/// A loop device over a file; detached when dropped, also by a failing test.
pub(crate) struct Loop(pub(crate) String);

impl Loop {
    pub(crate) fn new(file: &Path, bytes: u64) -> Loop {
        fs::File::create(file).unwrap().set_len(bytes).unwrap();
        let output = run("losetup", ["--find".as_ref(), "--show".as_ref(), file.as_os_str()]);
        assert!(output.status.success(), "{}", said(&output));
        Loop(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", ["--detach", &self.0]);
    }
}
