//! The program: `bootenv`, and under the names of U-Boot's tools.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use bootenv::{Changes, EnvLock, LockDirs};

use crate::support::{Place, run, succeed};

const PROGRAM: &str = env!("CARGO_BIN_EXE_bootenv");

/// What a run printed and how it ended.
#[derive(Debug, PartialEq)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

struct Device {
    place: Place,
}

impl Device {
    /// Two copies that hold `a=1`, `b=two words`.
    fn new() -> Device {
        let device = Device { place: Place::new(2, 0x1000) };
        device.file("start.txt", "a=1\nb=two words\n");
        assert_eq!(device.bootenv(["init", "start.txt"]).status, 0);
        device
    }

    fn file(&self, name: &str, content: &str) {
        fs::write(self.place.path(name), content).unwrap();
    }

    fn spawn<'a>(&self, name: &str, arguments: impl IntoIterator<Item = &'a str>, input: &str) -> Ran {
        let mut child = Command::new(PROGRAM)
            .arg0(name)
            .args(arguments)
            .current_dir(self.place.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that does not read its input closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn bootenv<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        let common = ["--lock-dir", ".", "--lock-timeout", "0.2", "-c", "fw_env.config"];
        self.spawn("bootenv", common.into_iter().chain(arguments), "")
    }

    fn tool<'a>(&self, name: &str, arguments: impl IntoIterator<Item = &'a str>, input: &str) -> Ran {
        self.spawn(
            &format!("/usr/bin/{name}"),
            ["-l", ".", "-c", "fw_env.config"].into_iter().chain(arguments),
            input,
        )
    }

    fn all(&self) -> String {
        self.bootenv(["print"]).out
    }
}

fn done(out: &str) -> Ran {
    Ran { status: 0, out: out.to_owned(), err: String::new() }
}

#[test]
fn print_and_set() {
    let device = Device::new();
    assert_eq!(device.bootenv(["print"]), done("a=1\nb=two words\n"));
    assert_eq!(device.bootenv(["print", "b", "a"]), done("b=two words\na=1\n"));
    assert_eq!(device.bootenv(["print", "-n", "b"]), done("two words\n"));
    let missing = device.bootenv(["print", "none", "a"]);
    assert_eq!((missing.status, missing.out.as_str()), (1, "a=1\n"));
    assert_eq!(missing.err, "bootenv: ## Error: \"none\" not defined\n");
    assert_eq!(device.bootenv(["set", "c=x=y", "a=", "d=", "--unset", "b", "none"]), done(""));
    assert_eq!(device.all(), "c=x=y\n");
    assert_eq!(device.bootenv(["print", "--json"]), done("{\n  \"c\": \"x=y\"\n}\n"));
    assert_eq!(device.bootenv(["set", "q=\"\\\u{1}\n"]), done(""));
    assert_eq!(device.bootenv(["print", "--json", "q"]), done("{\n  \"q\": \"\\\"\\\\\\u0001\\n\"\n}\n"));
}

#[test]
fn one_command_is_one_transaction() {
    let device = Device::new();
    let before = device.place.bytes();
    for arguments in
        [vec!["set", "c=1", "#d=2"], vec!["set", "c=1", "--unset", "a", "=x"], vec!["apply", "bad.txt"]]
    {
        device.file("bad.txt", "c 1\n = 2\n");
        let ran = device.bootenv(arguments);
        assert_eq!(ran.status, 1, "{ran:?}");
        assert_eq!(device.place.bytes(), before);
    }
    let huge = format!("c={}", "x".repeat(5000));
    let ran = device.bootenv(["set", "a=9", &huge]);
    assert_eq!(ran.status, 1);
    assert_eq!(
        ran.err,
        "bootenv: variables need 5020 bytes, the environment holds 4091; unset some, nothing was written\n"
    );
    assert_eq!(device.place.bytes(), before);
    assert_eq!(device.bootenv(["set", "a=1"]), done(""));
    assert_eq!(device.place.bytes(), before, "an unchanged value is not written");
    device.bootenv(["set", "a=2", "b=3", "c=4"]);
    let changed = device.place.bytes().iter().zip(&before).filter(|(new, old)| new != old).count();
    assert_eq!(changed, 1, "three changes, one copy written");
}

