//! A device whose otad is measured: two slots, a bus of its own, and the files of the boot model.
//!
//! The power supply of the demo is not used, for it unpacks root file systems and restarts otad by itself; here otad starts and
//! dies when the measurement says so.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use otad_demo::{Binaries, Status};

use crate::error::Error;
use crate::goods::COMPATIBLE;
use crate::process::{Daemon, command, run};

/// What the environment holds when a device leaves the factory, in the scheme `bootcount`.
const FACTORY: &str =
    "otad_slot=a\notad_a_ok=1\notad_b_ok=0\nupgrade_available=0\nbootcount=0\nbootlimit=3\n";
/// How long otad and the bus may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// The device.
#[derive(Debug)]
pub(crate) struct Board {
    // Dropped first.
    otad: Option<Daemon>,
    _bus: Daemon,
    dir: PathBuf,
    slots: [PathBuf; 2],
    binaries: Binaries,
    together: bool,
}

impl Board {
    /// Makes its files in `dir` and starts its bus. Slot a runs.
    pub(crate) fn new(
        dir: &Path,
        slots: [&Path; 2],
        root: &Path,
        binaries: &Binaries,
    ) -> Result<Board, Error> {
        let [a, b] = slots;
        let socket = dir.join("bus");
        let bus = start_bus(&socket)?;
        let mut board = Board {
            otad: None,
            _bus: bus,
            dir: dir.to_owned(),
            slots: [a.to_owned(), b.to_owned()],
            binaries: binaries.clone(),
            together: false,
        };
        let env = board.path("uboot.env");
        board.write("fw_env.config", &format!("{env} 0x0 0x4000\n{env} 0x4000 0x4000\n"))?;
        board.write("factory.env", FACTORY)?;
        board.write("device-id", "bench\n")?;
        board.write("otad.toml", &board.configuration(root))?;
        board.reset()?;
        Ok(board)
    }

