//! The scheme on U-Boot's boot counter: `upgrade_available` gates it, `bootlimit` bounds it, `altbootcmd` gives up.
//!
//! Facts of U-Boot behind it (`doc/api/bootcount.rst`, `drivers/bootcount/`): with `upgrade_available=0` nothing is
//! counted and nothing is saved at boot; with 1 the counter is raised and saved at every boot, and above `bootlimit`
//! `altbootcmd` runs instead of `bootcmd`. A `bootlimit` of 0 or none means no limit, which is why arming always sets it.

use super::{ENV_MARK, MAX_BOOT_LIMIT, Pair, Scheme, Trial};
use crate::env::{Changes, Environment};

pub(crate) const SLOT: &str = "otad_slot";
pub(crate) const TRIAL: &str = "otad_trial";
pub(crate) const ROLLED_BACK: &str = "otad_rolled_back";
pub(crate) const UPGRADE_AVAILABLE: &str = "upgrade_available";
pub(crate) const BOOTCOUNT: &str = "bootcount";
pub(crate) const BOOTLIMIT: &str = "bootlimit";

/// The variable that tells whether a slot is confirmed.
pub(crate) fn ok_name(slot: &str) -> String {
    format!("otad_{slot}_ok")
}

/// No trial, nothing counted; every act but arming ends like this.
fn settled(changes: Changes) -> Changes {
    changes.unset(TRIAL).set(UPGRADE_AVAILABLE, "0").set(BOOTCOUNT, "0").unset(ENV_MARK)
}

pub(super) fn built_in(changes: Changes, limit: u8) -> Changes {
    changes.set(UPGRADE_AVAILABLE, "1").set(BOOTCOUNT, "0").set(BOOTLIMIT, limit.to_string())
}

pub(super) fn factory(slot: Pair<'_>, limit: u8) -> Changes {
    let changes = Changes::new()
        .set(SLOT, slot.this)
        .set(ok_name(slot.this), "1")
        .set(ok_name(slot.other), "0")
        .set(BOOTLIMIT, limit.to_string());
    settled(changes)
}

pub(super) fn disarm(target: Pair<'_>) -> Changes {
    settled(Changes::new().set(SLOT, target.other).set(ok_name(target.this), "0"))
}

pub(super) fn arm(target: Pair<'_>, limit: u8) -> Changes {
    Changes::new()
        .set(SLOT, target.this)
        .set(TRIAL, target.this)
        .set(ok_name(target.other), "1")
        .set(ok_name(target.this), "0")
        .unset(ROLLED_BACK)
        .set(UPGRADE_AVAILABLE, "1")
        .set(BOOTCOUNT, "0")
        .set(BOOTLIMIT, limit.to_string())
        .unset(ENV_MARK)
}

pub(super) fn take_back(target: Pair<'_>) -> Changes {
    let both =
        Changes::new().set(SLOT, target.other).set(ok_name(target.other), "1").set(ok_name(target.this), "1");
    settled(both)
}

pub(super) fn commit(env: &Environment, slot: Pair<'_>) -> Changes {
    let good = Changes::new().set(ok_name(slot.this), "1");
    // The other slot is armed: its trial must stay counted, or a bad one would be booted for ever.
    if env.get_str(TRIAL) == Some(slot.other) { good.unset(ENV_MARK) } else { settled(good) }
}

pub(super) fn rollback(failed: Pair<'_>) -> Changes {
    settled(Changes::new().set(SLOT, failed.other).set(ROLLED_BACK, failed.this))
}

pub(super) fn primary<'a>(env: &Environment, scheme: &'a Scheme) -> Option<&'a str> {
    scheme.known(env.get_str(SLOT)?)
}

pub(super) fn trial(env: &Environment, scheme: &Scheme) -> Trial {
    match env.get_str(TRIAL).and_then(|name| scheme.known(name)) {
        Some(slot) => Trial::Slot(slot.to_owned()),
        None => Trial::None,
    }
}

pub(super) fn slot_ok(env: &Environment, slot: &str) -> bool {
    env.get_str(&ok_name(slot)) == Some("1")
}

pub(super) fn rolled_back<'a>(env: &Environment, scheme: &'a Scheme) -> Option<&'a str> {
    scheme.known(env.get_str(ROLLED_BACK)?)
}

/// A counter as otad writes it: one decimal digit or more, nothing else.
fn counter(env: &Environment, name: &str) -> Option<u32> {
    env.get_str(name)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
}

pub(super) fn repair(env: &Environment, scheme: &Scheme) -> Changes {
    let mut changes = Changes::new();
    // The limit is what makes a trial end, so it must be there before anything is counted.
    if counter(env, BOOTLIMIT).is_none_or(|limit| limit == 0 || limit > u32::from(MAX_BOOT_LIMIT)) {
        changes = changes.set(BOOTLIMIT, scheme.limit().to_string());
    }
    let on_trial = trial(env, scheme) != Trial::None;
    if !matches!(env.get_str(UPGRADE_AVAILABLE), Some("0" | "1")) {
        changes = changes.set(UPGRADE_AVAILABLE, if on_trial { "1" } else { "0" });
    }
    if counter(env, BOOTCOUNT).is_none() {
        changes = changes.set(BOOTCOUNT, "0");
    }
    changes
}
