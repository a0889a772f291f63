//! The machine and its power switch.
//!
//! QEMU's `virt` board with one Cortex-A53: U-Boot as firmware, the disk with the slots on virtio, the boot environment on an
//! SD card, an i6300esb watchdog that resets, a network of its own. The guest reaches the update server of this machine at
//! [`SERVER_URL`], whatever port it has here.

use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::boots::{Boot, boots};
use super::console::Console;
use super::error::Error;
use super::guest::Guest;
use super::qmp::Qmp;
use crate::build::Board;

/// The emulator; version 10 comes from Debian's backports.
const EMULATOR: &str = "qemu-system-aarch64";
/// Where the guest finds the update server: an address of QEMU's own network that is forwarded.
pub const SERVER_URL: &str = "http://10.0.2.100";
/// The board's network, for [`super::qmp::Qmp::set_link`].
pub const NETWORK: &str = "net";
/// Memory of the board, unless a scenario says otherwise.
pub const MEMORY_MIB: u32 = 512;
/// What becomes of what the guest writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeping {
    /// It is written to the image.
    Keep,
    /// It is forgotten when the power goes: the image stays as it is.
    Forget,
    /// It is written to the image, and every write and flush to a log beside it; see [`crate::cuts`].
    Log(PathBuf),
}

/// A medium.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Its image.
    pub image: PathBuf,
    /// What becomes of what is written.
    pub keeping: Keeping,
}

impl Drive {
    /// A medium that keeps what is written to it.
    pub fn keeping(image: impl Into<PathBuf>) -> Drive {
        Drive { image: image.into(), keeping: Keeping::Keep }
    }

    /// A medium that forgets.
    pub fn forgetting(image: impl Into<PathBuf>) -> Drive {
        Drive { image: image.into(), keeping: Keeping::Forget }
    }

    fn arguments(&self, name: &str) -> Vec<OsString> {
        let file = path_option("driver=file,filename=", &self.image);
        match &self.keeping {
            Keeping::Keep => {
                let raw = format!("driver=raw,node-name={name},file={name}-file");
                options(["-blockdev", &format!("{file},node-name={name}-file"), "-blockdev", &raw])
            }
            Keeping::Forget => {
                let drive =
                    path_option(&format!("if=none,id={name},format=raw,snapshot=on,file="), &self.image);
                options(["-drive", &drive])
            }
            Keeping::Log(log) => {
                let log = path_option(&format!("driver=file,node-name={name}-log,filename="), log);
                // The count of entries is stored with every entry, so that a kill loses none and an onlooker can count.
                let logged = format!(
                    "driver=blklogwrites,node-name={name},file={name}-file,log={name}-log,\
                     log-sector-size=512,log-super-update-interval=1"
                );
                let file = format!("{file},node-name={name}-file");
                options(["-blockdev", &file, "-blockdev", &log, "-blockdev", &logged])
            }
        }
    }
}

/// A machine whose power is off.
#[derive(Debug, Clone)]
pub struct Machine {
    /// U-Boot.
    pub firmware: PathBuf,
    /// The disk with the slots; without it U-Boot finds nothing to start.
    pub disk: Option<Drive>,
    /// The card with the boot environment.
    pub card: Option<Drive>,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// The key that opens the board's shell.
    pub ssh_key: PathBuf,
    /// Port of this machine where the update server listens, if there is one.
    pub server_port: Option<u16>,
    /// An init of the slot to be run in place of systemd.
    pub init: Option<String>,
    /// Where `console.log` and `qemu.log` go; they are appended to.
    pub logs: PathBuf,
}

/// A machine whose power is on; dropping it cuts the power.
#[derive(Debug)]
pub struct Power {
    process: Child,
    /// Its serial console.
    pub console: Console,
    /// The hand at its hardware.
    pub qmp: Qmp,
    /// Its shell.
    pub guest: Guest,
}

impl Machine {
    /// The machine of a board without media and without a server; its logs go to a directory.
    pub fn of(board: &Board, logs: &Path) -> Machine {
        Machine {
            firmware: board.uboot.clone(),
            disk: None,
            card: None,
            memory_mib: MEMORY_MIB,
            ssh_key: board.ssh_key.clone(),
            server_port: None,
            init: None,
            logs: logs.to_owned(),
        }
    }

