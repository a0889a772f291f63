//! Who may ask for what: root, otad's own user, and the group `otad`. The bus policy says the same; this is the second
//! lock, and the only one on a bus without that policy.

use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::Header;
use zbus::names::BusName;

use crate::failure::{Code, Failure};

/// The group whose members may act without being root.
const GROUP: &str = "otad";

/// Lets the caller of a message pass or not. The subject is the unique bus name of the sender, whose credentials the
/// bus itself vouches for; never a process id, which can be reused (D4).
pub(super) async fn caller(connection: &Connection, header: &Header<'_>) -> Result<(), Failure> {
    let denied = |who: &str| {
        Failure::new(
            Code::NotAuthorized,
            format!("{who} may not do this; become root or join the group {GROUP}"),
        )
    };
    let sender = header.sender().ok_or_else(|| denied("a caller without a bus name"))?;
    let unknown = |error: zbus::Error| {
        log::warn!("credentials of {sender} are not known: {error}");
        denied("an unknown caller")
    };
    let bus = DBusProxy::new(connection).await.map_err(unknown)?;
    let credentials = bus
        .get_connection_credentials(BusName::Unique(sender.clone()))
        .await
        .map_err(|error| unknown(error.into()))?;
    let Some(uid) = credentials.unix_user_id() else { return Err(denied("an unknown caller")) };
    let own = nix::unistd::geteuid().as_raw();
    if uid == 0 || uid == own || in_group(credentials.unix_group_ids(), uid) {
        return Ok(());
    }
    Err(denied(&format!("user {uid}")))
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
