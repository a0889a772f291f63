//! What people and programs ask for, and when it is possible.

use super::{Engine, IllegalEvent};
use crate::config::RebootPolicy;
use crate::failure::{Code, Failure};
use crate::install::prepare::Source;
use crate::lifecycle::event::{Attempt, Counts, Event, Origin, Reason, Stage, State};
use crate::lifecycle::recover::Standing;
use crate::ports::Stop;
use crate::trust::sequence::Permit;

/// A request; authorization is the bus layer's business.
pub enum Request {
    /// Install a bundle.
    Install(Install),
    /// Confirm the running trial without waiting for its health.
    Commit,
    /// Go back: from a trial at once, from a confirmed slot by a trial of the other one.
    Rollback,
    /// Cancel the job of that number, or with `None` whatever there is to cancel or acknowledge.
    Cancel(Option<u64>),
    /// Give a verdict on a slot (its name, `booted` or `other`).
    Mark(String, Verdict),
    /// Reboot.
    Reboot,
}

/// What to install.
pub struct Install {
    /// Where the bytes come from.
    pub source: Source,
    /// The same, for the record.
    pub origin: Origin,
    /// Stops the job; the source may look at it.
    pub stop: Stop,
    /// Reboot as soon as the target is armed, whatever the policy.
    pub reboot: bool,
    /// Whether it may lead below the floor.
    pub permit: Permit,
}

/// A verdict on a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Good,
    /// It does not.
    Bad,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is done, or under way.
    Done,
    /// A job with this number was started.
    Job(u64),
}

impl Engine {
    pub(super) fn ask(&mut self, request: Request) -> Result<Answer, Failure> {
        match request {
            Request::Install(install) => self.install(install).map(Answer::Job),
            Request::Commit => self.commit(),
            Request::Rollback => self.rollback(),
            Request::Cancel(job) => self.cancel(job),
            Request::Mark(slot, verdict) => self.mark(&slot, verdict),
            Request::Reboot => self.ask_reboot(),
        }
    }

    fn install(&mut self, install: Install) -> Result<u64, Failure> {
        self.trust.as_ref().map_err(Clone::clone)?;
        let id = self.admit(install.origin, install.reboot)?;
        self.start_job(id.job, install.stop);
        self.source = Some((install.source, install.permit));
        let job = id.job;
        self.request(id)?;
        Ok(job)
    }

    /// Checks everything that does not need the bundle, and makes the attempt.
    fn admit(&mut self, origin: Origin, reboot: bool) -> Result<Attempt, Failure> {
        let slots = self.slots.clone()?;
        self.refuse_when_busy()?;
        let view = self.boot.view(&slots.booted.name, &slots.other.name)?;
        if view.is_none() {
            if self.health.is_none() {
                self.watch_health()?;
            }
            let what = "both copies of the boot environment are lost, so nothing could be armed";
            return Err(Failure::new(
                Code::EnvLost,
                format!("{what}; it is rebuilt once the system is healthy"),
            ));
        }
        let job = self.record.next_job;
        self.record.next_job = job.wrapping_add(1);
        Ok(Attempt {
            job,
            origin,
            from: slots.booted.name,
            target: slots.other.name,
            boot_id: self.boot_id.clone(),
            started: self.ports.clock.wall_seconds(),
            reboot: reboot || self.config.reboot == RebootPolicy::Immediate,
            release: None,
            counts: Counts::default(),
            supersedes: None,
        })
    }

    fn refuse_when_busy(&self) -> Result<(), Failure> {
        let busy = |what: String| Err(Failure::new(Code::Busy, what));
        match &self.state {
            State::Idle | State::Failed(..) | State::PostUpgrade(_, Stage::Armed) => match &self.job {
                None => Ok(()),
                Some(job) => busy(format!("job {} is under way; wait for it or cancel it", job.id)),
            },
            State::PreUpgrade(attempt)
            | State::Upgrading(attempt)
            | State::PostUpgrade(attempt, Stage::Arming) => {
                busy(format!("job {} is under way; wait for it or cancel it", attempt.job))
            }
            State::PostUpgrade(attempt, Stage::Trial) => busy(format!(
                "slot {} is on trial; wait until it is confirmed or rolled back",
                attempt.target
            )),
            State::PostUpgrade(attempt, Stage::RollingBack(_)) => {
                busy(format!("slot {} is being rolled back; the device is about to reboot", attempt.target))
            }
        }
    }

    fn request(&mut self, attempt: Attempt) -> Result<(), Failure> {
        self.try_dispatch(Event::Requested(attempt)).map_err(|illegal| wrong_state(&illegal))
    }

    fn commit(&mut self) -> Result<Answer, Failure> {
        match &self.state {
            State::PostUpgrade(_, Stage::Trial) => {
                self.stop_health();
                self.dispatch(Event::Confirmed);
                match &self.state {
                    State::Idle => Ok(Answer::Done),
                    State::PostUpgrade(_, Stage::RollingBack(reason)) => Err(Failure::new(
                        Code::EnvIo,
                        format!("the commit failed and the device goes back: {}", reason.message),
                    )),
                    other => {
                        Err(Failure::new(Code::Internal, format!("commit ended in state {}", other.word())))
                    }
                }
            }
            other => {
                let what = format!("nothing to commit: state {}, no slot is on trial", other.word());
                Err(Failure::new(Code::WrongState, what))
            }
        }
    }

