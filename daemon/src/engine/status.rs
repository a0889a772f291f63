//! What others may know: one immutable picture of the device after every message.

use otad_dbus::value::slot_state;

use super::Engine;
use crate::failure::{Code, Failure};
use crate::install::prepare::Current;
use crate::install::progress::Progress;
use crate::lifecycle::event::State;
use crate::lifecycle::record::Record;
use crate::lifecycle::recover::Standing;
use crate::trial::View;

/// One picture of the device.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where the update stands.
    pub state: State,
    /// The running slot, or why it is not known.
    pub booted: Result<String, Failure>,
    /// The slot that the boot loader tries first.
    pub primary: Option<String>,
    /// What runs.
    pub current: Current,
    /// Both slots, in the order of the configuration.
    pub slots: Vec<SlotView>,
    /// The job under way.
    pub job: Option<JobView>,
    /// What keeps this device from being updated.
    pub problems: Vec<Failure>,
    /// History, failed releases, pending reports.
    pub record: Record,
    /// Version of the root of trust that counts; 0 when there is none.
    pub root_version: u64,
}

/// One slot, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotView {
    /// Its name.
    pub name: String,
    /// Whether the system runs from it.
    pub booted: bool,
    /// Whether the boot loader tries it first.
    pub primary: bool,
    /// A word of [`slot_state`].
    pub state: &'static str,
    /// Version, empty when unknown.
    pub version: String,
    /// Sequence, 0 when unknown.
    pub sequence: u64,
    /// Digest of the release, empty when unknown.
    pub release: String,
    /// Seconds since 1970, 0 when unknown.
    pub installed_at: u64,
}

/// The job under way.
#[derive(Debug, Clone)]
pub struct JobView {
    /// Its number.
    pub id: u64,
    /// How far it is, at any time.
    pub progress: Progress,
}

/// Something that is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A job ended.
    JobRemoved(JobEnd),
    /// The machine was asked to reboot.
    Rebooting,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// Its number.
    pub id: u64,
    /// done, failed or cancelled.
    pub result: &'static str,
    /// Stable code, empty when done.
    pub error: String,
    /// One sentence, empty when done.
    pub message: String,
}

impl Status {
    /// Before the engine has looked.
    pub fn starting() -> Self {
        Status {
            state: State::Idle,
            booted: Err(Failure::new(Code::Internal, "otad is starting")),
            primary: None,
            current: Current::default(),
            slots: Vec::new(),
            job: None,
            problems: Vec::new(),
            record: Record::default(),
            root_version: 0,
        }
    }
}

impl Engine {
    /// Shows everybody what is now.
    pub(super) fn publish(&mut self) {
        self.audience.status(self.status());
        for notice in self.notices.drain(..) {
            self.audience.notice(notice);
        }
    }

    fn status(&self) -> Status {
        let mut problems = self.problems.clone();
        let seen = self.slots.as_ref().map(|slots| self.boot.view(&slots.booted.name, &slots.other.name));
        let view = seen.ok().and_then(|seen| problem_or(seen, &mut problems));
        let booted = self.booted();
        let primary = view.as_ref().and_then(|view| view.primary.clone());
        let slots = self.config.slots.iter().map(|slot| {
            let is_booted = booted.as_ref().is_ok_and(|name| *name == slot.name);
            let standing = view
                .as_ref()
                .map(|view| if is_booted { view.standings.booted } else { view.standings.other });
            self.slot_view(&slot.name, is_booted, primary.as_ref() == Some(&slot.name), standing)
        });
        Status {
            state: self.state.clone(),
            slots: slots.collect(),
            booted,
            primary,
            current: self.current.clone(),
            problems,
            job: self.job.as_ref().map(|job| JobView { id: job.id, progress: job.progress.clone() }),
            record: self.record.clone(),
            root_version: self.trust.as_ref().map_or(0, |trust| trust.root().version()),
        }
    }

    fn slot_view(&self, name: &str, booted: bool, primary: bool, standing: Option<Standing>) -> SlotView {
        let held = self.record.slots.get(name);
        let (version, sequence) = match (held, self.record.factory.get(name)) {
            (Some(held), _) => (held.release.version.clone(), held.release.sequence),
            (None, Some(factory)) => (factory.version.clone(), factory.sequence),
            (None, None) => (String::new(), 0),
        };
        SlotView {
            name: name.to_owned(),
            booted,
            primary,
            state: self.slot_word(booted, standing),
            version,
            sequence,
            release: held.map(|held| held.release.digest.to_string()).unwrap_or_default(),
            installed_at: held.map_or(0, |held| held.installed_at),
        }
    }

    /// `boot-order` does not record trials, so the lifecycle's word counts there.
    fn slot_word(&self, booted: bool, standing: Option<Standing>) -> &'static str {
        let target = self.state.attempt().map(|attempt| attempt.target.as_str());
        let in_trial = matches!(self.state, State::PostUpgrade(..))
            && target == if booted { self.booted().ok() } else { self.other().ok() }.as_deref();
        match standing {
            None => slot_state::UNKNOWN,
            Some(Standing::Armed) => slot_state::TRIAL,
            Some(Standing::Bootable) if in_trial => slot_state::TRIAL,
            Some(Standing::Confirmed | Standing::Bootable) => slot_state::CONFIRMED,
            Some(Standing::Disarmed | Standing::GivenUp) => slot_state::DISARMED,
        }
    }
}

/// What the environment says; what is wrong with it goes to the problems.
fn problem_or(seen: Result<Option<View>, Failure>, problems: &mut Vec<Failure>) -> Option<View> {
    let problem = match &seen {
        Ok(Some(view)) if view.degraded => {
            Failure::new(Code::EnvIo, "one copy of the boot environment is bad; the next change repairs it")
        }
        Ok(Some(_)) => return seen.ok().flatten(),
        Ok(None) => {
            let what =
                "both copies of the boot environment are lost; it is rebuilt once the system is healthy";
            Failure::new(Code::EnvLost, what)
        }
        Err(failure) => failure.clone(),
    };
    if !problems.contains(&problem) {
        problems.push(problem);
    }
    seen.ok().flatten()
}
