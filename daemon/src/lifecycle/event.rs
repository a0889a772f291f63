//! What can happen to an update ([`Event`]) and what then has to be done ([`Effect`]).

use otad_bundle::{Digest, Image};
use serde::{Deserialize, Serialize};

use crate::config::SlotName;
use crate::failure::{Code, Failure};

/// A release as the record remembers it: enough to know it again and to verify a slot against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// SHA-256 of the manifest.
    pub digest: Digest,
    /// Version, for people.
    pub version: String,
    /// What the anti-rollback rule compares.
    pub sequence: u64,
    /// Its images, as the manifest says.
    pub images: Vec<Image>,
    /// It leads back below the floor, as the recovery role wants; committing its install lowers the floor to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lowers_floor: bool,
}

/// Where the bytes of an attempt come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A file or pipe that a caller handed over.
    Descriptor,
    /// A URL that a caller named.
    Url(String),
    /// The update server offered it.
    Server {
        /// Where it is.
        url: String,
        /// Which release the server says it is; not verified.
        release: Digest,
    },
    /// The other slot as it stands: going back.
    OtherSlot,
}

/// One attempt to get a release into the other slot and running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Number of the job, unique on this device.
    pub job: u64,
    /// Where the bytes come from.
    pub origin: Origin,
    /// The running slot, which is never written.
    pub from: SlotName,
    /// The slot to be written.
    pub target: SlotName,
    /// Id of the boot that its stage belongs to: the one in which it began, and on trial the one on trial.
    pub boot_id: String,
    /// Seconds since 1970 when it began; 0 when unknown.
    pub started: u64,
    /// Reboot as soon as the target is armed.
    pub reboot: bool,
    /// What is being installed, once the manifest is verified.
    #[serde(default)]
    pub release: Option<Release>,
    /// What was fetched and written.
    #[serde(flatten)]
    pub counts: Counts,
    /// The armed attempt that this one will replace once it is verified; until then that one stays armed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Box<Attempt>>,
}

/// What an install cost, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Fetched from the source.
    #[serde(default)]
    pub fetched: u64,
    /// Written to the target, heads and runs of zeros included: the wear of its flash.
    #[serde(default)]
    pub written: u64,
    /// Of the release, not written because the target held them.
    #[serde(default)]
    pub unchanged: u64,
}

/// Why an update ended without success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable code.
    pub code: String,
    /// One sentence for people.
    pub message: String,
}

impl Reason {
    /// Makes a reason.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Reason { code: code.as_str().to_owned(), message: message.into() }
    }
}

impl From<Failure> for Reason {
    fn from(failure: Failure) -> Self {
        Reason::new(failure.code, failure.message)
    }
}

/// Where an update stands. The five variants are the five words of the D-Bus property `State`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The running slot is confirmed and nothing is under way.
    Idle,
    /// The source is being verified and the target scanned; nothing changed on disk.
    PreUpgrade(Attempt),
    /// The target is being disarmed and written.
    Upgrading(Attempt),
    /// The target is synced: about to be armed, armed, or on trial.
    PostUpgrade(Attempt, Stage),
    /// The last update did not succeed; the device runs the old slot.
    Failed(Attempt, Reason),
}

/// Within [`State::PostUpgrade`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Persisted before the environment transaction that arms.
    Arming,
    /// Armed; waiting for the reboot.
    Armed,
    /// Running from the target until health checks confirm it.
    Trial,
    /// Found unhealthy or told to go back; the environment is being turned and the device rebooted.
    RollingBack(Reason),
}

impl State {
    /// The word of the D-Bus property.
    pub fn word(&self) -> &'static str {
        use otad_dbus::value::state;
        match self {
            State::Idle => state::IDLE,
            State::PreUpgrade(_) => state::PRE_UPGRADE,
            State::Upgrading(_) => state::UPGRADING,
            State::PostUpgrade(..) => state::POST_UPGRADE,
            State::Failed(..) => state::FAILED,
        }
    }

    /// The attempt it is about.
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            State::Idle => None,
            State::PreUpgrade(attempt)
            | State::Upgrading(attempt)
            | State::PostUpgrade(attempt, _)
            | State::Failed(attempt, _) => Some(attempt),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody asked for an install.
    Requested(Attempt),
    /// The manifest is verified and everything that can be known beforehand is right.
    Prepared(Release),
    /// The target holds every byte already; `None` when what it holds ran before but is not known by its hashes.
    AlreadyHeld(Option<Release>),
    /// The running slot holds exactly this release.
    AlreadyInstalled,
    /// The target is written, flushed and read back; that is what it cost.
    Synced(Counts),
    /// The environment transaction that arms is durable.
    Armed,
    /// The stage that was running failed.
    Failed(Reason),
    /// The stage that was running stopped because somebody asked, or somebody takes an armed target back.
    Cancelled,
    /// Health checks held, or a person confirmed.
    Confirmed,
    /// The environment transaction that commits is durable.
    Committed,
    /// Health checks did not hold, or a person goes back.
    Rejected(Reason),
}

impl Event {
    /// Its name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Requested(_) => "requested",
            Event::Prepared(_) => "prepared",
            Event::AlreadyHeld(_) => "already-held",
            Event::AlreadyInstalled => "already-installed",
            Event::Synced(_) => "synced",
            Event::Armed => "armed",
            Event::Failed(_) => "failed",
            Event::Cancelled => "cancelled",
            Event::Confirmed => "confirmed",
            Event::Committed => "committed",
            Event::Rejected(_) => "rejected",
        }
    }
}

/// What has to be done, in order. An effect that fails comes back as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make the new state durable before anything else happens.
    Persist,
    /// The target's content is about to change: what the record says of it no longer holds.
    Forget,
    /// The target holds the attempt's release, every byte of it read back.
    Remember,
    /// Open, verify, check and scan, on the install thread.
    Prepare,
    /// Disarm, write, flush and read back, on the install thread.
    Write,
    /// Arm the target: one environment transaction.
    Arm,
    /// Make the target not bootable: one environment transaction.
    Disarm,
    /// Make it unarmed: not bootable, unless it was good before it was armed and nothing was written.
    TakeBack,
    /// Run the health checks until they hold or the deadline passes.
    WatchHealth,
    /// Commit the running slot: one environment transaction.
    Commit,
    /// Turn the environment back to the old slot: one transaction.
    RollBack,
    /// Reboot the machine.
    Reboot,
    /// Remember how it ended, tell the bus and queue the report.
    Conclude(Conclusion),
}

/// How an attempt, or a stage of it, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// Armed; the job is done, the trial is to come.
    Installed,
    /// The running slot held it already; nothing was written.
    Unchanged,
    /// Confirmed.
    Committed,
    /// Failed before it was armed.
    Failed(Reason),
    /// The old slot runs again.
    RolledBack(Reason),
    /// Cancelled.
    Cancelled,
}