    fn rollback(&mut self) -> Result<Answer, Failure> {
        match &self.state {
            State::PostUpgrade(_, Stage::Trial) => {
                self.stop_health();
                self.dispatch(Event::Rejected(Reason::new(Code::RolledBack, "rolled back on request")));
                Ok(Answer::Done)
            }
            State::PostUpgrade(_, Stage::Armed) => self.cancel(None),
            State::Idle | State::Failed(..) => self.go_back().map(Answer::Job),
            State::PreUpgrade(_)
            | State::Upgrading(_)
            | State::PostUpgrade(_, Stage::Arming | Stage::RollingBack(_)) => {
                self.refuse_when_busy().map(|()| Answer::Done)
            }
        }
    }

    /// Arms the other slot as it stands, on trial, with the running one to fall back to.
    fn go_back(&mut self) -> Result<u64, Failure> {
        let slots = self.slots.clone()?;
        let standing =
            self.boot.view(&slots.booted.name, &slots.other.name)?.map(|view| view.standings.other);
        if !matches!(standing, Some(Standing::Confirmed | Standing::Bootable)) {
            return Err(no_fallback(&slots.other.name));
        }
        let attempt = self.admit(Origin::OtherSlot, false)?;
        let job = attempt.job;
        self.start_job(job, Stop::default());
        self.request(attempt)?;
        Ok(job)
    }

    fn cancel(&mut self, job: Option<u64>) -> Result<Answer, Failure> {
        if let Some(running) = &self.job {
            if job.is_some_and(|job| job != running.id) {
                return Err(Failure::new(
                    Code::WrongState,
                    format!("job {} is under way, not that one", running.id),
                ));
            }
            if matches!(self.state, State::PostUpgrade(..)) {
                return Err(Failure::new(
                    Code::WrongState,
                    "the job is arming the slot; cancel once it is armed",
                ));
            }
            running.stop.request();
            return Ok(Answer::Done);
        }
        match &self.state {
            State::PostUpgrade(attempt, Stage::Armed) => {
                // Taken back before the record says so: an armed slot that is called cancelled would still boot.
                self.take_back(attempt)?;
                self.dispatch(Event::Cancelled);
                Ok(Answer::Done)
            }
            State::Failed(..) => {
                self.dispatch(Event::Cancelled);
                Ok(Answer::Done)
            }
            State::PostUpgrade(..) => {
                let what = "the slot is on trial; use rollback to go back";
                Err(Failure::new(Code::WrongState, what))
            }
            State::Idle | State::PreUpgrade(_) | State::Upgrading(_) => {
                Err(Failure::new(Code::WrongState, "there is nothing to cancel"))
            }
        }
    }

    fn mark(&mut self, name: &str, verdict: Verdict) -> Result<Answer, Failure> {
        let (booted, other) = (self.booted()?, self.other()?);
        let running = match name {
            "booted" => true,
            "other" => false,
            name if name == booted => true,
            name if name == other => false,
            _ => {
                let what = format!("there is no slot `{name}`; say {booted}, {other}, booted or other");
                return Err(Failure::new(Code::InvalidOption, what));
            }
        };
        let on_trial = matches!(self.state, State::PostUpgrade(_, Stage::Trial));
        match (running, verdict) {
            (true, Verdict::Good) if on_trial => self.commit(),
            (true, Verdict::Good) => {
                self.refuse_when_busy()?;
                self.boot.commit(&booted, &*self.ports.machine).map(|()| Answer::Done)
            }
            (true, Verdict::Bad) => self.rollback(),
            (false, Verdict::Bad) => {
                self.refuse_when_busy()?;
                if matches!(self.state, State::PostUpgrade(..)) {
                    return self.cancel(None);
                }
                self.boot.disarm(&other).map(|()| Answer::Done)
            }
            (false, Verdict::Good) => {
                let what = format!("slot {other} does not run; only a slot that runs can be found good");
                Err(Failure::new(Code::WrongState, what))
            }
        }
    }

    fn ask_reboot(&mut self) -> Result<Answer, Failure> {
        if let Some(job) = &self.job {
            let what = format!("job {} is under way; wait for it or cancel it before the reboot", job.id);
            return Err(Failure::new(Code::Busy, what));
        }
        self.reboot().map(|()| Answer::Done)
    }

    fn stop_health(&mut self) {
        if let Some(stop) = self.health.take() {
            stop.request();
        }
    }
}

pub(super) fn no_fallback(slot: &str) -> Failure {
    let what = format!("slot {slot} is not known to be good, so there is nothing to go back to");
    Failure::new(Code::NoFallback, format!("{what}; install a bundle instead"))
}

fn wrong_state(illegal: &IllegalEvent) -> Failure {
    Failure::new(Code::WrongState, illegal.to_string())
}
