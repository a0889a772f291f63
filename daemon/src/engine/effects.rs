//! Doing what the lifecycle decided.

use super::start::{self, ImageInfo};
use super::{Engine, Message, Running};
use crate::failure::{Code, Failure};
use crate::health;
use crate::install::prepare::Prepared;
use crate::install::readback::SyncedSlot;
use crate::install::worker::Worker;
use crate::lifecycle::event::{Attempt, Effect, Event, Origin, Stage, State};
use crate::lifecycle::record::{self, Factory, Held};
use crate::ports::Stop;

impl Engine {
    /// Does one effect; an event when it has an outcome of its own.
    pub(super) fn perform(
        &mut self,
        effect: Effect,
        attempt: Option<&Attempt>,
    ) -> Result<Option<Event>, Failure> {
        match effect {
            Effect::Persist => self.persist().map(|()| None),
            Effect::Forget => {
                self.forget(&need(attempt)?.target);
                Ok(None)
            }
            Effect::Remember => {
                self.remember(need(attempt)?);
                Ok(None)
            }
            Effect::Prepare => self.prepare(need(attempt)?).map(|()| None),
            Effect::Write => self.write(need(attempt)?).map(|()| None),
            Effect::Arm => self.arm().map(|()| Some(Event::Armed)),
            Effect::Disarm => self.boot.disarm(&self.other()?).map(|()| None),
            Effect::TakeBack => self.take_back(need(attempt)?).map(|()| None),
            Effect::WatchHealth => self.watch_health().map(|()| None),
            Effect::Commit => {
                let slot = self.booted()?;
                self.boot.commit(&slot, &*self.ports.machine)?;
                Ok(Some(Event::Committed))
            }
            Effect::RollBack => self.boot.roll_back(&self.booted()?).map(|()| None),
            Effect::Reboot => self.reboot().map(|()| None),
            Effect::Conclude(conclusion) => {
                self.conclude(conclusion, attempt);
                Ok(None)
            }
        }
    }

    fn persist(&mut self) -> Result<(), Failure> {
        let stored = self.trust.as_ref().map_or(0, |trust| trust.stored_version());
        self.record.root_version = self.record.root_version.max(stored);
        self.record
            .set_state(&self.state)
            .map_err(|error| Failure::new(Code::Internal, format!("cannot encode the state: {error}")))?;
        record::save(&*self.ports.fs, &self.record)
    }

    fn forget(&mut self, slot: &str) {
        self.record.factory.remove(slot);
        self.record.replaced.remove(slot);
        if let Some(held) = self.record.slots.remove(slot) {
            let (version, sequence) = (held.release.version, held.release.sequence);
            self.record.replaced.insert(slot.to_owned(), Factory { version, sequence });
        }
    }

    fn remember(&mut self, attempt: &Attempt) {
        if let Some(release) = attempt.release.clone() {
            let held = Held { release, installed_at: self.ports.clock.wall_seconds() };
            self.record.slots.insert(attempt.target.clone(), held);
        }
    }

    fn worker(&self, attempt: &Attempt) -> Result<Worker, Failure> {
        let job = self.job.as_ref().filter(|job| job.id == attempt.job);
        let (job, slots) = (job.ok_or_else(lost_thread)?, self.slots.clone()?);
        Ok(Worker {
            config: self.config.clone(),
            ports: self.ports.clone(),
            held: self.record.held(&slots.booted.name).cloned(),
            running: slots.booted,
            target: slots.other,
            current: self.current.clone(),
            progress: job.progress.clone(),
            stop: job.stop.clone(),
        })
    }

    fn prepare(&mut self, attempt: &Attempt) -> Result<(), Failure> {
        let worker = self.worker(attempt)?;
        if attempt.origin == Origin::OtherSlot {
            return self.prepare_other_slot(worker, attempt);
        }
        let (source, permit) = self.source.take().ok_or_else(lost_thread)?;
        let trust = self.trust.clone()?;
        self.tasks
            .start("install", Box::new(move || Message::Prepared(worker.prepare(source, permit, &trust))))
    }

    /// Going back: by the recorded hashes where otad wrote the slot, by its confirmation where the factory did.
    fn prepare_other_slot(&mut self, worker: Worker, attempt: &Attempt) -> Result<(), Failure> {
        if let Some(release) = self.record.held(&attempt.target).cloned() {
            return self
                .tasks
                .start("install", Box::new(move || Message::Prepared(worker.verify_slot(release))));
        }
        let view = self.boot.view(&attempt.from, &attempt.target)?;
        let synced =
            view.and_then(|view| SyncedSlot::confirmed_before(&attempt.target, view.standings.other));
        let synced = synced.ok_or_else(|| super::requests::no_fallback(&attempt.target))?;
        self.tasks
            .start("install", Box::new(move || Message::Prepared(Ok(Prepared::AlreadyHeld(None, synced)))))
    }

    fn write(&mut self, attempt: &Attempt) -> Result<(), Failure> {
        let (worker, boot) = (self.worker(attempt)?, self.boot.clone());
        let plan = self.plan.take().ok_or_else(lost_thread)?;
        self.tasks.start("install", Box::new(move || Message::Written(worker.write(&boot, *plan))))
    }

