//! One table row, or one test, per rule the model follows.

use super::*;
use crate::format::Copy;
use crate::txn::BootEnv;
use crate::{Changes, EnvLock, Trial, testing::FaultStore};

const SIZE: usize = 0x400;

/// A board in miniature: stored copies and the slots whose kernel can be loaded.
struct Board {
    loader: BootLoader,
    copies: Vec<Vec<u8>>,
    loadable: Vec<&'static str>,
}

impl Board {
    /// A factory device with slot a, limit 3.
    fn new(kind: SchemeKind) -> Board {
        let scheme = Scheme::new(kind, ["a", "b"], 3).unwrap();
        let mut env = Environment::new();
        env.apply(&scheme.factory("a").unwrap()).unwrap();
        let copy = Copy { flags: 1, data: env.serialise(SIZE - 5, 0).unwrap() };
        let bytes = copy.encode(Layout::Redundant, ByteOrder::Little);
        let loader = BootLoader::new(scheme, Layout::Redundant, ByteOrder::Little);
        Board { loader, copies: vec![bytes.clone(), bytes], loadable: vec!["a", "b"] }
    }

    fn scheme(&self) -> &Scheme {
        &self.loader.scheme
    }

    fn env(&self) -> Environment {
        let mut env =
            BootEnv::new(FaultStore::with_copies(self.copies.clone())).with_byte_order(ByteOrder::Little);
        env.load().unwrap().environment
    }

    fn value(&self, name: &str) -> String {
        self.env().get_str(name).unwrap_or_default().to_owned()
    }

    /// What Linux does: one transaction.
    fn change(&mut self, changes: &Changes) {
        let store = FaultStore::with_copies(self.copies.clone());
        let mut env = BootEnv::new(store).with_byte_order(ByteOrder::Little);
        env.commit(&EnvLock::of_nothing(), changes).unwrap();
        self.copies = env.store().copies().to_vec();
    }

    fn arm(&mut self, slot: &str) {
        let changes = self.scheme().arm(&self.env(), slot).unwrap();
        self.change(&changes);
    }

    fn lose_both(&mut self) {
        self.copies = vec![vec![0xff; SIZE], vec![0xff; SIZE]];
    }

    fn boot(&mut self) -> BootResult {
        let loadable = self.loadable.clone();
        let result = self.loader.power_on(&self.copies, &|slot| loadable.contains(&slot));
        self.copies.clone_from(&result.copies);
        result
    }

    /// One power-on in short: the slot, or `reset`.
    fn boots(&mut self) -> String {
        match self.boot().outcome {
            Outcome::Started { slot, .. } => slot,
            Outcome::Reset { .. } => "reset".to_owned(),
        }
    }

    fn sequence(&mut self, count: usize) -> String {
        (0..count).map(|_| self.boots()).collect::<Vec<_>>().join(" ")
    }
}

fn line(result: &BootResult) -> &str {
    match &result.outcome {
        Outcome::Started { command_line, .. } => command_line,
        Outcome::Reset { .. } => "",
    }
}

/// P15: a confirmed system may lose power as often as it likes; nothing is counted and nothing is written.
#[test]
fn bootcount_confirmed_slots_are_not_counted_or_saved() {
    let mut board = Board::new(SchemeKind::Bootcount);
    let before = board.copies.clone();
    for _ in 0..30 {
        let result = board.boot();
        assert_eq!(line(&result), "otad.slot=a otad.bootcount=1");
        assert!(result.saves.is_empty());
    }
    assert_eq!(board.copies, before);
}

/// P8: limit 3 gives three tries, the fourth boot runs altbootcmd and settles on the old slot.
#[test]
fn bootcount_a_trial_ends_after_the_limit() {
    let mut board = Board::new(SchemeKind::Bootcount);
    board.arm("b");
    assert_eq!(board.scheme().trial(&board.env()), Trial::Slot("b".into()));
    for count in 1..=3 {
        let result = board.boot();
        assert_eq!(line(&result), format!("otad.slot=b otad.bootcount={count}"));
        assert_eq!(result.saves.len(), 1);
        assert_eq!(board.value("bootcount"), count.to_string());
    }
    let result = board.boot();
    assert_eq!(line(&result), "otad.slot=a otad.bootcount=0");
    assert_eq!(result.saves.len(), 2, "the count, then the switch");
    let env = board.env();
    assert_eq!(board.scheme().rolled_back(&env), Some("b"));
    assert_eq!(board.scheme().primary(&env), Some("a"));
    assert_eq!(board.scheme().trial(&env), Trial::None);
    assert_eq!((board.value("upgrade_available"), board.value("bootcount")), ("0".into(), "0".into()));
    assert_eq!(board.sequence(5), "a a a a a");
}

