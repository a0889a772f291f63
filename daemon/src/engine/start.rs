//! The start: what the last stop left, and what follows from it.

use std::sync::Arc;

use super::{Audience, Engine, Ports, Slots, Tasks};
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::install::prepare::Current;
use crate::layout;
use crate::lifecycle::event::{Attempt, Conclusion, Effect, Reason, Stage, State};
use crate::lifecycle::record::{self, Factory, Record};
use crate::lifecycle::recover::{BootFacts, recover};
use crate::ports::Machine;
use crate::slots;
use crate::trial::BootControl;
use crate::trust::Keeper;

impl Engine {
    /// Loads the record, finds the running slot, settles what the last stop left, and starts what follows from it.
    ///
    /// # Errors
    /// The data directory or the machine cannot be read at all.
    pub fn start(
        config: Arc<Config>,
        ports: Ports,
        boot: Arc<BootControl>,
        trust: Result<Arc<Keeper>, Failure>,
        tasks: Box<dyn Tasks>,
        audience: Box<dyn Audience>,
    ) -> Result<Engine, Failure> {
        let loaded = record::load(&*ports.fs)?;
        if let Some(remark) = loaded.remark {
            log::warn!("{remark}");
        }
        let slots = find_slots(&config, &ports);
        if let Ok(command_line) = ports.machine.command_line() {
            boot.note_command_line(&command_line);
        }
        let boot_id = ports
            .machine
            .boot_id()
            .map_err(|error| Failure::new(Code::Internal, format!("the boot id cannot be read: {error}")))?;
        let current = current(&ports, &loaded.record, slots.as_ref().ok());
        let trust_problem = trust.as_ref().err().cloned().into_iter().collect();
        if let Ok(keeper) = &trust {
            keeper.require(loaded.record.root_version);
        }
        let mut engine = Engine {
            state: loaded.record.state().unwrap_or(State::Idle),
            record: loaded.record,
            trust,
            config,
            ports,
            boot,
            tasks,
            audience,
            slots,
            boot_id,
            current,
            job: None,
            health: None,
            notices: Vec::new(),
            phase: "",
            problems: trust_problem,
            source: None,
            plan: None,
            synced: None,
        };
        engine.note_factory();
        engine.note_layout();
        engine.introduce();
        engine.recover();
        engine.adopt_roots();
        engine.publish();
        Ok(engine)
    }

    /// Remembers what the factory's image says of itself: once another slot runs, nobody can ask it any more.
    fn note_factory(&mut self) {
        let Ok(slots) = &self.slots else { return };
        let Current { version, sequence, release: None, .. } = &self.current else { return };
        if !version.is_empty() {
            let factory = Factory { version: version.clone(), sequence: *sequence };
            self.record.factory.insert(slots.booted.name.clone(), factory);
        }
    }

    /// Remembers where the slots lie. One that moved is not written, which is a problem where it is the target.
    fn note_layout(&mut self) {
        let moved = match layout::survey(&self.config, &*self.ports.devices, &*self.ports.fs) {
            Ok(moved) => moved,
            Err(failure) => return log::error!("{}: {failure}", failure.code),
        };
        for (slot, failure) in moved {
            log::error!("{}: {failure}", failure.code);
            if self.slots.as_ref().is_ok_and(|slots| slots.other.name == slot) {
                self.problems.push(failure);
            }
        }
    }

    /// Tells the network side which version runs.
    pub(super) fn introduce(&self) {
        let (otad, model, version) =
            (env!("CARGO_PKG_VERSION"), &self.config.compatible, or_unknown(&self.current.version));
        self.ports.fetch.introduce(&format!("otad/{otad} ({model}; {version})"));
    }

    /// A system that is not on trial is one whose roots count from now on, whatever image comes later.
    pub(super) fn adopt_roots(&self) {
        let on_trial = matches!(self.state, State::PostUpgrade(_, Stage::Trial | Stage::RollingBack(_)));
        let Ok(keeper) = &self.trust else { return };
        if !on_trial && let Err(failure) = keeper.adopt_image() {
            log::error!("{}: {failure}", failure.code);
        }
    }