#[test]
fn apply_takes_scripts() {
    let device = Device::new();
    device.file("s", "# comment\n\na 2\nc=3\r\n  d   4 5\nb\n");
    assert_eq!(device.bootenv(["apply", "s"]), done(""));
    assert_eq!(device.all(), "a=2\nc=3\nd=4 5\n");
    let common = ["--lock-dir", ".", "-c", "fw_env.config", "apply", "-"];
    assert_eq!(device.spawn("bootenv", common, "c\nd=6"), done(""));
    assert_eq!(device.all(), "a=2\nd=6\n");
    device.file("s", "a 3\n\n=5\n");
    let ran = device.bootenv(["apply", "s"]);
    assert_eq!(ran.err, "bootenv: s: line 3: \"=5\" is not `name value`, `name=value` or `name`\n");
}

#[test]
fn check_tells_healthy_degraded_and_lost_apart() {
    let device = Device::new();
    let healthy = device.bootenv(["check"]);
    assert_eq!(healthy.status, 0);
    assert!(healthy.out.starts_with("healthy\ncopy 1 ("), "{}", healthy.out);
    assert!(
        healthy.out.contains("generation 2, current\n2 variables in 17 of 4091 bytes"),
        "{}",
        healthy.out
    );
    let good = fs::read(&device.place.copies[1]).unwrap();
    fs::write(&device.place.copies[1], &good[..100]).unwrap();
    let degraded = device.bootenv(["check"]);
    assert_eq!(degraded.status, 2);
    assert!(degraded.out.contains("ends after 100 of 4096 bytes\n"), "{}", degraded.out);
    assert!(degraded.out.ends_with("next: any change repairs the bad copy\n"));
    let printed = device.bootenv(["print", "a"]);
    assert_eq!((printed.status, printed.out.as_str()), (0, "a=1\n"));
    assert!(
        printed.err.starts_with("warning: copy 1 is valid (flags 1), copy 2: cannot be read"),
        "{}",
        printed.err
    );
    let json = device.bootenv(["check", "--json"]);
    assert_eq!(json.status, 2);
    assert!(
        json.out.starts_with("{\"state\": \"degraded\", \"used\": 17, \"capacity\": 4091, \"copies\": ["),
        "{}",
        json.out
    );
    let repaired = device.bootenv(["set", "a=1"]);
    assert_eq!((repaired.status, repaired.err.as_str()), (0, "note: copy 2 was bad and is valid again\n"));
    assert_eq!(device.bootenv(["check"]).status, 0);

    device.place.fill(&[0xff; 0x1000]);
    let before = device.place.bytes();
    assert_eq!(device.bootenv(["check"]).status, 3);
    for arguments in [vec!["print"], vec!["set", "a=1"]] {
        let lost = device.bootenv(arguments);
        assert_eq!(lost.status, 3);
        assert!(lost.err.contains("`bootenv init` writes a new one"), "{}", lost.err);
    }
    assert_eq!(device.tool("fw_setenv", ["a", "1"], "").status, 1);
    assert_eq!(device.place.bytes(), before, "defaults are never written unasked");
    device.file("defaults", "a=default\n");
    let printed = device.tool("fw_printenv", ["-f", "defaults", "a"], "");
    assert_eq!((printed.status, printed.out.as_str()), (0, "a=default\n"));
    assert!(printed.err.contains("these are the defaults from defaults"), "{}", printed.err);
    assert_eq!(device.bootenv(["init", "defaults"]), done(""));
    assert_eq!(device.all(), "a=default\n");
}

