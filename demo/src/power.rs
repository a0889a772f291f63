//! The power supply, and the part of the init system that keeps otad running.
//!
//! A thread boots the [`Machine`] and starts otad; when otad is gone it looks why. With a wish to reboot the machine boots
//! again. Without one otad is started again in the same boot, as systemd would (`Restart=on-failure`). A panic or a
//! reset boots again, as a watchdog would.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::console::Console;
use crate::error::Error;
use crate::machine::{Boot, Machine};
use crate::process::Guarded;

/// How often a running otad is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A machine that resets itself needs a moment; without it a device that cannot boot would burn a processor.
const RESET: Duration = Duration::from_millis(100);
/// How long the init system waits before it starts otad again.
const RESTART: Duration = Duration::from_millis(200);
/// Starts of otad in one boot after which the init system gives up.
const STARTS_PER_BOOT: u32 = 5;

/// What otad needs to run.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) log: PathBuf,
    pub(crate) pid_file: PathBuf,
}

/// What can be seen of a machine from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lights {
    /// Power-ons and resets so far.
    pub boots: u32,
    /// The slot that runs, if one does.
    pub running: Option<String>,
    /// Process id of otad, while it runs.
    pub otad: Option<u32>,
    /// Why the machine stands still, if it does.
    pub fault: Option<String>,
}

#[derive(Debug, Default)]
struct Panel {
    lights: Mutex<Lights>,
    off: Mutex<bool>,
    pressed: Condvar,
}

impl Panel {
    fn lights(&self) -> MutexGuard<'_, Lights> {
        self.lights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn press(&self) {
        *self.off.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.pressed.notify_all();
    }

    /// Waits; true as soon as the power goes off.
    fn goes_off_within(&self, time: Duration) -> bool {
        let off = self.off.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.pressed.wait_timeout_while(off, time, |off| !*off);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A machine under power. Dropping it cuts the power.
#[derive(Debug)]
pub(crate) struct PowerSupply {
    panel: Arc<Panel>,
    thread: Option<JoinHandle<()>>,
}

impl PowerSupply {
    /// Switches the power on and returns at once.
    pub(crate) fn on(
        machine: Arc<Machine>,
        daemon: Daemon,
        console: Arc<Console>,
    ) -> Result<PowerSupply, Error> {
        let panel = Arc::new(Panel::default());
        let run = Run { machine, daemon, console, panel: panel.clone() };
        let thread = std::thread::Builder::new().name("power".to_owned()).spawn(move || run.until_off());
        let thread = thread.map_err(Error::io("start a thread for", "the power supply"))?;
        Ok(PowerSupply { panel, thread: Some(thread) })
    }

    pub(crate) fn lights(&self) -> Lights {
        self.panel.lights().clone()
    }

    /// Kills otad as `kill -9` does; the init system starts it again. Returns whether there was one.
    pub(crate) fn kill_otad(&self) -> bool {
        let otad = self.panel.lights().otad.and_then(|id| i32::try_from(id).ok());
        otad.is_some_and(|id| kill(Pid::from_raw(id), Signal::SIGKILL).is_ok())
    }
}

impl Drop for PowerSupply {
    fn drop(&mut self) {
        self.panel.press();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// How a userland ended.
enum Ended {
    Reboot,
    /// Otad is not there and will not be started again.
    Stopped(String),
    PowerOff,
}

struct Run {
    machine: Arc<Machine>,
    daemon: Daemon,
    console: Arc<Console>,
    panel: Arc<Panel>,
}

impl Run {
    fn until_off(&self) {
        let ended = self.boot_again_and_again();
        {
            let mut lights = self.panel.lights();
            lights.running = None;
            lights.otad = None;
            if let Err(error) = &ended {
                lights.fault = Some(error.to_string());
            }
        }
        match ended {
            Ok(()) => self.console.print("power off"),
            Err(error) => {
                self.console.print(format_args!("the device cannot be played any further: {error}"))
            }
        }
    }

    fn boot_again_and_again(&self) -> Result<(), Error> {
        loop {
            self.panel.lights().boots += 1;
            match self.machine.boot()? {
                Boot::Running { slot } => {
                    self.panel.lights().running = Some(slot);
                    let ended = self.userland()?;
                    self.panel.lights().running = None;
                    match ended {
                        Ended::Reboot => self.console.print("reboot"),
                        Ended::PowerOff => return Ok(()),
                        Ended::Stopped(why) => {
                            self.console.print(format_args!("init: otad is not running: {why}"));
                            self.panel.lights().fault = Some(format!("otad is not running: {why}"));
                            while !self.panel.goes_off_within(Duration::from_secs(3600)) {}
                            return Ok(());
                        }
                    }
                }
                Boot::Panicked { .. } | Boot::Reset => {}
            }
            if self.panel.goes_off_within(RESET) {
                return Ok(());
            }
        }
    }

    fn userland(&self) -> Result<Ended, Error> {
        for start in 1.. {
            let daemon = &self.daemon;
            let mut otad = Guarded::start(&daemon.program, &daemon.arguments, Stdio::null(), &daemon.log)?;
            // For people who want to kill it.
            let pid = &daemon.pid_file;
            std::fs::write(pid, format!("{}\n", otad.id())).map_err(Error::io("write", pid))?;
            self.panel.lights().otad = Some(otad.id());
            let status = self.wait(&mut otad)?;
            self.panel.lights().otad = None;
            let Some(status) = status else { return Ok(Ended::PowerOff) };
            if self.machine.take_reboot()? {
                return Ok(Ended::Reboot);
            }
            if status.success() {
                return Ok(Ended::Stopped("it stopped on purpose".to_owned()));
            }
            self.console.print(format_args!("init: otad ended with {status}"));
            if start >= STARTS_PER_BOOT {
                return Ok(Ended::Stopped(format!("{status}, {start} starts in this boot; see otad.log")));
            }
            if self.panel.goes_off_within(RESTART) {
                return Ok(Ended::PowerOff);
            }
        }
        Ok(Ended::PowerOff)
    }

    /// Waits until otad ends, or with `None` until the power goes off.
    fn wait(&self, otad: &mut Guarded) -> Result<Option<ExitStatus>, Error> {
        loop {
            if let Some(status) = otad.ended().map_err(Error::io("wait for", &self.daemon.program))? {
                return Ok(Some(status));
            }
            if self.panel.goes_off_within(LOOK) {
                return Ok(None);
            }
        }
    }
}
