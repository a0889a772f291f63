//! Lost power, failing devices and damaged copies: the old or the new environment, never neither.

use std::io::ErrorKind;

use bootenv::format::Copy;
use bootenv::testing::{Ending, Fault, FaultStore, Landed, land};
use bootenv::{BootEnv, ByteOrder, Changes, CopyId, EnvLock, Environment, FlagScheme, Layout, Store, txn};

use crate::support::{Random, seed};

const ORDER: ByteOrder = ByteOrder::Little;

fn copy(layout: Layout, flags: u8, strings: &[u8], size: usize) -> Vec<u8> {
    let mut data = strings.to_vec();
    data.resize(size - layout.header_bytes(), 0);
    Copy { flags, data }.encode(layout, ORDER)
}

/// Two healthy copies of one environment; `current` is the one in use.
fn redundant(current: CopyId, size: usize) -> FaultStore {
    let (first, second) = if current == CopyId::First { (5, 4) } else { (4, 5) };
    let strings = b"bootcmd=run x\0otad_slot=a\0\0";
    let old = b"bootcmd=run old\0\0";
    let (one, two) =
        if current == CopyId::First { (&strings[..], &old[..]) } else { (&old[..], &strings[..]) };
    FaultStore::with_copies(vec![
        copy(Layout::Redundant, first, one, size),
        copy(Layout::Redundant, second, two, size),
    ])
}

fn env(store: FaultStore) -> BootEnv<FaultStore> {
    BootEnv::new(store).with_byte_order(ORDER)
}

fn slot(env: &mut BootEnv<FaultStore>) -> String {
    env.load().unwrap().environment.get_str("otad_slot").unwrap().to_owned()
}

fn arm() -> Changes {
    Changes::new().set("otad_slot", "b").set("upgrade_available", "1")
}

/// Every operation of one commit without a fault.
fn operations(store: &FaultStore) -> u64 {
    let mut env = env(store.clone());
    env.commit(&EnvLock::of_nothing(), &arm()).unwrap();
    env.store().operations()
}

