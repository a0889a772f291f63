//! Rows of the fault matrix that are stories of their own.

use bootenv::SchemeKind;
use otad::testing::crash::{Crash, Kept, Part, power_cut};
use otad::testing::edges::put_file;
use otad::testing::medium::Data;
use otad::testing::rig::{Fault, Lasting, Upset};
use otad::testing::storage::{Names, Pending, Storage};

use crate::board::{Board, FACTORY, GOOD, LATER, LIMIT, NEXT, OLD};
use crate::scenario::{Plan, Scenario, updated};
use crate::world::{self, Options, Run, State, check_boots};

const KINDS: [SchemeKind; 2] = [SchemeKind::Bootcount, SchemeKind::BootOrder];

/// What happens to a file at rest.
type Damage = fn(Vec<u8>) -> Vec<u8>;

fn board(kind: SchemeKind) -> std::sync::Arc<Board> {
    Board::new(kind, &["rootfs"])
}

/// The power goes at operation `at` of the run, for everything that follows.
fn cut_at(scenario: &Scenario, state: State, at: u64, upset: Upset) -> Run {
    let fault = Fault { at, upset, lasting: Lasting::ForEver };
    world::run(scenario, state, &mut Options { fault: Some(fault), ..Options::default() }).unwrap()
}

/// What is there after it, when everything pending got through.
fn afterwards(run: Run) -> State {
    let cut = run.cut.expect("the power was to go");
    let everything = Crash { name: "all", pending: Kept::All, hit: Part::All };
    let storage = power_cut(&cut.moment.storage, cut.moment.hit.as_ref(), &everything);
    State { storage, operator: cut.operator }
}

/// The state at the power-on of that boot of the uncut scenario.
fn at_boot(scenario: &Scenario, boot: u32) -> Option<State> {
    let mut options = Options { trace: true, traced_boots: u32::MAX, ..Options::default() };
    let run = world::run(scenario, scenario.initial(), &mut options).unwrap();
    let first = run.cuts.iter().find(|cut| cut.boot == boot)?;
    Some(State { storage: first.moment.storage.clone(), operator: first.operator })
}

/// P8: the power goes in every boot of the trial before health is known. The old slot runs again after the tries, with
/// the reason, and the update may be repeated.
#[test]
fn a_trial_whose_power_always_fails_ends_in_the_old_slot() {
    for kind in KINDS {
        let board = board(kind);
        let start = board.factory("a", FACTORY, Some(OLD), Names::AnyOrder);
        let scenario = Scenario::new("P8", &board, start, Plan::Install(GOOD));
        let mut state = at_boot(&scenario, 2).unwrap();
        for _ in 0..LIMIT {
            // Two operations are the boot loader's own save.
            state = afterwards(cut_at(&scenario, state, 6, Upset::PowerBefore));
        }
        let run = world::run(&scenario, state, &mut Options::default()).unwrap();
        assert_eq!(run.story[0].1, "a", "{kind:?}: {:?}", run.story);
        assert_eq!(run.codes.first().map(String::as_str), Some("ROLLED_BACK"), "{kind:?}: {:?}", run.codes);
        assert!(run.end.is_some());
    }
}

/// P15 and P16: quick cycles on a system that is not being updated, cut at any of its first operations. Never an endless
/// reset, never an empty slot, and the next quiet boot is settled.
#[test]
fn flickering_power_on_a_quiet_system() {
    for kind in KINDS {
        let board = board(kind);
        let factory = board.factory("a", FACTORY, None, Names::AnyOrder);
        let committed = updated(&board, board.factory("a", FACTORY, Some(OLD), Names::AnyOrder), GOOD);
        for (start, release) in [(factory, FACTORY), (committed, GOOD)] {
            for at in 0..12 {
                let scenario = Scenario::new("P15", &board, start.clone(), Plan::Stay(release));
                let mut state = scenario.initial();
                for _ in 0..30 {
                    let run = cut_at(&scenario, state.clone(), at, Upset::PowerBefore);
                    state = if run.cut.is_some() { afterwards(run) } else { run.end.unwrap() };
                    check_boots(&board, &state.storage, false).unwrap();
                }
                let run = world::run(&scenario, state, &mut Options::default()).unwrap();
                assert!(run.end.is_some(), "{kind:?}, operation {at}");
            }
        }
    }
}

