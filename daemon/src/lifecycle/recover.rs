//! What a start of otad means: the record and the boot's facts settle into a state.
//!
//! While the environment can be read it is the truth about booting, and the record is brought in line with it. The
//! function is pure and idempotent: recovering from what it decided decides the same again. It needs no network.

use super::event::{Attempt, Conclusion, Counts, Effect, Origin, Reason, Stage, State};
use crate::config::SlotName;
use crate::failure::Code;

/// What this boot shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFacts {
    /// The running slot; both pieces of evidence agree on it.
    pub booted: SlotName,
    /// The other slot.
    pub other: SlotName,
    /// Id of this boot.
    pub boot_id: String,
    /// What the environment says; `None` when both copies are lost.
    pub standing: Option<Standings>,
}

/// What the environment says of each slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standings {
    /// Of the running one.
    pub booted: Standing,
    /// Of the other one.
    pub other: Standing,
}

/// What the environment says of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Armed: the boot loader tries it first, so and so often, and then goes back.
    Armed,
    /// Bootable and confirmed.
    Confirmed,
    /// Bootable; the scheme does not tell trial from confirmed (`boot-order`). The other slot is this only while the
    /// running one is tried before it.
    Bootable,
    /// Not bootable, because otad said so.
    Disarmed,
    /// Not bootable, because the boot loader gave it up.
    GivenUp,
}

impl Standing {
    fn may_boot(self) -> bool {
        match self {
            Standing::Armed | Standing::Confirmed | Standing::Bootable => true,
            Standing::Disarmed | Standing::GivenUp => false,
        }
    }
}

/// What a start of otad means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The settled state.
    pub state: State,
    /// What has to be done about it.
    pub effects: Vec<Effect>,
    /// What to tell the log, when record and facts did not simply agree.
    pub remark: Option<String>,
}

impl Recovery {
    fn keep(state: State) -> Self {
        Recovery { state, effects: Vec::new(), remark: None }
    }

    fn failed(attempt: &Attempt, conclusion: fn(Reason) -> Conclusion, reason: Reason) -> Self {
        let effects = vec![Effect::Conclude(conclusion(reason.clone())), Effect::Persist];
        let remark = Some(reason.message.clone());
        Recovery { state: State::Failed(attempt.clone(), reason), effects, remark }
    }

    fn trial(attempt: &Attempt, facts: &BootFacts) -> Self {
        let attempt = Attempt { boot_id: facts.boot_id.clone(), ..attempt.clone() };
        let state = State::PostUpgrade(attempt, Stage::Trial);
        Recovery { state, effects: vec![Effect::WatchHealth, Effect::Persist], remark: None }
    }

    fn committed(attempt: &Attempt) -> Self {
        let remark = format!("slot {} was confirmed just before the last stop", attempt.target);
        Recovery {
            state: State::Idle,
            effects: vec![Effect::Conclude(Conclusion::Committed), Effect::Persist],
            remark: Some(remark),
        }
    }

    /// A lost environment is rebuilt once the system is healthy.
    fn then_rebuild(mut self) -> Self {
        self.effects.push(Effect::WatchHealth);
        self
    }

    fn disarm_first(mut self) -> Self {
        self.effects.insert(0, Effect::Disarm);
        self
    }
}

/// Settles what the record says (`None`: a state this otad does not know) with what the boot shows.
pub fn recover(state: Option<State>, facts: &BootFacts) -> Recovery {
    let mut recovery = settle(state, facts);
    // Whatever else this boot means, a lost environment is rebuilt as soon as the system is healthy.
    // The same goes for the counter that `boot-order` spends at every boot.
    let at_rest = matches!(recovery.state, State::Idle | State::Failed(..));
    let settled =
        matches!(facts.standing, Some(Standings { booted: Standing::Confirmed | Standing::Armed, .. }));
    let to_mend = facts.standing.is_none() || (at_rest && !settled);
    if to_mend && !recovery.effects.contains(&Effect::WatchHealth) {
        recovery.effects.push(Effect::WatchHealth);
    }
    recovery
}

