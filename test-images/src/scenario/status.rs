//! What the runs look for in a status, beyond what it says itself.

use otad_demo::Status;

/// Whether a slot runs, is confirmed, nothing is under way, and the last update ended with this outcome and code.
pub(crate) fn ended(status: &Status, slot: &str, outcome: &str, code: &str) -> bool {
    let last = status.last_result.as_ref();
    status.rests_in(slot) && last.is_some_and(|last| last.outcome == outcome && last.code == code)
}

/// Whether this slot was installed and waits for its trial.
pub(crate) fn is_armed(status: &Status, slot: &str) -> bool {
    let installed =
        status.last_result.as_ref().is_some_and(|last| last.outcome == "installed" && last.slot == slot);
    status.state == "post-upgrade" && status.primary_slot == slot && status.job.is_none() && installed
}
