//! The commands that talk to otad, run as processes against a stand-in for otad on a private bus.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use zbus::Variant;

use crate::fake::{Bus, Dict, Fake, JOB, Ran, Step, World, dict, eventually, feed};

pub(crate) fn result(outcome: &str, version: &str, code: &str, message: &str, time: u64) -> Dict {
    dict([
        ("outcome", outcome.into()),
        ("code", code.into()),
        ("message", message.into()),
        ("version", version.into()),
        ("sequence", 42u64.into()),
        ("release", "b".repeat(64).into()),
        ("slot", "b".into()),
        ("phase", "".into()),
        ("time", time.into()),
    ])
}

pub(crate) fn job(phase: &str, progress: u32, done: u64, total: u64) -> Step {
    Step::Job(dict([
        ("Phase", Variant::from(phase.to_owned())),
        ("Progress", progress.into()),
        ("BytesDone", done.into()),
        ("BytesTotal", total.into()),
        ("BytesFetched", done.into()),
        ("BytesWritten", (done / 2).into()),
        ("BytesUnchanged", (done / 4).into()),
        ("Version", "2.1.0".into()),
    ]))
}

/// A job that does what it is for.
pub(crate) fn good_job() -> Vec<Step> {
    vec![
        // Time for otactl to look at the job before it moves, also on a busy machine.
        Step::Pause(150),
        job("opening", 0, 0, 0),
        job("writing", 40, 40 << 20, 100 << 20),
        Step::Pause(50),
        job("writing", 80, 80 << 20, 100 << 20),
        job("reading-back", 90, 10 << 20, 100 << 20),
        Step::Become("post-upgrade", result("installed", "2.1.0", "", "", 100)),
        Step::Removed("done", "", ""),
    ]
}

pub(crate) fn world(script: Vec<Step>) -> World {
    World { script, ..World::idle() }
}

#[test]
fn an_error_name_decides_the_exit_status() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, World::idle());
    for (name, status, code) in [
        ("org.otad1.Error.SigInvalid", 3, "SIG_INVALID"),
        ("org.otad1.Error.Downgrade", 3, "DOWNGRADE"),
        ("org.otad1.Error.Busy", 4, "BUSY"),
        ("org.otad1.Error.WrongState", 1, "WRONG_STATE"),
        ("org.otad1.Error.InvalidOption", 2, "INVALID_OPTION"),
        ("org.otad1.Error.NotAuthorized", 6, "NOT_AUTHORIZED"),
        ("org.freedesktop.DBus.Error.AccessDenied", 6, "NOT_AUTHORIZED"),
        ("org.freedesktop.DBus.Error.NoReply", 5, "DAEMON_GONE"),
        ("org.otad1.Error.FromTheFuture", 1, "org.otad1.Error.FromTheFuture"),
    ] {
        fake.world().refusal = Some(name);
        for command in ["commit", "rollback", "cancel", "check", "log"] {
            let ran = bus.run(&[command]);
            assert_eq!(ran.status, status, "{command} {name}: {ran:?}");
            assert!(ran.stderr.contains(&format!("code {code}\n")), "{command} {name}: {ran:?}");
            assert_eq!(ran.stdout, "", "{command} {name}");
        }
    }
    let ran = bus.run(&["commit", "--json"]);
    assert_eq!(ran.json_lines()[0]["error"]["code"], "org.otad1.Error.FromTheFuture");
}

#[test]
fn what_succeeds_says_so_and_exits_with_0() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, World::idle());
    for (command, call, says) in [
        ("commit", "Commit", "committed"),
        ("rollback", "Rollback", "rolled back"),
        ("cancel", "Cancel", "cancelled"),
        ("check", "Check", "nothing new"),
    ] {
        let ran = bus.run(&[command]);
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{command}: {ran:?}");
        assert!(ran.stdout.starts_with(says) || ran.stdout.contains(says), "{command}: {ran:?}");
        assert_eq!(fake.world().calls.pop().as_deref(), Some(call));
    }
    fake.world().update_found = true;
    assert_eq!(bus.run(&["check", "--json"]).json_lines(), [json!({"event": "checked", "found": true})]);
    assert_eq!(bus.run(&["commit", "--json"]).json_lines(), [json!({"event": "done", "act": "commit"})]);
}

