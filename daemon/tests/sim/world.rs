//! A device from power-on to power-off, as often as it takes until it is settled.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bootenv::model::Outcome;
use bootenv::{LockDirs, Store};
use otad::engine::{self, Engine, Message, Ports, Request, Status};
use otad::failure::Failure;
use otad::install::prepare::Source;
use otad::lifecycle::event::{Origin, Stage, State as Lifecycle};
use otad::ports::{DeviceId, Stop};
use otad::testing::edges::{self, InlineTasks, MemoryInput, RigStore, Watcher};
use otad::testing::medium::{hash_bytes, mix};
use otad::testing::rig::{Fault, Moment, Rig, Upset};
use otad::testing::storage::Storage;
use otad::trial::BootControl;
use otad::trust::Keeper;
use otad::trust::sequence::Permit;
use otad_bundle::Chain;

use crate::board::{Board, ENV_BYTES, LIMIT, SLOTS, WAY_BACK};
use crate::scenario::{Action, Operator, Scenario};

/// Boots after which a device that is not settled never will be.
const BOOTS: u32 = 40;

/// Boots that a device with a fault is given.
const FAULTY_BOOTS: u32 = 8;

/// Everything that outlives a power cut, the operator's mind included.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) storage: Storage,
    pub(crate) operator: Operator,
}

impl State {
    /// Tells it from others; nothing is pending in it.
    pub(crate) fn key(&self) -> u64 {
        mix(self.storage.hash(), self.operator.key())
    }
}

/// A moment at which the power may go, and what the operator had done by then.
pub(crate) struct Cut {
    pub(crate) moment: Moment,
    pub(crate) operator: Operator,
    /// How often the power was on in this run by then.
    pub(crate) boot: u32,
}

/// How to run.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// Collect the moments.
    pub(crate) trace: bool,
    /// What goes wrong.
    pub(crate) fault: Option<Fault>,
    /// Asked at every power-on: whether everything from there on is known to end well.
    pub(crate) known: Option<&'a mut dyn FnMut(u64) -> bool>,
    /// Boots to trace; later ones are run and not cut.
    pub(crate) traced_boots: u32,
}

impl Options<'_> {
    /// Whether operations fail while the power is on.
    fn failing(&self) -> bool {
        self.fault.is_some_and(|fault| matches!(fault.upset, Upset::Errno(_) | Upset::Short))
    }
}

/// How a run went.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) cuts: Vec<Cut>,
    pub(crate) operations: u64,
    /// The settled state; nothing when the run stopped at a state that is known or when the power went.
    pub(crate) end: Option<State>,
    /// Where the power went.
    pub(crate) cut: Option<Cut>,
    /// Codes of failures that were seen, in order.
    pub(crate) codes: Vec<String>,
    /// What the device told when it was first settled.
    pub(crate) told: String,
    /// What the operator saw and did: boot, running slot, state, action.
    pub(crate) story: Vec<(u32, String, &'static str, Action)>,
}

/// What a boot ended with.
enum Next {
    Again(State),
    Settled(State),
    PowerOff,
}

/// Runs a device until it is settled.
pub(crate) fn run(scenario: &Scenario, start: State, options: &mut Options<'_>) -> Result<Run, String> {
    let mut run = Run::default();
    let mut state = start;
    for boot in 1..=BOOTS {
        if boot > 1
            && let Some(known) = &mut options.known
            && known(state.key())
        {
            return Ok(run);
        }
        let mut world = World { scenario, run: &mut run, boot, operator: state.operator };
        state = match world.boot(state.storage, options)? {
            Next::Again(state) => state,
            Next::Settled(state) => {
                run.end = Some(state);
                return Ok(run);
            }
            Next::PowerOff => return Ok(run),
        };
    }
    Err(format!("not settled after {BOOTS} boots; codes seen: {:?}", run.codes))
}

/// Runs a device on which something fails, until nothing is under way: one request, and whatever follows from it.
pub(crate) fn run_once(scenario: &Scenario, start: State, options: &mut Options<'_>) -> Result<Run, String> {
    let mut run = Run::default();
    let mut state = start;
    for boot in 1..=FAULTY_BOOTS {
        let mut world = World { scenario, run: &mut run, boot, operator: state.operator };
        state = match world.boot(state.storage, options)? {
            Next::Again(state) => state,
            Next::Settled(state) => {
                run.end = Some(state);
                return Ok(run);
            }
            Next::PowerOff => return Err("the power went".to_owned()),
        };
    }
    // It cannot even start, or cannot stop rebooting, while the fault lasts.
    run.end = Some(state);
    Ok(run)
}

struct World<'a> {
    scenario: &'a Scenario,
    run: &'a mut Run,
    boot: u32,
    operator: Operator,
}