    /// From its next start on otad fetches and decompresses in one process, or does not.
    pub(crate) fn together(&mut self, together: bool) {
        self.together = together;
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))
    }

    fn configuration(&self, root: &Path) -> String {
        let [a, b] = &self.slots;
        let (a, b, root) = (a.display(), b.display(), root.display());
        format!(
            "[system]\ncompatible = \"{COMPATIBLE}\"\ndata-dir = \"{}\"\nruntime-dir = \"{}\"\n\
             [boot]\nbackend = \"file\"\nmodel-dir = \"{}\"\nenv-config = \"{}\"\ncmdline = \"{}\"\n\
             [[slot]]\nname = \"a\"\nimages.rootfs = \"{a}\"\n[[slot]]\nname = \"b\"\nimages.rootfs = \"{b}\"\n\
             [trust]\nroot = \"{root}\"\n[health]\nsettle-seconds = 1\ndeadline-seconds = 30\n",
            self.path("data"),
            self.path("run"),
            self.dir.display(),
            self.path("fw_env.config"),
            self.path("cmdline"),
        )
    }

    /// Makes it a device from the factory again: no record, slot a runs. Otad is stopped.
    pub(crate) fn reset(&mut self) -> Result<(), Error> {
        self.otad = None;
        for name in ["data", "run"] {
            let _ = fs::remove_dir_all(self.dir.join(name));
        }
        let env = self.dir.join("uboot.env");
        fs::write(&env, vec![0; 0x8000]).map_err(Error::io("write", &env))?;
        let bootenv = self.binaries.path("bootenv");
        let mut init = Command::new(bootenv);
        run(init.args(["-c", &self.path("fw_env.config"), "init", &self.path("factory.env")]))?;
        self.boot("a")
    }

    /// Stops otad and lets the other system run, as the boot loader would.
    pub(crate) fn boot(&mut self, slot: &str) -> Result<(), Error> {
        self.otad = None;
        let [a, b] = &self.slots;
        let device = if slot == "a" { a } else { b };
        self.write("root-device", &format!("{}\n", device.display()))?;
        self.write("cmdline", &format!("otad.slot={slot}\n"))?;
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .map_err(Error::io("read", "/proc/sys/kernel/random/uuid"))?;
        self.write("boot-id", &id)
    }

    /// Starts otad and waits until it answers.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        let log = self.dir.join("otad.log");
        let mut otad = Command::new(self.binaries.path("otad"));
        otad.args(["--config", &self.path("otad.toml"), "--bus", &self.bus_address()]);
        if self.together {
            otad.arg("--together");
        }
        self.otad = Some(Daemon::start(&mut otad, &log)?);
        self.wait(|_| true).map(drop)
    }

    /// Kills otad, wherever it is.
    pub(crate) fn kill(&mut self) {
        self.otad = None;
    }

    /// The process id of otad, while it runs.
    pub(crate) fn daemons(&self) -> Vec<u32> {
        self.otad.iter().map(Daemon::id).collect()
    }

    fn bus_address(&self) -> String {
        format!("unix:path={}", self.path("bus"))
    }

    /// An `otactl` that talks to this device: otad by its other name, as packages install it.
    pub(crate) fn otactl(&self, arguments: &[&str]) -> Command {
        let mut otactl = Command::new(self.binaries.path("otad"));
        otactl.arg0("otactl").env("OTAD_BUS", self.bus_address()).args(arguments);
        otactl
    }

    /// Installs a file or URL, to the end.
    pub(crate) fn install(&self, source: &str) -> Result<(), Error> {
        self.run(&["--quiet", "install", source])
    }

    /// Installs a URL with the help of a delta.
    pub(crate) fn install_delta(&self, source: &str, delta: &str) -> Result<(), Error> {
        self.run(&["--quiet", "install", source, "--delta", delta])
    }

    fn run(&self, arguments: &[&str]) -> Result<(), Error> {
        run(&mut self.otactl(arguments)).map(drop).map_err(|error| self.with_log(error))
    }

    /// Makes it a device on which otad has installed a bundle: slot b runs it, confirmed. Otad is stopped.
    pub(crate) fn updated_to(&mut self, bundle: &Path) -> Result<(), Error> {
        self.reset()?;
        self.start()?;
        self.install(&bundle.to_string_lossy())?;
        self.boot("b")?;
        self.start()?;
        self.wait(|status| status.rests_in("b"))?;
        self.otad = None;
        self.copy("data", "kept")
    }

    /// Makes it again what it was after `updated_to`; what slots hold is not touched. Otad is stopped.
    pub(crate) fn updated_again(&mut self) -> Result<(), Error> {
        self.otad = None;
        self.copy("kept", "data")
    }

    /// Copies directory and environment; the environment goes into the directory that is kept.
    fn copy(&self, from: &str, to: &str) -> Result<(), Error> {
        let _ = fs::remove_dir_all(self.dir.join(to));
        run(&mut command("cp", &["-a", &self.path(from), &self.path(to)]))?;
        let (stored, kept) = (self.path("uboot.env"), self.path("uboot.env.kept"));
        let (from, to) = if to == "data" { (kept, stored) } else { (stored, kept) };
        run(&mut command("cp", &[&from, &to])).map(drop)
    }

    /// What `otactl status` says.
    pub(crate) fn status(&self) -> Result<Status, Error> {
        let said = run(&mut self.otactl(&["status", "--json"]))?;
        serde_json::from_slice(&said).map_err(|error| Error::Setup(format!("otactl status: {error}")))
    }

    /// Waits until the status is as wanted.
    pub(crate) fn wait(&self, wanted: impl Fn(&Status) -> bool) -> Result<Status, Error> {
        let started = Instant::now();
        loop {
            match self.status() {
                Ok(status) if wanted(&status) => return Ok(status),
                Ok(status) if started.elapsed() > PATIENCE => {
                    return Err(self.with_log(Error::Setup(format!("otad is not ready: {status:?}"))));
                }
                Err(error) if started.elapsed() > PATIENCE => return Err(self.with_log(error)),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Adds the end of otad's log to an error.
    fn with_log(&self, error: Error) -> Error {
        let log = fs::read(self.dir.join("otad.log")).unwrap_or_default();
        Error::Setup(format!("{error}\notad.log ends with\n{}", crate::process::tail(&log)))
    }
}

/// Starts a message bus of its own with this socket, and waits for it.
pub(crate) fn start_bus(socket: &Path) -> Result<Daemon, Error> {
    let address = format!("--address=unix:path={}", socket.display());
    let mut bus = command("dbus-daemon", &["--session", "--nofork", "--nopidfile", "--nosyslog", &address]);
    let daemon = Daemon::start(&mut bus, &socket.with_extension("log"))?;
    let started = Instant::now();
    while !socket.exists() {
        if started.elapsed() > PATIENCE {
            return Err(Error::Setup(format!("dbus-daemon made no socket {}", socket.display())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(daemon)
}