/// What `otad-mark-good.service` does: it waits for the verdict of the health checks and asks for nothing.
#[test]
fn commit_when_healthy_waits_for_the_verdict() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, World::idle());
    let ran = bus.run(&["commit", "--when-healthy"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "confirmed: 2.0.0 runs from slot a\n"), "{ran:?}");
    drop(fake);

    for (verdict, last, status) in [
        ("confirmed", result("committed", "2.1.0", "", "", 7), 0),
        ("disarmed", result("failed", "2.1.0", "", "", 7), 1),
    ] {
        // The job stands for whatever changes while somebody waits.
        let script = vec![
            Step::Pause(700),
            Step::Boot { slot: "b", state: verdict },
            Step::Become(if status == 0 { "idle" } else { "post-upgrade" }, last),
        ];
        let slot_states =
            [("a", "confirmed"), ("b", "trial")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        let world = World { script, running: true, booted: "b".into(), slot_states, ..World::idle() };
        let fake = Fake::start(&bus, world);
        let begin = Instant::now();
        let ran = bus.run(&["commit", "--when-healthy"]);
        assert_eq!(ran.status, status, "{ran:?}");
        assert!(begin.elapsed() >= Duration::from_millis(300), "it did not wait: {ran:?}");
        assert!(fake.world().calls.is_empty(), "it asked for something");
    }
}

/// D4: the policy of the bus, not otad, refuses.
#[test]
fn a_denial_by_the_bus_exits_with_6() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, World::idle());
    let ran = bus.run(&["reboot"]);
    assert_eq!(ran.status, 6, "{ran:?}");
    assert!(ran.stderr.contains("group otad"), "{ran:?}");
    assert!(fake.world().calls.is_empty());
}

#[test]
fn nobody_on_the_bus_and_no_bus_exit_with_5() {
    let bus = Bus::start();
    for command in [&["status"][..], &["commit"], &["install", "http://h/x"], &["status", "--follow"]] {
        let ran = bus.run(command);
        assert_eq!(ran.status, 5, "{command:?}: {ran:?}");
        assert!(ran.stderr.contains("otad is not running (systemctl status otad)"), "{ran:?}");
    }
    let ran = bus.run(&["status", "--bus", "unix:path=/nonexistent/bus"]);
    assert_eq!(ran.status, 5, "{ran:?}");
    let ran = bus.run(&["status", "--bus", "nonsense"]);
    assert_eq!(ran.status, 2, "{ran:?}");
}

#[test]
fn a_file_goes_through_its_descriptor_and_shows_lines_in_a_pipe() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, world(good_job()));
    let bundle = bus.file("x.otab", b"the bundle");
    let ran = bus.run(&["install", &bundle]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(
        ran.stdout,
        "installed 2.1.0 into slot b; the trial starts with the next boot (otactl reboot)\n"
    );
    let lines: Vec<&str> = ran.stderr.lines().collect();
    let [.., writing, reading_back] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(writing.starts_with(" 40 %  writing 2.1.0, 40.0 MiB of 100 MiB"), "{lines:?}");
    assert!(reading_back.starts_with(" 90 %  reading-back 2.1.0, 10.0 MiB of 100 MiB"), "{lines:?}");
    // The first phase may be over when otactl looks; never is a phase shown twice.
    assert!(lines.len() == 2 || lines[..1] == ["  0 %  opening 2.1.0"] && lines.len() == 3, "{lines:?}");
    eventually(|| fake.world().received.is_some());
    assert_eq!(fake.world().received.as_deref(), Some(&b"the bundle"[..]));
    assert_eq!(fake.world().calls, ["InstallFd []"], "nothing is asked for that was not ordered");
}

