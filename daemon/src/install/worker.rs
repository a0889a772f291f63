//! What the install thread runs: owned versions of everything a stage borrows.

use std::sync::Arc;

use super::pipeline::{self, Written};
use super::prepare::{self, Context, Current, Plan, Prepared, Source};
use super::progress::{Phase, Progress};
use crate::config::{Config, Slot};
use crate::engine::Ports;
use crate::failure::Failure;
use crate::lifecycle::event::Release;
use crate::ports::Stop;
use crate::trial::BootControl;
use crate::trust::Keeper;
use crate::trust::sequence::Permit;

/// One install's world, shared by its stages.
#[derive(Clone)]
pub struct Worker {
    /// The configuration.
    pub config: Arc<Config>,
    /// The edges.
    pub ports: Ports,
    /// The running slot.
    pub running: Slot,
    /// The slot to be written.
    pub target: Slot,
    /// What the running system is.
    pub current: Current,
    /// What the running slot holds, where otad installed it.
    pub held: Option<Release>,
    /// How far it is.
    pub progress: Progress,
    /// Whether somebody asked to stop.
    pub stop: Stop,
}

impl Worker {
    fn context(&self) -> Context<'_> {
        Context {
            config: &self.config,
            fs: &*self.ports.fs,
            devices: &*self.ports.devices,
            machine: &*self.ports.machine,
            decoders: &*self.ports.decoders,
            running: &self.running,
            target: &self.target,
            current: &self.current,
            held: self.held.as_ref(),
            progress: &self.progress,
            stop: &self.stop,
            lanes: self.ports.lanes,
        }
    }

    /// Opens, verifies, checks and scans.
    pub fn prepare(&self, source: Source, permit: Permit, trust: &Keeper) -> Result<Prepared, Failure> {
        let prepared = prepare::prepare(&self.context(), source, permit, trust, &*self.ports.fetch)?;
        if let Prepared::AlreadyHeld(..) = &prepared {
            self.pre_run()?;
        }
        Ok(prepared)
    }

    /// Verifies that the target still holds what was installed there.
    pub fn verify_slot(&self, release: Release) -> Result<Prepared, Failure> {
        prepare::verify_slot(&self.context(), release)
    }

    /// Disarms, writes, flushes and reads back.
    pub fn write(&self, boot: &BootControl, plan: Plan) -> Result<Written, Failure> {
        let written = pipeline::write(&self.context(), boot, plan)?;
        self.pre_run()?;
        Ok(written)
    }

    /// Step 7 of the durability order, if the configuration asks for it. The devices of the slot are closed again: the
    /// system in it is mounted now. When it fails the slot stays disarmed, whole as it is.
    fn pre_run(&self) -> Result<(), Failure> {
        let image = self.config.pre_run.as_ref().and_then(|role| self.target.images.get(role));
        let Some(image) = image else { return Ok(()) };
        self.progress.begin(Phase::PreRun, 0);
        self.ports.health.pre_run(image)
    }
}