#[test]
fn bootcount_a_commit_ends_the_counting() {
    let mut board = Board::new(SchemeKind::Bootcount);
    board.arm("b");
    assert_eq!(board.sequence(2), "b b");
    let commit = board.scheme().commit(&board.env(), "b").unwrap();
    board.change(&commit);
    assert_eq!(board.sequence(6), "b b b b b b");
    assert!(board.scheme().slot_ok(&board.env(), "b").unwrap());
    assert!(board.scheme().slot_ok(&board.env(), "a").unwrap());
}

#[test]
fn bootcount_which_slot_starts() {
    // (changes to a factory device, loadable slots, what the first boots do)
    let set = Changes::new;
    let cases = [
        ("only the other one loads and is ok", set().set("otad_b_ok", "1"), vec!["b"], "b b"),
        ("only the other one loads and is not ok", set(), vec!["b"], "reset reset"),
        ("nothing loads", set().set("otad_b_ok", "1"), vec![], "reset reset"),
        ("the selection is garbage: the first slot", set().set("otad_slot", "zebra"), vec!["a", "b"], "a a"),
        ("no selection: the first slot", set().unset("otad_slot"), vec!["a", "b"], "a a"),
        ("the other one is selected", set().set("otad_slot", "b"), vec!["a", "b"], "b b"),
        // Over the limit at once, with the other slot not ok: the selected one is all there is.
        (
            "altbootcmd without another slot",
            set().set("upgrade_available", "1").set("bootcount", "7"),
            vec!["a", "b"],
            "a a",
        ),
        // The other one is ok but cannot be loaded any more: better a system on trial than none.
        (
            "altbootcmd with a broken other slot",
            set().set("upgrade_available", "1").set("bootcount", "7").set("otad_b_ok", "1"),
            vec!["a"],
            "a a",
        ),
        (
            "no limit is no limit",
            set().set("upgrade_available", "1").set("bootcount", "7").unset("bootlimit"),
            vec!["a"],
            "a a",
        ),
    ];
    for (what, changes, loadable, expected) in cases {
        let mut board = Board::new(SchemeKind::Bootcount);
        board.change(&changes);
        board.loadable = loadable;
        assert_eq!(board.sequence(2), expected, "{what}");
    }
}

/// E7: U-Boot reads leading decimal digits and nothing else; arming never leaves the limit out.
#[test]
fn bootcount_counters_are_read_as_u_boot_reads_them() {
    for (text, next) in [("", 1), ("garbage", 1), ("-1", 1), ("2x", 3), ("0x2", 1), ("999", 1000), (" 2", 1)]
    {
        let mut board = Board::new(SchemeKind::Bootcount);
        board.arm("b");
        board.change(&Changes::new().set("bootcount", text));
        let expected = if next > 3 {
            "otad.slot=a otad.bootcount=0".into()
        } else {
            format!("otad.slot=b otad.bootcount={next}")
        };
        assert_eq!(line(&board.boot()), expected, "bootcount={text}");
    }
}

/// E2: both copies lost. The built-in environment tries a, then b, and skips what cannot be loaded; the first boot saves it.
#[test]
fn bootcount_both_copies_lost() {
    for (loadable, expected) in [(vec!["a", "b"], "a"), (vec!["b"], "b"), (vec!["a"], "a"), (vec![], "reset")]
    {
        let mut board = Board::new(SchemeKind::Bootcount);
        board.lose_both();
        board.loadable = loadable;
        let result = board.boot();
        if let Outcome::Started { slot, command_line } = &result.outcome {
            assert_eq!(slot, expected);
            assert_eq!(command_line, &format!("otad.slot={expected} otad.bootcount=1 otad.env=default"));
        } else {
            assert_eq!(expected, "reset");
        }
        assert_eq!(result.saves.len(), 1);
        assert_eq!(result.saves[0].copy, CopyId::First);
        assert!(board.scheme().is_default(&board.env()));
    }
}

/// E2, I5: on the built-in environment a slot that loads but does not live gives way to the other one, in turns.
#[test]
fn bootcount_on_the_default_environment_the_slots_take_turns() {
    let mut board = Board::new(SchemeKind::Bootcount);
    board.lose_both();
    assert_eq!(board.sequence(12), "a a a b b b b a a a a b");
    assert!(line(&board.boot()).ends_with("otad.env=default"));
    let factory = board.scheme().factory("b").unwrap();
    board.change(&factory);
    assert_eq!(line(&board.boot()), "otad.slot=b otad.bootcount=1");
}

