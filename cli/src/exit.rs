//! How a command ends: the exit statuses, and the one error type that every command returns.
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed, may be tried again |
//! | 2 | the command line is wrong |
//! | 3 | rejected: signature, compatibility, downgrade |
//! | 4 | busy |
//! | 5 | no daemon |
//! | 6 | not authorized |
//! | 130 | the person interrupted the command; an install goes on |

use std::io::Write as _;

use otad_dbus::{Code, Failure};

/// The exit status when no daemon answers.
pub const NO_DAEMON: u8 = 5;
/// The exit status after ctrl-C, as shells spell it (128 + SIGINT).
pub const INTERRUPTED: u8 = 130;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Exit {
    /// The process exit status.
    pub status: u8,
    /// The stable code, when there is one; shown on its own line and in JSON.
    pub code: Option<String>,
    /// One sentence for people; empty when everything has been said already.
    pub message: String,
}

impl Exit {
    /// A failure with a stable code, which decides the exit status.
    pub fn coded(code: Code, message: impl Into<String>) -> Exit {
        let status = code.class().exit_status();
        Exit { status, code: Some(code.as_str().to_owned()), message: message.into() }
    }

    /// A failure without a code of its own: exit status 1.
    pub fn failed(message: impl Into<String>) -> Exit {
        Exit { status: 1, code: None, message: message.into() }
    }

    /// A mistake on the command line: exit status 2.
    pub fn usage(message: impl Into<String>) -> Exit {
        Exit { status: 2, code: None, message: message.into() }
    }

    /// No daemon answers: exit status 5.
    pub fn no_daemon(message: impl Into<String>) -> Exit {
        Exit { status: NO_DAEMON, code: None, message: message.into() }
    }

    /// Ends with `status` and prints nothing more.
    pub fn silent(status: u8) -> Exit {
        Exit { status, code: None, message: String::new() }
    }

    /// Shows the failure: two lines on standard error, or with `--json` one object on standard output.
    pub fn show(&self, format: Format) {
        if self.message.is_empty() {
            return;
        }
        // When the terminal or pipe is gone there is nobody left to tell.
        match format {
            Format::Text => {
                let mut err = std::io::stderr().lock();
                let _ = writeln!(err, "otactl: {}", self.message);
                if let Some(code) = &self.code {
                    let _ = writeln!(err, "code {code}");
                }
            }
            Format::Json => {
                let error = serde_json::json!({"error": {"code": self.code, "message": self.message}});
                let _ = writeln!(std::io::stdout().lock(), "{error}");
            }
        }
    }
}

/// What standard output is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// People.
    Text,
    /// Programs: JSON only.
    Json,
}

impl From<Failure> for Exit {
    fn from(failure: Failure) -> Exit {
        Exit::coded(failure.code, failure.message)
    }
}

impl From<otad_bundle::Error> for Exit {
    fn from(error: otad_bundle::Error) -> Exit {
        // A test keeps every code of the bundle library in the table.
        Exit::coded(Code::from_text(error.code()).unwrap_or(Code::Internal), error.to_string())
    }
}
