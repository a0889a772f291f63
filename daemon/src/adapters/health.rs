//! The device's own health checks: executables and systemd units.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::config;
use crate::daemon::Surroundings;
use crate::failure::{Code, Failure};
use crate::ports::HealthChecks;

/// How often a running check is looked at; short beside the seconds that checks take.
const LOOK: Duration = Duration::from_millis(50);
/// What is kept of a failing check's output: enough for the line that says why.
const OUTPUT_BYTES: u64 = 2048;
/// A check that writes more than this is broken, and its output would be otad's memory.
const OUTPUT_LIMIT_BYTES: u64 = 256 * 1024;
/// Where the unit of the checks puts what they say, in otad's runtime directory.
const UNIT_OUTPUT: &str = "health.log";
/// How long the unit may take at least, whatever the limit of a check.
const UNIT_LIMIT: Duration = Duration::from_secs(60);
/// How long a killed check may take to die. One in uninterruptible sleep never does, and the verdict must not wait.
const DEATH: Duration = Duration::from_secs(2);

/// Runs what the configuration names.
#[derive(Debug)]
pub struct SystemHealth {
    checks: Option<PathBuf>,
    units: Vec<String>,
    runtime_dir: PathBuf,
    surroundings: Surroundings,
}

impl SystemHealth {
    /// Takes directory and units from the configuration.
    pub fn new(health: &config::Health, runtime_dir: &Path, surroundings: Surroundings) -> Self {
        SystemHealth {
            checks: health.checks.clone(),
            units: health.units.clone(),
            runtime_dir: runtime_dir.to_owned(),
            surroundings,
        }
    }
}

impl HealthChecks for SystemHealth {
    fn run(&self, limit: Duration) -> Result<(), Failure> {
        match (&self.checks, self.surroundings) {
            (Some(dir), Surroundings::Alone | Surroundings::Together) => run_all(dir, limit)?,
            (Some(_), Surroundings::Units) => self.run_in_unit(limit)?,
            (None, _) => {}
        }
        self.units.iter().try_for_each(|unit| check_unit(unit, limit))
    }

    fn pre_run(&self, image: &Path) -> Result<(), Failure> {
        super::pre_run::pre_run(image, &self.runtime_dir)
    }
}

impl SystemHealth {
    /// Has the checks run by their unit: they may need the network and more, of which the daemon has nothing.
    fn run_in_unit(&self, limit: Duration) -> Result<(), Failure> {
        let unit = format!("otad-health@{}.service", limit.as_secs().max(1));
        let output = self.runtime_dir.join(UNIT_OUTPUT);
        let fail =
            |what: String| Failure::new(Code::HealthFailed, format!("health checks in {unit}: {what}"));
        let mut command = Command::new("systemctl");
        command.args(["start", "--", &unit]);
        // Each check has the limit to itself.
        let (status, answer) = run(command, UNIT_LIMIT.max(2 * limit))
            .map_err(|error| fail(format!("systemctl cannot be started: {error}")))?;
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        let said = fs::read_to_string(output).unwrap_or_default();
        let said = said.lines().find_map(|line| {
            let (code, message) = line.split_once(' ')?;
            Some(Failure::new(Code::from_text(code)?, message))
        });
        Err(said.unwrap_or_else(|| fail(answer.lines().next().unwrap_or("no answer").to_owned())))
    }
}

/// Runs the checks of the configuration and says on standard output what is wrong: the code and the message.
///
/// # Errors
/// What is wrong.
pub fn run_checks(health: &config::Health, limit: Duration) -> Result<(), Failure> {
    let checked = health.checks.as_deref().map_or(Ok(()), |dir| run_all(dir, limit));
    checked.inspect_err(|failure| println!("{} {}", failure.code, failure.message.replace('\n', " ")))
}

fn run_all(dir: &Path, limit: Duration) -> Result<(), Failure> {
    executables(dir)?.iter().try_for_each(|check| run_check(check, limit))
}

/// The checks in the order of their names; a file that cannot be executed is a failure, not a pass (H2).
fn executables(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |what: String| {
        Failure::new(Code::HealthFailed, format!("health checks in {}: {what}", dir.display()))
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| fail(error.to_string()))? {
        let path = entry.map_err(|error| fail(error.to_string()))?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.is_dir() {
            continue;
        }
        let mode = fs::metadata(&path).map_err(|error| fail(error.to_string()))?.permissions().mode();
        if mode & 0o111 == 0 {
            return Err(fail(format!("{} is not executable (mode {:04o})", path.display(), mode & 0o7777)));
        }
        found.push(path);
    }
    found.sort();
    Ok(found)
}

