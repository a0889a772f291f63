//! A process that does not outlive its owner.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::{io, path::Path};

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::Pid;

use crate::cleanup::{Leftover, Ticket, make};
use crate::error::Error;

/// A process in a group of its own, killed with the whole group when this is dropped. A group of its own also keeps
/// Ctrl-C in the terminal away from it: when it ends is its owner's decision.
#[derive(Debug)]
pub(crate) struct Guarded {
    child: Child,
    ticket: Option<Ticket>,
    stdout: Option<ChildStdout>,
}

impl Guarded {
    /// Starts a program whose standard error goes to a file.
    pub(crate) fn start(
        program: &Path,
        arguments: &[OsString],
        stdout: Stdio,
        log: &Path,
    ) -> Result<Guarded, Error> {
        let file =
            std::fs::File::options().create(true).append(true).open(log).map_err(Error::io("open", log))?;
        let mut command = Command::new(program);
        command.args(arguments).process_group(0).stdin(Stdio::null()).stdout(stdout).stderr(file);
        let (mut child, ticket) = make(|| {
            // This program blocks the signals that it waits for; a child would inherit that and could not be ended.
            let blocked = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok();
            let child = command.spawn();
            blocked.map(|blocked| blocked.thread_set_mask());
            let child = child.map_err(Error::io("start", program))?;
            let leader = i32::try_from(child.id()).map(Pid::from_raw);
            let leader =
                leader.map_err(|_| Error::Setup(format!("process id {} is out of range", child.id())))?;
            Ok((child, Leftover::ProcessGroup(leader)))
        })?;
        let stdout = child.stdout.take();
        Ok(Guarded { child, ticket: Some(ticket), stdout })
    }

    /// Its standard output, the first time, if it was started with a pipe.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            // What it left behind in its group goes now.
            self.ticket = None;
        }
        Ok(status)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.ticket = None;
        // It was killed a line above; nothing can be done about a wait that fails.
        let _ = self.child.wait();
    }
}
