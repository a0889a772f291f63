//! A device from the factory: its files, its bus, its power switch.
//!
//! | in its directory | is |
//! |---|---|
//! | `otad.toml`, `root.toml`, `fw_env.config`, `default.env` | what an image would have in `/etc` and `/usr/share` |
//! | `dev/slot-a`, `dev/slot-b` | the slots: links to loop devices, or to the files in `disk/` |
//! | `disk/` | the media: `slot-a.img`, `slot-b.img`, `uboot.env` with both copies of the boot environment |
//! | `data/`, `run/` | otad's persistent and volatile directories; `run/otad.pid` is its process |
//! | `boot/` | what the boot model leaves for otad: command line, boot id, root device |
//! | `rootfs/` | the userland of the slot that runs |
//! | `health.d/` | the device's health checks |
//! | `console.log`, `otad.log` | what boot loader and kernel, and otad said |

mod builder;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bootenv::Environment;

pub use builder::{Builder, Reboot, check_directory};

use crate::bus::Bus;
use crate::console::Console;
use crate::error::Error;
use crate::machine::Machine;
use crate::power::{Daemon, Lights, PowerSupply};
use crate::programs::{Binaries, tail};
use crate::status::Status;

/// Pause between two looks while waiting.
const LOOK: Duration = Duration::from_millis(100);

/// A device, switched off at first. Dropping it cuts the power, ends its bus and detaches its loop devices.
#[derive(Debug)]
pub struct Device {
    // The order is the order of dropping: otad, then what it uses.
    power: Option<PowerSupply>,
    machine: Arc<Machine>,
    bus: Bus,
    console: Arc<Console>,
    dir: PathBuf,
    binaries: Binaries,
}

impl Device {
    /// Describes a device in a directory that must be empty or missing.
    pub fn builder(dir: impl Into<PathBuf>) -> Builder {
        Builder::new(dir.into())
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("otad.toml")
    }

    /// The address of its message bus.
    pub fn bus_address(&self) -> &str {
        self.bus.address()
    }

    /// The machine: slots, boot loader, boot environment.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Switches the power on and returns at once; nothing happens when it is on.
    pub fn power_on(&mut self) -> Result<(), Error> {
        if self.power.is_none() {
            let daemon = Daemon {
                program: self.binaries.path("otad"),
                arguments: vec![
                    "--config".into(),
                    self.config_path().into(),
                    "--bus".into(),
                    self.bus.address().into(),
                ],
                log: self.otad_log_path(),
                pid_file: self.dir.join("run/otad.pid"),
            };
            self.power = Some(PowerSupply::on(self.machine.clone(), daemon, self.console.clone())?);
        }
        Ok(())
    }

    /// Cuts the power: otad is killed wherever it is. Returns when everything is dead.
    pub fn power_off(&mut self) {
        self.power = None;
    }

    /// Kills otad, which the init system then starts again in the same boot. Returns whether it ran.
    pub fn kill_otad(&self) -> bool {
        self.power.as_ref().is_some_and(PowerSupply::kill_otad)
    }

    /// What can be seen from outside; all dark when the power is off.
    pub fn lights(&self) -> Lights {
        self.power.as_ref().map(PowerSupply::lights).unwrap_or_default()
    }

    /// An `otactl` that talks to this device, for callers that want its output elsewhere.
    pub fn otactl_command(&self) -> Command {
        let mut command = Command::new(self.binaries.path("otactl"));
        command.env("OTAD_BUS", self.bus.address());
        command
    }

    /// Runs `otactl` to its end.
    ///
    /// # Errors
    /// It cannot be started. An exit status other than 0 is no error here.
    pub fn otactl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Output, Error> {
        let mut command = self.otactl_command();
        command.args(arguments).output().map_err(Error::io("start", self.binaries.path("otactl")))
    }

    /// What `otactl status` says.
    ///
    /// # Errors
    /// [`Error::Program`] while otad is not there.
    pub fn status(&self) -> Result<Status, Error> {
        let output = self.otactl(&["status", "--json"])?;
        let failed = |said: String| Error::Program {
            command: "otactl status --json".to_owned(),
            status: output.status.to_string(),
            said,
        };
        if !output.status.success() {
            return Err(failed(tail(&output.stderr)));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
    }

    /// Waits until the status is as expected, through restarts and reboots, and returns it.
    ///
    /// # Errors
    /// [`Error::Timeout`] tells what was there instead, with the end of console and log. It comes at once when the device
    /// stands still for good.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        mut expected: impl FnMut(&Status) -> bool,
    ) -> Result<Status, Error> {
        let started = Instant::now();
        loop {
            let status = self.status();
            if let Ok(status) = &status
                && expected(status)
            {
                return Ok(status.clone());
            }
            let fault = self.lights().fault;
            if fault.is_some() || started.elapsed() >= timeout {
                let seen = match (fault, status) {
                    (Some(fault), _) => fault,
                    (None, Ok(status)) => format!("the status is {status:?}"),
                    (None, Err(error)) => error.to_string(),
                };
                let seen = format!("{seen}\n{}", self.last_words());
                return Err(Error::Timeout {
                    what: what.to_owned(),
                    seconds: started.elapsed().as_secs(),
                    seen,
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read(self.otad_log_path()).unwrap_or_default();
        let console = self.console().unwrap_or_default();
        format!("console.log ends with\n{}\notad.log ends with\n{}", tail(console.as_bytes()), tail(&log))
    }

    /// What the boot environment says.
    pub fn environment(&self) -> Result<Environment, Error> {
        self.machine.environment()
    }

    /// The first bytes of a slot, as they are on the medium.
    pub fn slot_bytes(&self, slot: &str, bytes: usize) -> Result<Vec<u8>, Error> {
        self.machine.slot(slot)?.read(bytes)
    }

    /// Everything the boot loader and the kernel have said.
    pub fn console(&self) -> Result<String, Error> {
        self.console.text()
    }

    /// Where otad's log is.
    pub fn otad_log_path(&self) -> PathBuf {
        self.dir.join("otad.log")
    }
}