    /// Switches the power on and returns at once.
    pub fn power_on(&self) -> Result<Power, Error> {
        let emulator_log = self.logs.join("qemu.log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&emulator_log)
            .map_err(Error::io("open", &emulator_log))?;
        let port = free_port()?;
        let pair = || UnixStream::pair().map_err(Error::io("make a socket for", &emulator_log));
        let (console, its_console) = pair()?;
        let (monitor, its_monitor) = pair()?;
        // The kernel ends the emulator with this program, however that ends.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", EMULATOR])
            .args(self.arguments(port))
            .stdin(Stdio::from(OwnedFd::from(its_console)))
            .stdout(Stdio::from(OwnedFd::from(its_monitor)))
            .stderr(log)
            .spawn()
            .map_err(|source| Error::Start { program: "setpriv", source })?;
        let console = Console::listen(console, &self.logs.join("console.log"), &emulator_log)?;
        let mut starting = Starting(Some(process));
        let qmp = Qmp::greet(monitor).map_err(|error| match error {
            Error::Qmp { command, why } => {
                let said = std::fs::read_to_string(&emulator_log).unwrap_or_default();
                Error::Qmp { command, why: format!("{why}: {}", said.trim_end()) }
            }
            other => other,
        })?;
        let guest = Guest { port, key: self.ssh_key.clone() };
        let process = starting.0.take().ok_or_else(|| Error::Qmp {
            command: "start".to_owned(),
            why: "the process is gone".to_owned(),
        })?;
        Ok(Power { process, console, qmp, guest })
    }

    fn arguments(&self, ssh_port: u16) -> Vec<OsString> {
        let memory = self.memory_mib.to_string();
        let mut network = format!("user,id={NETWORK},restrict=on,hostfwd=tcp:127.0.0.1:{ssh_port}-:22");
        if let Some(port) = self.server_port {
            // One relay per connection: a forward to a fixed port would be one connection for good.
            network.push_str(&format!(",guestfwd=tcp:10.0.2.100:80-cmd:busybox nc 127.0.0.1 {port}"));
        }
        let mut arguments = options([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            "virt",
            "-accel",
            "tcg",
            "-cpu",
            "cortex-a53",
            "-m",
            &memory,
            "-action",
            "watchdog=reset",
            // Standard input is the console, standard output the monitor: sockets that this program holds.
            "-chardev",
            "socket,id=console,fd=0",
            "-serial",
            "chardev:console",
            "-chardev",
            "socket,id=monitor,fd=1",
            "-mon",
            "chardev=monitor,mode=control",
            "-device",
            "i6300esb",
            "-device",
            "virtio-rng-device",
            "-netdev",
            &network,
            "-device",
            &format!("virtio-net-device,netdev={NETWORK}"),
        ]);
        arguments.extend(["-bios".into(), self.firmware.clone().into()]);
        if let Some(init) = &self.init {
            arguments.extend(options(["-fw_cfg", &format!("name=opt/org.otad.board/init,string={init}")]));
        }
        if let Some(disk) = &self.disk {
            arguments.extend(disk.arguments("disk"));
            arguments.extend(options(["-device", "virtio-blk-device,drive=disk"]));
        }
        if let Some(card) = &self.card {
            arguments.extend(card.arguments("card"));
            arguments.extend(options(["-device", "sdhci-pci", "-device", "sd-card,drive=card"]));
        }
        arguments
    }
}

impl Power {
    /// The boots so far.
    pub fn boots(&self) -> Vec<Boot> {
        boots(&self.console.transcript())
    }

    /// Cuts the power at once, and returns the boots there were. What the guest wrote and did not flush is *kept*: it is in
    /// the memory of this machine. States in which it is lost are made by [`crate::cuts`].
    pub fn cut(mut self) -> Vec<Boot> {
        self.end();
        self.boots()
    }

    fn end(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        self.end();
    }
}

/// An emulator that is killed unless it was taken over.
struct Starting(Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A port that is free at this moment.
fn free_port() -> Result<u16, Error> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(Error::io("find a free port on", "127.0.0.1"))
}

/// A comma in a path is written twice in QEMU's options.
fn path_option(before: &str, path: &Path) -> String {
    format!("{before}{}", path.to_string_lossy().replace(',', ",,"))
}

fn options<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}
