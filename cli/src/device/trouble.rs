//! Why a command to the device did not succeed, in the words and the exit statuses that people and scripts see.
//!
//! One total function, [`Trouble::from_bus`], turns what zbus reports into a [`Trouble`]; nothing else in `otactl` looks
//! at D-Bus error names. Exit statuses follow from [`otad_dbus::Code::class`]; only what happens on this side of the
//! bus has statuses of its own (5: nobody answers; 130: the person went away).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use otad_dbus::{Class, Code};
use zbus::DBusError as _;

use super::fields::Malformed;
use crate::exit::{Exit, INTERRUPTED, NO_DAEMON};
use crate::show::printable;

/// A command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The bundle argument cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The bundle argument, or what standard input is, cannot be installed from.
    #[error("{0}")]
    Source(String),
    /// The asynchronous runtime, a thread or a pipe could not be made.
    #[error("cannot {act}: {source}")]
    System { act: &'static str, source: io::Error },
    /// The text after `--bus` is not a bus.
    #[error("`{address}` is neither `system` nor `session` nor a D-Bus address: {source}")]
    Address { address: String, source: Box<zbus::Error> },
    /// No bus answers at the address.
    #[error("cannot connect to the {bus} bus: {source}; otad cannot be reached without it")]
    NoBus { bus: String, source: Box<zbus::Error> },
    /// The bus works, but nobody owns the name.
    #[error("otad is not running (systemctl status otad)")]
    NotRunning,
    /// Otad has the name but does not answer.
    #[error("otad did not answer within {} s (systemctl status otad)", .0.as_secs())]
    NoAnswer(Duration),
    /// The connection to the bus broke off.
    #[error("the connection to the bus broke off; `otactl status` tells how it went on")]
    BusLost,
    /// The daemon went away while it worked for us.
    #[error("otad went away {during}; it recovers by itself when it starts again: otactl status --follow")]
    WentAway { during: String },
    /// The bus or otad does not let this user do it.
    #[error("{0}; be root or a member of the group otad")]
    Denied(String),
    /// Otad refused the request, or the job failed, with a stable code.
    #[error("{message}")]
    Refused { code: Code, message: String },
    /// The same with a code or error name that this otactl does not know.
    #[error("{message} ({name})")]
    Foreign { name: String, message: String },
    /// What otad sent is not what the contract says.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The person interrupted otactl; the install goes on without it, or not, as the message says.
    #[error("{0}")]
    Detached(String),
    /// The reader of our output went away.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

impl Trouble {
    /// Explains an error of a bus call.
    // zbus's enum is open and has dozens of variants that mean "this should not happen".
    #[allow(clippy::wildcard_enum_match_arm)]
    pub(super) fn from_bus(error: zbus::Error, patience: Duration) -> Trouble {
        match error {
            zbus::Error::MethodError(name, message, _) => {
                Trouble::from_name(name.as_str(), message.unwrap_or_else(|| name.as_str().to_owned()))
            }
            zbus::Error::FDO(error) => Trouble::from_standard(*error, patience),
            zbus::Error::InputOutput(error) if error.kind() == io::ErrorKind::TimedOut => {
                Trouble::NoAnswer(patience)
            }
            zbus::Error::InputOutput(_) => Trouble::BusLost,
            other => Trouble::Foreign { name: "D-Bus".to_owned(), message: other.to_string() },
        }
    }

    /// Explains an error name of otad, or the text of a code: `JobRemoved` and replies share the table.
    pub(super) fn from_name(name: &str, message: String) -> Trouble {
        match Code::from_dbus_name(name).or_else(|| Code::from_text(name)) {
            Some(code) => Trouble::Refused { code, message },
            None => Trouble::Foreign { name: name.to_owned(), message },
        }
    }

    #[allow(clippy::wildcard_enum_match_arm)]
    fn from_standard(error: zbus::fdo::Error, patience: Duration) -> Trouble {
        use zbus::fdo::Error as Standard;
        match error {
            Standard::ServiceUnknown(_) | Standard::NameHasNoOwner(_) | Standard::NoServer(_) => {
                Trouble::NotRunning
            }
            // The bus says NoReply when the peer disconnects before it answers.
            Standard::NoReply(_) => Trouble::WentAway { during: "before it answered".to_owned() },
            Standard::TimedOut(_) | Standard::Timeout(_) => Trouble::NoAnswer(patience),
            Standard::Disconnected(_) => Trouble::BusLost,
            Standard::AccessDenied(message)
            | Standard::AuthFailed(message)
            | Standard::InteractiveAuthorizationRequired(message) => Trouble::Denied(message),
            Standard::ZBus(error) => Trouble::from_bus(error, patience),
            other => {
                let message = other.description().unwrap_or("no reason given").to_owned();
                Trouble::Foreign { name: other.name().as_str().to_owned(), message }
            }
        }
    }

    /// Whether it only says that otad is not there at this moment.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Trouble::NotRunning | Trouble::WentAway { .. })
    }

    /// The exit status of `otactl`.
    pub(super) fn status(&self) -> u8 {
        match self {
            Trouble::Refused { code, .. } => code.class().exit_status(),
            Trouble::Source(_) | Trouble::Address { .. } => Class::Usage.exit_status(),
            Trouble::Denied(_) => Class::NotAuthorized.exit_status(),
            Trouble::NoBus { .. }
            | Trouble::NotRunning
            | Trouble::NoAnswer(_)
            | Trouble::BusLost
            | Trouble::WentAway { .. } => NO_DAEMON,
            Trouble::Detached(_) => INTERRUPTED,
            Trouble::Open { .. }
            | Trouble::System { .. }
            | Trouble::Foreign { .. }
            | Trouble::Malformed(_)
            | Trouble::Output(_) => Class::Failed.exit_status(),
        }
    }

    /// The code that is shown beside the message: one of the contract's, or one of the few that only a client has.
    pub(super) fn code(&self) -> &str {
        match self {
            Trouble::Refused { code, .. } => code.as_str(),
            Trouble::Foreign { name, .. } => name,
            Trouble::Source(_) => Code::InvalidSource.as_str(),
            Trouble::Denied(_) => Code::NotAuthorized.as_str(),
            Trouble::NoBus { .. } | Trouble::NotRunning | Trouble::NoAnswer(_) | Trouble::BusLost => {
                "NO_DAEMON"
            }
            Trouble::WentAway { .. } => "DAEMON_GONE",
            Trouble::Detached(_) => "DETACHED",
            Trouble::Address { .. } => "USAGE",
            Trouble::Malformed(_) => "VERSION_MISMATCH",
            Trouble::Open { .. } | Trouble::System { .. } | Trouble::Output(_) => "LOCAL_IO",
        }
    }
}

