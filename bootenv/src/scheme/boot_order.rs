//! The scheme of RAUC's U-Boot contract: an order of names and a counter of attempts for each.
//!
//! A slot `b` is named `B` here. Counters are written as one digit and read as the boot script reads them, in
//! hexadecimal. Unlike a device updated by one `fw_setenv` per variable, order and counters change in one transaction.
//!
//! The contract has no mark for a trial, and its boot scripts clear none: when attempts run out the order alone tells. So
//! `otad_trial` is set here too, but only for a deadline that runs in the new system without otad; nothing decides by it
//! which slot is tried, and one that names a slot which does not run means nothing.

use super::bootcount::TRIAL;
use super::{ENV_MARK, MAX_BOOT_LIMIT, Pair, Scheme};
use crate::env::{Changes, Environment};

pub(crate) const ORDER: &str = "BOOT_ORDER";

/// The name of a slot in the order.
pub(crate) fn boot_name(slot: &str) -> String {
    slot.to_ascii_uppercase()
}

/// The variable that counts the attempts left.
pub(crate) fn left_name(slot: &str) -> String {
    format!("BOOT_{}_LEFT", boot_name(slot))
}

/// A counter as the boot script reads it, `0x${…}`: the leading hexadecimal digits, and 0 when there are none.
pub(crate) fn attempts(env: &Environment, slot: &str) -> u64 {
    let text = env.get_str(&left_name(slot)).unwrap_or_default();
    let digits =
        text.find(|byte: char| !byte.is_ascii_hexdigit()).map_or(text, |end| text.get(..end).unwrap_or(text));
    match digits {
        "" => 0,
        // Only an overflow fails here: whatever is meant, it is more than any limit.
        digits => u64::from_str_radix(digits, 16).unwrap_or(u64::MAX),
    }
}

fn order(env: &Environment) -> Vec<String> {
    env.get_str(ORDER).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The order with these names first and, behind them, whatever else was in it except `without`.
fn reordered(env: &Environment, first: &[&str], without: &[&str]) -> String {
    let mut names: Vec<String> = first.iter().map(|slot| boot_name(slot)).collect();
    let dropped: Vec<String> = without.iter().map(|slot| boot_name(slot)).collect();
    for name in order(env) {
        if !names.contains(&name) && !dropped.contains(&name) {
            names.push(name);
        }
    }
    names.join(" ")
}

pub(super) fn factory(slot: Pair<'_>, limit: u8) -> Changes {
    Changes::new()
        .set(ORDER, boot_name(slot.this))
        .set(left_name(slot.this), limit.to_string())
        .set(left_name(slot.other), "0")
        .unset(TRIAL)
        .unset(ENV_MARK)
}

pub(super) fn disarm(env: &Environment, target: Pair<'_>) -> Changes {
    let names = order(env);
    // The slot that is left must be in the order: it is the one that is running.
    let first: &[&str] = if names.contains(&boot_name(target.other)) { &[] } else { &[target.other] };
    Changes::new()
        .set(ORDER, reordered(env, first, &[target.this]))
        .set(left_name(target.this), "0")
        .unset(TRIAL)
        .unset(ENV_MARK)
}

pub(super) fn arm(env: &Environment, target: Pair<'_>, limit: u8) -> Changes {
    both(env, target.this, target.other, limit).set(TRIAL, target.this)
}

pub(super) fn take_back(env: &Environment, target: Pair<'_>, limit: u8) -> Changes {
    both(env, target.other, target.this, limit).unset(TRIAL)
}

/// Both slots with all their attempts, in this order.
fn both(env: &Environment, first: &str, second: &str, limit: u8) -> Changes {
    Changes::new()
        .set(ORDER, reordered(env, &[first, second], &[]))
        .set(left_name(first), limit.to_string())
        .set(left_name(second), limit.to_string())
        .unset(ENV_MARK)
}

pub(super) fn commit(env: &Environment, slot: Pair<'_>, limit: u8) -> Changes {
    let changes = Changes::new().set(left_name(slot.this), limit.to_string()).unset(ENV_MARK);
    // The other slot may just have been armed: that is its trial, not this one's.
    let changes = if env.get_str(TRIAL) == Some(slot.other) { changes } else { changes.unset(TRIAL) };
    if order(env).contains(&boot_name(slot.this)) {
        changes
    } else {
        changes.set(ORDER, reordered(env, &[slot.this], &[]))
    }
}

pub(super) fn rollback(env: &Environment, failed: Pair<'_>, limit: u8) -> Changes {
    Changes::new()
        .set(ORDER, reordered(env, &[failed.other], &[failed.this]))
        .set(left_name(failed.this), "0")
        .set(left_name(failed.other), limit.to_string())
        .unset(TRIAL)
        .unset(ENV_MARK)
}

/// The configured slots in their boot order.
fn ordered_slots<'a>(env: &Environment, scheme: &'a Scheme) -> Vec<&'a str> {
    let by_name = |name: &String| scheme.slots().into_iter().find(|slot| boot_name(slot) == *name);
    order(env).iter().filter_map(by_name).collect()
}

pub(super) fn primary<'a>(env: &Environment, scheme: &'a Scheme) -> Option<&'a str> {
    ordered_slots(env, scheme).into_iter().find(|slot| attempts(env, slot) > 0)
}

pub(super) fn slot_ok(env: &Environment, slot: &str) -> bool {
    order(env).contains(&boot_name(slot)) && attempts(env, slot) > 0
}

/// A slot that used up its attempts while another one, later in the order, still has some.
pub(super) fn rolled_back<'a>(env: &Environment, scheme: &'a Scheme) -> Option<&'a str> {
    let primary = primary(env, scheme)?;
    ordered_slots(env, scheme).into_iter().take_while(|slot| *slot != primary).next()
}

pub(super) fn repair(env: &Environment, scheme: &Scheme) -> Changes {
    let mut changes = Changes::new();
    for slot in scheme.slots() {
        let name = left_name(slot);
        let read = attempts(env, slot);
        let bounded = read.min(u64::from(scheme.limit()));
        let plain = env.get_str(&name).is_some_and(|text| text.parse() == Ok(read));
        if !plain || read > u64::from(MAX_BOOT_LIMIT) {
            changes = changes.set(name, bounded.to_string());
        }
    }
    changes
}
