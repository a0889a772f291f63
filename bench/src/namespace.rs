//! A namespace to run in, so that nothing outlives the benchmark, however it ends.
//!
//! The program that somebody starts only keeps watch: it starts itself again as the first process of a process and mount
//! namespace, and when that has ended, or is to end, it detaches the loop devices. Processes and mounts end with the namespace.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::signal::{SigSet, Signal};

use crate::error::Error;
use crate::process::{command, run};

/// Exit status after an interrupt, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

/// Whether this process is the first of its namespace.
pub(crate) fn inside() -> bool {
    std::process::id() == 1
}

/// Runs this program inside, with the same arguments, and cleans up below `dir` before and after.
pub(crate) fn keep_watch(dir: &Path) -> Result<ExitCode, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Setup("loop devices, mounts and namespaces need root; run it as root".to_owned()));
    }
    detach(dir)?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|error| Error::Setup(format!("cannot block signals: {error}")))?;
    let own = std::env::current_exe().map_err(Error::io("find", "this program"))?;
    let namespaces =
        ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"];
    let mut inside = Command::new("unshare");
    inside.args(namespaces).arg(own).args(std::env::args_os().skip(1)).stdin(Stdio::null());
    let mut inside = crate::process::spawn(&mut inside)?;
    let code = loop {
        let signal = signals.wait().map_err(|error| Error::Setup(format!("cannot wait: {error}")))?;
        if signal != Signal::SIGCHLD {
            eprintln!("\n{signal}: stopping everything");
            let _ = inside.kill();
            let _ = inside.wait();
            break ExitCode::from(INTERRUPTED);
        }
        if let Some(status) = inside.try_wait().map_err(Error::io("wait for", "unshare"))? {
            break status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    detach(dir)?;
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", dir)(error)),
        _ => Ok(code),
    }
}

/// Detaches the loop devices on files below a directory, removed ones too.
fn detach(dir: &Path) -> Result<(), Error> {
    let listed =
        run(&mut command("losetup", &["--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"]))?;
    for line in String::from_utf8_lossy(&listed).lines() {
        let Some((device, file)) = line.split_once(' ') else { continue };
        if Path::new(file).starts_with(dir) {
            run(&mut command("losetup", &["--detach", device]))?;
        }
    }
    Ok(())
}
