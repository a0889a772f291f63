//! Rows of the fault matrix in which nothing fails, but the world answers strangely: clocks that jump, a device whose name
//! changes hands, a new system that does not pass its own test.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bootenv::{SchemeKind, Store};
use otad::config::Config;
use otad::engine::Ports;
use otad::failure::{Code, Failure};
use otad::ports::{Clock, DeviceId, HealthChecks, SlotDevice, SlotDevices, SlotReader};
use otad::testing::rig::{Fault, Lasting, Rig, Upset};
use otad::testing::storage::Names;

use crate::board::{BAD, Board, FACTORY, GOOD, OLD};
use crate::scenario::{Mutation, Plan, Scenario, updated};
use crate::world::{self, Options, Run, check_boots};

/// 1970, after 2038, before that again, far beyond any calendar: in this order, over and over.
const CLOCKS_SECONDS: [u64; 4] = [0, 4_000_000_000, 86_400, 1 << 60];

/// What is strange.
#[derive(Clone, Copy)]
enum Strange {
    /// The wall clock jumps whenever somebody looks at it.
    Clock,
    /// The name of slot b's device leads to slot a's when it is opened, and to b's whenever it is looked at.
    Name,
    /// The new system's own self-test fails.
    SelfTest,
}

impl Mutation for Strange {
    fn wire(&self, board: &Board, _: &Rig, ports: Ports, store: Box<dyn Store>) -> (Ports, Box<dyn Store>) {
        let ports = match self {
            Strange::Clock => {
                Ports { clock: Arc::new(Jumping { inner: ports.clock, looks: AtomicUsize::new(0) }), ..ports }
            }
            Strange::Name => {
                let [a, b] = &board.config.slots;
                let first = |slot: &otad::config::Slot| slot.images["rootfs"].clone();
                let (opened, named) = (first(a), first(b));
                Ports { devices: Arc::new(Renamed { inner: ports.devices, named, opened }), ..ports }
            }
            Strange::SelfTest => Ports { health: Arc::new(Unfit(ports.health)), ..ports },
        };
        (ports, store)
    }
}

struct Jumping {
    inner: Arc<dyn Clock>,
    looks: AtomicUsize,
}

impl Clock for Jumping {
    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }
    fn wall_seconds(&self) -> u64 {
        CLOCKS_SECONDS[self.looks.fetch_add(1, Ordering::Relaxed) % CLOCKS_SECONDS.len()]
    }
    fn sleep(&self, time: Duration) {
        self.inner.sleep(time);
    }
}

struct Renamed {
    inner: Arc<dyn SlotDevices>,
    named: PathBuf,
    opened: PathBuf,
}

impl SlotDevices for Renamed {
    fn identify(&self, path: &Path) -> io::Result<DeviceId> {
        self.inner.identify(path)
    }
    fn identify_stack(&self, id: DeviceId) -> Vec<DeviceId> {
        self.inner.identify_stack(id)
    }
    fn open_source(&self, path: &Path) -> io::Result<(Box<dyn SlotReader>, u64)> {
        self.inner.open_source(path)
    }
    fn open_target(&self, path: &Path) -> Result<Box<dyn SlotDevice>, Failure> {
        self.inner.open_target(if path == self.named { &self.opened } else { path })
    }
}

struct Unfit(Arc<dyn HealthChecks>);

impl HealthChecks for Unfit {
    fn run(&self, limit: Duration) -> Result<(), Failure> {
        self.0.run(limit)
    }
    fn pre_run(&self, _image: &Path) -> Result<(), Failure> {
        Err(Failure::new(Code::PreRunFailed, "self-test of the new system: CONFIG: unknown key"))
    }
}

fn scenario(
    board: &Arc<Board>,
    start: otad::testing::storage::Storage,
    plan: Plan,
    strange: Strange,
) -> Scenario {
    Scenario { mutation: Some(Arc::new(strange)), ..Scenario::new("strange", board, start, plan) }
}

