//! The lifecycle as one pure, total function.
//!
//! There is no wildcard arm: whoever adds a state or an event is asked by the compiler about every combination.

use super::event::{Attempt, Conclusion, Effect, Event, Stage, State};

/// An event that makes no sense in a state; the state stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` is not possible in state {state}")]
pub struct IllegalEvent {
    /// The state's word.
    pub state: &'static str,
    /// The event's name.
    pub event: &'static str,
}

/// Decides what an event does to a state.
///
/// # Errors
/// [`IllegalEvent`] when the event makes no sense there.
pub fn step(state: &State, event: Event) -> Result<(State, Vec<Effect>), IllegalEvent> {
    use Effect::{
        Arm, Commit, Conclude, Forget, Persist, Prepare, Reboot, Remember, RollBack, TakeBack, Write,
    };
    use State::{Failed, Idle, PostUpgrade, PreUpgrade, Upgrading};
    let illegal = IllegalEvent { state: state.word(), event: event.name() };
    let next = match (state, event) {
        // A new attempt: from rest, after a failure, or in the place of one that is armed but not yet booted.
        (Idle | Failed(..), Event::Requested(attempt)) => (PreUpgrade(attempt), vec![Persist, Prepare]),
        (PostUpgrade(armed, Stage::Armed), Event::Requested(attempt)) => {
            let supersedes = Some(Box::new(armed.clone()));
            (PreUpgrade(Attempt { supersedes, ..attempt }), vec![Persist, Prepare])
        }

        (PreUpgrade(attempt), Event::Prepared(release)) => {
            let attempt = Attempt { release: Some(release), supersedes: None, ..attempt.clone() };
            (Upgrading(attempt), vec![Forget, Persist, Write])
        }
        (PreUpgrade(attempt), Event::AlreadyHeld(release)) => {
            let attempt = Attempt { release, supersedes: None, ..attempt.clone() };
            (PostUpgrade(attempt, Stage::Arming), vec![Remember, Persist, Arm])
        }
        (PreUpgrade(attempt), Event::AlreadyInstalled) => {
            (before(attempt).unwrap_or(Idle), vec![Conclude(Conclusion::Unchanged), Persist])
        }

        (Upgrading(attempt), Event::Synced(counts)) => {
            let attempt = Attempt { counts, ..attempt.clone() };
            (PostUpgrade(attempt, Stage::Arming), vec![Remember, Persist, Arm])
        }

        (PostUpgrade(attempt, Stage::Arming), Event::Armed) => {
            let mut effects = vec![Conclude(Conclusion::Installed), Persist];
            effects.extend(attempt.reboot.then_some(Reboot));
            (PostUpgrade(attempt.clone(), Stage::Armed), effects)
        }
        // Whether the environment says armed after a failed transaction is not known: say that it is not.
        (PostUpgrade(attempt, Stage::Arming), Event::Failed(reason)) => (
            Failed(attempt.clone(), reason.clone()),
            vec![TakeBack, Conclude(Conclusion::Failed(reason)), Persist],
        ),

        (PreUpgrade(attempt) | Upgrading(attempt), Event::Failed(reason)) => {
            let state = before(attempt).unwrap_or_else(|| Failed(attempt.clone(), reason.clone()));
            (state, vec![Conclude(Conclusion::Failed(reason)), Persist])
        }
        (PreUpgrade(attempt) | Upgrading(attempt), Event::Cancelled) => {
            (before(attempt).unwrap_or(Idle), vec![Conclude(Conclusion::Cancelled), Persist])
        }
        (PostUpgrade(_, Stage::Armed), Event::Cancelled) => {
            (Idle, vec![TakeBack, Conclude(Conclusion::Cancelled), Persist])
        }
        // Cancelling a failure acknowledges it.
        (Failed(..), Event::Cancelled) => (Idle, vec![Persist]),

        (PostUpgrade(attempt, Stage::Trial), Event::Confirmed) => {
            (PostUpgrade(attempt.clone(), Stage::Trial), vec![Commit])
        }
        (PostUpgrade(_, Stage::Trial), Event::Committed) => {
            (Idle, vec![Conclude(Conclusion::Committed), Persist])
        }
        // The reason is durable before the environment turns: the old system will want to know it. A commit that
        // failed is a rejection too: a system that cannot write its environment could not update itself again (H7).
        (PostUpgrade(attempt, Stage::Trial), Event::Rejected(reason) | Event::Failed(reason)) => {
            (PostUpgrade(attempt.clone(), Stage::RollingBack(reason)), vec![Persist, RollBack, Reboot])
        }

        (
            Idle,
            Event::Prepared(_)
            | Event::AlreadyHeld(_)
            | Event::AlreadyInstalled
            | Event::Synced(_)
            | Event::Armed
            | Event::Failed(_)
            | Event::Cancelled
            | Event::Confirmed
            | Event::Committed
            | Event::Rejected(_),
        )
        | (
            PreUpgrade(_),
            Event::Requested(_)
            | Event::Synced(_)
            | Event::Armed
            | Event::Confirmed
            | Event::Committed
            | Event::Rejected(_),
        )
        | (
            Upgrading(_),
            Event::Requested(_)
            | Event::Prepared(_)
            | Event::AlreadyHeld(_)
            | Event::AlreadyInstalled
            | Event::Armed
            | Event::Confirmed
            | Event::Committed
            | Event::Rejected(_),
        )
        | (
            PostUpgrade(_, Stage::Arming),
            Event::Requested(_)
            | Event::Prepared(_)
            | Event::AlreadyHeld(_)
            | Event::AlreadyInstalled
            | Event::Synced(_)
            | Event::Cancelled
            | Event::Confirmed
            | Event::Committed
            | Event::Rejected(_),
        )
        | (
            PostUpgrade(_, Stage::Armed),
            Event::Prepared(_)
            | Event::AlreadyHeld(_)
            | Event::AlreadyInstalled
            | Event::Synced(_)
            | Event::Armed
            | Event::Failed(_)
            | Event::Confirmed
            | Event::Committed
            | Event::Rejected(_),
        )
        | (
            PostUpgrade(_, Stage::Trial),
            Event::Requested(_)
            | Event::Prepared(_)
            | Event::AlreadyHeld(_)
            | Event::AlreadyInstalled
            | Event::Synced(_)
            | Event::Armed
            | Event::Cancelled,
        )
        | (
            PostUpgrade(_, Stage::RollingBack(_)),
            Event::Requested(_)
            | Event::Prepared(_)
            | Event::AlreadyHeld(_)
            | Event::AlreadyInstalled
            | Event::Synced(_)
            | Event::Armed
            | Event::Failed(_)
            | Event::Cancelled
            | Event::Confirmed
            | Event::Committed
            | Event::Rejected(_),
        )
        | (
            Failed(..),
            Event::Prepared(_)
            | Event::AlreadyHeld(_)
            | Event::AlreadyInstalled
            | Event::Synced(_)
            | Event::Armed
            | Event::Failed(_)
            | Event::Confirmed
            | Event::Committed
            | Event::Rejected(_),
        ) => return Err(illegal),
    };
    Ok(next)
}

/// What stays when an attempt ends before it touched anything: the armed one that it would have replaced.
fn before(attempt: &Attempt) -> Option<State> {
    attempt.supersedes.as_ref().map(|armed| State::PostUpgrade(Attempt::clone(armed), Stage::Armed))
}