/// P5, S1: power lost at every operation of a commit, with the write torn at every byte, from the front, from the back and
/// into garbage, for both copies. Afterwards: old or new, the other copy is untouched, and the next commit works.
#[test]
fn p5_a_cut_inside_a_commit_leaves_old_or_new() {
    const SIZE: usize = 0x60;
    let mut cuts = 0;
    for current in [CopyId::First, CopyId::Second] {
        let start = redundant(current, SIZE);
        let tears = (0..=SIZE).flat_map(|at| {
            [Landed::Prefix(at), Landed::Suffix(at), Landed::Garbage(at), Landed::ZeroTail(at)]
        });
        for landed in tears.chain([Landed::Nothing, Landed::All]) {
            for operation in 0..operations(&start) {
                let fault = Fault { operation, landed: landed.clone(), ending: Ending::PowerCut };
                let mut env = env(start.clone().with_fault(fault));
                env.commit(&EnvLock::of_nothing(), &arm()).unwrap_err();
                env.store_mut().power_on();
                let after = env.store().copies().to_vec();
                assert_eq!(
                    after[current.index()],
                    start.copies()[current.index()],
                    "the good copy is never written"
                );
                let found = slot(&mut env);
                assert!(found == "a" || found == "b");
                let complete = after[current.other().index()] != start.copies()[current.other().index()]
                    && Copy::decode(&after[current.other().index()], Layout::Redundant, ORDER).is_ok();
                if found == "b" {
                    assert!(complete, "new only when all of it is there");
                }
                env.commit(&EnvLock::of_nothing(), &arm()).unwrap();
                assert_eq!(slot(&mut env), "b");
                assert!(env.health().is_healthy(), "the next commit repairs");
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts left the old or the new environment");
}

/// S1, S2: a large copy whose sectors arrive in any combination.
#[test]
fn torn_sectors_leave_old_or_new() {
    let seed = seed();
    let mut random = Random(seed);
    for round in 0..400 {
        let current = *random.pick(&[CopyId::First, CopyId::Second]);
        let mask = if round < 32 { 1 << round } else { random.next() };
        let fault = Fault { operation: 2, landed: Landed::Sectors(mask), ending: Ending::PowerCut };
        let mut env = env(redundant(current, 0x4000).with_fault(fault));
        env.commit(&EnvLock::of_nothing(), &arm()).unwrap_err();
        env.store_mut().power_on();
        let found = slot(&mut env);
        assert!(found == "a" || found == "b", "seed {seed} round {round}");
    }
}

/// S6, S7: an error at any operation is reported, never retried into success, and names the copy that is still good.
#[test]
fn errors_name_the_copy_that_is_still_good() {
    for current in [CopyId::First, CopyId::Second] {
        let start = redundant(current, 0x80);
        for landed in [Landed::Nothing, Landed::Prefix(9), Landed::All] {
            let fault = Fault { operation: 2, landed, ending: Ending::Error(ErrorKind::StorageFull) };
            let mut env = env(start.clone().with_fault(fault));
            let error = env.commit(&EnvLock::of_nothing(), &arm()).unwrap_err();
            assert!(
                matches!(&error, txn::Error::Write { copy, good, .. } if *copy == current.other() && *good == Some(current))
            );
            assert_eq!(error.code(), "ENV_IO");
            assert!(error.to_string().contains(&format!("{current} still holds the environment")), "{error}");
            assert_eq!(env.store().writes(), 1, "a failed flush is not tried again");
            assert_eq!(env.store().copies()[current.index()], start.copies()[current.index()]);
        }
        // The read-back fails: not a success either.
        let fault = Fault { operation: 3, landed: Landed::All, ending: Ending::Error(ErrorKind::Other) };
        let error = env(start.clone().with_fault(fault)).commit(&EnvLock::of_nothing(), &arm()).unwrap_err();
        assert!(matches!(error, txn::Error::ReadBack { .. }), "{error}");
    }
}

/// A copy that cannot be *read* when a commit starts is a bad copy: the other one is used, and the bad one is written.
#[test]
fn an_unreadable_copy_is_a_bad_copy() {
    for current in [CopyId::First, CopyId::Second] {
        let mut store = redundant(current, 0x80);
        store.copies_mut()[current.other().index()].truncate(17);
        let mut env = env(store);
        let loaded = env.load().unwrap();
        assert_eq!((loaded.current, loaded.health.is_degraded()), (current, true));
        assert!(loaded.health.to_string().contains("it ends after 17 of 128 bytes"), "{}", loaded.health);
        let done = env.commit(&EnvLock::of_nothing(), &Changes::new()).unwrap();
        assert_eq!((done.written, done.repaired), (Some(current.other()), true));
        assert!(env.health().is_healthy());
    }
    // The read error hits the *current* copy: the older one is all there is, and it is not overwritten by defaults.
    let fault = Fault { operation: 0, landed: Landed::All, ending: Ending::Error(ErrorKind::Other) };
    let mut env = env(redundant(CopyId::First, 0x80).with_fault(fault));
    let done = env.commit(&EnvLock::of_nothing(), &Changes::new().set("x", "1")).unwrap();
    assert_eq!(done.environment.get_str("bootcmd"), Some("run old"));
    assert_eq!(done.written, Some(CopyId::First));
}

/// E1: a bad copy is reported, and repaired by the next commit even when that changes nothing; healthy copies are not written.
#[test]
fn e1_a_bad_copy_is_repaired_by_the_next_commit() {
    for bad in [CopyId::First, CopyId::Second] {
        let mut store = redundant(bad.other(), 0x80);
        store.copies_mut()[bad.index()][40] ^= 1;
        let good = store.copies()[bad.other().index()].clone();
        let mut env = env(store);
        let health = env.health();
        assert_eq!(health.current, Some(bad.other()));
        assert!(health.is_degraded() && !health.is_healthy());
        assert!(health.to_string().contains("checksum 0x"), "{health}");
        let done = env.commit(&EnvLock::of_nothing(), &Changes::new()).unwrap();
        assert_eq!((done.written, done.repaired), (Some(bad), true));
        assert_eq!(env.store().copies()[bad.other().index()], good);
        assert!(env.health().is_healthy());
        let writes = env.store().writes();
        let done =
            env.commit(&EnvLock::of_nothing(), &Changes::new().set("otad_slot", "a").unset("none")).unwrap();
        assert_eq!(
            (done.written, env.store().writes()),
            (None, writes),
            "nothing changes, nothing is written"
        );
    }
}

/// E3: the device reports success but the last 32 KiB of 128 KiB are zeros. Once: written again, and said so. Every time: an error,
/// and the old copy is in use.
#[test]
fn e3_a_short_write_is_noticed_by_the_read_back() {
    const SIZE: usize = 0x20000;
    let zero_tail =
        |operation| Fault { operation, landed: Landed::ZeroTail(0x8000), ending: Ending::Success };
    // Enough variables to reach into the lost part; zeros lost from zero padding are no loss.
    let big = Changes::new().set("fill", "x".repeat(0x1b000)).set("otad_slot", "b");

    let mut once = env(redundant(CopyId::First, SIZE).with_fault(zero_tail(2)));
    let done = once.commit(&EnvLock::of_nothing(), &big).unwrap();
    assert!(done.rewritten);
    assert_eq!((slot(&mut once), once.health().is_healthy()), ("b".into(), true));

    let mut always = env(redundant(CopyId::First, SIZE).with_fault(zero_tail(2)).with_fault(zero_tail(4)));
    let error = always.commit(&EnvLock::of_nothing(), &big).unwrap_err();
    let txn::Error::Verify { copy, good, offset, differing, .. } = &error else { panic!("{error}") };
    assert_eq!((*copy, *good, *offset), (CopyId::Second, Some(CopyId::First), 0x18000));
    assert!(*differing > 0x2000);
    assert_eq!(slot(&mut always), "a");

    // S3: a lie about the whole write is noticed as well.
    let lost = |operation| Fault { operation, landed: Landed::Nothing, ending: Ending::Success };
    let mut lying = env(redundant(CopyId::First, 0x80).with_fault(lost(2)).with_fault(lost(4)));
    assert!(matches!(lying.commit(&EnvLock::of_nothing(), &arm()), Err(txn::Error::Verify { .. })));
    assert_eq!(slot(&mut lying), "a");
}

/// E4: 600 commits in a row, so that the counter passes 127/128 and 255/0 twice: each is read back by a fresh start.
#[test]
fn e4_the_counter_wraps_without_losing_a_commit() {
    let mut env = env(redundant(CopyId::Second, 0x80));
    for round in 0..600 {
        env.commit(&EnvLock::of_nothing(), &Changes::new().set("round", round.to_string())).unwrap();
        let loaded = env.load().unwrap();
        assert_eq!(loaded.environment.get_str("round"), Some(round.to_string().as_str()));
        assert_eq!(loaded.current, if round % 2 == 0 { CopyId::First } else { CopyId::Second });
    }
}

/// E2, first half: without a valid copy nothing is read and nothing is written, until `init` is asked for.
#[test]
fn both_copies_lost_is_an_error_and_never_overwritten() {
    let mut env = env(FaultStore::erased(Layout::Redundant, 0x80));
    let error = env.load().unwrap_err();
    assert_eq!(error.code(), "ENV_LOST");
    assert!(error.to_string().contains("copy 2: every byte is 0xff"), "{error}");
    assert_eq!(env.commit(&EnvLock::of_nothing(), &arm()).unwrap_err().code(), "ENV_LOST");
    assert_eq!(env.store().writes(), 0);
    let mut fresh = Environment::new();
    fresh.set(b"otad_slot", b"a").unwrap();
    env.init(&EnvLock::of_nothing(), &fresh).unwrap();
    assert!(env.health().is_healthy());
    assert_eq!(slot(&mut env), "a");
}

/// E5: a configuration that does not fit what is stored is told apart from a loss.
#[test]
fn e5_a_wrong_size_is_named() {
    let small = copy(Layout::Redundant, 1, b"a=1\0\0", 0x1000);
    let larger = [small, vec![0x11; 0x1000]].concat();
    let mut env = env(FaultStore::with_copies(vec![larger.clone(), larger]));
    let error = env.load().unwrap_err();
    assert_eq!(error.code(), "ENV_CONFIG_MISMATCH");
    assert!(error.to_string().contains("it fits at a size of 0x1000"), "{error}");
}

/// E6: a full environment: what does not fit is an error and nothing is written; what fits to the last byte is.
#[test]
fn e6_a_full_environment() {
    let start = redundant(CopyId::First, 0x80);
    let mut env = env(start.clone());
    let room = env.capacity() - env.load().unwrap().environment.needed() - "fill=\0".len();
    let error = env.commit(&EnvLock::of_nothing(), &arm().set("fill", "x".repeat(room))).unwrap_err();
    assert_eq!(error.code(), "ENV_FULL");
    assert_eq!((env.store().copies(), env.store().writes()), (start.copies(), 0));
    env.commit(&EnvLock::of_nothing(), &Changes::new().set("fill", "x".repeat(room))).unwrap();
    let loaded = env.load().unwrap();
    assert_eq!(loaded.environment.needed(), env.capacity());
}

/// E6: strange strings and an unterminated area in a copy with a good checksum: read, kept, never a panic.
#[test]
fn e6_strange_contents_are_kept() {
    let strange = b"noequals\0empty=\0=x\0#c=1\0  blank=1\0dup=1\0dup=2\0\xff\xfe=\x01\0\0";
    let image = copy(Layout::Redundant, 1, strange, 0x80);
    let mut env = env(FaultStore::with_copies(vec![image.clone(), image]));
    env.commit(&EnvLock::of_nothing(), &Changes::new().set("zz", "1")).unwrap();
    let expected = b"noequals\0empty=\0=x\0#c=1\0  blank=1\0dup=1\0dup=2\0zz=1\0\xff\xfe=\x01\0\0";
    assert_eq!(&env.store().copies()[1][5..5 + expected.len()], expected);

    let full = vec![b'x'; 0x80 - 5];
    let image = copy(Layout::Redundant, 1, &full, 0x80);
    let mut env = crate::faults::env(FaultStore::with_copies(vec![image.clone(), image]));
    assert_eq!(env.load().unwrap().environment.len(), 1);
    assert_eq!(env.commit(&EnvLock::of_nothing(), &arm()).unwrap_err().code(), "ENV_FULL");
    let seed = seed();
    let mut random = Random(seed);
    for _ in 0..2000 {
        let data: Vec<u8> = (0..random.below(90)).map(|_| *random.pick(b"a=\0\0#\\ \xff")).collect();
        let parsed = Environment::parse(&data);
        let again = Environment::parse(&parsed.serialise(200, 0xff).unwrap());
        assert_eq!(parsed, again, "seed {seed}: {data:?}");
    }
}

/// Truncation at every length and garbage from every byte, in either copy: the other one is used, unharmed.
#[test]
fn damage_at_every_byte_of_one_copy_never_loses_the_other() {
    const SIZE: usize = 0x60;
    let mut damages = 0;
    for current in [CopyId::First, CopyId::Second] {
        for damaged in [CopyId::First, CopyId::Second] {
            let other = if damaged == current { "run old" } else { "run x" };
            for at in 0..SIZE {
                for garbage in [None, Some(0x00), Some(0xff), Some(0xa5)] {
                    let mut store = redundant(current, SIZE);
                    let bytes = &mut store.copies_mut()[damaged.index()];
                    match garbage {
                        None => bytes.truncate(at),
                        Some(value) => bytes[at..].fill(value),
                    }
                    let still_valid =
                        Copy::decode(bytes, Layout::Redundant, ORDER).is_ok() && bytes.len() == SIZE;
                    let mut env = env(store);
                    let loaded = env.load().unwrap();
                    let command = loaded.environment.get_str("bootcmd").unwrap().to_owned();
                    if still_valid {
                        // Zeros over zero padding change nothing.
                        assert_eq!((garbage, loaded.current), (Some(0), current));
                    } else {
                        assert_eq!((loaded.current, command.as_str()), (damaged.other(), other));
                    }
                    env.commit(&EnvLock::of_nothing(), &arm()).unwrap();
                    assert_eq!(slot(&mut env), "b");
                    damages += 1;
                }
            }
        }
    }
    println!("{damages} damages to one copy left the other");
}

/// A single copy: a torn write in place can lose it, and the error says so; that is why two copies are asked for.
#[test]
fn a_single_copy_is_not_safe_and_says_so() {
    let start = FaultStore::with_copies(vec![copy(Layout::Single, 0, b"otad_slot=a\0\0", 0x40)]);
    let fault = Fault { operation: 1, landed: Landed::Prefix(20), ending: Ending::Error(ErrorKind::Other) };
    let mut env = env(start.with_fault(fault));
    let error = env.commit(&EnvLock::of_nothing(), &arm()).unwrap_err();
    assert!(error.to_string().contains("no other valid copy: try again before the next reboot"), "{error}");
    assert!(!env.store().replaces_atomically());
}

/// NOR flash: the new copy is written active, then the old one is marked; lost power in between leaves both valid.
#[test]
fn boolean_flags_mark_the_superseded_copy() {
    for (current, flags) in [(CopyId::First, [1, 0]), (CopyId::Second, [0, 1]), (CopyId::First, [1, 1])] {
        let strings = |id: CopyId| if id == current { &b"otad_slot=a\0\0"[..] } else { b"old=1\0\0" };
        let start = FaultStore::with_copies(vec![
            copy(Layout::Redundant, flags[0], strings(CopyId::First), 0x60),
            copy(Layout::Redundant, flags[1], strings(CopyId::Second), 0x60),
        ])
        .with_flag_scheme(FlagScheme::Boolean);
        let mut done = env(start.clone());
        done.commit(&EnvLock::of_nothing(), &arm()).unwrap();
        assert_eq!(slot(&mut done), "b");
        assert_eq!(done.store().copies()[current.index()][4], 0);
        assert_eq!(done.store().copies()[current.other().index()][4], 1);
        for operation in 0..done.store().operations() {
            for landed in [Landed::Nothing, Landed::Prefix(30), Landed::All] {
                let fault = Fault { operation, landed, ending: Ending::PowerCut };
                let mut cut = env(start.clone().with_fault(fault));
                let _ = cut.commit(&EnvLock::of_nothing(), &arm());
                cut.store_mut().power_on();
                let found = slot(&mut cut);
                assert!(found == "a" || found == "b");
            }
        }
        // A mark that does not arrive although the device says so is noticed, unless the mark is there from before.
        let lost_mark = (0..done.store().operations()).any(|operation| {
            let fault = Fault { operation, landed: Landed::Nothing, ending: Ending::Success };
            let error = env(start.clone().with_fault(fault)).commit(&EnvLock::of_nothing(), &arm());
            matches!(error, Err(txn::Error::MarkObsolete { .. }))
        });
        assert!(lost_mark);
    }
}

#[test]
fn landed_writes_are_what_they_say() {
    let (old, new) = ([1; 4], [2; 4]);
    for (landed, expected) in [
        (Landed::Nothing, [1, 1, 1, 1]),
        (Landed::Prefix(1), [2, 1, 1, 1]),
        (Landed::Suffix(1), [1, 2, 2, 2]),
        (Landed::Sectors(0), [1, 1, 1, 1]),
        (Landed::Sectors(1), [2, 2, 2, 2]),
        (Landed::ZeroTail(2), [2, 2, 0, 0]),
        (Landed::Garbage(3), [2, 2, 2, 0xa5]),
        (Landed::All, [2, 2, 2, 2]),
    ] {
        assert_eq!(land(&old, &new, &landed), expected, "{landed:?}");
    }
}