/// What the daemon of one boot consists of.
struct Daemon {
    engine: Engine,
    tasks: InlineTasks,
    watcher: Watcher,
}

impl World<'_> {
    fn boot(&mut self, storage: Storage, options: &Options<'_>) -> Result<Next, String> {
        let rig = Rig::new(storage, self.scenario.board.paths());
        {
            let mut inner = rig.inner();
            inner.moments = (options.trace && self.boot <= options.traced_boots).then(Vec::new);
            inner.fault = options.fault;
            inner.operations = self.run.operations;
        }
        self.operator.power_on();
        let result = self.power_on(&rig);
        self.collect(&rig);
        let next = match result {
            Err(_) if rig.inner().cut.is_some() => Ok(Next::PowerOff),
            Err(violation) => Err(violation),
            Ok(slot) => self.live(&rig, &slot, options),
        };
        self.collect(&rig);
        self.run.operations = rig.inner().operations;
        let cut = rig.inner().cut.take();
        if let Some(moment) = cut {
            self.run.cut = Some(Cut { moment, operator: self.operator, boot: self.boot });
            return Ok(Next::PowerOff);
        }
        next
    }

    /// The boot loader, until it starts a kernel.
    fn power_on(&mut self, rig: &Rig) -> Result<String, String> {
        let board = &self.scenario.board;
        for _ in 0..LIMIT + 2 {
            let view = rig.inner().storage.live.clone();
            let boot = board.loader.power_on(&Board::copies(&view), &|slot| board.loadable(&view, slot));
            let mut store = RigStore::new(rig, ENV_BYTES);
            for save in &boot.saves {
                let saved = store.write(save.copy, &save.bytes);
                if rig.inner().cut.is_some() {
                    return Err("the power went".to_owned());
                }
                // A boot loader that cannot save boots all the same.
                drop(saved);
            }
            let Outcome::Started { slot, command_line } = boot.outcome else { continue };
            let Some(release) = board.holds(&view, &slot) else {
                if self.scenario.lying {
                    // The kernel of a torn slot panics, and the next power-on follows.
                    continue;
                }
                return Err(format!(
                    "I1, I3: slot {slot} was started and holds no whole release\n{:#?}",
                    boot.console
                ));
            };
            let mut inner = rig.inner();
            inner.running = (0..board.roles.len()).map(|role| board.medium(&slot, role)).collect();
            let root = board.roles.iter().position(|role| *role == "rootfs").unwrap();
            inner.root = DeviceId::Block(board.medium(&slot, root) as u64);
            inner.command_line = format!("quiet {command_line}\n");
            inner.boot_id = format!("boot-{}", self.operator.epoch);
            let release = &board.releases[release];
            inner.image_info =
                format!("version = \"{}\"\nsequence = {}\n", release.version, release.sequence);
            inner.healthy = release.healthy;
            inner.default_environment = b"bootdelay=2\n".to_vec();
            return Ok(slot);
        }
        Err(format!("I5: nothing runs after {} power cycles", LIMIT + 2))
    }

    /// The daemon and its operator, until the power goes or the machine reboots.
    fn live(&mut self, rig: &Rig, slot: &str, options: &Options<'_>) -> Result<Next, String> {
        let Some(mut daemon) = self.start(rig, slot, options)? else { return self.again(rig) };
        let mut first = true;
        loop {
            daemon.drain();
            self.collect(rig);
            if let Some(violation) = rig.inner().violations.first() {
                return Err(violation.clone());
            }
            if rig.inner().cut.is_some() {
                return Ok(Next::PowerOff);
            }
            if rig.inner().reboot {
                return self.again(rig);
            }
            let status = daemon.watcher.status().ok_or("no status")?;
            self.note(&status);
            if std::mem::take(&mut first) && !options.failing() && !self.scenario.lying {
                self.check_start(rig, slot, &status)?;
            }
            let action = match options.failing() {
                false => self.scenario.next(&mut self.operator, &status),
                true => Ok(self.scenario.next_once(&self.operator, &status, &self.run.codes)?),
            };
            let action = action.map_err(|what| format!("{what}; it went {:?}", self.run.story))?;
            self.run.story.push((self.boot, slot.to_owned(), status.state.word(), action));
            match action {
                Action::Install(release) => self.install(rig, &mut daemon, release),
                Action::Rollback => self.ask(rig, &mut daemon, Request::Rollback),
                Action::Cancel => self.ask(rig, &mut daemon, Request::Cancel(None)),
                Action::Reboot => return self.again(rig),
                Action::Settled if options.failing() => {
                    let storage = rig.inner().storage.clone();
                    return Ok(Next::Settled(State { storage, operator: self.operator }));
                }
                Action::Settled => return self.settled(rig, &status),
            }
        }
    }

    /// P11: the stored roots are those of before or those of after, whole and verifying, and never older than they were.
    fn trust(
        &mut self,
        rig: &Rig,
        slot: &str,
        ports: &Ports,
    ) -> Result<Result<Arc<Keeper>, Failure>, String> {
        let board = &self.scenario.board;
        let (running, stored) = {
            let inner = rig.inner();
            (board.holds(&inner.storage.live, slot), inner.storage.live.file("roots"))
        };
        if let Some(bytes) = stored {
            let chain = Chain::parse(&bytes).map_err(|error| format!("P11: {error}"))?;
            let beyond = board.first_root().follow(&chain).map_err(|error| format!("P11: {error}"))?;
            let version = beyond.last().map_or(1, |root| root.root().version());
            if version < self.operator.root {
                return Err(format!("P11: root {} was stored and now {version} is", self.operator.root));
            }
            self.operator.root = version;
        } else if self.operator.root > 0 {
            return Err(format!("P11: root {} was stored and is gone", self.operator.root));
        }
        Ok(Keeper::open(board.image_roots(running), ports.fs.clone()).map(Arc::new))
    }

    fn start(&mut self, rig: &Rig, slot: &str, options: &Options<'_>) -> Result<Option<Daemon>, String> {
        let board = &self.scenario.board;
        let (mut ports, mut store): (Ports, Box<dyn Store>) =
            (edges::ports(rig), Box::new(RigStore::new(rig, ENV_BYTES)));
        if let Some(mutation) = &self.scenario.mutation {
            (ports, store) = mutation.wire(board, rig, ports, store);
        }
        let boot = Arc::new(BootControl::new(store, board.scheme.clone(), LockDirs::new([])));
        let (tasks, watcher) = (InlineTasks::default(), Watcher::default());
        let audience = Box::new(watcher.clone());
        let trust = self.trust(rig, slot, &ports)?;
        match Engine::start(board.config.clone(), ports, boot, trust, Box::new(tasks.clone()), audience) {
            Ok(engine) => Ok(Some(Daemon { engine, tasks, watcher })),
            // systemd starts it again.
            Err(_) if rig.inner().cut.is_some() || options.failing() => Ok(None),
            Err(failure) => Err(format!("the daemon does not start: {}: {failure}", failure.code)),
        }
    }

    /// I6, and that the daemon knows what runs.
    fn check_start(&mut self, rig: &Rig, slot: &str, status: &Status) -> Result<(), String> {
        let board = &self.scenario.board;
        let inner = rig.inner();
        let running = board.holds(&inner.storage.live, slot).map(|n| &board.releases[n]);
        let running = running.ok_or_else(|| format!("I2: the running slot {slot} is whole no more"))?;
        if status.booted.as_deref() != Ok(slot) {
            return Err(format!("slot {slot} runs, the status says {:?}", status.booted));
        }
        let floor = status.current.floor;
        let led_back = running.version == board.releases[WAY_BACK].version && floor == running.sequence;
        if floor < self.operator.floor && !led_back {
            return Err(format!("I6: the floor was {} and is {floor}", self.operator.floor));
        }
        self.operator.floor = floor;
        if status.current.sequence != running.sequence {
            let (is, says) = (running.sequence, status.current.sequence);
            return Err(format!("I6: sequence {is} runs, the floor is {says}"));
        }
        match status.current.release {
            Some(digest) if digest != running.digest => {
                Err(format!("version {} runs, the record says {}", running.version, status.current.version))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn install(&mut self, rig: &Rig, daemon: &mut Daemon, release: usize) {
        let bytes = self.scenario.board.releases[release].bundle.clone();
        let source = Source::Open(Box::new(MemoryInput::new(rig, bytes)));
        let (origin, stop) = (Origin::Descriptor, Stop::default());
        let permit = Permit::Granted;
        let install = engine::Install { source, origin, stop, reboot: false, permit };
        self.ask(rig, daemon, Request::Install(install));
    }

    fn ask(&mut self, rig: &Rig, daemon: &mut Daemon, request: Request) {
        self.operator.asks();
        rig.inner().network = true;
        let answer = Arc::new(Mutex::new(None));
        let slot = answer.clone();
        let reply = move |result: Result<engine::Answer, Failure>| *slot.lock().unwrap() = Some(result);
        daemon.engine.handle(Message::Ask(request, Box::new(reply)));
        daemon.drain();
        rig.inner().network = false;
        if let Some(Err(failure)) = answer.lock().unwrap().take() {
            self.operator.refused = true;
            self.run.codes.push(failure.code.as_str().to_owned());
        } else {
            self.operator.refused = false;
        }
        self.collect(rig);
    }

    /// A clean reboot.
    fn again(&mut self, rig: &Rig) -> Result<Next, String> {
        let mut storage = rig.inner().storage.clone();
        storage.sync_all();
        Ok(Next::Again(State { storage, operator: self.operator }))
    }

    /// I7, I8: one more boot changes nothing and tells the same.
    fn settled(&mut self, rig: &Rig, status: &Status) -> Result<Next, String> {
        let told = format!("{:?} {:?} {:?}", status.state, status.record.history.last(), status.current);
        let rest = mix(rig.inner().storage.live.hash_behind(1), hash_bytes(told.as_bytes()));
        if self.operator.rest == 0 {
            self.operator.rest = rest;
            self.run.told = told;
            return self.again(rig);
        }
        if self.operator.rest != rest {
            return Err(format!(
                "I7, I8: one more boot changed what was settled; before {}; now {told}",
                self.run.told
            ));
        }
        let state = State { storage: rig.inner().storage.clone(), operator: self.operator };
        Ok(Next::Settled(state))
    }

    /// Remembers the codes that a person would see.
    fn note(&mut self, status: &Status) {
        let reason = match &status.state {
            Lifecycle::Failed(_, reason) | Lifecycle::PostUpgrade(_, Stage::RollingBack(reason)) => {
                Some(reason)
            }
            _ => status.record.history.last().and_then(|last| last.reason.as_ref()),
        };
        let codes = &mut self.run.codes;
        codes.extend(reason.map(|reason| reason.code.clone()).filter(|code| codes.last() != Some(code)));
    }

    fn collect(&mut self, rig: &Rig) {
        if let Some(moments) = &mut rig.inner().moments {
            let (operator, boot) = (self.operator, self.boot);
            self.run.cuts.extend(moments.drain(..).map(|moment| Cut { moment, operator, boot }));
        }
    }
}

impl Daemon {
    fn drain(&mut self) {
        while let Some(message) = self.tasks.run_next() {
            self.engine.handle(message);
        }
    }
}

/// I1, I3, I4 and I5 of a device whose power flickers: whatever the boot loader starts, without any help of the daemon,
/// holds a whole release, and something is started within the tries and two more.
pub(crate) fn check_boots(board: &Board, storage: &Storage, erased: bool) -> Result<(), String> {
    let view = &storage.durable;
    let mut copies = Board::copies(view);
    if erased {
        copies = vec![vec![0xff; ENV_BYTES]; 2];
    }
    let which = if erased { "I4 (both copies of the environment lost)" } else { "I3" };
    if !erased {
        check_environment(board, storage, &copies)?;
    }
    let mut started = 0;
    for cycle in 1..=2 * LIMIT + 4 {
        let boot = board.loader.power_on(&copies, &|slot| board.loadable(view, slot));
        copies = boot.copies;
        if let Outcome::Started { slot, .. } = boot.outcome {
            started += 1;
            if board.holds(view, &slot).is_none() {
                return Err(format!(
                    "{which}: power cycle {cycle} starts slot {slot}, which holds no whole release"
                ));
            }
        }
        if started == 0 && cycle >= LIMIT + 2 {
            return Err(format!("I5: nothing was started in {cycle} power cycles, {which}"));
        }
    }
    Ok(())
}

/// I3, and that no cut loses both copies: every slot that the environment lets the boot loader use holds a whole release.
fn check_environment(board: &Board, storage: &Storage, copies: &[Vec<u8>]) -> Result<(), String> {
    let mut env = bootenv::BootEnv::new(bootenv::testing::FaultStore::with_copies(copies.to_vec()));
    let environment = match env.load() {
        Ok(loaded) => loaded.environment,
        // Erased on purpose, which no cut can do.
        Err(_) if copies.iter().flatten().all(|byte| *byte == 0xff) => return Ok(()),
        Err(error) => return Err(format!("a cut lost the boot environment: {error}")),
    };
    for slot in SLOTS {
        let ok = board.scheme.slot_ok(&environment, slot).unwrap();
        let selected = board.scheme.primary(&environment) == Some(slot);
        if (ok || selected) && board.holds(&storage.durable, slot).is_none() {
            return Err(format!("I3: the environment allows slot {slot}, which holds no whole release"));
        }
    }
    Ok(())
}

/// What [`check_boots`] depends on.
pub(crate) fn boots_key(board: &Board, storage: &Storage) -> u64 {
    let view = &storage.durable;
    let slots = SLOTS.iter().fold(view.medium(edges::ENVIRONMENT).hash(), |hash, slot| {
        let holds = board.holds(view, slot).map_or(0, |n| n as u64 + 1);
        mix(mix(hash, holds), u64::from(board.loadable(view, slot)))
    });
    mix(slots, Duration::ZERO.as_secs())
}