impl From<Trouble> for Exit {
    fn from(trouble: Trouble) -> Exit {
        Exit {
            status: trouble.status(),
            code: Some(trouble.code().to_owned()),
            message: printable(&trouble.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::fdo;

    #[test]
    fn every_code_keeps_its_class_in_both_spellings() {
        for &code in Code::ALL {
            for name in [code.dbus_name().to_string(), code.as_str().to_owned()] {
                let trouble = Trouble::from_name(&name, "because".to_owned());
                assert_eq!(trouble.status(), code.class().exit_status(), "{name}");
                assert_eq!(trouble.code(), code.as_str());
                assert_eq!(trouble.to_string(), "because");
            }
        }
        assert_eq!(Trouble::from_name("org.otad1.Error.FromTheFuture", String::new()).status(), 1);
    }

    #[test]
    fn standard_errors_have_the_statuses_of_the_contract() {
        let patience = Duration::from_secs(25);
        let text = || "why".to_owned();
        for (error, status) in [
            (fdo::Error::ServiceUnknown(text()), 5),
            (fdo::Error::NameHasNoOwner(text()), 5),
            (fdo::Error::NoReply(text()), 5),
            (fdo::Error::Disconnected(text()), 5),
            (fdo::Error::AccessDenied(text()), 6),
            (fdo::Error::AuthFailed(text()), 6),
            (fdo::Error::UnknownMethod(text()), 1),
        ] {
            let shown = format!("{error:?}");
            let trouble = Trouble::from_bus(zbus::Error::FDO(Box::new(error)), patience);
            assert_eq!(trouble.status(), status, "{shown}");
        }
        let late = zbus::Error::from(io::Error::from(io::ErrorKind::TimedOut));
        assert_eq!(
            Trouble::from_bus(late, patience).to_string(),
            "otad did not answer within 25 s (systemctl status otad)"
        );
    }
}
