//! The `bootcount` scheme at power-on: U-Boot's counter, then `bootcmd` or `altbootcmd`.

use super::Outcome;
use super::session::Session;
use crate::scheme::Scheme;
use crate::scheme::bootcount::{BOOTCOUNT, BOOTLIMIT, ROLLED_BACK, SLOT, TRIAL, UPGRADE_AVAILABLE, ok_name};

/// U-Boot's part. The counter is raised and saved only while `upgrade_available` is not 0; in memory it is raised always. A
/// limit of 0 or none is no limit.
pub(super) fn run(session: &mut Session, scheme: &Scheme, loadable: &dyn Fn(&str) -> bool) -> Outcome {
    let counting = session.number(UPGRADE_AVAILABLE) != 0;
    let count = if counting { session.number(BOOTCOUNT).saturating_add(1) } else { 1 };
    session.set(BOOTCOUNT, count.to_string());
    if counting {
        session.save();
    }
    let limit = session.number(BOOTLIMIT);
    if limit != 0 && count > limit {
        session.print(format!("boot {count} is over the limit of {limit}, running altbootcmd"));
        return altbootcmd(session, scheme, loadable);
    }
    bootcmd(session, scheme, loadable)
}

/// The selected slot (the first one if none is selected) and the other one.
fn selected<'a>(session: &Session, scheme: &'a Scheme) -> (&'a str, &'a str) {
    let [first, second] = scheme.slots();
    if session.get(SLOT) == second { (second, first) } else { (first, second) }
}

/// Whether a slot that is not selected may be booted: it was confirmed, or the default environment cannot know.
fn allowed(session: &Session, slot: &str) -> bool {
    session.get(&ok_name(slot)) == "1" || session.is_default()
}

/// The project's `bootcmd`: the selected slot; if nothing can be loaded there, the other one if that is allowed.
fn bootcmd(session: &mut Session, scheme: &Scheme, loadable: &dyn Fn(&str) -> bool) -> Outcome {
    let (slot, other) = selected(session, scheme);
    for candidate in [slot, other] {
        if candidate == other && !allowed(session, other) {
            session.print(format!("slot {other} is not confirmed, not tried"));
            continue;
        }
        if loadable(candidate) {
            let count = session.number(BOOTCOUNT);
            return session.start_kernel(candidate, count);
        }
        session.print(format!("slot {candidate} cannot be loaded"));
    }
    session.reset("no slot can be loaded")
}

/// The project's `altbootcmd`: the selected slot used up its attempts. The other one is selected for good if it is allowed
/// and can be loaded; else the selected one is all there is. On the default environment counting goes on, since no slot is
/// known to be good: the slots take turns.
fn altbootcmd(session: &mut Session, scheme: &Scheme, loadable: &dyn Fn(&str) -> bool) -> Outcome {
    let (slot, other) = selected(session, scheme);
    if !allowed(session, other) || !loadable(other) {
        session.print(format!("slot {other} cannot take over from slot {slot}"));
        return bootcmd(session, scheme, loadable);
    }
    session.set(ROLLED_BACK, slot);
    session.set(SLOT, other);
    session.set(TRIAL, "");
    session.set(BOOTCOUNT, "0");
    if !session.is_default() {
        session.set(UPGRADE_AVAILABLE, "0");
    }
    session.save();
    session.start_kernel(other, 0)
}
