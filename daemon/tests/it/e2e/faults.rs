//! Interruptions of the real process on real devices.

use std::fs;
use std::process::Stdio;

use super::shelf::{PATIENCE, Rig, said, shelf};

/// A device whose install is halfway: the pipe has brought half of the bundle and no more is coming yet.
struct Halfway {
    otactl: std::process::Child,
    rest: Vec<u8>,
}

impl Halfway {
    fn start(rig: &Rig) -> Halfway {
        use std::io::Write as _;
        let mut command = rig.device.otactl_command();
        command.args(["install", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut otactl = command.spawn().unwrap();
        let bundle = fs::read(shelf().bundle(2)).unwrap();
        let (front, rest) = bundle.split_at(bundle.len() / 2);
        otactl.stdin.as_mut().unwrap().write_all(front).unwrap();
        rig.wait("the install to write", |status| {
            status.job.as_ref().is_some_and(|job| job.phase == "writing")
        });
        Halfway { otactl, rest: rest.to_vec() }
    }
}

impl Drop for Halfway {
    fn drop(&mut self) {
        let _ = self.otactl.kill();
        let _ = self.otactl.wait();
        let _ = self.rest.len();
    }
}

/// D2, P2: kill -9 in the middle of writing, and power off in the middle of writing.
#[test]
fn an_interrupted_install_settles_and_can_be_repeated() {
    for power in [false, true] {
        let mut rig = Rig::start(|device| device);
        let halfway = Halfway::start(&rig);
        if power {
            rig.device.power_off();
            rig.device.power_on().unwrap();
        } else {
            rig.device.kill_otad();
        }
        drop(halfway);
        let status = rig.wait("the interruption to be told", |status| status.state == "failed");
        let last = status.last_result.clone().unwrap();
        assert_eq!((last.outcome.as_str(), last.code.as_str()), ("failed", "INTERRUPTED"));
        assert_eq!(
            (status.booted_slot.as_str(), status.slot("b").unwrap().state.as_str()),
            ("a", "disarmed")
        );
        assert!(
            rig.device.slot_bytes("b", 128 * 1024).unwrap().iter().all(|&byte| byte == 0),
            "not loadable by anybody"
        );
        rig.update_for_good(2, "b");
        assert!(rig.holds("b", 2));
    }
}

/// D1: while one install runs, a second is refused at once and the first does not notice; cancelling works.
#[test]
fn one_install_at_a_time() {
    let rig = Rig::start(|device| device);
    let halfway = Halfway::start(&rig);
    let second = rig.install(3);
    assert_eq!(second.status.code(), Some(4), "{}", said(&second));
    assert!(said(&second).contains("BUSY"));
    for act in ["reboot", "rollback"] {
        assert_eq!(rig.otactl(&[act]).status.code(), Some(4), "{act}");
    }
    assert!(rig.otactl(&["cancel"]).status.success());
    let status = rig.wait("the cancellation", |status| status.state == "idle" && status.job.is_none());
    assert_eq!(status.last_outcome(), "cancelled");
    assert_eq!(status.slot("b").unwrap().state, "disarmed", "a slot that was being written stays disarmed");
    drop(halfway);
    rig.update_for_good(2, "b");
}

/// D3: a second daemon on the same device goes away with 75 and names the first.
#[test]
fn a_second_daemon_is_kept_out() {
    let rig = Rig::start(|device| device);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_otad"))
        .arg("--config")
        .arg(rig.device.config_path())
        .args(["--bus", rig.device.bus_address()])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(75), "{second:?}");
    assert!(said(&second).contains("ALREADY_RUNNING"));
    assert_eq!(rig.device.status().unwrap().state, "idle");
}

/// E1: one copy of the environment is destroyed; nothing is lost, and the next act repairs it.
/// E2: both are; the system comes up on the built-in default, and the environment is rebuilt once it is healthy.
#[test]
fn lost_environments_come_back() {
    let mut rig = Rig::start(|device| device);
    rig.update_for_good(2, "b");
    rig.device.power_off();
    destroy_copy(&rig, 0);
    rig.device.power_on().unwrap();
    rig.wait("slot b with one copy", |status| status.rests_in("b"));

    rig.device.power_off();
    for copy in [0, 1] {
        destroy_copy(&rig, copy);
    }
    rig.device.power_on().unwrap();
    // The built-in default tries slot a first, and slot a holds a whole version 1.
    let status = rig.wait("the environment to be rebuilt", |status| !status.primary_slot.is_empty());
    assert_eq!(status.booted_slot, status.primary_slot);
    let environment = rig.device.environment().unwrap();
    assert_eq!(
        environment.get_str("ethaddr"),
        Some("02:00:00:00:00:01"),
        "the board's own variables are back"
    );
    rig.update_for_good(
        3 - u64::from(status.version == "1.0.0"),
        if status.booted_slot == "a" { "b" } else { "a" },
    );
}

/// Erases one of the two copies, as a card does that loses power while it moves a block.
fn destroy_copy(rig: &Rig, copy: u64) {
    use std::os::unix::fs::FileExt as _;
    let config = fs::read_to_string(rig.device.dir().join("fw_env.config")).unwrap();
    let line = config.lines().filter(|line| !line.starts_with('#')).nth(copy as usize).unwrap().to_owned();
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
    let device = fs::OpenOptions::new().write(true).open(words[0]).unwrap();
    device.write_all_at(&vec![0xff; number(words[2]) as usize], number(words[1])).unwrap();
}

/// S4: a full data partition is noticed before anything is touched.
#[test]
fn a_full_data_partition_refuses_before_anything_is_touched() {
    let mut rig = Rig::start(|device| device);
    rig.device.power_off();
    let data = rig.device.dir().join("data");
    let _mounted = SmallDisk::mount(&data);
    rig.device.power_on().unwrap();
    rig.device.wait_for("otad", PATIENCE, |status| status.booted_slot == "a").unwrap();
    let output = rig.install(2);
    assert!(said(&output).contains("NO_SPACE"), "{}", said(&output));
    assert!(said(&output).contains("bytes free"), "{}", said(&output));
}

/// A data directory with 128 KiB.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path) -> SmallDisk {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"])
            .arg(at)
            .status();
        assert!(status.unwrap().success(), "mounting needs root");
        SmallDisk(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// S10: a bit that flips after the read-back and before the boot: in a file that the health checks look at it ends the trial, in what the boot
/// loader must read it starts the old slot at once. Either way that runs on, and says what it was.
#[test]
fn s10_a_bit_that_flips_before_the_boot_is_rolled_back() {
    use std::os::unix::fs::FileExt as _;
    let image = fs::read(shelf().image(2)).unwrap();
    let check = b"exit 0\n";
    let check = image.windows(check.len()).position(|bytes| bytes == check).unwrap() + check.len() - 2;
    let magic_of_ext4 = 0x438;
    let ends =
        [(check, ("rolled-back", "HEALTH_FAILED")), (magic_of_ext4, ("failed", "BOOTLOADER_IGNORED_SWITCH"))];
    for (place, end) in ends {
        let rig = Rig::start(|device| device.scheme(bootenv::SchemeKind::Bootcount, 1));
        assert!(rig.install(2).status.success());
        let target = rig.device.machine().slot("b").unwrap().device().to_owned();
        let target = fs::OpenOptions::new().write(true).open(target).unwrap();
        target.write_all_at(&[image[place] ^ 1], place as u64).unwrap();
        target.sync_all().unwrap();
        assert!(rig.otactl(&["reboot"]).status.success());
        let status = rig.wait("the rollback", |status| status.state == "failed");
        let last = status.last_result.unwrap();
        assert_eq!((last.outcome.as_str(), last.code.as_str()), end, "{}", last.message);
        assert_eq!((status.version.as_str(), status.booted_slot.as_str()), ("1.0.0", "a"));
    }
}