fn run_check(path: &Path, limit: Duration) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (status, output) = run(Command::new(path), limit).map_err(|error| {
        Failure::new(Code::HealthFailed, format!("health check {name} cannot be started: {error}"))
    })?;
    judge(&format!("health check {name}"), status, &output, limit)
}

fn check_unit(unit: &str, limit: Duration) -> Result<(), Failure> {
    let mut command = Command::new("systemctl");
    command.args(["is-active", "--", unit]);
    let (status, output) = run(command, limit).map_err(|error| {
        Failure::new(Code::HealthFailed, format!("unit {unit} cannot be looked at: {error}"))
    })?;
    judge(&format!("unit {unit}"), status, &output, limit)
}

fn judge(what: &str, status: Option<ExitStatus>, output: &str, limit: Duration) -> Result<(), Failure> {
    let said = output.trim().lines().next_back().map(|line| format!(": {line}")).unwrap_or_default();
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Failure::new(Code::HealthFailed, format!("{what} failed ({status}){said}"))),
        None => {
            let seconds = limit.as_secs_f32();
            let limits = format!("within {seconds:.0} s and {} KiB of output", OUTPUT_LIMIT_BYTES / 1024);
            Err(Failure::new(
                Code::HealthTimeout,
                format!("{what} did not end {limits} and was killed{said}"),
            ))
        }
    }
}

/// Runs a command in a process group of its own; `None` instead of a status when it had to be killed (H1).
pub(super) fn run(mut command: Command, limit: Duration) -> std::io::Result<(Option<ExitStatus>, String)> {
    // A file takes whatever the check writes without ever blocking it, and keeps nothing open in grandchildren.
    let mut output = memory_file()?;
    let (stdout, stderr) = (output.try_clone()?, output.try_clone()?);
    let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0).spawn()?;
    let status = wait(&mut child, limit, &output)?;
    if status.is_none() {
        kill_group(&child);
        wait(&mut child, DEATH, &output)?;
    }
    Ok((status, tail(&mut output)?))
}

fn wait(child: &mut Child, limit: Duration, output: &fs::File) -> std::io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= limit || output.metadata()?.len() > OUTPUT_LIMIT_BYTES {
            return Ok(None);
        }
        std::thread::sleep(LOOK.min(limit));
    }
}

fn kill_group(child: &Child) {
    use nix::sys::signal::{Signal, killpg};
    use nix::unistd::Pid;
    if let Ok(id) = i32::try_from(child.id()) {
        // An error means that the group is gone already.
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
}

/// A file in memory for a check's output.
fn memory_file() -> std::io::Result<fs::File> {
    let descriptor = nix::sys::memfd::memfd_create(c"health-check", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    Ok(fs::File::from(descriptor))
}

fn tail(output: &mut fs::File) -> std::io::Result<String> {
    use std::io::{Seek as _, SeekFrom};
    let length = output.metadata()?.len();
    output.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_BYTES)))?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dir: &Path, name: &str, script: &str, mode: u32) {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn health(dir: &Path) -> SystemHealth {
        let (checks, surroundings) = (Some(dir.to_owned()), Surroundings::Alone);
        SystemHealth { checks, units: Vec::new(), runtime_dir: PathBuf::new(), surroundings }
    }

    fn check_all(dir: &Path) -> Result<(), Failure> {
        health(dir).run(Duration::from_millis(300))
    }

    /// H1, H2: every way a check can fail is a failure with its reason.
    #[test]
    fn checks_fail_with_their_own_words() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), "10-good", "exit 0", 0o755);
        assert_eq!(check_all(dir.path()), Ok(()));

        check(dir.path(), "20-bad", "echo starting; echo sensor missing >&2; exit 3", 0o755);
        let failure = check_all(dir.path()).unwrap_err();
        assert_eq!(failure.code, Code::HealthFailed);
        assert!(
            failure.message.contains("20-bad") && failure.message.ends_with("sensor missing"),
            "{failure}"
        );

        check(dir.path(), "20-bad", "exit 0", 0o644);
        assert!(check_all(dir.path()).unwrap_err().message.contains("not executable"));

        check(dir.path(), "20-bad", "sleep 60 & sleep 60", 0o755);
        assert_eq!(check_all(dir.path()).unwrap_err().code, Code::HealthTimeout);

        check(dir.path(), "20-bad", "yes", 0o755);
        let started = Instant::now();
        assert_eq!(health(dir.path()).run(Duration::from_secs(60)).unwrap_err().code, Code::HealthTimeout);
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "a check that floods its output is stopped early"
        );

        assert_eq!(check_all(&dir.path().join("missing")).unwrap_err().code, Code::HealthFailed);
    }
}