/// One request, and whatever follows from it.
fn once(scenario: &Scenario) -> Run {
    // A fault that never comes: the operator then takes no for an answer.
    let fault = Fault { at: u64::MAX, upset: Upset::Errno(5), lasting: Lasting::Once };
    let mut options = Options { fault: Some(fault), ..Options::default() };
    world::run_once(scenario, scenario.initial(), &mut options).unwrap()
}

/// T1: nothing is decided by the wall clock. Good, bad and refused updates end as they do with a clock that is right.
#[test]
fn a_clock_that_jumps_decides_nothing() {
    for kind in [SchemeKind::Bootcount, SchemeKind::BootOrder] {
        let board = Board::new(kind, &["rootfs"]);
        let factory = board.factory("a", FACTORY, Some(OLD), Names::AnyOrder);
        for plan in [Plan::Install(GOOD), Plan::Install(BAD), Plan::Offered(BAD)] {
            let right = Scenario::new("right", &board, factory.clone(), plan);
            let [right, jumping] = [right, scenario(&board, factory.clone(), plan, Strange::Clock)]
                .map(|scenario| world::run(&scenario, scenario.initial(), &mut Options::default()).unwrap());
            assert_eq!(right.codes, jumping.codes, "{kind:?}, {plan:?}");
            let story = |run: &Run| run.story.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>();
            assert_eq!(story(&right), story(&jumping));
        }
    }
}

/// T2: with the clock set back, yesterday's release is as old as it was: its sequence decides.
#[test]
fn a_clock_set_back_brings_no_old_release_back() {
    for kind in [SchemeKind::Bootcount, SchemeKind::BootOrder] {
        let board = Board::new(kind, &["rootfs"]);
        let start = updated(&board, board.factory("a", FACTORY, Some(OLD), Names::AnyOrder), GOOD);
        let run = once(&scenario(&board, start, Plan::Install(OLD), Strange::Clock));
        assert_eq!(run.codes, ["DOWNGRADE"]);
    }
}

/// S15: the name of the target leads to another device between the look at it and the opening of it: refused, and neither
/// device is written.
#[test]
fn a_name_that_changes_hands_is_refused() {
    let board = Board::new(SchemeKind::Bootcount, &["rootfs"]);
    let start = board.factory("a", FACTORY, Some(OLD), Names::AnyOrder);
    let run = once(&scenario(&board, start.clone(), Plan::Install(GOOD), Strange::Name));
    assert_eq!(run.codes, ["SLOT_INVALID"]);
    let end = run.end.unwrap().storage;
    for slot in ["a", "b"] {
        let number = board.medium(slot, 0);
        assert_eq!(end.live.medium(number).bytes(), start.live.medium(number).bytes(), "slot {slot}");
    }
}

/// H7: a new system that fails its own test is not armed; the slot stays disarmed, the reason is kept, and the old system
/// boots whatever becomes of the power.
#[test]
fn a_system_that_fails_its_self_test_is_not_armed() {
    for kind in [SchemeKind::Bootcount, SchemeKind::BootOrder] {
        let mut board = Board::new(kind, &["rootfs"]);
        let config = Config { pre_run: Some("rootfs".to_owned()), ..Config::clone(&board.config) };
        Arc::get_mut(&mut board).unwrap().config = Arc::new(config);
        for other in [OLD, GOOD] {
            // With the release already in the slot nothing is written, and it is tested all the same.
            let start = board.factory("a", FACTORY, Some(other), Names::AnyOrder);
            let run = once(&scenario(&board, start, Plan::Install(GOOD), Strange::SelfTest));
            assert_eq!(run.codes, ["PRE_RUN_FAILED"], "{kind:?}");
            let end = run.end.unwrap();
            check_boots(&board, &end.storage, false).unwrap();
            assert!(run.story.iter().all(|(_, slot, ..)| slot == "a"), "{:?}", run.story);
        }
    }
}