fn settle(state: Option<State>, facts: &BootFacts) -> Recovery {
    let Some(state) = state else {
        let mut recovery = at_rest(State::Idle, facts);
        let remark = "the record was written by a newer otad; its state is settled from the boot environment";
        recovery.remark.get_or_insert_with(|| remark.to_owned());
        recovery.effects.push(Effect::Persist);
        return recovery;
    };
    match &state {
        // Arming reported an error, disarming did too, and the environment was armed all the same. `bootcount` says that
        // this is a trial; where trials are not recorded, only the target of the failed attempt does.
        State::Failed(attempt, _) if attempt.target == facts.booted && runs_unconfirmed(facts) => {
            in_target(attempt, &Stage::Arming, facts)
        }
        State::Idle | State::Failed(..) => at_rest(state, facts),
        // What would have been replaced is still armed, or was booted.
        State::PreUpgrade(Attempt { supersedes: Some(armed), .. }) => {
            settle(Some(State::PostUpgrade(Attempt::clone(armed), Stage::Armed)), facts)
        }
        State::PreUpgrade(attempt) => Recovery::failed(
            attempt,
            Conclusion::Failed,
            interrupted("while the bundle was being checked; nothing was changed"),
        ),
        // The boot loader took it without being told to. What it loaded is whole, because heads go first and come back
        // last: either what was there before the first byte was written, or what was to be written.
        State::Upgrading(attempt) if attempt.target == facts.booted => {
            in_target(&Attempt { release: None, ..attempt.clone() }, &Stage::Arming, facts)
        }
        State::Upgrading(attempt) => Recovery::failed(
            attempt,
            Conclusion::Failed,
            interrupted(
                "while the slot was being written; it cannot boot, and the next install keeps what is right in it",
            ),
        ),
        State::PostUpgrade(attempt, stage) if attempt.target == facts.booted => {
            in_target(attempt, stage, facts)
        }
        State::PostUpgrade(attempt, stage) => in_old_slot(attempt, stage, facts),
    }
}

/// Whether the running slot may be on trial for all that the environment says (`boot-order`): arming leaves both slots
/// bootable.
fn runs_unconfirmed(facts: &BootFacts) -> bool {
    let both = Standings { booted: Standing::Bootable, other: Standing::Bootable };
    facts.standing == Some(both)
}

/// Nothing was under way, as far as the record knows.
fn at_rest(state: State, facts: &BootFacts) -> Recovery {
    match facts.standing {
        Some(Standings { booted: Standing::Armed, .. }) => {
            let remark =
                format!("slot {} runs on trial and the record does not know of it; repaired", facts.booted);
            Recovery { remark: Some(remark), ..Recovery::trial(&unrecorded(facts), facts) }
        }
        Some(Standings { other: Standing::Armed, .. }) => {
            let remark =
                format!("slot {} is armed and the record does not know of it; disarmed", facts.other);
            Recovery { state, effects: vec![Effect::Disarm], remark: Some(remark) }
        }
        Some(_) => Recovery::keep(state),
        None => Recovery {
            state,
            effects: Vec::new(),
            remark: Some(
                "both copies of the boot environment are lost; it is rebuilt once the system is healthy"
                    .into(),
            ),
        },
    }
}

/// The target runs.
fn in_target(attempt: &Attempt, stage: &Stage, facts: &BootFacts) -> Recovery {
    let standing = facts.standing.map(|standings| standings.booted);
    match (stage, standing) {
        (Stage::RollingBack(reason), Some(Standing::Armed | Standing::Bootable)) => Recovery {
            state: State::PostUpgrade(attempt.clone(), Stage::RollingBack(reason.clone())),
            effects: vec![Effect::RollBack, Effect::Reboot],
            remark: Some("a rollback was interrupted; it goes on".into()),
        },
        // otad was restarted between turning the environment and the reboot.
        (Stage::RollingBack(reason), Some(Standing::Disarmed | Standing::GivenUp))
            if attempt.boot_id == facts.boot_id =>
        {
            Recovery {
                state: State::PostUpgrade(attempt.clone(), Stage::RollingBack(reason.clone())),
                effects: vec![Effect::Reboot],
                remark: Some("a rollback waits for its reboot; it goes on".into()),
            }
        }
        // The environment says the old slot and yet this one runs, or nothing there counts its boots. Rebooting might go
        // on for ever; stay and let the health checks decide.
        (
            Stage::RollingBack(_),
            Some(Standing::Confirmed | Standing::Disarmed | Standing::GivenUp) | None,
        ) => {
            let remark =
                format!("slot {} was being rolled back and runs again; its health decides", attempt.target);
            Recovery { remark: Some(remark), ..Recovery::trial(attempt, facts) }
        }
        (Stage::Arming | Stage::Armed | Stage::Trial, Some(Standing::Confirmed)) => {
            Recovery::committed(attempt)
        }
        (Stage::Arming, Some(Standing::Armed | Standing::Bootable)) => {
            let remark = "slot was armed before the record said so; repaired".to_owned();
            Recovery { remark: Some(remark), ..Recovery::trial(attempt, facts) }
        }
        (Stage::Armed | Stage::Trial, Some(Standing::Armed | Standing::Bootable)) => {
            Recovery::trial(attempt, facts)
        }
        (
            Stage::Arming | Stage::Armed | Stage::Trial,
            Some(Standing::Disarmed | Standing::GivenUp) | None,
        ) => {
            let remark = format!("slot {} runs although the environment does not arm it", attempt.target);
            Recovery { remark: Some(remark), ..Recovery::trial(attempt, facts) }
        }
    }
}

