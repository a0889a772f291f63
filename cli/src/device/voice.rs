//! What the device commands say, in three forms: text for people, one JSON object per line for programs, or nothing.
//!
//! Results go to standard output, everything on the way to a result goes to standard error. The JSON forms are the
//! documented schema: events and fields are only ever added.

use std::io::{self, Write};

use serde::Serialize;

use super::model::{Device, Job, Outcome};
use super::trouble::Trouble;

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// Sentences and tables.
    Text,
    /// One JSON object per line on standard output.
    Json,
    /// Nothing; the exit status is the answer.
    Quiet,
}

/// What a program that reads `--json` learns, one object per line, told apart by `event`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Report<'a> {
    /// The job exists.
    Started { job: &'a str },
    /// The job moved on.
    Progress {
        job: &'a str,
        phase: &'a str,
        progress: u32,
        bytes_done: u64,
        bytes_total: u64,
        bytes_fetched: u64,
        bytes_written: u64,
        bytes_unchanged: u64,
        version: &'a str,
    },
    /// The next step is up to somebody else: `daemon`, `reboot` or `trial`.
    Waiting { on: &'a str },
    /// The act succeeded.
    Done {
        act: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a Outcome>,
    },
    /// The answer of the server.
    Checked { found: bool },
    /// The act did not succeed; also the last line before an exit status other than 0.
    Failed { code: &'a str, message: &'a str },
    /// The device as it is now (`status --follow`).
    Status(&'a Device),
}

impl<'a> Report<'a> {
    pub(super) fn progress(job: &'a Job) -> Report<'a> {
        Report::Progress {
            job: &job.path,
            phase: &job.phase,
            progress: job.progress,
            bytes_done: job.bytes_done,
            bytes_total: job.bytes_total,
            bytes_fetched: job.bytes_fetched,
            bytes_written: job.bytes_written,
            bytes_unchanged: job.bytes_unchanged,
            version: &job.version,
        }
    }
}

impl Voice {
    /// Prints a result for people.
    pub(super) fn say(self, text: &str) -> Result<(), Trouble> {
        match self {
            Voice::Text => print_line(text),
            Voice::Json | Voice::Quiet => Ok(()),
        }
    }

    /// Prints an event for programs.
    pub(super) fn report(self, report: &Report<'_>) -> Result<(), Trouble> {
        self.document(report)
    }

    /// Prints a whole document for programs, on one line.
    pub(super) fn document(self, document: &impl Serialize) -> Result<(), Trouble> {
        match self {
            Voice::Json => {
                let line = serde_json::to_string(document).map_err(|error| Trouble::Output(error.into()))?;
                print_line(&line)
            }
            Voice::Text | Voice::Quiet => Ok(()),
        }
    }
}

/// One write per line, so that lines of several processes do not mix in a pipe.
fn print_line(text: &str) -> Result<(), Trouble> {
    let line = if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).map_err(Trouble::Output)
}
