//! The engine: takes what happened, asks the lifecycle what it means, and does it.
//!
//! It owns the state, the record and the boot environment, and is the only one that changes them, one message after the
//! other. What takes long (fetching, writing, watching health) runs elsewhere and comes back as a message. How it runs is
//! the business of [`Tasks`]: threads in the daemon, inline in a simulator.

mod conclude;
mod effects;
mod requests;
mod start;
mod status;

use std::collections::VecDeque;
use std::sync::Arc;

pub use requests::{Answer, Install, Request, Verdict};
pub use status::{JobEnd, JobView, Notice, SlotView, Status};

use crate::config::{Config, Slot};
use crate::failure::Code;
use crate::failure::Failure;
use crate::install::pipeline::Written;
use crate::install::prepare::{Current, Plan, Prepared, Source};
use crate::install::progress::{Phase, Progress};
use crate::install::readback::SyncedSlot;
use crate::lifecycle::event::{Attempt, Effect, Event, Reason, Stage, State};
use crate::lifecycle::machine::{IllegalEvent, step};
use crate::lifecycle::record::{self, Record};
use crate::ports::{Clock, Decoders, Fetch, HealthChecks, Machine, SlotDevices, StateFs, Stop, Trail};
use crate::trial::BootControl;
use crate::trust::Keeper;
use crate::trust::sequence::Permit;

/// The edges, shared by the engine and its tasks.
#[derive(Clone)]
#[expect(missing_docs, reason = "each is documented at its trait")]
pub struct Ports {
    pub fs: Arc<dyn StateFs>,
    pub devices: Arc<dyn SlotDevices>,
    pub fetch: Arc<dyn Fetch>,
    pub decoders: Arc<dyn Decoders>,
    pub clock: Arc<dyn Clock>,
    pub machine: Arc<dyn Machine>,
    pub health: Arc<dyn HealthChecks>,
    pub trail: Arc<dyn Trail>,
    /// Threads that a stage of an install may use; 0 runs everything inline, one after the other.
    pub lanes: usize,
}

/// Work that takes long, by the name of its thread; its message goes to [`Engine::handle`].
pub type Task = Box<dyn FnOnce() -> Message + Send>;

/// Runs tasks.
pub trait Tasks: Send {
    /// Starts a task; its message arrives later.
    fn start(&self, name: &str, task: Task) -> Result<(), Failure>;
}

/// Who listens: the bus, the poll loop, the watchdog.
pub trait Audience: Send {
    /// The status changed.
    fn status(&self, status: Status);
    /// Something happened that is told once.
    fn notice(&self, notice: Notice);
}

/// How an answer gets back to whoever asked.
pub type Reply = Box<dyn FnOnce(Result<Answer, Failure>) + Send>;

/// What the engine is told.
pub enum Message {
    /// Somebody wants something.
    Ask(Request, Reply),
    /// Preparation ended.
    Prepared(Result<Prepared, Failure>),
    /// Writing ended.
    Written(Result<Written, Failure>),
    /// Health held, or did not.
    Health(Result<(), Failure>),
    /// Do this: it tells that the engine lives.
    Touch(Box<dyn FnOnce() + Send>),
    /// The server took the report of that id, or will never take it.
    Reported(String),
}

/// The two slots as this boot found them.
#[derive(Debug, Clone)]
struct Slots {
    booted: Slot,
    other: Slot,
}

/// A stage that runs elsewhere.
struct Running {
    id: u64,
    stop: Stop,
    progress: Progress,
}

/// The engine.
pub struct Engine {
    config: Arc<Config>,
    ports: Ports,
    boot: Arc<BootControl>,
    trust: Result<Arc<Keeper>, Failure>,
    tasks: Box<dyn Tasks>,
    audience: Box<dyn Audience>,
    record: Record,
    state: State,
    slots: Result<Slots, Failure>,
    boot_id: String,
    current: Current,
    job: Option<Running>,
    health: Option<Stop>,
    /// What is told once, after the status that it is about.
    notices: Vec<Notice>,
    /// What keeps this device from being updated, found at the start.
    problems: Vec<Failure>,
    /// Where the attempt stood when the last event came, for its conclusion.
    phase: &'static str,
    /// Handed from one stage to the effect that continues it.
    source: Option<(Source, Permit)>,
    plan: Option<Box<Plan>>,
    synced: Option<SyncedSlot>,
}

impl Engine {
    /// Takes one message and does everything that follows from it.
    pub fn handle(&mut self, message: Message) {
        match message {
            Message::Ask(request, reply) => {
                let answer = self.ask(request);
                self.publish();
                reply(answer);
                return;
            }
            Message::Prepared(result) => self.prepared(result),
            Message::Written(result) => self.written(result),
            Message::Health(result) => self.health(result),
            Message::Touch(pulse) => return pulse(),
            Message::Reported(id) => self.reported(&id),
        }
        self.publish();
    }