    /// Settles the record with this boot.
    fn recover(&mut self) {
        let slots = self.slots.clone();
        let seen = slots.and_then(|slots| {
            self.boot.view(&slots.booted.name, &slots.other.name).map(|view| (slots, view))
        });
        let (slots, view) = match seen {
            Ok(seen) => seen,
            Err(failure) => return self.settle_blindly(failure),
        };
        let facts = BootFacts {
            booted: slots.booted.name,
            other: slots.other.name,
            boot_id: self.boot_id.clone(),
            standing: view.map(|view| view.standings),
        };
        self.note_phase();
        let was = self.state.clone();
        let recovery = recover(self.record.state(), &facts);
        if let Some(remark) = &recovery.remark {
            log::warn!("{remark}");
        }
        let (version, booted) = (&self.current.version, &facts.booted);
        log::info!("slot {booted} runs, version {}, state {}", or_unknown(version), recovery.state.word());
        // The conclusion of an attempt is about the attempt, which the settled state may no longer hold.
        let attempt = was.attempt().or(recovery.state.attempt()).cloned();
        self.state = self.with_release(recovery.state);
        self.run(recovery.effects, attempt);
    }

    /// Neither slots nor environment can be told: nothing will be written, and status says why. What was under way when
    /// otad stopped is under way no more, whatever the boot was.
    fn settle_blindly(&mut self, failure: Failure) {
        log::error!("{}: {failure}", failure.code);
        self.problems.push(failure);
        if let State::PreUpgrade(attempt) | State::Upgrading(attempt) = self.state.clone() {
            let reason =
                Reason::new(Code::Interrupted, "otad stopped, and now cannot tell what it runs from");
            self.state = State::Failed(attempt.clone(), reason.clone());
            self.run(vec![Effect::Conclude(Conclusion::Failed(reason)), Effect::Persist], Some(attempt));
        }
    }

    /// A trial that the record did not know of is of what the record says the slot holds.
    fn with_release(&self, state: State) -> State {
        match state {
            State::PostUpgrade(attempt, stage) if attempt.release.is_none() => {
                let release = self.record.held(&attempt.target).cloned();
                State::PostUpgrade(Attempt { release, ..attempt }, stage)
            }
            other => other,
        }
    }
}

fn find_slots(config: &Config, ports: &Ports) -> Result<Slots, Failure> {
    let name = slots::booted(config, &*ports.machine, &*ports.devices)?;
    match (config.slot(&name), config.other(&name)) {
        (Some(booted), Some(other)) => Ok(Slots { booted: booted.clone(), other: other.clone() }),
        _ => Err(Failure::new(Code::Internal, format!("slot {name} is not configured"))),
    }
}

/// What runs: what otad installed there, else what the image says of itself.
fn current(ports: &Ports, record: &Record, slots: Option<&Slots>) -> Current {
    if let Some(release) = slots.and_then(|slots| record.held(&slots.booted.name)) {
        return Current {
            version: release.version.clone(),
            sequence: release.sequence,
            release: Some(release.digest),
            floor: record.floor,
        };
    }
    let info = image_info(&*ports.machine).unwrap_or_default();
    Current { version: info.version, sequence: info.sequence, release: None, floor: record.floor }
}

/// What the running image says of itself, if it says anything that can be read.
pub(super) fn image_info(machine: &dyn Machine) -> Option<ImageInfo> {
    let unreadable =
        |error: &dyn std::fmt::Display| log::warn!("the image's own version cannot be read: {error}");
    let text = machine.image_info().inspect_err(|error| unreadable(error)).ok()??;
    toml::from_str(&text).inspect_err(|error: &toml::de::Error| unreadable(&error.message())).ok()
}

/// `/usr/lib/otad/image.toml`: what an image says of itself. Other keys are the image builder's.
#[derive(Default, serde::Deserialize)]
pub(super) struct ImageInfo {
    pub(super) version: String,
    #[serde(default)]
    pub(super) sequence: u64,
    /// The kernel that belongs to the image, by its release or its build id; empty when it does not say.
    #[serde(default)]
    pub(super) kernel: String,
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
