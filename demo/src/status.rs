//! What `otactl status --json` says. Fields that are not looked at here are ignored, as its documentation asks for.

use serde::Deserialize;

/// The device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// `idle`, `pre-upgrade`, `upgrading`, `post-upgrade` or `failed`.
    pub state: String,
    /// The hardware.
    pub compatible: String,
    /// Version of the running slot; empty when unknown.
    pub version: String,
    /// The running slot.
    pub booted_slot: String,
    /// The slot that the boot loader tries first.
    pub primary_slot: String,
    /// Both slots.
    pub slots: Vec<SlotStatus>,
    /// The running job.
    pub job: Option<JobStatus>,
    /// How the last update ended.
    pub last_result: Option<Outcome>,
    /// What keeps it from being updated.
    pub problems: Vec<Problem>,
}

/// What keeps a device from being updated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// The stable code.
    pub code: String,
    /// The reason as a sentence.
    pub message: String,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SlotStatus {
    /// Its name.
    pub name: String,
    /// `confirmed`, `trial`, `disarmed` or `unknown`.
    pub state: String,
    /// Version of what it holds; empty when unknown.
    pub version: String,
    /// Release counter of what it holds; 0 when unknown.
    pub sequence: u64,
    /// SHA-256 of the manifest of what it holds; empty when unknown.
    pub release: String,
}

/// A running job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct JobStatus {
    /// What it is doing.
    pub phase: String,
    /// How far the whole job is, in percent.
    pub progress: u8,
    /// Bytes fetched so far.
    pub bytes_fetched: u64,
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Outcome {
    /// `installed`, `committed`, `rolled-back`, `failed` or `cancelled`.
    pub outcome: String,
    /// The stable code of the reason; empty when there is none.
    pub code: String,
    /// The reason as a sentence; empty when there is none.
    pub message: String,
    /// Version of the update.
    pub version: String,
    /// The slot it went to.
    pub slot: String,
}

impl Status {
    /// A slot by name.
    pub fn slot(&self, name: &str) -> Option<&SlotStatus> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// The outcome of the last update, as a word; empty before the first.
    pub fn last_outcome(&self) -> &str {
        self.last_result.as_ref().map_or("", |last| &last.outcome)
    }

    /// Whether this slot runs and is confirmed, with nothing under way.
    pub fn rests_in(&self, slot: &str) -> bool {
        let confirmed = self.slot(slot).is_some_and(|slot| slot.state == "confirmed");
        let at_rest = matches!(self.state.as_str(), "idle" | "failed") && self.job.is_none();
        at_rest && confirmed && self.booted_slot == slot
    }
}
