//! The device's own message bus: never the user's session bus.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::cleanup::{Leftover, Ticket, make};
use crate::error::Error;
use crate::process::Guarded;
use crate::programs::tool;

/// The longest path of a socket, in bytes: `sun_path` has 108 with the terminator.
const SOCKET_PATH_BYTES: usize = 107;

/// A bus of its own.
#[derive(Debug)]
pub struct Bus {
    // Before the directory: the process goes first.
    _process: Guarded,
    _elsewhere: Option<Ticket>,
    address: String,
}

impl Bus {
    /// Starts `dbus-daemon` with its socket in `dir`, or where the path gets too long for a socket, in a directory in
    /// the system's temporary one.
    pub(crate) fn start(dir: &Path) -> Result<Bus, Error> {
        let mut socket = dir.join("bus");
        let mut elsewhere = None;
        if socket.as_os_str().len() > SOCKET_PATH_BYTES {
            let (short, ticket) =
                make(|| temporary_directory().map(|dir| (dir.clone(), Leftover::Directory(dir))))?;
            socket = short.join("bus");
            elsewhere = Some(ticket);
        }
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &socket)(error));
            }
            _ => {}
        }
        let address = format!("unix:path={}", socket.display());
        let arguments =
            ["--session", "--nofork", "--nopidfile", "--nosyslog", "--print-address=1"].map(OsString::from);
        let mut arguments = arguments.to_vec();
        arguments.push(format!("--address={address}").into());
        let log = dir.join("bus.log");
        let mut process = Guarded::start(&tool("dbus-daemon")?, &arguments, Stdio::piped(), &log)?;
        // The address appears once the socket is there.
        let mut line = String::new();
        if let Some(stdout) = process.stdout() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(Error::io("read the address of", "dbus-daemon"))?;
        }
        if !line.starts_with(&address) {
            let said = std::fs::read(&log).unwrap_or_default();
            return Err(Error::Program {
                command: "dbus-daemon".to_owned(),
                status: "no bus".to_owned(),
                said: crate::programs::tail(&said),
            });
        }
        Ok(Bus { _process: process, _elsewhere: elsewhere, address })
    }

    /// Its address, as `otactl --bus` takes it.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// A new directory that only this user can enter.
fn temporary_directory() -> Result<PathBuf, Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(Error::io("read", "/proc/sys/kernel/random/uuid"))?;
    let dir = std::env::temp_dir().join(format!("otad-{}", id.trim()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(Error::io("create", &dir))?;
    Ok(dir)
}
