//! The story that must always work, and how it ends when the new version does not.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bootenv::SchemeKind;
use otad_demo::Server;

use super::shelf::{PATIENCE, Rig, said, shelf};

/// Both slots in turn, three updates: the target's bytes are the image's, and each is committed by its health.
#[test]
fn an_update_is_installed_tried_and_committed() {
    let rig = Rig::start(|device| device);
    assert_eq!(rig.device.status().unwrap().version, "1.0.0", "the factory image says what it is");
    let status = rig.update_for_good(2, "b");
    assert!(rig.holds("b", 2) && rig.holds("a", 1));
    let old = status.slot("a").unwrap();
    assert_eq!(
        (old.state.as_str(), old.version.as_str()),
        ("confirmed", "1.0.0"),
        "there is something to go back to"
    );
    // The other way round, over what is there: only chunks that differ are written.
    let before = std::fs::read_to_string(rig.device.otad_log_path()).unwrap().len();
    let forward = shelf().path("v2-again.otab");
    shelf().make_bundle(2, "demo-board", 5, &forward, shelf().key());
    assert!(rig.otactl(&["install", forward.to_str().unwrap()]).status.success());
    assert!(rig.holds("a", 2));
    let log = std::fs::read_to_string(rig.device.otad_log_path()).unwrap().split_off(before);
    let written: u64 =
        log.split("bytes fetched, ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(
        written < super::shelf::IMAGE_BYTES / 2,
        "{written} bytes written although most were there:\n{log}"
    );
}

/// Over the network only what the running slot lacks is fetched: by cutting a slot of the factory's, and by the kept index
/// of a slot that otad wrote. A running slot that changed since costs bytes and nothing else.
#[test]
fn what_the_running_slot_holds_is_not_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = otad_demo::Binaries::find().unwrap();
    let server = Server::start(&dir.path().join("server"), &shelf().path("root.toml"), &binaries).unwrap();
    let rig = Rig::start(|device| device);
    let update = |image: u64, sequence: u64, to: &str| {
        let bundle = dir.path().join(format!("{sequence}.otab"));
        shelf().make_bundle(image, "demo-board", sequence, &bundle, shelf().key());
        let url = server.artifact_url(&server.upload(&bundle).unwrap());
        let output = rig.otactl(&["install", &url]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(rig.holds(to, image));
        let log = std::fs::read_to_string(rig.device.otad_log_path()).unwrap();
        assert!(rig.otactl(&["reboot"]).status.success());
        rig.wait("the commit", |status| status.rests_in(to) && status.last_outcome() == "committed");
        (log, std::fs::metadata(bundle).unwrap().len())
    };
    // Half of the content of every version is the same 3 MiB.
    let saves = |(log, whole): (String, u64)| {
        let line = log.lines().rfind(|line| line.contains("is synced")).unwrap();
        let words = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
        let words: Vec<u64> = words.collect();
        let [fetched, _, _, taken] = words[..] else { panic!("{line}") };
        assert!(taken >= 2 << 20 && fetched < whole - (2 << 20), "of {whole} bytes: {line}");
    };
    saves(update(2, 10, "b"));
    // Slot a holds this already, and otad knows its index now.
    update(1, 11, "a");
    let blank = rig.device.machine().slot("b").unwrap().device().to_owned();
    let file = std::fs::OpenOptions::new().write(true).open(blank).unwrap();
    file.write_all_at(&vec![0x55; usize::try_from(super::shelf::IMAGE_BYTES).unwrap()], 0).unwrap();
    file.sync_all().unwrap();
    saves(update(2, 12, "b"));
}