/// Otad signals changes only: what a job is at its beginning has to be asked for.
#[test]
fn what_a_job_is_from_the_beginning_is_shown() {
    let bus = Bus::start();
    let script = vec![Step::Pause(300), Step::Removed("done", "", "")];
    let first =
        dict([("Phase", "scanning".into()), ("Version", "2.1.0".into()), ("BytesTotal", 7u64.into())]);
    let _fake = Fake::start(&bus, World { job: first, ..world(script) });
    let ran = bus.run(&["install", "http://h/x"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stderr.contains("scanning 2.1.0, 0 B of 7 B"), "{ran:?}");
}

/// Changes that were signalled before otactl asked are older than the answer, and must not turn it back.
#[test]
fn signals_older_than_the_answer_are_not_shown() {
    let bus = Bus::start();
    let before_reply = vec![job("opening", 1, 0, 0), job("scanning", 5, 0, 0), job("writing", 40, 4, 10)];
    let script = vec![Step::Pause(200), Step::Removed("done", "", "")];
    let _fake = Fake::start(&bus, World { before_reply, ..world(script) });
    let ran = bus.run(&["install", "http://h/x", "--json"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let phases: Vec<_> =
        ran.json_lines().iter().filter_map(|event| event["phase"].as_str().map(String::from)).collect();
    assert_eq!(phases, ["writing"], "{ran:?}");
}

/// The outcome may come after the end of the job, and the one before it is not shown for it.
#[test]
fn an_outcome_that_comes_late_is_waited_for() {
    let bus = Bus::start();
    let script = vec![
        job("arming", 99, 0, 0),
        Step::Removed("done", "", ""),
        Step::Pause(150),
        Step::Become("post-upgrade", result("installed", "2.1.0", "", "", 100)),
    ];
    let last_result = result("installed", "1.9.0", "", "", 50);
    let _fake = Fake::start(&bus, World { last_result, ..world(script) });
    let ran = bus.run(&["install", "http://h/x", "--json"]);
    assert_eq!(ran.json_lines().last().unwrap()["result"]["version"], "2.1.0", "{ran:?}");
}

#[test]
fn options_and_urls_reach_otad() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, world(good_job()));
    let ran = bus.run(&["install", "https://host/x.otab", "--reboot"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stdout.contains("reboots into it"), "{ran:?}");
    assert_eq!(fake.world().calls, ["Install https://host/x.otab [reboot]"]);
}

#[test]
fn json_is_one_event_per_line_with_the_documented_fields() {
    let bus = Bus::start();
    let _fake = Fake::start(&bus, world(good_job()));
    let ran = bus.run(&["install", "http://host/x.otab", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let events = ran.json_lines();
    assert_eq!(events[0], json!({"event": "started", "job": JOB}));
    assert!(events.contains(&json!({
        "event": "progress", "job": JOB, "phase": "writing", "progress": 80, "bytes_done": 80 << 20,
        "bytes_total": 100 << 20, "bytes_fetched": 80 << 20,
        "bytes_written": 40 << 20, "bytes_unchanged": 20 << 20, "version": "2.1.0"
    })));
    assert_eq!(
        events.last().unwrap(),
        &json!({"event": "done", "act": "install", "result": {
            "outcome": "installed", "code": "", "message": "", "version": "2.1.0", "sequence": 42,
            "release": "b".repeat(64), "slot": "b", "phase": "", "time": 100}})
    );
}

#[test]
fn a_failed_job_is_the_last_event_and_the_exit_status() {
    let bus = Bus::start();
    let script = vec![
        job("verifying", 1, 0, 0),
        Step::Removed(
            "failed",
            "org.otad1.Error.SigUntrusted",
            "signed by 0a1b, which is not in the trust root",
        ),
    ];
    let fake = Fake::start(&bus, world(script));
    let ran = bus.run(&["install", "http://host/x.otab", "--json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (3, ""), "{ran:?}");
    assert_eq!(
        ran.json_lines().last().unwrap(),
        &json!({"event": "failed", "code": "SIG_UNTRUSTED", "message": "signed by 0a1b, which is not in the trust root"})
    );
    let ran = bus.run(&["install", "http://host/x.otab"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (3, ""));
    assert!(
        ran.stderr.ends_with("otactl: signed by 0a1b, which is not in the trust root\ncode SIG_UNTRUSTED\n"),
        "{ran:?}"
    );
    fake.world().script = vec![Step::Removed("cancelled", "", "")];
    assert_eq!(bus.run(&["install", "http://host/x.otab"]).status, 1);
}

#[test]
fn a_job_may_end_before_its_path_is_known() {
    let bus = Bus::start();
    let before_reply = vec![Step::Removed("failed", "org.otad1.Error.NotABundle", "starts with <html>")];
    let _fake = Fake::start(&bus, World { before_reply, ..World::idle() });
    let begun = Instant::now();
    let ran = bus.run(&["install", "http://host/x.otab"]);
    assert_eq!(ran.status, 3, "{ran:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "it must not wait for what has been");
}

#[test]
fn quiet_says_nothing_and_exits_alike() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, world(good_job()));
    for (arguments, status) in [
        (&["install", "http://h/x", "--quiet"][..], 0),
        (&["status", "-q"], 0),
        (&["log", "-q"], 0),
        (&["commit", "-q"], 0),
    ] {
        let ran = bus.run(arguments);
        assert_eq!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()), (status, "", ""), "{arguments:?}");
    }
    fake.world().refusal = Some("org.otad1.Error.Busy");
    let ran = bus.run(&["commit", "-q"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (4, ""));
}

/// D7: standard input is handed over, so that otad reads it itself.
#[test]
fn a_pipe_and_a_socket_on_standard_input_reach_otad() {
    let bus = Bus::start();
    let bytes = vec![0x5a; 300_000];
    for kind in ["pipe", "socket"] {
        let mut script = vec![Step::Pause(300)];
        script.extend(good_job());
        let fake = Fake::start(&bus, world(script));
        let mut command = bus.otactl(&["install", "-"]);
        let ran = if kind == "pipe" {
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            feed(child.stdin.take().unwrap(), &bytes);
            Ran::finish(child)
        } else {
            let (near, far) = UnixStream::pair().unwrap();
            command.stdin(Stdio::from(OwnedFd::from(far))).stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            drop(command);
            feed(near, &bytes);
            Ran::finish(child)
        };
        assert_eq!(ran.status, 0, "{kind}: {ran:?}");
        eventually(|| fake.world().received.is_some());
        assert!(
            fake.world().received.as_deref() == Some(&bytes[..]),
            "{kind}: the bytes arrived as they were"
        );
    }
}

/// D7: otactl is killed in the middle of a pipe, and otad still gets every byte.
#[test]
fn killing_otactl_does_not_cut_a_pipe() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, world(vec![Step::Pause(60_000)]));
    let mut command = bus.otactl(&["install", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // More than a pipe holds: the rest cannot be in it already when otactl dies.
    let (first, rest) = (vec![1; 1000], vec![2; 200_000]);
    feed(&mut pipe, &first);
    eventually(|| fake.world().running);
    child.kill().unwrap();
    child.wait().unwrap();
    feed(pipe, &rest);
    eventually(|| fake.world().received.is_some());
    assert_eq!(fake.world().received.as_ref().map(Vec::len), Some(first.len() + rest.len()));
}

#[test]
fn what_cannot_be_installed_from_is_a_usage_error() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, World::idle());
    for (bundle, status) in [("-", 2), ("/dev/zero", 2), ("/", 2), ("ftp://h/x", 2), ("/nonexistent", 1)] {
        let ran = bus.run(&["install", bundle]);
        assert_eq!(ran.status, status, "{bundle}: {ran:?}");
    }
    assert!(fake.world().calls.is_empty(), "otad was not bothered");
}

/// D7: Ctrl-C detaches, and the install goes on.
#[test]
fn an_interrupt_detaches_and_says_how_to_come_back() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, world(vec![job("writing", 40, 4, 10), Step::Pause(60_000)]));
    let mut command = bus.otactl(&["install", "http://h/x"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually(|| fake.world().running);
    std::thread::sleep(Duration::from_millis(200));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ran = Ran::finish(child);
    assert_eq!(ran.status, 130, "{ran:?}");
    for hint in ["the install goes on", "otactl cancel", "otactl status --follow"] {
        assert!(ran.stderr.contains(hint), "{hint}: {ran:?}");
    }
    assert!(!fake.world().calls.contains(&"Cancel".to_owned()));
}

/// An otad that hangs does not take the terminal with it.
#[test]
fn an_interrupt_ends_the_wait_for_an_answer() {
    let bus = Bus::start();
    let before_reply = vec![Step::Pause(60_000)];
    let fake = Fake::start(&bus, World { before_reply, ..World::idle() });
    let mut command = bus.otactl(&["install", "http://h/x"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually(|| fake.world().running);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ran = Ran::finish(child);
    assert_eq!(ran.status, 130, "{ran:?}");
    assert!(ran.stderr.contains("code DETACHED"), "{ran:?}");
}

#[test]
fn a_daemon_that_vanishes_is_told_from_a_failure() {
    let bus = Bus::start();
    let script = vec![job("writing", 40, 4, 10), Step::Pause(20), Step::Vanish];
    let _fake = Fake::start(&bus, world(script));
    let ran = bus.run(&["install", "http://h/x"]);
    assert_eq!(ran.status, 5, "{ran:?}");
    assert!(ran.stderr.contains("in phase writing at 40 %"), "{ran:?}");
    assert!(ran.stderr.contains("code DAEMON_GONE"), "{ran:?}");
}

/// What `--wait-commit` makes of what happens after the install: each row is a story and its exit status.
#[test]
fn wait_commit_waits_through_restarts_until_the_verdict() {
    let good = |end: Dict, state: &'static str, slot: &'static str| {
        let mut script = good_job();
        script.extend([
            Step::Pause(20),
            Step::Vanish,
            Step::Pause(50),
            Step::Boot { slot: "b", state: "trial" },
            Step::Return,
            Step::Pause(50),
            Step::Vanish,
            Step::Boot { slot, state: "confirmed" },
            Step::Return,
            Step::Become(state, end),
        ]);
        script
    };
    let broken = |end: Dict, state: &'static str| {
        vec![
            job("writing", 40, 4, 10),
            Step::Vanish,
            Step::Boot { slot: "a", state: "confirmed" },
            Step::Pause(50),
            Step::Return,
            Step::Become(state, end),
        ]
    };
    let rolled_back = result("rolled-back", "2.1.0", "HEALTH_FAILED", "check net.sh exited with 1", 200);
    let interrupted = result("failed", "2.1.0", "INTERRUPTED", "otad stopped while writing", 200);
    for (story, script, status, says) in [
        (
            "committed",
            good(result("committed", "2.1.0", "", "", 200), "idle", "b"),
            0,
            "committed: 2.1.0 runs from slot b",
        ),
        (
            "rolled back",
            good(rolled_back, "failed", "a"),
            1,
            "check net.sh exited with 1\ncode HEALTH_FAILED",
        ),
        ("interrupted", broken(interrupted, "failed"), 1, "code INTERRUPTED"),
        ("forgotten", broken(Dict::new(), "idle"), 1, "knows nothing of this install"),
    ] {
        let bus = Bus::start();
        let _fake = Fake::start(&bus, world(script));
        let ran = bus.run(&["install", "http://h/x", "--reboot", "--wait-commit"]);
        assert_eq!(ran.status, status, "{story}: {ran:?}");
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains(says), "{story}: {ran:?}");
        assert!(ran.stderr.contains("waiting for it to come back"), "{story}: {ran:?}");
    }
}

#[test]
fn wait_commit_without_a_restart_needs_no_restart() {
    let bus = Bus::start();
    let mut script = good_job();
    script.extend([Step::Pause(100), Step::Become("idle", result("committed", "2.1.0", "", "", 200))]);
    // What happened before must not be taken for an answer.
    let last_result = result("committed", "2.1.0", "", "", 50);
    let _fake = Fake::start(&bus, World { last_result, ..world(script) });
    let ran = bus.run(&["install", "http://h/x", "--wait-commit", "--json"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let events = ran.json_lines();
    assert!(events.contains(&json!({"event": "waiting", "on": "reboot"})), "{events:?}");
    assert_eq!(events.last().unwrap()["result"]["outcome"], "committed");
}

#[test]
fn a_forged_end_is_not_believed() {
    let bus = Bus::start();
    let script = vec![
        job("writing", 40, 4, 10),
        Step::Forge,
        Step::Pause(100),
        Step::Removed("failed", "org.otad1.Error.IoWrite", "input/output error at 4096"),
    ];
    let _fake = Fake::start(&bus, world(script));
    let ran = bus.run(&["install", "http://h/x"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("IO_WRITE"), "{ran:?}");
}

/// A real terminal, made by script(1) of util-linux.
#[test]
fn on_a_terminal_there_is_a_bar_and_colours() {
    let bus = Bus::start();
    let mut script = vec![job("writing", 40, 40 << 20, 100 << 20), Step::Pause(400)];
    script.extend(good_job());
    let _fake = Fake::start(&bus, world(script));
    let on_terminal = |line: &str, no_color: &str| {
        let mut command = Command::new("script");
        command.args(["-qefc", line, "/dev/null"]).env("OTAD_BUS", &bus.address).env("TERM", "xterm");
        Ran::of({
            command.env("NO_COLOR", no_color).stdin(Stdio::null());
            command
        })
    };
    let otactl = env!("CARGO_BIN_EXE_otactl");
    let ran = on_terminal(&format!("stty cols 100; {otactl} install http://h/x"), "");
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stdout.contains(" 40 %  writing 2.1.0, 40.0 MiB of 100 MiB"), "{ran:?}");
    assert!(ran.stdout.contains("[=========>"), "{ran:?}");
    assert!(ran.stdout.contains("installed 2.1.0 into slot b"), "{ran:?}");
    let status = format!("{otactl} status");
    assert!(on_terminal(&status, "").stdout.contains("\x1b[32mconfirmed\x1b[0m"));
    assert!(!on_terminal(&status, "1").stdout.contains("\x1b["));
}

/// A reader that goes away ends otactl with a message and without a panic.
#[test]
fn a_closed_output_is_an_error_not_a_panic() {
    let bus = Bus::start();
    let _fake = Fake::start(&bus, World::idle());
    let mut command = bus.otactl(&["status"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::finish(child);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("cannot write the output"), "{ran:?}");
}
