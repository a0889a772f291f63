//! Starting programs: to their end, or as a daemon that ends with its owner.
//!
//! All of this runs as the first process of a process namespace, so whatever is still there when it ends, ends with it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::error::Error;

/// Lines that are kept of what a failing program said.
const LAST_LINES: usize = 8;

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// It cannot be started, or its exit status is not 0.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>, Error> {
    let name = shown(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn(command)?.wait_with_output().map_err(Error::io("wait for", &name))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(Error::Program { command: name, status: output.status.to_string(), said: tail(said) })
}

/// A command that is given in words.
pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(program: &str, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Starts a command with the signals that this program blocks unblocked: a child would inherit the mask.
pub(crate) fn spawn(command: &mut Command) -> Result<Child, Error> {
    let blocked = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok();
    let child = command.spawn();
    blocked.map(|blocked| blocked.thread_set_mask());
    child.map_err(Error::io("start", shown(command)))
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it; what it says goes to a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Daemon, Error> {
        let open = || File::options().create(true).append(true).open(log).map_err(Error::io("open", log));
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        Ok(Daemon { child: spawn(command)? })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Errors mean that it ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process as `/proc` shows it.
pub(crate) struct Seen {
    /// Its process id.
    pub(crate) id: u32,
    /// Its parent's.
    pub(crate) parent: u32,
    /// Its name, at most 15 bytes.
    pub(crate) name: String,
    /// Clock ticks on a processor, its waited-for children's included.
    pub(crate) ticks: u64,
}

impl Seen {
    /// One process, while it is there.
    pub(crate) fn look(id: u32) -> Option<Seen> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (head, rest) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let mut fields = rest.split_whitespace().skip(1);
        let parent = fields.next()?.parse().ok()?;
        // utime, stime, cutime and cstime are fields 14 to 17, the parent was field 4.
        let ticks = fields.skip(9).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Seen { id, parent, name: name.to_owned(), ticks })
    }

    /// Every process of this namespace.
    pub(crate) fn all() -> Vec<Seen> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Seen::look).collect()
    }
}

/// The children of this process.
pub(crate) fn children() -> BTreeSet<u32> {
    let own = std::process::id();
    Seen::all().into_iter().filter(|process| process.parent == own).map(|process| process.id).collect()
}

/// Ends and waits for every child that is not in `known`: what a program left behind, which the first process of a
/// namespace inherits. Only then does what it used count.
pub(crate) fn reap(known: &BTreeSet<u32>) {
    loop {
        let left: Vec<u32> = children().difference(known).copied().collect();
        if left.is_empty() {
            return;
        }
        for id in left.into_iter().filter_map(|id| i32::try_from(id).ok()).map(Pid::from_raw) {
            let _ = kill(id, Signal::SIGKILL);
            let _ = waitpid(id, None);
        }
    }
}

/// The command line as somebody would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The last lines of what a program said.
pub(crate) fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.trim().lines().collect();
    lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n")
}

/// Where a program of the system is, if it is installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}
