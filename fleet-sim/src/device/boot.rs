//! From power-on to a running otad: the boot loader, the kernel that lives or dies, and the daemon's parts wired together.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use bootenv::model::Outcome;
use bootenv::{LockDirs, Store as _};
use otad::adapters::http::{HttpFetch, Limits};
use otad::bus::Desk;
use otad::engine::{Engine, Ports, Status};
use otad::failure::Failure;
use otad::poller;
use otad::ports::DeviceId;
use otad::testing::edges::{self, InlineTasks, RigStore};
use otad::testing::rig::Rig;
use otad::trial::BootControl;
use otad::trust::Keeper;
use tokio::sync::watch;

use super::{Daemon, Device, DeviceError, FACTORY};
use crate::edges::{Ear, NamedMachine};
use crate::fleet::World;
use crate::image;
use crate::model::{BOOT_LIMIT, ENV_BYTES, Holds, copies, medium, paths};
use crate::nature::Nature;

impl Device {
    /// Switches it on and starts otad.
    pub(super) fn power_on(&mut self, world: &World) -> Result<Daemon, DeviceError> {
        self.boots += 1;
        let rig = Rig::new(self.storage.clone(), paths());
        self.boot(&rig, world)?;
        self.daemon(rig).map_err(|failure| DeviceError::Daemon { device: self.name.clone(), failure })
    }

    /// The boot loader, as often as it takes until a kernel lives.
    fn boot(&self, rig: &Rig, world: &World) -> Result<(), DeviceError> {
        let (factory, sequence) = FACTORY;
        let factory = image::info(factory, sequence);
        for _ in 0..BOOT_LIMIT + 2 {
            let view = rig.inner().storage.live.clone();
            let holds = |slot: &str| self.model.holds(view.medium(medium(slot)));
            let boot = self.model.loader.power_on(&copies(&view), &|slot| holds(slot).is_some());
            let mut store = RigStore::new(rig, ENV_BYTES);
            for save in &boot.saves {
                // The rig has no fault while the boot loader runs.
                drop(store.write(save.copy, &save.bytes));
            }
            let Outcome::Started { slot, command_line } = boot.outcome else { continue };
            let whole = holds(&slot).filter(|holds| holds.whole);
            let Some(Holds { info, .. }) = whole else {
                return Err(DeviceError::Torn { device: self.name.clone(), slot });
            };
            let suffers = info != factory && world.is_weak();
            if suffers && self.nature == Nature::Crashes {
                continue;
            }
            let mut inner = rig.inner();
            inner.running = vec![medium(&slot)];
            inner.root = DeviceId::Block(medium(&slot) as u64);
            inner.command_line = format!("quiet {command_line}\n");
            inner.boot_id = format!("{}-boot-{}", self.name, self.boots);
            inner.image_info = info;
            inner.healthy = !(suffers && self.nature == Nature::Unhealthy);
            inner.default_environment = b"bootdelay=2\n".to_vec();
            return Ok(());
        }
        Err(DeviceError::Dead(self.name.clone()))
    }

    /// The daemon as `otad` wires it, without a bus.
    fn daemon(&self, rig: Rig) -> Result<Daemon, Failure> {
        let of_rig = edges::ports(&rig);
        let fetch = HttpFetch::with_limits(Some(&self.model.server), "otad", limits())?;
        let machine = NamedMachine { name: self.name.clone(), machine: of_rig.machine.clone() };
        let ports = Ports { fetch: Arc::new(fetch), machine: Arc::new(machine), ..of_rig };
        let store = Box::new(RigStore::new(&rig, ENV_BYTES));
        let boot = Arc::new(BootControl::new(store, self.model.scheme.clone(), LockDirs::new([])));
        let trust = Keeper::of(&self.model.root, ports.fs.clone()).map(Arc::new);
        let config = self.model.config.clone();

        let (messages, queue) = mpsc::channel();
        let (sender, status) = watch::channel(Arc::new(Status::starting()));
        let tasks = InlineTasks::default();
        let (ear, runner) = (Box::new(Ear(sender)), Box::new(tasks.clone()));
        let engine = Engine::start(config.clone(), ports.clone(), boot, trust.clone(), runner, ear)?;
        let desk = Desk::new(messages.clone(), status.clone());
        // Nobody will wake the poll thread, so it ends at once: the rounds are asked for by hand, one step after the other.
        let (_, wakes) = mpsc::channel();
        let check = poller::start(&config, &ports, &desk, trust, messages.clone(), wakes)?;
        Ok(Daemon { rig, engine, tasks, status, messages, queue, check })
    }
}

/// The limits of the real client, with shorter waits: a killed server is back in a moment.
fn limits() -> Limits {
    Limits {
        backoff_first: Duration::from_millis(50),
        backoff_longest: Duration::from_secs(1),
        ..Limits::default()
    }
}
