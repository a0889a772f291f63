//! One device: from the factory through every boot, with the power going now and then.

mod boot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use otad::bus::Check;
use otad::engine::{Engine, Message, Status};
use otad::failure::{Code, Failure};
use otad::lifecycle::event::State;
use otad::lifecycle::record::report_id;
use otad::testing::crash::{Effort, crashes, power_cut};
use otad::testing::edges::InlineTasks;
use otad::testing::rig::{Fault, Lasting, Rig, Upset};
use otad::testing::storage::Storage;
use tokio::sync::watch;

use crate::fleet::World;
use crate::model::{Model, ModelError};
use crate::nature::Nature;

/// What every device comes with.
pub const FACTORY: (&str, u64) = ("1.0.0", 1);
/// Operations of an install after which a device that drops off loses its power: in the middle of writing.
const OPERATIONS_UNTIL_CUT: u64 = 12;
/// Steps that such a device then stays away.
const STEPS_AWAY: u32 = 8;
/// How long the poll round may say nothing before it is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Something that must not happen to a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The boot loader started a slot that does not hold a whole release.
    #[error("{device}: slot {slot} was started and holds no whole release")]
    Torn {
        /// Which device.
        device: String,
        /// Which slot.
        slot: String,
    },
    /// No slot starts any more.
    #[error("{0}: nothing runs any more, however often the power comes back")]
    Dead(String),
    /// otad does not start.
    #[error("{device}: otad does not start: {failure}")]
    Daemon {
        /// Which device.
        device: String,
        /// Why.
        failure: Failure,
    },
    /// A rule of the ports was broken.
    #[error("{device}: {what}")]
    Violation {
        /// Which device.
        device: String,
        /// Which rule.
        what: String,
    },
}

/// What really happened on a device, whatever the server knows of it.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// Outcomes that otad wanted reported, by the id of the report.
    pub reports: BTreeMap<String, String>,
    /// The release from the server runs and is committed.
    pub committed: bool,
    /// It went away for good.
    pub gone: bool,
    /// The power went in the middle of an install.
    pub cut: bool,
    /// Questions to the server.
    pub asked: u64,
    /// Of these, not answered as they should be.
    pub unanswered: u64,
    /// Of these, offers that otad did not take, since they failed before.
    pub declined: u64,
}

impl Truth {
    /// How often an outcome was to be reported.
    pub fn count(&self, outcome: &str) -> usize {
        self.reports.values().filter(|word| *word == outcome).count()
    }
}

/// A simulated device.
pub struct Device {
    name: String,
    nature: Nature,
    model: Arc<Model>,
    storage: Storage,
    boots: u32,
    away: u32,
    power: Option<Daemon>,
    truth: Truth,
}

/// otad while the power is on.
struct Daemon {
    rig: Rig,
    engine: Engine,
    tasks: InlineTasks,
    status: watch::Receiver<Arc<Status>>,
    messages: Sender<Message>,
    queue: Receiver<Message>,
    check: Check,
}

impl Device {
    /// Makes a device that has never been on.
    ///
    /// # Errors
    /// The model's boot environment cannot be made.
    pub fn new(model: &Arc<Model>, name: String, nature: Nature) -> Result<Device, ModelError> {
        let (version, sequence) = FACTORY;
        let storage = model.factory(version, sequence)?;
        let model = model.clone();
        Ok(Device { name, nature, model, storage, boots: 0, away: 0, power: None, truth: Truth::default() })
    }

    /// Its id, as the server knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What becomes of a new release on it.
    pub fn nature(&self) -> Nature {
        self.nature
    }