/// The target was synced, and the old slot runs.
fn in_old_slot(attempt: &Attempt, stage: &Stage, facts: &BootFacts) -> Recovery {
    let same_boot = attempt.boot_id == facts.boot_id;
    // otad was restarted between arming and the reboot that it was asked for.
    let reboot = attempt.reboot.then_some(Effect::Reboot);
    let standing = facts.standing.map(|standings| standings.other);
    match (stage, standing) {
        (Stage::RollingBack(reason), Some(standing)) => {
            let recovery = Recovery::failed(attempt, Conclusion::RolledBack, reason.clone());
            if standing.may_boot() { recovery.disarm_first() } else { recovery }
        }
        (Stage::RollingBack(reason), None) => {
            Recovery::failed(attempt, Conclusion::RolledBack, reason.clone()).then_rebuild()
        }
        (Stage::Trial, Some(Standing::Disarmed | Standing::GivenUp)) => {
            Recovery::failed(attempt, Conclusion::RolledBack, given_up(attempt)).disarm_first()
        }
        // In the boot that armed it nobody can have given it up: the mark is of an earlier update.
        (Stage::Arming | Stage::Armed, Some(Standing::GivenUp)) if !same_boot => {
            Recovery::failed(attempt, Conclusion::RolledBack, given_up(attempt)).disarm_first()
        }
        // Going back arms a slot that was never disarmed: it is still confirmed, and stays what can be gone back to.
        (
            Stage::Arming,
            Some(Standing::Disarmed | Standing::GivenUp | Standing::Confirmed | Standing::Bootable),
        ) => Recovery::failed(
            attempt,
            Conclusion::Failed,
            interrupted("before the slot was armed; try it again"),
        ),
        (Stage::Armed, Some(Standing::Disarmed | Standing::GivenUp)) => Recovery::failed(
            attempt,
            Conclusion::Failed,
            interrupted("while the armed slot was being taken back"),
        ),
        (Stage::Arming, Some(Standing::Armed)) if same_boot => Recovery {
            state: State::PostUpgrade(attempt.clone(), Stage::Armed),
            effects: [Effect::Conclude(Conclusion::Installed), Effect::Persist]
                .into_iter()
                .chain(reboot)
                .collect(),
            remark: Some(format!("slot {} was armed before the record said so; repaired", attempt.target)),
        },
        (Stage::Armed, Some(Standing::Armed)) if same_boot => {
            let state = State::PostUpgrade(attempt.clone(), Stage::Armed);
            Recovery { effects: reboot.into_iter().collect(), ..Recovery::keep(state) }
        }
        (Stage::Arming, Some(Standing::Armed))
        | (Stage::Armed | Stage::Trial, Some(Standing::Armed | Standing::Bootable | Standing::Confirmed)) => {
            let reason = Reason::new(Code::BootloaderIgnoredSwitch, ignored(attempt, facts));
            Recovery::failed(attempt, Conclusion::Failed, reason).disarm_first()
        }
        (Stage::Arming | Stage::Armed | Stage::Trial, None) => {
            let what = format!(
                "both copies of the boot environment were lost before slot {} was confirmed",
                attempt.target
            );
            Recovery::failed(attempt, Conclusion::Failed, Reason::new(Code::EnvLost, what)).then_rebuild()
        }
    }
}

fn interrupted(when: &str) -> Reason {
    Reason::new(Code::Interrupted, format!("power, kernel or otad stopped {when}"))
}

fn given_up(attempt: &Attempt) -> Reason {
    let target = &attempt.target;
    let what = format!(
        "slot {target} was not confirmed within its boots on trial; the boot loader went back to slot {}",
        attempt.from
    );
    Reason::new(Code::RolledBack, what)
}

fn ignored(attempt: &Attempt, facts: &BootFacts) -> String {
    let (target, booted) = (&attempt.target, &facts.booted);
    format!(
        "the boot environment and the boot loader disagree: slot {target} was the target, slot {booted} was started; \
         either the kernel of the chosen slot cannot be loaded or the boot script does not follow the environment"
    )
}

/// An attempt for a trial that the record does not know of.
fn unrecorded(facts: &BootFacts) -> Attempt {
    Attempt {
        job: 0,
        origin: Origin::Descriptor,
        from: facts.other.clone(),
        target: facts.booted.clone(),
        boot_id: facts.boot_id.clone(),
        started: 0,
        reboot: false,
        release: None,
        counts: Counts::default(),
        supersedes: None,
    }
}
