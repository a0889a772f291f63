//! The `boot-order` scheme at power-on: RAUC's contract, counted at every boot.

use super::Outcome;
use super::session::Session;
use crate::scheme::boot_order::{ORDER, attempts, boot_name, left_name};
use crate::scheme::{MAX_BOOT_LIMIT, Scheme};

/// The project's boot script. The first slot of the order with attempts left loses one, which is saved *before* anything is
/// loaded, so a kernel that cannot be loaded costs an attempt too. Without any left, the counters are filled up again
/// and the machine resets: a device must not stop for good because its power was cut too often.
pub(super) fn run(session: &mut Session, scheme: &Scheme, loadable: &dyn Fn(&str) -> bool) -> Outcome {
    complete(session, scheme);
    let env = session.environment();
    let order = session.get(ORDER).to_owned();
    let by_name = |name: &str| scheme.slots().into_iter().find(|slot| boot_name(slot) == name);
    let chosen = order.split_whitespace().filter_map(by_name).find(|slot| attempts(&env, slot) > 0);
    let Some(slot) = chosen else {
        return refill(session, scheme, &order);
    };
    let left = attempts(&env, slot) - 1;
    session.set(&left_name(slot), format!("{left:x}"));
    session.save();
    if loadable(slot) {
        let used = u64::from(scheme.limit()).saturating_sub(left).max(1);
        return session.start_kernel(slot, used);
    }
    session.reset(format!("slot {slot} cannot be loaded, {left} attempts are left"))
}

/// Missing variables get their defaults, and a counter no script would write is bounded: 999 attempts are for ever.
fn complete(session: &mut Session, scheme: &Scheme) {
    if session.get(ORDER).is_empty() {
        session.set(ORDER, default_order(scheme));
    }
    for slot in scheme.slots() {
        let name = left_name(slot);
        let too_many = attempts(&session.environment(), slot) > u64::from(MAX_BOOT_LIMIT);
        if session.get(&name).is_empty() || too_many {
            session.set(&name, scheme.limit().to_string());
        }
    }
}

fn default_order(scheme: &Scheme) -> String {
    scheme.slots().map(boot_name).join(" ")
}

fn refill(session: &mut Session, scheme: &Scheme, order: &str) -> Outcome {
    for slot in scheme.slots() {
        session.set(&left_name(slot), scheme.limit().to_string());
    }
    // An order without a slot would reset for ever.
    if !order.split_whitespace().any(|name| scheme.slots().into_iter().any(|slot| boot_name(slot) == name)) {
        session.set(ORDER, default_order(scheme));
    }
    session.save();
    session.reset("no attempts are left, all counters are filled up again")
}
