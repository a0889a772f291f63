//! The commands that look: status, once and following, and the history.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::device::{good_job, job, result, world};
use crate::fake::{Bus, Fake, Ran, Step, World};

/// I8: state, reason and slots of a device whose last update was rolled back.
#[test]
fn status_tells_what_runs_and_why_the_last_update_failed() {
    let bus = Bus::start();
    let last_result =
        result("rolled-back", "2.1.0", "HEALTH_FAILED", "check net.sh\x1b[2J exited with 1", 1_795_365_942);
    let fake = Fake::start(&bus, World { state: "failed".to_owned(), last_result, ..World::idle() });
    let ran = bus.run(&["status"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let expected = "\
failed: the last update did not succeed (HEALTH_FAILED); slot a (2.0.0) runs

SLOT                   STATE      VERSION  SEQ  RELEASE       INSTALLED
a     booted, primary  confirmed  2.0.0    41   aaaaaaaaaaaa  2026-11-22 16:45:42Z
b                      disarmed   2.1.0    42   bbbbbbbbbbbb  -

device       acme-gateway
slot a       rootfs=/dev/disk/by-partlabel/rootfs-a
slot b       rootfs=/dev/disk/by-partlabel/rootfs-b
last result  rolled-back
             2.1.0 to slot b, 2026-11-22 16:45:42Z
             HEALTH_FAILED: check net.sh\u{fffd}[2J exited with 1
";
    assert_eq!(ran.stdout, expected);
    for (state, booted, says) in [
        ("idle", "a", "idle: slot a (2.0.0) is confirmed\n"),
        ("idle", "", "idle: the running slot is not known"),
        ("post-upgrade", "a", "post-upgrade: slot a (2.0.0) is armed; its trial starts with the next boot"),
    ] {
        state.clone_into(&mut fake.world().state);
        booted.clone_into(&mut fake.world().booted);
        let ran = bus.run(&["status"]);
        assert!(ran.stdout.starts_with(says), "{state}: {ran:?}");
    }
}

#[test]
fn status_has_a_stable_json_form() {
    let bus = Bus::start();
    let _fake = Fake::start(&bus, World::idle());
    let ran = bus.run(&["status", "--json"]);
    let slot = |name: &str, state: &str, runs: bool, version: &str, sequence: u64, installed_at: u64| {
        json!({"name": name, "state": state, "booted": runs, "primary": runs, "version": version, "sequence": sequence,
            "release": name.repeat(64), "installed_at": installed_at,
            "images": {"rootfs": format!("/dev/disk/by-partlabel/rootfs-{name}")}})
    };
    assert_eq!(
        ran.json_lines(),
        [json!({"state": "idle", "compatible": "acme-gateway", "version": "2.0.0", "booted_slot": "a",
            "primary_slot": "a", "api_revision": 1, "job": null, "last_result": null, "problems": [],
            "root_version": 0, "sequence_floor": 0,
            "slots": [slot("a", "confirmed", true, "2.0.0", 41, 1_795_365_942), slot("b", "disarmed", false, "2.1.0", 42, 0)]})]
    );
}

/// D7: after a dropped session, `status --follow` shows the running install again and ends with it.
#[test]
fn status_follow_reattaches_to_a_running_install() {
    let bus = Bus::start();
    let mut script = vec![job("writing", 40, 4, 10), Step::Pause(800), job("flushing", 85, 0, 0)];
    script.push(Step::Become("post-upgrade", result("installed", "2.1.0", "", "", 100)));
    script.push(Step::Removed("done", "", ""));
    let _fake = Fake::start(&bus, World { running: true, ..world(script) });
    let ran = bus.run(&["status", "--follow"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stderr.contains("flushing 2.1.0"), "{ran:?}");
    assert!(ran.stdout.starts_with("post-upgrade: "), "{ran:?}");
}

#[test]
fn status_follow_shows_changes_until_the_interrupt() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, world(good_job()));
    let mut command = bus.otactl(&["status", "--follow", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(bus.run(&["install", "http://h/x", "-q"]).status, 0);
    std::thread::sleep(Duration::from_millis(300));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ran = Ran::finish(child);
    assert_eq!(ran.status, 0, "{ran:?}");
    let events = ran.json_lines();
    assert_eq!((&events[0]["event"], &events[0]["state"]), (&json!("status"), &json!("idle")), "{events:?}");
    assert_eq!(events.last().unwrap()["state"], "post-upgrade", "{events:?}");
    drop(fake);
}

#[test]
fn log_is_a_table_and_an_array() {
    let bus = Bus::start();
    let fake = Fake::start(&bus, World::idle());
    assert_eq!(bus.run(&["log"]).stdout, "no update has been tried on this device yet\n");
    assert_eq!(bus.run(&["log", "--json"]).stdout, "[]\n");
    fake.world().history = vec![
        result("committed", "2.0.0", "", "", 1_795_365_942),
        result("rolled-back", "2.1.0", "HEALTH_FAILED", "check net.sh exited with 1", 0),
    ];
    let expected = "\
TIME                  OUTCOME      VERSION  SEQ  SLOT  RELEASE
2026-11-22 16:45:42Z  committed    2.0.0    42   b     bbbbbbbbbbbb
-                     rolled-back  2.1.0    42   b     bbbbbbbbbbbb
  HEALTH_FAILED: check net.sh exited with 1
";
    assert_eq!(bus.run(&["log"]).stdout, expected);
    let entries = bus.run(&["log", "--json"]).json_lines();
    assert_eq!(entries[0][1]["code"], "HEALTH_FAILED");
    assert_eq!(entries[0].as_array().unwrap().len(), 2);
}