    pub(super) fn take_back(&self, attempt: &Attempt) -> Result<(), Failure> {
        match attempt.origin {
            Origin::OtherSlot => self.boot.take_back(&attempt.target),
            Origin::Descriptor | Origin::Url(_) | Origin::Server { .. } => self.boot.disarm(&attempt.target),
        }
    }

    fn arm(&mut self) -> Result<(), Failure> {
        let synced = self.synced.take().ok_or_else(lost_thread)?;
        self.ports.trail.clear();
        self.boot.arm(&synced)?;
        log::info!("slot {} is armed; the next boot is its trial", synced.name());
        Ok(())
    }

    pub(super) fn watch_health(&mut self) -> Result<(), Failure> {
        if let State::PostUpgrade(attempt, Stage::Trial) = &self.state {
            self.ports.trail.follow();
            // An image that says nothing of itself cannot be compared with anything.
            if let Some(says) = start::image_info(&*self.ports.machine) {
                self.is_not_what_was_replaced(attempt, &says)?;
                self.runs_on_its_kernel(attempt, &says.kernel)?;
            }
            log::info!("slot {} is on trial; watching its health", attempt.target);
        }
        let on_trial = matches!(self.state, State::PostUpgrade(_, Stage::Trial));
        let stop = Stop::default();
        let (config, ports, stopped) = (self.config.clone(), self.ports.clone(), stop.clone());
        let trust = self.trust.clone();
        self.health = Some(stop);
        self.tasks.start(
            "health",
            Box::new(move || {
                let updatable = || {
                    trust.as_ref().map_err(Clone::clone)?;
                    ports.machine.device_key()?;
                    // A kernel that lets otad start no decoder takes no update.
                    ports.decoders.ready()?;
                    ports.fetch.ready()
                };
                let updatable: Option<&(dyn Fn() -> Result<(), Failure> + Sync)> =
                    on_trial.then_some(&updatable);
                let checks = health::OfTrial { checks: &*ports.health, updatable };
                Message::Health(health::watch(&config.health, &checks, &*ports.clock, &stopped))
            }),
        )
    }

    /// Whether the system on trial is not the one from before (S3): a storage that lost an update after it had been read back
    /// boots what the slot held until then. Only an image whose `image.toml` names its release can tell.
    fn is_not_what_was_replaced(&self, attempt: &Attempt, says: &ImageInfo) -> Result<(), Failure> {
        let before = self.record.replaced.get(&attempt.target);
        let (Some(release), Some(before)) = (&attempt.release, before) else {
            return Ok(());
        };
        let runs_it = says.version == before.version && says.sequence == before.sequence;
        let is_new = release.version != before.version || release.sequence != before.sequence;
        // An attempt that fetched nothing found its release in the slot, under whatever name it was there before.
        if !(runs_it && is_new && attempt.counts.fetched > 0) {
            return Ok(());
        }
        let (old, new) = (&before.version, &release.version);
        let what = format!("slot {} runs version {old} again, although {new} was installed", attempt.target);
        let why = format!("{what} and read back: its storage lost the update");
        Err(Failure::new(Code::VerifyFailed, format!("{why}; the device may be failing")))
    }

    /// Whether the system on trial runs on the kernel that its image was built with (X4), and not on the other slot's, which a boot
    /// loader that looks in the wrong place would load for ever. Only an image whose `image.toml` names its kernel can tell.
    fn runs_on_its_kernel(&self, attempt: &Attempt, wanted: &str) -> Result<(), Failure> {
        let kernel = self.ports.machine.kernel();
        let names: Vec<&str> = std::iter::once(&*kernel.release).chain(kernel.build_id.as_deref()).collect();
        if wanted.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(wanted)) {
            return Ok(());
        }
        let is_build_id = wanted.len() >= 32 && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_build_id && kernel.build_id.is_none() {
            log::warn!(
                "the running kernel tells no build id, so it is not compared with the image's {wanted}"
            );
            return Ok(());
        }
        let (slot, names) = (&attempt.target, names.join(", "));
        let what = format!("slot {slot} runs on the kernel {names}, its image was built with {wanted}");
        let next = "check from where the boot script loads the kernel, and kernel in the image's image.toml";
        Err(Failure::new(Code::KernelSlotMismatch, format!("{what}; {next}")))
    }

    pub(super) fn reboot(&mut self) -> Result<(), Failure> {
        log::info!("rebooting");
        self.ports
            .machine
            .reboot()
            .map_err(|error| Failure::new(Code::Internal, format!("the machine does not reboot: {error}")))?;
        self.notices.push(super::Notice::Rebooting);
        Ok(())
    }

    pub(super) fn start_job(&mut self, id: u64, stop: Stop) {
        self.job = Some(Running { id, stop, progress: super::Progress::default() });
    }

    pub(super) fn booted(&self) -> Result<String, Failure> {
        self.slots.as_ref().map(|slots| slots.booted.name.clone()).map_err(Clone::clone)
    }

    pub(super) fn other(&self) -> Result<String, Failure> {
        self.slots.as_ref().map(|slots| slots.other.name.clone()).map_err(Clone::clone)
    }
}

fn need(attempt: Option<&Attempt>) -> Result<&Attempt, Failure> {
    attempt.ok_or_else(|| Failure::new(Code::Internal, "an effect without an attempt"))
}

fn lost_thread() -> Failure {
    Failure::new(Code::Internal, "a stage was asked to go on without what the stage before it made")
}
