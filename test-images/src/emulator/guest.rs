//! A root shell on the board, over SSH, for what the console cannot tell.
//!
//! Each command is a connection of its own: the board reboots under them, and a connection that hangs would tell nothing.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use otad_demo::Status;

use super::error::Error;

/// A command that has said nothing for this long hangs; an install is waited for otherwise.
const LONGEST: Duration = Duration::from_secs(120);
/// Pause between two attempts to reach the board.
const LOOK: Duration = Duration::from_secs(2);

/// The way to the shell.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Port of this machine that leads to the board's SSH.
    pub port: u16,
    /// The private key that the board accepts for root.
    pub key: PathBuf,
}

/// What a command came to.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Exit status of the command, or 255 when the board could not be reached.
    pub status: ExitStatus,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub error: String,
}

impl Guest {
    /// An `ssh` that runs a command line on the board, for callers that want its input or output elsewhere.
    pub fn command(&self, line: &str, longest: Duration) -> Command {
        let mut command = Command::new("timeout");
        // KILL: children inherit that this program's signals are blocked.
        command
            .arg("--signal=KILL")
            .arg(longest.as_secs().to_string())
            .arg("ssh")
            .arg("-F")
            .arg("none")
            .arg("-i")
            .arg(&self.key);
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=30",
            "ServerAliveInterval=10",
        ] {
            command.arg("-o").arg(option);
        }
        command.arg("-p").arg(self.port.to_string()).arg("root@127.0.0.1").arg(line);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command line; a status other than 0 is no error here.
    pub fn try_run(&self, line: &str) -> Result<Answer, Error> {
        self.answer(self.command(line, LONGEST))
    }

    /// Runs a command to its end.
    pub fn answer(&self, mut command: Command) -> Result<Answer, Error> {
        let output = command.output().map_err(|source| Error::Start { program: "ssh", source })?;
        Ok(Answer {
            status: output.status,
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command line that has to succeed and returns what it wrote.
    pub fn run(&self, line: &str) -> Result<String, Error> {
        let answer = self.try_run(line)?;
        if answer.status.success() {
            return Ok(answer.output);
        }
        let why = format!("{}: {}{}", answer.status, answer.output.trim_end(), answer.error.trim_end());
        Err(Error::Guest { command: line.to_owned(), why })
    }

    /// What otad says of itself.
    pub fn status(&self) -> Result<Status, Error> {
        let text = self.run("otactl status --json")?;
        serde_json::from_str(&text).map_err(|error| Error::Guest {
            command: "otactl status --json".to_owned(),
            why: error.to_string(),
        })
    }

    /// Asks until the status is as expected, through reboots.
    ///
    /// # Errors
    /// [`Error::Guest`] with what there was instead.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        mut expected: impl FnMut(&Status) -> bool,
    ) -> Result<Status, Error> {
        let started = Instant::now();
        loop {
            let status = self.status();
            if let Ok(status) = &status
                && expected(status)
            {
                return Ok(status.clone());
            }
            if started.elapsed() >= timeout {
                let seen = status.map_or_else(|error| error.to_string(), |status| format!("{status:?}"));
                let why = format!("waited {} s for {what}; {seen}", timeout.as_secs());
                return Err(Error::Guest { command: "otactl status --json".to_owned(), why });
            }
            std::thread::sleep(LOOK);
        }
    }
}