/// The act before the first byte of an update on a saved default environment makes the choice explicit.
#[test]
fn every_act_ends_the_default_environment() {
    for kind in [SchemeKind::Bootcount, SchemeKind::BootOrder] {
        let mut board = Board::new(kind);
        board.lose_both();
        board.boots();
        if kind == SchemeKind::BootOrder {
            assert!(board.scheme().is_default(&board.env()));
        }
        let disarm = board.scheme().disarm(&board.env(), "a").unwrap();
        board.change(&disarm);
        assert!(!board.scheme().is_default(&board.env()));
        assert_eq!(board.sequence(3), "b b b", "{kind:?}");
    }
}

/// P7, P8: every boot costs the chosen slot one attempt, saved before the kernel is loaded; then the next one in order.
#[test]
fn boot_order_counts_every_boot() {
    let mut board = Board::new(SchemeKind::BootOrder);
    board.arm("b");
    assert_eq!(board.value("BOOT_ORDER"), "B A");
    for count in 1..=3 {
        let result = board.boot();
        assert_eq!(line(&result), format!("otad.slot=b otad.bootcount={count}"));
        assert_eq!(result.saves.len(), 1);
        assert_eq!(board.value("BOOT_B_LEFT"), (3 - count).to_string());
    }
    assert_eq!(line(&board.boot()), "otad.slot=a otad.bootcount=1");
    assert_eq!(board.scheme().rolled_back(&board.env()), Some("b"));
    let rollback = board.scheme().rollback(&board.env(), "b").unwrap();
    board.change(&rollback);
    assert_eq!((board.value("BOOT_ORDER"), board.value("BOOT_A_LEFT")), ("A".into(), "3".into()));
}

/// P15, P16, H8: flicker uses up every counter; they are filled up again and an empty slot is never started.
#[test]
fn boot_order_exhausted_counters_are_filled_up_again() {
    let mut board = Board::new(SchemeKind::BootOrder);
    assert_eq!(board.sequence(9), "a a a reset a a a reset a");
    let mut board = Board::new(SchemeKind::BootOrder);
    board.arm("b");
    assert_eq!(board.sequence(8), "b b b a a a reset b");
}

#[test]
fn boot_order_which_slot_starts() {
    let set = Changes::new;
    let cases = [
        (
            "a load that fails costs an attempt",
            set().set("BOOT_ORDER", "B A").set("BOOT_B_LEFT", "2"),
            "reset reset a",
        ),
        ("no order: both, in the configured one", set().unset("BOOT_ORDER"), "a a a"),
        ("an order of strangers heals", set().set("BOOT_ORDER", "X Y"), "reset a a"),
        ("strangers are skipped", set().set("BOOT_ORDER", "R A"), "a a a"),
        ("lower-case names are strangers", set().set("BOOT_ORDER", "b A"), "a a a"),
        ("no counter: the limit", set().unset("BOOT_A_LEFT"), "a a a"),
    ];
    for (what, changes, expected) in cases {
        let mut board = Board::new(SchemeKind::BootOrder);
        board.change(&changes);
        board.loadable = vec!["a"];
        assert_eq!(board.sequence(3), expected, "{what}");
    }
}

/// E7: hexadecimal, leading digits, and never for ever.
#[test]
fn boot_order_counters_are_bounded() {
    for (text, left) in [
        ("2", "1"),
        ("-1", "2"),
        ("zz", "2"),
        ("2z", "1"),
        ("999", "2"),
        ("a", "2"),
        ("9", "8"),
        ("ffffffffffffffffff", "2"),
    ] {
        let mut board = Board::new(SchemeKind::BootOrder);
        board.change(&Changes::new().set("BOOT_A_LEFT", text));
        // What counts as 0 is filled up by a reset first.
        if board.boots() == "reset" {
            assert_eq!(board.boots(), "a");
        }
        assert_eq!(board.value("BOOT_A_LEFT"), left, "BOOT_A_LEFT={text}");
    }
}

#[test]
fn boot_order_both_copies_lost() {
    let mut board = Board::new(SchemeKind::BootOrder);
    board.lose_both();
    board.loadable = vec!["b"];
    assert_eq!(board.sequence(4), "reset reset reset b");
    assert_eq!(line(&board.boot()), "otad.slot=b otad.bootcount=2 otad.env=default");
}

/// E1: one bad copy is no reason for anything: the other one boots, and the save repairs the bad one.
#[test]
fn one_bad_copy_is_repaired_by_the_next_save() {
    for bad in [0, 1] {
        let mut board = Board::new(SchemeKind::Bootcount);
        board.arm("b");
        board.change(&Changes::new().set("x", "1"));
        let good = board.copies[1 - bad].clone();
        board.copies[bad] = vec![0x55; SIZE];
        let result = board.boot();
        assert_eq!(line(&result), "otad.slot=b otad.bootcount=1", "both copies were armed");
        assert_eq!(result.saves.len(), 1);
        assert_eq!(result.saves[0].copy.index(), bad);
        assert_eq!(result.copies[1 - bad], good);
        assert_eq!(board.value("bootcount"), "1");
    }
}