    fn prepared(&mut self, result: Result<Prepared, Failure>) {
        let event = match result {
            // Whoever was told that it is cancelled must not find it installed.
            Ok(_) if self.is_cancelled() => Event::Cancelled,
            Ok(Prepared::AlreadyInstalled) => Event::AlreadyInstalled,
            Ok(Prepared::AlreadyHeld(release, synced)) => {
                self.synced = Some(synced);
                self.begin(Phase::Arming);
                Event::AlreadyHeld(release)
            }
            Ok(Prepared::ToWrite(plan)) => {
                let release = plan.release.clone();
                self.plan = Some(plan);
                Event::Prepared(release)
            }
            Err(failure) => ended(failure),
        };
        self.dispatch(event);
    }

    fn written(&mut self, result: Result<Written, Failure>) {
        let event = match result {
            Ok(_) if self.is_cancelled() => Event::Cancelled,
            Ok(written) => {
                log::info!(
                    "slot {} is synced: {} bytes fetched, {} written, {} not written because the slot held them, {} taken \
                     from the running slot or a delta",
                    written.synced.name(),
                    written.counts.fetched,
                    written.counts.written,
                    written.counts.unchanged,
                    written.saved
                );
                self.synced = Some(written.synced);
                self.begin(Phase::Arming);
                Event::Synced(written.counts)
            }
            Err(failure) => ended(failure),
        };
        self.dispatch(event);
    }

    fn is_cancelled(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.stop.requested())
    }

    fn begin(&self, phase: Phase) {
        if let Some(job) = &self.job {
            job.progress.begin(phase, 0);
        }
    }

    fn health(&mut self, result: Result<(), Failure>) {
        self.health = None;
        let on_trial = matches!(self.state, State::PostUpgrade(_, Stage::Trial));
        match result {
            Err(failure) if failure.code == Code::Cancelled => {}
            Ok(()) if on_trial => self.dispatch(Event::Confirmed),
            Err(failure) if on_trial => self.dispatch(Event::Rejected(failure.into())),
            // At rest, health refills the boot counter (`boot-order`) or allows a lost environment to be rebuilt. While a
            // slot is armed or being rolled back, it is not asked for its opinion.
            Ok(()) if matches!(self.state, State::Idle | State::Failed(..)) => self.confirm_at_rest(),
            Ok(()) => {}
            Err(failure) => log::error!("the running system is not healthy: {failure}"),
        }
    }

    fn confirm_at_rest(&mut self) {
        let Ok(slots) = &self.slots else { return };
        let mended =
            self.boot.commit(&slots.booted.name, &*self.ports.machine).and_then(|()| self.boot.repair());
        if let Err(failure) = mended {
            log::error!("{}: {failure}", failure.code);
        }
    }

    fn reported(&mut self, id: &str) {
        self.record.reports.retain(|report| record::report_id(report) != id);
        if let Err(failure) = record::save(&*self.ports.fs, &self.record) {
            log::error!("{}: {failure}", failure.code);
        }
    }

    /// Lets the lifecycle decide about an event and does what it says.
    fn dispatch(&mut self, event: Event) {
        if let Err(illegal) = self.try_dispatch(event) {
            log::error!("{illegal}");
        }
    }

    fn try_dispatch(&mut self, event: Event) -> Result<(), IllegalEvent> {
        let (state, effects) = step(&self.state, event)?;
        self.note_phase();
        // An attempt that ends before it touched anything may leave another one behind that is still armed; the effects
        // are about the one that ends.
        let ends = matches!(self.state, State::PreUpgrade(_))
            && effects.iter().any(|effect| matches!(effect, Effect::Conclude(_)));
        let of_state = if ends { self.state.attempt() } else { state.attempt().or(self.state.attempt()) };
        let attempt = of_state.cloned();
        self.state = state;
        self.run(effects, attempt);
        Ok(())
    }

    fn note_phase(&mut self) {
        let of_job = self.job.as_ref().map(|job| job.progress.snapshot().phase.word());
        self.phase = of_job.unwrap_or(self.state.word());
    }

    /// Does effects in order. When one fails before the target is armed the rest is dropped and the failure becomes an
    /// event. Afterwards, and at rest, nothing could be aborted: the rest is still done. A rollback above all: that the
    /// record cannot be written is no reason not to turn the environment.
    fn run(&mut self, effects: Vec<Effect>, attempt: Option<Attempt>) {
        let mut left = VecDeque::from(effects);
        while let Some(effect) = left.pop_front() {
            let event = match self.perform(effect, attempt.as_ref()) {
                Ok(event) => event,
                Err(failure) => {
                    log::error!("{}: {failure}", failure.code);
                    if self.goes_on_after_failures() {
                        continue;
                    }
                    Some(Event::Failed(Reason::from(failure)))
                }
            };
            if let Some(event) = event {
                // Whatever follows is decided by the new state.
                left.clear();
                self.dispatch(event);
            }
        }
    }

    fn goes_on_after_failures(&self) -> bool {
        match &self.state {
            State::Idle | State::Failed(..) | State::PostUpgrade(_, Stage::Armed | Stage::RollingBack(_)) => {
                true
            }
            State::PreUpgrade(_)
            | State::Upgrading(_)
            | State::PostUpgrade(_, Stage::Arming | Stage::Trial) => false,
        }
    }
}

/// The event of a stage that did not succeed.
fn ended(failure: Failure) -> Event {
    if failure.code == Code::Cancelled { Event::Cancelled } else { Event::Failed(failure.into()) }
}
