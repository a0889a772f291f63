//! What must not outlive this program: processes, loop devices, a directory for a socket.
//!
//! Each is entered here when it is made and undone when its owner is dropped. A signal or a panic drops nothing, so
//! [`on_signals_and_panics`] undoes whatever is entered at that moment, the newest first. Only the kernel can still
//! prevent that (`kill -9`); the next demo in the same directory then finds and detaches the old loop devices.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

use crate::programs::tool;

/// Exit status after an interrupt, as shells have it for SIGINT.
const INTERRUPTED: i32 = 130;
/// How long the making of a process or a loop device takes at most.
const PATIENCE: Duration = Duration::from_secs(2);

static ENTERED: Mutex<Register> = Mutex::new(Register { next: 0, entries: Vec::new() });

struct Register {
    next: u64,
    entries: Vec<(u64, Leftover)>,
}

/// Something that has to be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// A process and its children: the process leads the group.
    ProcessGroup(Pid),
    /// An attached loop device.
    LoopDevice(PathBuf),
    /// A directory outside the device's own.
    Directory(PathBuf),
}

impl Leftover {
    /// Errors mean that it is gone already, and there is nobody to tell.
    fn undo(&self) {
        match self {
            Leftover::ProcessGroup(leader) => {
                let _ = killpg(*leader, Signal::SIGKILL);
            }
            Leftover::LoopDevice(device) => detach(device),
            Leftover::Directory(dir) => {
                let _ = std::fs::remove_dir_all(dir);
            }
        }
    }
}

fn detach(device: &PathBuf) {
    if let Ok(losetup) = tool("losetup") {
        let _ = Command::new(losetup).arg("-d").arg(device).stderr(Stdio::null()).status();
    }
}

/// An entry; undone and taken out when it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket(u64);

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut register = register();
        if let Some(at) = register.entries.iter().position(|(id, _)| *id == self.0) {
            let (_, leftover) = register.entries.remove(at);
            drop(register);
            leftover.undo();
        }
    }
}

/// Makes something that has to be undone and enters it, in one step: nothing is made once everything is being undone.
pub(crate) fn make<T, E>(act: impl FnOnce() -> Result<(T, Leftover), E>) -> Result<(T, Ticket), E> {
    let mut register = register();
    let (made, leftover) = act()?;
    let id = register.next;
    register.next += 1;
    register.entries.push((id, leftover));
    Ok((made, Ticket(id)))
}

/// Undoes everything, the newest first: whoever uses a loop device is gone before it is detached. While the result is
/// held, nothing new is made.
fn everything() -> Option<MutexGuard<'static, Register>> {
    let started = Instant::now();
    let mut register = loop {
        match ENTERED.try_lock() {
            Ok(register) => break register,
            Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
            // Whoever panicked may be the one who holds it; then waiting would never end.
            Err(TryLockError::WouldBlock) if started.elapsed() > PATIENCE => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    while let Some((_, leftover)) = register.entries.pop() {
        leftover.undo();
    }
    Some(register)
}

fn register() -> MutexGuard<'static, Register> {
    ENTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes SIGINT, SIGTERM, SIGHUP and panics undo everything before the program ends. To be called by a program, not by
/// tests, and before it starts threads: they inherit that these signals are for one thread only.
///
/// # Errors
/// The signals cannot be blocked, or there is no thread for them.
pub fn on_signals_and_panics() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGHUP);
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Ok(signal) = signals.wait() {
            eprintln!("\n{signal}: stopping everything");
            let _nothing_new = everything();
            std::process::exit(INTERRUPTED);
        }
    })?;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        drop(everything());
    }));
    Ok(())
}
