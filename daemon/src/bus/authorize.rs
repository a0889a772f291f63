//! Who may ask for what.
//!
//! Root, otad's own user and the group `otad` may everything, and no other service is asked about them: a device that
//! has no polkit, or a broken one, stays operable. Everybody else may what polkit says, act by act; the bus vouches for who
//! that is.

use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::Header;
use zbus::names::BusName;

use super::places::{Place, Places};
use super::polkit::{self, Dialog};
use crate::failure::{Code, Failure};
use crate::trust::sequence::Permit;

/// What a call may bring: paths and URLs, with room to spare. A call is kept until polkit has answered, which strangers can make last.
const LONGEST_CALL_BYTES: u32 = 64 * 1024;

/// Acts of one caller that may be under way at a time: a person or a program has one or two.
const MOST_OF_ONE_CALLER: usize = 8;
/// And of all: more than a user can have with the 256 connections that the system bus gives one, so that no stranger keeps root out.
const MOST_CALLS: usize = 4096;
/// Who has called, by bus name.
static CALLS: Places<String> = Places::new(MOST_CALLS, MOST_OF_ONE_CALLER);

/// The group whose members may act without being root.
const GROUP: &str = "otad";

/// What polkit tells apart; each is an action of `org.otad1.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Asking the server, looking into a bundle.
    Check,
    /// Starting and cancelling an install.
    Install,
    /// Installing what leads below the floor, which the recovery role has to have signed as well.
    Downgrade,
    /// Confirming a trial, going back, and verdicts on slots.
    Commit,
    /// Rebooting.
    Reboot,
}

impl Act {
    const fn action(self) -> &'static str {
        match self {
            Act::Check => "org.otad1.check",
            Act::Install => "org.otad1.install",
            Act::Downgrade => "org.otad1.downgrade",
            Act::Commit => "org.otad1.commit",
            Act::Reboot => "org.otad1.reboot",
        }
    }
}

/// What the bus says of a caller.
enum Caller {
    /// Root, otad's own user, or somebody of the group.
    Trusted,
    /// Another user.
    User(u32),
}

/// What a caller may go on with, for as long as it holds this.
pub(super) type Pass = Place<String>;

/// Lets the caller of a message pass or not.
pub(super) async fn require(connection: &Connection, header: &Header<'_>, act: Act) -> Result<Pass, Failure> {
    // Before anybody is asked about it: a flood costs a look at a list.
    let name = header.sender().map(ToString::to_string).unwrap_or_default();
    let pass = CALLS.take(name).ok_or_else(|| {
        let what = format!("{MOST_OF_ONE_CALLER} calls of this caller, or {MOST_CALLS} in all, are open");
        Failure::new(Code::LimitsExceeded, format!("{what}; wait for an answer before calling again"))
    })?;
    let Caller::User(uid) = caller(connection, header).await? else { return Ok(pass) };
    let action = act.action();
    polkit::ask(connection, header, uid, action, Dialog::AsCalled).await.map(|()| pass).map_err(|why| {
        denied(&format!("user {uid} may not do this ({action}): {why}"), "or let a rule of polkit allow it")
    })
}

/// Whether the caller may take the device back to before its floor. Nobody is asked for a password: that it matters is
/// known only when the bundle has been read.
pub(super) async fn downgrade(connection: &Connection, header: &Header<'_>) -> Result<Permit, Failure> {
    let Caller::User(uid) = caller(connection, header).await? else { return Ok(Permit::Granted) };
    match polkit::ask(connection, header, uid, Act::Downgrade.action(), Dialog::Never).await {
        Ok(()) => Ok(Permit::Granted),
        Err(why) => {
            log::info!("user {uid} may install, but nothing that leads back: {why}");
            Ok(Permit::Denied)
        }
    }
}

/// Finds out who sent a message.
async fn caller(connection: &Connection, header: &Header<'_>) -> Result<Caller, Failure> {
    let unknown = || denied("an unknown caller may not do this", "");
    let length = header.primary().body_len();
    if length > LONGEST_CALL_BYTES {
        let what = format!("the call has {length} bytes, at most {LONGEST_CALL_BYTES} are taken");
        return Err(Failure::new(Code::NotAuthorized, what));
    }
    let sender = header.sender().ok_or_else(unknown)?;
    let unheard = |error: zbus::Error| {
        log::warn!("credentials of {sender} are not known: {error}");
        unknown()
    };
    let bus = DBusProxy::new(connection).await.map_err(unheard)?;
    let credentials = bus
        .get_connection_credentials(BusName::Unique(sender.clone()))
        .await
        .map_err(|error| unheard(error.into()))?;
    let uid = credentials.unix_user_id().ok_or_else(unknown)?;
    let own = nix::unistd::geteuid().as_raw();
    if uid == 0 || uid == own || in_group(credentials.unix_group_ids(), uid) {
        return Ok(Caller::Trusted);
    }
    Ok(Caller::User(uid))
}

fn denied(what: &str, next: &str) -> Failure {
    let message = format!("{what}; become root, join the group {GROUP} {next}");
    Failure::new(Code::NotAuthorized, message.trim_end())
}

fn in_group(ids: Option<&Vec<u32>>, uid: u32) -> bool {
    let Ok(Some(group)) = nix::unistd::Group::from_name(GROUP) else { return false };
    if let Some(ids) = ids {
        return ids.contains(&group.gid.as_raw());
    }
    // A bus daemon too old to send groups: ask the user database.
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    user.ok().flatten().is_some_and(|user| group.mem.contains(&user.name))
}