#[test]
fn usage_errors_exit_64_and_say_where_help_is() {
    let device = Device::new();
    for arguments in [
        vec![],
        vec!["frob"],
        vec!["print", "-n"],
        vec!["print", "--nope"],
        vec!["set"],
        vec!["set", "a"],
        vec!["apply"],
        vec!["apply", "x", "y"],
        vec!["check", "x"],
        vec!["make-image", "x", "y"],
        vec!["make-image", "--size", "0x", "x", "y"],
        vec!["make-image", "--size", "64", "--pad", "256", "x", "y"],
        vec!["make-image", "--size", "64", "x"],
        vec!["--lock-timeout", "soon", "print"],
    ] {
        let ran = device.bootenv(arguments.clone());
        assert_eq!(ran.status, 64, "{arguments:?} {ran:?}");
        assert!(ran.err.ends_with("see --help\n"), "{ran:?}");
    }
    assert_eq!(
        device.spawn("bootenv", ["--version"], "").out,
        format!("bootenv {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = device.spawn("bootenv", ["--help"], "");
    assert_eq!(help.status, 0);
    for word in ["print", "set", "apply", "init", "check", "make-image", "--lock-timeout", "exit status"] {
        assert!(help.out.contains(word), "{word}");
    }
    let ran = device.spawn("bootenv", ["-c", "none", "--lock-dir", ".", "print"], "");
    assert_eq!(ran.status, 1);
    assert!(ran.err.starts_with("bootenv: cannot read none: No such file"), "{}", ran.err);
}

#[test]
fn a_held_lock_fails_after_the_timeout() {
    let device = Device::new();
    let dirs = LockDirs::new([device.place.dir.path().to_owned()]);
    let held = EnvLock::acquire(&dirs, Duration::ZERO).unwrap();
    for arguments in [vec!["print"], vec!["set", "a=2"], vec!["check"]] {
        let ran = device.bootenv(arguments);
        assert_eq!(ran.status, 4, "{ran:?}");
        assert!(ran.err.contains("held by another program"), "{}", ran.err);
    }
    drop(held);
    assert_eq!(device.bootenv(["print", "a"]), done("a=1\n"));
}

/// While we hold the lock of the system, libubootenv waits and U-Boot's place is taken; after that it goes on.
#[test]
fn the_lock_is_that_of_both_tool_sets() {
    let device = Device::new();
    let config = device.place.config();
    let held = EnvLock::acquire(&LockDirs::system(), Duration::from_secs(10)).unwrap();
    let mut waiting = Command::new("fw_setenv").arg("-c").arg(&config).args(["a", "2"]).spawn().unwrap();
    let taken = run("flock", ["--nonblock", "/run/fw_printenv.lock", "true"]);
    std::thread::sleep(Duration::from_millis(300));
    let early = waiting.try_wait().unwrap();
    drop(held);
    let ended = waiting.wait().unwrap();
    assert_eq!(taken.status.code(), Some(1));
    assert_eq!(early, None, "fw_setenv waits for the lock");
    assert!(ended.success());
    assert_eq!(device.all(), "a=2\nb=two words\n");
}

/// Four of ours and four of libubootenv's at once, with the locks of the system: no change is lost.
#[test]
fn eight_writers_of_two_tool_sets_at_once_lose_nothing() {
    let device = Device::new();
    let config = device.place.config();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (device, config) = (&device, &config);
            scope.spawn(move || {
                for round in 0..5 {
                    let (name, value) = (format!("w{writer}"), round.to_string());
                    if writer % 2 == 0 {
                        let text = format!("{name}={value}");
                        let ran = device.spawn("bootenv", ["-c", "fw_env.config", "set", &text], "");
                        assert_eq!(ran.status, 0, "{ran:?}");
                    } else {
                        let arguments = ["-c".as_ref(), config.as_os_str(), name.as_ref(), value.as_ref()];
                        succeed("fw_setenv", arguments);
                    }
                }
            });
        }
    });
    let expected: String = (0..8).map(|writer| format!("w{writer}=4\n")).collect();
    assert_eq!(device.all(), format!("a=1\nb=two words\n{expected}"));
}

