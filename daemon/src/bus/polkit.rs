//! One question to polkit: may the owner of this bus name do that?
//!
//! The subject is the unique bus name of whoever called, which polkit resolves at the bus itself; never a process id,
//! which can be another program's by the time somebody looks at it (D4). Whatever is not a clear yes is a no: a polkit
//! that is missing, slow, broken or too busy allows nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zbus::message::{Flags, Header};
use zbus::{Connection, Message, Variant};

use super::places::Places;

const SERVICE: &str = "org.freedesktop.PolicyKit1";
const PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
const INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";

/// `AllowUserInteraction` of `CheckAuthorizationFlags`.
const MAY_ASK_A_PERSON: u32 = 1;

/// Rules are a few lines of script; the start of polkit on a slow device is part of it.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
/// How long somebody may look for a password.
const LONGEST_DIALOG: Duration = Duration::from_secs(120);
/// Questions at a time, and of one user. More are strangers who would fill the memory of otad and of polkit with them, or keep others
/// from being asked about (D5).
static ASKED: Places<u32> = Places::new(16, 4);

/// Questions so far: polkit knows by its number which one is withdrawn.
static QUESTIONS: AtomicU64 = AtomicU64::new(0);

/// `(is_authorized, is_challenge, details)` of `CheckAuthorization`.
type Verdict = (bool, bool, HashMap<String, String>);

/// Whether a person may be asked for a password meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialog {
    /// As the caller said in the flags of its message.
    AsCalled,
    /// In no case.
    Never,
}

/// Returns when polkit allows the sender of a message this action.
///
/// # Errors
/// Why it did not, for people.
pub(super) async fn ask(
    connection: &Connection,
    header: &Header<'_>,
    uid: u32,
    action: &str,
    dialog: Dialog,
) -> Result<(), String> {
    let sender = header.sender().ok_or("the caller has no bus name")?;
    let wanted = header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
    let (flags, limit) = match dialog {
        Dialog::AsCalled if wanted => (MAY_ASK_A_PERSON, LONGEST_DIALOG),
        Dialog::AsCalled | Dialog::Never => (0, LONGEST_ANSWER),
    };
    let _place = ASKED.take(uid).ok_or("too many questions to polkit are open; try again")?;
    let subject = ("system-bus-name", HashMap::from([("name", Variant::from(sender.as_str()))]));
    let number = QUESTIONS.fetch_add(1, Ordering::Relaxed);
    let cancellation = format!("otad-{number}");
    let question = (subject, action, HashMap::<&str, &str>::new(), flags, &cancellation);
    let call = connection.call_method(Some(SERVICE), PATH, Some(INTERFACE), "CheckAuthorization", &question);
    let Ok(answer) = tokio::time::timeout(limit, call).await else {
        cancel(connection, &cancellation).await;
        return Err(format!("polkit did not answer within {} s", limit.as_secs()));
    };
    let answer = answer.map_err(|error| format!("polkit cannot be asked: {error}"))?;
    match answer.body().deserialize::<Verdict>() {
        Ok((true, ..)) => Ok(()),
        Ok((false, true, _)) => Err("polkit wants a password, and there is nobody to ask for it".to_owned()),
        Ok((false, false, _)) => Err("polkit does not allow it".to_owned()),
        Err(error) => Err(format!("polkit's answer is of no use: {error}")),
    }
}

/// Withdraws a question, so that no dialog stays on a screen whose answer nobody waits for. An authority that said nothing to the
/// question may say nothing to this either: nobody waits for that.
async fn cancel(connection: &Connection, cancellation: &str) {
    let message = Message::method_call(PATH, "CancelCheckAuthorization")
        .destination(SERVICE)
        .interface(INTERFACE)
        .with_flags(Flags::NO_REPLY_EXPECTED)
        .build(&cancellation);
    let sent = match message {
        Ok(message) => connection.send(&message).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        log::warn!("cannot withdraw a question from polkit: {error}");
    }
}
