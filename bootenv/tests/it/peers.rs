//! Random edits, back and forth with Debian's libubootenv-tool (`fw_printenv`, `fw_setenv`) and `mkenvimage`.
//!
//! What cannot be compared, because libubootenv 0.3.2 does it on purpose or by mistake:
//! - its padding holds whatever its heap held, so bytes are compared up to the end of the list and the rest is not;
//! - it reads scripts of `name=value` only, in lines below 2048 bytes, and takes blanks around names into them;
//! - it writes also when nothing changes, so every script here changes something;
//! - it moves `.flags` to the end and drops what it does not know in it: its own test below.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use bootenv::format::Copy;
use bootenv::testing::FaultStore;
use bootenv::{BootEnv, ByteOrder, Changes, EnvLock, Environment, Layout, script};

use crate::support::{Place, Random, run, seed, succeed};

const SEQUENCES: u64 = 2000;
/// Sequences are spread over this many threads: most of the time goes into starting other programs.
const THREADS: u64 = 2;
const SIZES: [usize; 7] = [0x1000, 0x2000, 0x4000, 0x8000, 0x10000, 0x20000, 0x40000];

type Model = BTreeMap<String, String>;

fn name(random: &mut Random) -> String {
    const FIRST: &[u8] = b"abcdefgXYZ_";
    const REST: &[u8] = b"abcXYZ019_-.:/#\\";
    let mut text = char::from(*random.pick(FIRST)).to_string();
    for _ in 0..random.below(6) {
        text.push(char::from(*random.pick(REST)));
    }
    text
}

fn value(random: &mut Random) -> String {
    const BYTES: &[u8] = b"abcdefghijk ABC 0123456789 =;${}()'\"\\#%&|<>,.:-_/~";
    let len = match random.below(10) {
        0 => 200 + random.below(600),
        1..=3 => 20 + random.below(60),
        _ => 1 + random.below(12),
    };
    let inner: String = (0..len).map(|_| char::from(*random.pick(BYTES))).collect();
    // Blanks at the ends are trimmed by some readers of scripts; they are covered where no script is involved.
    format!("v{inner}v")
}

/// A few random edits, applied to the model; always at least one real change.
fn edits(random: &mut Random, model: &mut Model, serial: u64) -> Vec<(String, Option<String>)> {
    let mut list = vec![("serial".to_owned(), Some(serial.to_string()))];
    for _ in 0..1 + random.below(6) {
        let known: Vec<String> = model.keys().filter(|key| *key != "serial").cloned().collect();
        let edit = match random.below(4) {
            0 if !known.is_empty() => (random.pick(&known).clone(), None),
            1 if !known.is_empty() => (random.pick(&known).clone(), Some(value(random))),
            _ => (name(random), Some(value(random))),
        };
        list.push(edit);
    }
    for (name, value) in &list {
        match value {
            Some(value) => drop(model.insert(name.clone(), value.clone())),
            None => drop(model.remove(name)),
        }
    }
    list
}

fn changes(edits: &[(String, Option<String>)]) -> Changes {
    edits.iter().fold(Changes::new(), |changes, (name, value)| match value {
        Some(value) => changes.set(name.as_str(), value.as_str()),
        None => changes.unset(name.as_str()),
    })
}

fn lines(model: &Model) -> String {
    model.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn our_lines(env: &Environment) -> String {
    env.raw_strings().map(|raw| format!("{}\n", String::from_utf8(raw.to_vec()).unwrap())).collect()
}

/// Flags and strings of a copy, without its padding.
fn essence(bytes: &[u8], layout: Layout) -> (u8, Vec<u8>) {
    let copy = Copy::decode(bytes, layout, ByteOrder::NATIVE).unwrap();
    let end = copy.data.windows(2).position(|pair| pair == [0, 0]).unwrap();
    (copy.flags, copy.data[..end].to_vec())
}

/// One sequence: an image by mkenvimage, our edits read by fw_printenv, edits by fw_setenv read by us.
fn sequence(number: u64, random: &mut Random) {
    let layout = *random.pick(&[Layout::Single, Layout::Redundant]);
    let size = *random.pick(&SIZES);
    let pad = *random.pick(&["0x00", "0xff"]);
    let place = Place::new(layout.copies().len(), size);
    let mut model = Model::new();
    edits(random, &mut model, 0);
    start(&place, &model, layout, size, pad, random);
    assert_eq!(
        our_lines(&place.open().load().unwrap().environment),
        lines(&model),
        "we read mkenvimage's image"
    );

    let mut env = place.open();
    for step in 1..=1 + random.below(3) {
        let edits = edits(random, &mut model, number * 10 + step as u64);
        env.commit(&place.lock(), &changes(&edits)).unwrap();
    }
    let config = place.config();
    let output = succeed("fw_printenv", ["-c".as_ref(), config.as_os_str()]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), lines(&model), "fw_printenv reads what we wrote");
    if number.is_multiple_of(4) {
        same_as_mkenvimage(&place, &mut env, &model, layout, size);
    }

    if layout == Layout::Redundant && random.below(5) == 0 {
        // A bad copy that is not in use: both write it next.
        let idle = env.load().unwrap().current.other();
        fs::write(&place.copies[idle.index()], vec![0x5a; size]).unwrap();
    }
    let before = place.bytes();
    let list = edits(random, &mut model, number * 10 + 9);
    let text: String = list
        .iter()
        .map(|(name, value)| format!("{name}={}\n", value.as_deref().unwrap_or_default()))
        .collect();
    let script = place.path("script");
    fs::write(&script, &text).unwrap();
    succeed("fw_setenv", ["-c".as_ref(), config.as_os_str(), "-s".as_ref(), script.as_os_str()]);
    assert_eq!(our_lines(&env.load().unwrap().environment), lines(&model), "we read what fw_setenv wrote");

    // The same script through the library gives the same copies, up to the padding.
    let mut ours = BootEnv::new(FaultStore::with_copies(before));
    ours.commit(&EnvLock::of_nothing(), &script::parse_script(text.as_bytes()).unwrap()).unwrap();
    for (ours, theirs) in ours.store().copies().iter().zip(place.bytes()) {
        assert_eq!(essence(ours, layout), essence(&theirs, layout));
    }
}