    /// What really happened on it.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// Lets it live a little: it asks the server, does what follows from that, and reboots if it wants to.
    ///
    /// # Errors
    /// Something that must not happen to a device.
    pub fn step(&mut self, world: &World) -> Result<(), DeviceError> {
        if self.truth.gone {
            return Ok(());
        }
        if self.away > 0 {
            self.away -= 1;
            return Ok(());
        }
        let mut daemon = match self.power.take() {
            Some(daemon) => daemon,
            None => self.power_on(world)?,
        };
        self.note(&daemon, world);
        self.ask(&mut daemon, world);
        while let Some(message) = daemon.tasks.run_next() {
            daemon.engine.handle(message);
            self.note(&daemon, world);
            let writes_next = matches!(daemon.status.borrow().state, State::Upgrading(_));
            if writes_next && self.nature == Nature::DropsOff && !self.truth.cut {
                self.cut_power(&daemon);
                return Ok(());
            }
            if writes_next {
                // An install takes longer than it is between two questions.
                self.ask(&mut daemon, world);
            }
        }
        let (violation, reboot) = {
            let inner = daemon.rig.inner();
            (inner.violations.first().cloned(), inner.reboot)
        };
        if let Some(what) = violation {
            return Err(DeviceError::Violation { device: self.name.clone(), what });
        }
        if reboot {
            // What there is to report is handed in at once; going down takes a moment.
            self.ask(&mut daemon, world);
            self.power_off(&daemon);
        } else {
            self.power = Some(daemon);
        }
        Ok(())
    }

    /// One round of the real poll code, with the engine at work meanwhile.
    fn ask(&mut self, daemon: &mut Daemon, world: &World) {
        self.truth.asked += 1;
        match daemon.ask() {
            Ok(_) => {}
            Err(failure) if failure.code == Code::ReleaseFailedBefore => self.truth.declined += 1,
            Err(_) => self.truth.unanswered += 1,
        }
        self.note(daemon, world);
    }

    /// Writes down what is true of the device before anybody else can know it.
    fn note(&mut self, daemon: &Daemon, world: &World) {
        let status = daemon.status.borrow().clone();
        for report in &status.record.reports {
            let outcome = report.get("outcome").and_then(|word| word.as_str()).unwrap_or_default();
            self.truth.reports.insert(report_id(report).to_owned(), outcome.to_owned());
        }
        if !self.truth.committed && status.state == State::Idle && status.current.sequence > FACTORY.1 {
            self.truth.committed = true;
            world.commit(&self.name);
        }
    }

    /// Goes down in order; a device that never returns does so when its new system should come up.
    fn power_off(&mut self, daemon: &Daemon) {
        let armed = matches!(daemon.status.borrow().state, State::PostUpgrade(..));
        self.truth.gone = self.nature == Nature::NeverReturns && armed;
        self.storage = daemon.rig.inner().storage.clone();
        self.storage.sync_all();
    }

    /// Loses its power while the slot is being written, with whatever that leaves of the disk.
    fn cut_power(&mut self, daemon: &Daemon) {
        self.truth.cut = true;
        self.away = STEPS_AWAY;
        {
            let mut inner = daemon.rig.inner();
            let at = inner.operations + OPERATIONS_UNTIL_CUT;
            inner.fault = Some(Fault { at, upset: Upset::PowerDuring, lasting: Lasting::Once });
        }
        drop(daemon.tasks.run_next());
        let mut inner = daemon.rig.inner();
        let (storage, hit) = match inner.cut.take() {
            Some(moment) => (moment.storage, moment.hit),
            None => (inner.storage.clone(), None),
        };
        let effort = Effort { exhaustive: 4, random: 4, sectors: 2, bytes: 2 };
        let left = crashes(&storage, hit.as_ref(), effort);
        let chosen = usize::try_from(storage.hash()).unwrap_or_default().checked_rem(left.len());
        self.storage = match chosen.and_then(|at| left.get(at)) {
            Some(crash) => power_cut(&storage, hit.as_ref(), crash),
            None => storage,
        };
    }
}

impl Daemon {
    fn ask(&mut self) -> Result<bool, Failure> {
        let ended = Arc::new(AtomicBool::new(false));
        let (check, messages, pulse) = (self.check.clone(), self.messages.clone(), ended.clone());
        let (engine, queue) = (&mut self.engine, &self.queue);
        std::thread::scope(|scope| {
            let asking = scope.spawn(move || {
                let result = check();
                let end = Message::Touch(Box::new(move || pulse.store(true, Ordering::Release)));
                // The engine is on the other end as long as this scope lasts.
                drop(messages.send(end));
                result
            });
            while !ended.load(Ordering::Acquire) {
                match queue.recv_timeout(LOOK_EVERY) {
                    Ok(message) => engine.handle(message),
                    Err(RecvTimeoutError::Timeout) if !asking.is_finished() => {}
                    Err(_) => break,
                }
            }
            let panicked = || Failure::new(Code::Internal, "the poll round panicked");
            asking.join().unwrap_or_else(|_| Err(panicked()))
        })
    }
}
