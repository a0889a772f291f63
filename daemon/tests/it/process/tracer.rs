//! strace as a fault injector.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::board::PATIENCE;

/// What is done to which system calls on which files.
pub(super) struct Tracer {
    arguments: Vec<String>,
    log: PathBuf,
}

impl Tracer {
    /// `call` is a name or several with commas, or one with a `?` where not every architecture has it; `act` is what
    /// strace calls a tampering (`signal=KILL`, `error=EIO`); `when` says which calls of each thread: `3`, `3+`.
    pub(super) fn new(log: &Path, call: &str, files: &[PathBuf], act: &str, when: &str) -> Tracer {
        let mut arguments: Vec<String> =
            ["-f", "-qq", "-I2", "-e", "signal=none", "-o"].map(String::from).to_vec();
        arguments.push(log.display().to_string());
        for file in files {
            arguments.extend(["-P".to_owned(), file.display().to_string()]);
        }
        arguments.extend(["-e".to_owned(), format!("trace={call}")]);
        arguments.extend(["-e".to_owned(), format!("inject={call}:{act}:when={when}")]);
        let _ = fs::remove_file(log);
        Tracer { arguments, log: log.to_owned() }
    }

    /// A command that starts what is added to it under strace, as a direct child (`-D`: strace is the grandchild).
    /// Without `--seccomp-bpf`: at its stops the kernel delivers no signal, and its filter stays when the tracer goes.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("strace");
        command.arg("-D").args(&self.arguments);
        command
    }

    /// Attaches to every thread of a process that runs already. The counting starts here. strace ends with the process;
    /// told to end earlier it would wait for ever for one that is just being killed.
    pub(super) fn attach(&self, process: u32) -> Child {
        let mut command = Command::new("strace");
        command.args(&self.arguments).args(["-p", &process.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            command.spawn().expect("cannot start strace; `scripts/need test` installs what the tests use");
        let started = Instant::now();
        while !traced(process) {
            assert!(started.elapsed() < PATIENCE, "strace does not attach");
            std::thread::sleep(Duration::from_millis(2));
        }
        child
    }

    /// How many calls were tampered with so far.
    pub(super) fn injected(&self) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains("(INJECTED)")).count()
    }
}

/// Whether every thread of a process has a tracer.
fn traced(process: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks.map(|task| task.path().join("status")).all(|status| tracer(&status).is_some())
}

/// The tracer of a process.
pub(super) fn of(process: u32) -> Option<Pid> {
    tracer(Path::new(&format!("/proc/{process}/status")))
}

fn tracer(status: &Path) -> Option<Pid> {
    let status = fs::read_to_string(status).ok()?;
    let id = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim().parse().ok()?;
    (id != 0).then(|| Pid::from_raw(id))
}