/// Lets mkenvimage make the copies, with counters anywhere on the circle.
fn start(place: &Place, model: &Model, layout: Layout, size: usize, pad: &str, random: &mut Random) {
    let text = place.path("start.txt");
    // A backslash at the end of a line would join lines in this form; values here end in `v`.
    fs::write(&text, lines(model)).unwrap();
    let mut arguments = vec!["-s".to_owned(), size.to_string(), "-p".into(), pad.into()];
    if layout == Layout::Redundant {
        arguments.push("-r".into());
    }
    arguments.extend(["-o".into(), place.copies[0].display().to_string(), text.display().to_string()]);
    succeed("mkenvimage", arguments);
    let image = fs::read(&place.copies[0]).unwrap();
    place.fill(&image);
    if layout == Layout::Redundant {
        let first = (random.next() % 256) as u8;
        let second = *random.pick(&[first, first.wrapping_add(1), first.wrapping_sub(1)]);
        for (copy, flags) in place.copies.iter().zip([first, second]) {
            let mut bytes = image.clone();
            bytes[4] = flags;
            fs::write(copy, bytes).unwrap();
        }
    }
}

/// The copy we wrote is byte for byte mkenvimage's of the same variables with zero padding, except for the counter.
fn same_as_mkenvimage(
    place: &Place,
    env: &mut BootEnv<bootenv::FileStore>,
    model: &Model,
    layout: Layout,
    size: usize,
) {
    let current = env.load().unwrap().current;
    let ours = fs::read(&place.copies[current.index()]).unwrap();
    let scratch = Place::new(layout.copies().len(), size);
    start(&scratch, model, layout, size, "0x00", &mut Random(0));
    let mut theirs = fs::read(&scratch.copies[0]).unwrap();
    if layout == Layout::Redundant {
        theirs[4] = ours[4];
    }
    assert_eq!(ours, theirs);
}

#[test]
fn random_edits_agree_with_the_tools_of_the_field() {
    let seed = seed();
    println!("seed {seed} (set BOOTENV_TEST_SEED to repeat)");
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for number in (thread..SEQUENCES).step_by(THREADS as usize) {
                    let result = std::panic::catch_unwind(|| {
                        sequence(number, &mut Random(seed.wrapping_add(number * 7919)))
                    });
                    assert!(result.is_ok(), "sequence {number} of seed {seed}");
                }
            });
        }
    });
    println!("{SEQUENCES} edit sequences agree (seed {seed}, {:.1} s)", started.elapsed().as_secs_f64());
}

/// `.flags` is an ordinary variable: we keep it verbatim and in its place where libubootenv rewrites it.
#[test]
fn dot_flags_is_preserved_verbatim() {
    let place = Place::new(2, 0x1000);
    let text = place.path("env.txt");
    fs::write(&text, ".flags=eth\\d*addr:mc,absent:dw,here:sw\nhere=1\n").unwrap();
    succeed(
        "mkenvimage",
        ["-r", "-s", "4096", "-o", place.copies[0].to_str().unwrap(), text.to_str().unwrap()],
    );
    place.fill(&fs::read(&place.copies[0]).unwrap());
    place.open().commit(&place.lock(), &Changes::new().set("here", "2")).unwrap();
    let strings = our_lines(&place.open().load().unwrap().environment);
    assert_eq!(strings, ".flags=eth\\d*addr:mc,absent:dw,here:sw\nhere=2\n");
    let config = place.config();
    let output = succeed("fw_printenv", ["-c".as_ref(), config.as_os_str(), "-n".as_ref(), "here".as_ref()]);
    assert_eq!(output.stdout, b"2\n");
}

/// Sorted like U-Boot's export, whatever order edits come in, so that a save by U-Boot changes nothing but the counter.
#[test]
fn edits_keep_u_boots_order() {
    let seed = seed();
    let mut random = Random(seed);
    let mut env = Environment::new();
    let mut model = Model::new();
    for round in 0..500 {
        env.apply(&changes(&edits(&mut random, &mut model, round))).unwrap();
        assert_eq!(our_lines(&env), lines(&model), "seed {seed} round {round}");
    }
}

/// The other tool exits 0 for a variable that is not set; ours, like U-Boot's own, exits 1.
#[test]
fn a_missing_variable_is_a_difference_on_purpose() {
    let place = Place::new(2, 0x1000);
    let mut env = Environment::new();
    env.set(b"a", b"1").unwrap();
    place.open().init(&place.lock(), &env).unwrap();
    let config = place.config();
    let theirs = run("fw_printenv", ["-c".as_ref(), config.as_os_str(), "none".as_ref()]);
    assert!(theirs.status.success());
    let program = env!("CARGO_BIN_EXE_bootenv");
    let ours = run(
        program,
        [
            "--lock-dir".as_ref(),
            place.dir.path().as_os_str(),
            "-c".as_ref(),
            config.as_os_str(),
            "print".as_ref(),
            "none".as_ref(),
        ],
    );
    assert_eq!(ours.status.code(), Some(1));
}