#[test]
fn under_the_names_of_u_boots_tools() {
    let device = Device::new();
    assert_eq!(device.tool("fw_printenv", [], ""), done("a=1\nb=two words\n"));
    assert_eq!(device.tool("fw_printenv", ["-n", "b"], ""), done("two words\n"));
    assert_eq!(device.tool("fw_printenv", ["-n", "b", "a"], ""), done("two words\n1\n"));
    assert_eq!(device.tool("fw_printenv", ["--noheader"], "").status, 1);
    let missing = device.tool("fw_printenv", ["x"], "");
    assert_eq!(
        missing,
        Ran { status: 1, out: String::new(), err: "fw_printenv: ## Error: \"x\" not defined\n".into() }
    );

    assert_eq!(device.tool("fw_setenv", ["v", "one", "two", "three"], ""), done(""));
    assert_eq!(device.tool("fw_printenv", ["v"], ""), done("v=one two three\n"));
    assert_eq!(device.tool("fw_setenv", ["v"], ""), done(""));
    assert_eq!(device.tool("fw_printenv", ["v"], "").status, 1);
    device.tool("fw_setenv", ["v", "x"], "");
    assert_eq!(device.tool("fw_setenv", ["v", ""], ""), done(""));
    assert_eq!(device.all(), "a=1\nb=two words\n");
    assert_eq!(device.tool("fw_setenv", ["-s", "-"], "v 1\nw=2\nb\n# x\n"), done(""));
    assert_eq!(device.all(), "a=1\nv=1\nw=2\n");
    assert_eq!(device.tool("fw_setenv", ["--", "v", "-1"], ""), done(""));
    assert_eq!(device.tool("fw_printenv", ["-a", "key", "-n", "v"], ""), done("-1\n"));
    for arguments in
        [vec!["a=b", "c"], vec![], vec!["-q"], vec!["-s", "x", "name"], vec!["a", &"x".repeat(5000)]]
    {
        let ran = device.tool("fw_setenv", arguments.clone(), "");
        assert_eq!(ran.status, 1, "{arguments:?}");
        assert!(ran.err.starts_with("fw_setenv: "), "{}", ran.err);
    }
    assert_eq!(device.all(), "a=1\nv=-1\nw=2\n", "a value that does not fit leaves the old one");
    assert!(device.tool("fw_setenv", ["-h"], "").out.starts_with("usage: fw_setenv"));
}

#[test]
fn images_for_other_machines_are_read_and_changed() {
    let device = Device { place: Place::new(1, 0x200) };
    device.file("env.txt", "a=1\n");
    let copy = device.place.copies[0].to_str().unwrap();
    assert_eq!(device.bootenv(["make-image", "--size", "0x200", "--big-endian", "env.txt", copy]), done(""));
    let native = device.bootenv(["print"]);
    assert_eq!(native.status, 3);
    assert!(native.err.contains("it fits as Big-endian"), "{}", native.err);
    assert_eq!(device.bootenv(["--big-endian", "set", "b=2"]), done(""));
    assert_eq!(device.bootenv(["--big-endian", "print"]), done("a=1\nb=2\n"));
    let expected = device.place.path("expected");
    device.file("env.txt", "a=1\nb=2\n");
    let arguments = ["-b", "-p", "0", "-s", "0x200", "-o", expected.to_str().unwrap()];
    succeed(
        "mkenvimage",
        arguments.map(OsStr::new).into_iter().chain([device.place.path("env.txt").as_os_str()]),
    );
    assert_eq!(fs::read(copy).unwrap(), fs::read(expected).unwrap());
    let lock = device.place.lock();
    let error = device.place.open().commit(&lock, &Changes::new().set("c", "3")).unwrap_err();
    assert_eq!(error.code(), "ENV_CONFIG_MISMATCH");
}
