//! Starting and ending the process of a role.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use super::Role;
use crate::failure::{Code, Failure};

/// A role's process; it is killed when nobody needs it any more.
pub(super) struct Process {
    role: Role,
    child: Child,
}

impl Process {
    /// Starts this program as a role; with the socket to it. `memory` is what they share.
    pub(super) fn start(role: Role, memory: Option<File>) -> Result<(Process, UnixStream), Failure> {
        let start = || -> io::Result<(Process, UnixStream)> {
            let (ours, theirs) = UnixStream::pair()?;
            let mut command = Command::new("/proc/self/exe");
            command.arg0("otad").args(["--role", role.name()]).stdin(OwnedFd::from(theirs));
            command.stdout(memory.map_or_else(Stdio::null, Stdio::from));
            if role == Role::Decoder {
                command.env_clear();
            }
            Ok((Process { role, child: command.spawn()? }, ours))
        };
        start().map_err(|error| {
            Failure::new(Code::Resource, format!("the {} cannot be started: {error}; try again", role.name()))
        })
    }

    /// What became of it, for a message; it is over afterwards.
    pub(super) fn end(&mut self) -> String {
        // An error of the first means that it has ended by itself, and then the second says how.
        let by_itself = self.child.try_wait().ok().flatten();
        let status = by_itself.map_or_else(
            || {
                let _ = self.child.kill();
                self.child.wait().map_or_else(|error| error.to_string(), |_| "it was stopped".to_owned())
            },
            |status| status.to_string(),
        );
        format!("the {} has ended ({status})", self.role.name())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Without it a zombie would stay until otad ends.
        let _ = self.child.wait();
    }
}