/// S1 and P12: the record is damaged or emptied at rest while the new slot is armed. It is rebuilt from its previous
/// generation or from the environment, and the update ends well.
#[test]
fn a_damaged_record_is_rebuilt() {
    let damages: [(&str, Damage); 3] = [
        ("flipped", |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }),
        ("torn", |mut bytes| {
            bytes.truncate(bytes.len().min(512));
            bytes
        }),
        ("empty", |_| Vec::new()),
    ];
    for kind in KINDS {
        let board = board(kind);
        let start = board.factory("a", FACTORY, Some(OLD), Names::AnyOrder);
        let scenario = Scenario::new("S1", &board, start, Plan::Install(GOOD));
        for (name, damage) in damages {
            let mut state = at_boot(&scenario, 2).unwrap();
            damaged(&mut state.storage, "record.json", damage);
            let run = world::run(&scenario, state, &mut Options::default());
            let run = run.unwrap_or_else(|what| panic!("{kind:?}, {name}: {what}"));
            assert!(run.end.is_some());
        }
    }
}

fn damaged(storage: &mut Storage, name: &str, damage: Damage) {
    storage.sync_all();
    let bytes = storage.live.file(name).unwrap();
    put_file(storage, name, damage(bytes));
}

/// E1 and E3: one copy of the environment is bad at any boot: the other one is used, and the next write repairs it.
#[test]
fn one_bad_copy_changes_nothing() {
    for kind in KINDS {
        let board = board(kind);
        let start = updated(&board, board.factory("a", FACTORY, Some(OLD), Names::AnyOrder), GOOD);
        let scenario = Scenario::new("E1", &board, start, Plan::Install(NEXT));
        for state in (1..=3).filter_map(|boot| at_boot(&scenario, boot)) {
            let current = current_copy(&state);
            let mut storage = state.storage;
            storage.sync_all();
            storage.erase_part(
                otad::testing::edges::ENVIRONMENT,
                otad::testing::edges::copy_offset(current.other()),
                512,
            );
            let state = State { storage, operator: state.operator };
            let run = world::run(&scenario, state, &mut Options::default()).unwrap();
            assert!(run.end.is_some(), "{kind:?}");
        }
    }
}

/// S3: the storage lost all of the update after it had been read back, and kept the environment: the release from before runs
/// in the armed slot. Its own image.toml says so, and the device goes back and tells why.
#[test]
fn a_storage_that_lost_the_whole_update_is_found_out() {
    for kind in KINDS {
        let board = board(kind);
        let factory = board.factory("a", FACTORY, Some(OLD), Names::AnyOrder);
        let start = updated(&board, updated(&board, factory, GOOD), NEXT);
        let scenario = Scenario::new("S3", &board, start.clone(), Plan::Install(LATER));
        let mut state = at_boot(&scenario, 2).unwrap();
        let number = board.medium("b", 0);
        let before = start.live.medium(number).bytes();
        state.storage.act(Pending::Write { medium: number, offset: 0, data: Data::new(before) });
        state.storage.sync_all();
        let run = world::run(&scenario, state, &mut Options::default()).unwrap();
        assert_eq!(run.codes.first().map(String::as_str), Some("VERIFY_FAILED"), "{kind:?}: {:?}", run.codes);
        assert_eq!(run.story[0].1, "a", "{kind:?}: {:?}", run.story);
        // Somebody tried again, and now it stayed.
        assert!(run.end.is_some());
    }
}

fn current_copy(state: &State) -> bootenv::CopyId {
    let copies = Board::copies(&state.storage.live);
    let mut env = bootenv::BootEnv::new(bootenv::testing::FaultStore::with_copies(copies));
    env.load().unwrap().current
}

/// The two ways to cut are one: what the production code leaves when everything fails after the cut is exactly what was
/// there at that moment, and nothing more gets durable while it unwinds.
#[test]
fn a_cut_leaves_what_was_there_at_that_moment() {
    for kind in KINDS {
        let board = board(kind);
        let start = board.factory("a", FACTORY, Some(OLD), Names::AnyOrder);
        let scenario = Scenario::new("fuse", &board, start, Plan::Install(GOOD));
        let mut options = Options { trace: true, traced_boots: u32::MAX, ..Options::default() };
        let trace = world::run(&scenario, scenario.initial(), &mut options).unwrap();
        assert!(trace.cuts.len() > 50, "{}", trace.cuts.len());
        for cut in &trace.cuts {
            let run = cut_at(&scenario, scenario.initial(), cut.moment.operation, Upset::PowerBefore);
            let fused = run.cut.unwrap();
            assert_eq!(fused.moment.storage.hash(), cut.moment.storage.hash(), "{}", cut.moment.name);
            assert_eq!(fused.operator, cut.operator, "{}", cut.moment.name);
            assert_eq!(fused.moment.name, cut.moment.name);
        }
    }
}