/// A delta gives what the running slot lacks; one that is damaged, or for another release, costs bytes and nothing else.
#[test]
fn a_delta_is_taken_where_it_fits() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = otad_demo::Binaries::find().unwrap();
    let server = Server::start(&dir.path().join("server"), &shelf().path("root.toml"), &binaries).unwrap();
    let path = |name: &str| dir.path().join(name);
    for (image, sequence, name) in [(2, 10, "old"), (1, 11, "new")] {
        shelf().make_bundle(image, "demo-board", sequence, &path(name), shelf().key());
    }
    let url = |name: &str| server.artifact_url(&server.upload(&path(name)).unwrap());
    let (old, new) = (url("old"), url("new"));
    let make = |from: &str, to: &str, delta: &str| {
        otad_bundle::delta::make_delta(&path(from), &path(to), &path(delta), None, &mut |_| {}).unwrap();
        path(delta)
    };
    let give = |delta: &Path| {
        let route = format!("{}/api/v1/deltas", server.url());
        let upload = ["--silent", "--show-error", "--fail-with-body", "-X", "POST", "-T"];
        let output = Command::new("curl").args(upload).arg(delta).arg(route).output().unwrap();
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        format!("{}{}", server.url(), answer["url"].as_str().unwrap())
    };
    let fits = make("old", "new", "fits");
    let damaged = path("damaged");
    std::fs::copy(&fits, &damaged).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&damaged).unwrap();
    // The last piece: its chunks get other hashes, or it is no frame any more.
    file.write_all_at(&[0xa5; 64], file.metadata().unwrap().len() - 64).unwrap();
    let (fits, damaged, other) = (give(&fits), give(&damaged), give(&make("new", "old", "other")));

    let rig = Rig::start(|device| device);
    assert!(rig.otactl(&["install", &old, "--reboot"]).status.success());
    rig.wait("the commit", |status| status.rests_in("b") && status.last_outcome() == "committed");
    let blank = rig.device.machine().slot("a").unwrap().device().to_owned();
    let slot = std::fs::OpenOptions::new().write(true).open(blank).unwrap();
    let from_elsewhere = |delta: &str| {
        slot.write_all_at(&vec![0x55; usize::try_from(super::shelf::IMAGE_BYTES).unwrap()], 0).unwrap();
        slot.sync_all().unwrap();
        let before = std::fs::read_to_string(rig.device.otad_log_path()).unwrap().len();
        let output = rig.otactl(&["install", &new, "--delta", delta]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(rig.holds("a", 1), "{delta}");
        let log = std::fs::read_to_string(rig.device.otad_log_path()).unwrap().split_off(before);
        assert!(rig.otactl(&["cancel"]).status.success());
        let line = log.lines().rfind(|line| line.contains("is synced")).unwrap();
        let taken: u64 =
            line.split("held them, ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        (taken, log)
    };
    // 3 MiB are in the running slot, and 3 MiB are not.
    let (taken, log) = from_elsewhere(&fits);
    assert!(taken > 5 << 20 && !log.contains("bundle"), "{log}");
    let (taken, log) = from_elsewhere(&damaged);
    assert!(taken > 3 << 20 && log.contains("comes from the bundle"), "{log}");
    for useless in [&other, &new, &format!("{}/healthz", server.url())] {
        let (taken, log) = from_elsewhere(useless);
        assert!((2 << 20..4 << 20).contains(&taken) && log.contains("no delta"), "{log}");
    }
}

/// P8, H2: a version whose own self-test fails goes back by itself, with its reason, which reboots do not erase.
#[test]
fn a_version_that_is_not_healthy_is_rolled_back_with_its_reason() {
    let rig = Rig::start(|device| device);
    rig.update(3);
    let status = rig.wait("the rollback", |status| status.state == "failed");
    let last = status.last_result.clone().unwrap();
    assert_eq!(
        (last.outcome.as_str(), last.code.as_str(), last.slot.as_str()),
        ("rolled-back", "HEALTH_FAILED", "b")
    );
    assert!(
        last.message.contains("10-selftest") && last.message.contains("no calibration table"),
        "{}",
        last.message
    );
    assert_eq!((status.version.as_str(), status.booted_slot.as_str()), ("1.0.0", "a"));
    assert_eq!(status.slot("b").unwrap().state, "disarmed");
    assert!(rig.otactl(&["reboot"]).status.success());
    let boots = rig.device.lights().boots;
    rig.wait("the next boot", |_| rig.device.lights().boots > boots);
    let status = rig.wait("otad", |status| !status.booted_slot.is_empty());
    assert_eq!(status.last_result, Some(last), "the reason survives");
    assert!(rig.otactl(&["cancel"]).status.success());
    rig.wait("the failure to be acknowledged", |status| status.state == "idle");
}

/// X4: a boot loader that takes the kernel of another slot is found out on trial, where the image names its own. (Version 2 does, and
/// is committed by every other test.)
#[test]
fn a_version_on_the_kernel_of_another_slot_is_rolled_back() {
    let rig = Rig::start(|device| device);
    rig.update(5);
    let status = rig.wait("the rollback", |status| status.state == "failed");
    let last = status.last_result.unwrap();
    let running = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!((last.outcome.as_str(), last.code.as_str()), ("rolled-back", "KERNEL_SLOT_MISMATCH"));
    assert!(
        last.message.contains(running.trim()) && last.message.contains("2.6.39-other"),
        "both are named: {}",
        last.message
    );
    assert_eq!((status.version.as_str(), status.booted_slot.as_str()), ("1.0.0", "a"));
}

/// P8, H4, H7: a version whose otad never starts goes back by the boot counter, in both schemes.
#[test]
fn a_version_that_does_not_come_up_is_given_up_by_the_boot_loader() {
    for scheme in [SchemeKind::Bootcount, SchemeKind::BootOrder] {
        let rig = Rig::start(|device| device.scheme(scheme, 2));
        rig.update(4);
        let status = rig.wait("the rollback", |status| status.state == "failed");
        let last = status.last_result.unwrap();
        assert_eq!((last.outcome.as_str(), last.code.as_str()), ("rolled-back", "ROLLED_BACK"), "{scheme:?}");
        // One boot of version 1, at most limit + 1 on the way back.
        let boots = rig.device.lights().boots;
        assert!(boots <= 1 + 2 + 1, "{scheme:?}: {boots} boots\n{}", rig.device.console().unwrap());
        // And the device can still be updated.
        rig.update_for_good(2, "b");
    }
}

/// Going back from a committed version is a trial of the other slot, which is verified first.
#[test]
fn a_confirmed_version_can_be_left_again() {
    let rig = Rig::start(|device| device);
    rig.update_for_good(2, "b");
    let output = rig.otactl(&["rollback"]);
    assert!(output.status.success(), "{}", said(&output));
    rig.wait("slot a to be armed", |status| status.state == "post-upgrade" && status.primary_slot == "a");
    assert!(rig.otactl(&["reboot"]).status.success());
    let status = rig.wait("slot a to be committed", |status| status.rests_in("a") && status.state == "idle");
    assert_eq!(status.version, "1.0.0");
    // There and back: slot b was written by otad, so its hashes are known and checked.
    assert!(rig.otactl(&["rollback"]).status.success());
    rig.wait("slot b to be armed", |status| status.state == "post-upgrade" && status.primary_slot == "b");
    assert!(rig.otactl(&["reboot"]).status.success());
    assert_eq!(
        rig.wait("slot b again", |status| status.rests_in("b") && status.state == "idle").version,
        "2.0.0"
    );
}

/// D7: the daemon reads the pipe itself; whoever brought it may go.
#[test]
fn killing_otactl_does_not_stop_an_install_from_a_pipe() {
    use std::io::Write as _;
    let rig = Rig::start(|device| device);
    let mut otactl = rig.device.otactl_command();
    let mut otactl =
        otactl.args(["install", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let bundle = std::fs::read(shelf().bundle(2)).unwrap();
    let mut pipe = otactl.stdin.take().unwrap();
    pipe.write_all(&bundle[..bundle.len() / 2]).unwrap();
    rig.wait("the install to write", |status| status.job.as_ref().is_some_and(|job| job.phase == "writing"));
    otactl.kill().unwrap();
    otactl.wait().unwrap();
    pipe.write_all(&bundle[bundle.len() / 2..]).unwrap();
    drop(pipe);
    rig.wait("slot b to be armed", |status| status.state == "post-upgrade" && status.job.is_none());
    assert!(rig.holds("b", 2));
}

/// The server's release is taken, reported as it goes, and a release that failed is not taken again.
#[test]
fn the_server_sees_success_only_when_it_is_true() {
    use otad_demo::device::Reboot;
    let dir = tempfile::tempdir().unwrap();
    let binaries = otad_demo::Binaries::find().unwrap();
    let server = Server::start(&dir.path().join("server"), &shelf().path("root.toml"), &binaries).unwrap();
    server.upload(&shelf().bundle(2)).unwrap();
    let rig = Rig::start(|device| device.server(server.url(), 1).reboot(Reboot::Immediate).device_id("d-1"));
    rig.wait("version 2 to be committed", |status| status.rests_in("b") && status.version == "2.0.0");
    let outcomes = || {
        let mut reports = server.reports("d-1").unwrap();
        reports.reverse();
        reports
            .iter()
            .map(|report| format!("{} {}", report.outcome, report.version.clone().unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    wait_until("the reports", || outcomes() == ["installed 2.0.0", "committed 2.0.0"]);

    server.upload(&shelf().bundle(3)).unwrap();
    rig.wait("the rollback", |status| status.last_outcome() == "rolled-back");
    wait_until("its report", || outcomes().iter().any(|outcome| outcome == "rolled-back 3.0.0"));
    let reports = server.reports("d-1").unwrap();
    let rolled_back = reports.iter().find(|report| report.outcome == "rolled-back").unwrap();
    let log = rolled_back.log.join("\n");
    assert!(log.contains("no calibration table"), "the log of the failed boot: {log}");
    // Several offers later nothing has been tried again, and the server was told so: once.
    let boots = rig.device.lights().boots;
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(rig.device.lights().boots, boots);
    let codes: Vec<_> = server.reports("d-1").unwrap().into_iter().filter_map(|report| report.code).collect();
    assert_eq!(codes, ["RELEASE_FAILED_BEFORE", "HEALTH_FAILED"], "the newest first");
    let check = rig.otactl(&["check"]);
    assert!(said(&check).contains("RELEASE_FAILED_BEFORE"), "{check:?}");
    // A person may order it all the same.
    assert!(rig.install(3).status.success());
}

pub(super) fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}