/// What U-Boot takes from stored strings (`lib/hashtable.c`), and what it stores again.
#[test]
fn strings_are_imported_and_exported_as_by_u_boot() {
    let import = |data: &[u8]| {
        Session::import(&Environment::parse(data)).map(|variables| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            variables
                .iter()
                .map(|(name, value)| format!("{}={}", text(name), text(value)))
                .collect::<Vec<_>>()
                .join("|")
        })
    };
    for (data, expected) in [
        (&b"b=2\0a=1\0\0"[..], "a=1|b=2"),
        (b"  \ta=1\0\0", "a=1"),
        (b"#a=1\0b=2\0\0", "b=2"),
        (b"a=1\0a\0b=2\0b=\0c=3\0\0", "c=3"),
        (b"a=1\0a=2\0\0", "a=2"),
        (br"a=x\y\\z\", r"a=xy\z\"),
        (b"a=1=2\0\0", "a=1=2"),
        (b"", ""),
    ] {
        assert_eq!(import(data).unwrap(), expected, "{}", String::from_utf8_lossy(data));
    }
    assert!(import(b"a=1\0=2\0\0").is_err());

    let mut board = Board::new(SchemeKind::Bootcount);
    let data = b"zz=1\0upgrade_available=1\0bootlimit=3\0otad_slot=a\0path=a\\\\b\0drop=\0\0";
    let mut padded = data.to_vec();
    padded.resize(SIZE - 5, 0xff);
    board.copies[0] = Copy { flags: 255, data: padded }.encode(Layout::Redundant, ByteOrder::Little);
    board.copies[1] = vec![0; SIZE];
    let saved = board.boot().saves.remove(0);
    let expected = b"bootcount=1\0bootlimit=3\0otad_slot=a\0path=a\\\\b\0upgrade_available=1\0zz=1\0\0\0\0";
    assert_eq!(&saved.bytes[5..5 + expected.len()], expected);
    assert_eq!((saved.copy, saved.bytes[4]), (CopyId::Second, 0), "the counter wraps from 255 to 0");
    assert!(saved.bytes[5 + expected.len()..].iter().all(|&byte| byte == 0));
    assert_eq!(board.value("bootcount"), "1", "and the wrapped copy is the current one");
}

/// A value without a name stops U-Boot's import: the built-in environment is used although the checksum is right.
#[test]
fn a_value_without_a_name_loses_the_environment() {
    let mut board = Board::new(SchemeKind::Bootcount);
    let mut data = b"otad_slot=b\0=x\0\0".to_vec();
    data.resize(SIZE - 5, 0);
    let copy = Copy { flags: 9, data }.encode(Layout::Redundant, ByteOrder::Little);
    board.copies = vec![copy.clone(), copy];
    let result = board.boot();
    assert_eq!(line(&result), "otad.slot=a otad.bootcount=1 otad.env=default");
    assert_eq!(result.saves[0].copy, CopyId::Second);
}

#[test]
fn what_does_not_fit_is_not_saved_and_the_boot_goes_on() {
    let mut board = Board::new(SchemeKind::Bootcount);
    board.arm("b");
    board.change(&Changes::new().set("bootcount", "9").set("bootlimit", "99"));
    let room = SIZE - 5 - board.env().needed();
    board.change(&Changes::new().set("p", "x".repeat(room - 3)));
    assert_eq!(board.env().needed(), SIZE - 5, "full to the last byte");
    let before = board.copies.clone();
    let result = board.boot();
    assert!(result.console[0].contains("does not fit"), "{:?}", result.console);
    assert_eq!(line(&result), "otad.slot=b otad.bootcount=10");
    assert_eq!(board.copies, before);
}

/// A single copy, another byte order, a copy that cannot be read.
#[test]
fn other_layouts() {
    let scheme = Scheme::new(SchemeKind::Bootcount, ["a", "b"], 3).unwrap();
    let loader = BootLoader::new(scheme, Layout::Single, ByteOrder::Big);
    let first = loader.power_on(&[vec![0; SIZE]], &|_| true);
    assert_eq!(Copy::decode(&first.copies[0], Layout::Single, ByteOrder::Big).unwrap().flags, 0);
    let second = loader.power_on(&first.copies, &|_| true);
    assert_eq!(line(&second), "otad.slot=a otad.bootcount=2 otad.env=default");

    let mut board = Board::new(SchemeKind::Bootcount);
    board.arm("b");
    board.copies[0].truncate(100);
    board.copies.swap(0, 1);
    assert_eq!(board.boots(), "b", "a copy that cannot be read is a bad copy");
}
