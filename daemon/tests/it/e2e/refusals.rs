//! What is refused, each with its own code, and what that leaves behind: nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use otad_bundle::SigningKey;

use super::shelf::{Rig, said, shelf};
use crate::system::device::Loop;

/// A device with version 2 committed in slot b and version 1 confirmed in slot a: what is refused beforehand must leave
/// slot a as bootable as it is.
struct Settled {
    rig: Rig,
    environment: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Settled {
    fn new() -> Settled {
        let rig = Rig::start(|device| device);
        rig.update_for_good(2, "b");
        let environment = variables(&rig);
        Settled { rig, environment }
    }

    /// The bundle is refused with this code and exit status, and the other slot is as it was.
    fn refuses(&self, bundle: &Path, code: &str, exit: i32) {
        let output = self.rig.otactl(&["install", bundle.to_str().unwrap()]);
        let said = said(&output);
        assert!(said.contains(code), "{}: wanted {code}, got {said}", bundle.display());
        assert_eq!(output.status.code(), Some(exit), "{said}");
        assert_eq!(variables(&self.rig), self.environment, "{code}: the environment changed");
        let status = self.rig.device.status().unwrap();
        assert_eq!(status.slot("a").unwrap().state, "confirmed", "{code}: slot a can no longer boot");
    }
}

fn variables(rig: &Rig) -> Vec<(Vec<u8>, Vec<u8>)> {
    let environment = rig.device.environment().unwrap();
    environment.iter().map(|(name, value)| (name.to_vec(), value.unwrap_or_default().to_vec())).collect()
}

fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(shelf().bundle(3)).unwrap();
    change(&mut bytes);
    let path = shelf().path(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// B1, B2, B8, B9, B13, N13, V1, D6: refused before the target is disarmed, because all of it can be known.
#[test]
fn what_can_be_known_beforehand_is_refused_beforehand() {
    let settled = Settled::new();

    let other_key = shelf().path("other-key.otab");
    shelf().make_bundle(3, "demo-board", 3, &other_key, &SigningKey::generate());
    settled.refuses(&other_key, "SIG_UNTRUSTED", 3);

    let other_board = shelf().path("other-board.otab");
    shelf().make_bundle(3, "other-board", 3, &other_board, shelf().key());
    settled.refuses(&other_board, "INCOMPATIBLE", 3);

    let older = shelf().path("older.otab");
    shelf().make_bundle(3, "demo-board", 1, &older, shelf().key());
    settled.refuses(&older, "DOWNGRADE", 3);

    let page = shelf().path("page.otab");
    fs::write(&page, "<html><body>Please log in</body></html>").unwrap();
    settled.refuses(&page, "NOT_A_BUNDLE", 3);

    settled.refuses(&changed("cut-in-manifest.otab", |bytes| bytes.truncate(1500)), "BUNDLE_TRUNCATED", 3);
    // One bit in the manifest (the second member's data begins at byte 1536), one in a tar header.
    settled.refuses(&changed("manifest-bit.otab", |bytes| bytes[1600] ^= 1), "SIG_INVALID", 3);
    settled.refuses(&changed("header-bit.otab", |bytes| bytes[1024 + 136] ^= 1), "BUNDLE_FORMAT", 3);
}

/// B13: an image that is larger than the slot.
#[test]
fn an_image_larger_than_the_slot_is_refused_beforehand() {
    let rig = Rig::start(|device| device);
    let large = shelf().path("large.img");
    if !large.exists() {
        fs::File::create(&large).unwrap().set_len(super::shelf::IMAGE_BYTES * 2).unwrap();
    }
    fs::copy(&large, shelf().image(9)).unwrap();
    let bundle = shelf().path("large.otab");
    shelf().make_bundle(9, "demo-board", 9, &bundle, shelf().key());
    let output = rig.otactl(&["install", bundle.to_str().unwrap()]);
    assert!(said(&output).contains("IMAGE_TOO_LARGE"), "{}", said(&output));
    assert!(said(&output).contains("33554432"), "the message has the numbers: {}", said(&output));
}

/// B2: a flipped bit in the payload is found before a byte of that chunk is decoded or written; the target is dirty and
/// says so, and the same release can be installed afterwards.
#[test]
fn a_flipped_bit_in_the_payload_is_found() {
    let rig = Rig::start(|device| device);
    let flipped = changed("payload-bit.otab", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    });
    let output = rig.otactl(&["install", flipped.to_str().unwrap()]);
    assert!(said(&output).contains("HASH_MISMATCH"), "{}", said(&output));
    let status = rig.device.status().unwrap();
    assert_eq!((status.state.as_str(), status.slot("b").unwrap().state.as_str()), ("failed", "disarmed"));
    assert!(
        rig.device.slot_bytes("b", 128 * 1024).unwrap().iter().all(|&byte| byte == 0),
        "the head stays zero"
    );
    let cut = changed("payload-cut.otab", |bytes| bytes.truncate(bytes.len() - 700));
    assert!(said(&rig.otactl(&["install", cut.to_str().unwrap()])).contains("BUNDLE_TRUNCATED"));
    rig.update_for_good(2, "b");
}

/// V2: what runs already is not written again, and that is no error.
#[test]
fn what_runs_already_is_not_installed_again() {
    let rig = Rig::start(|device| device);
    rig.update_for_good(2, "b");
    let output = rig.install(2);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let status = rig.device.status().unwrap();
    assert_eq!((status.state.as_str(), status.slot("a").unwrap().state.as_str()), ("idle", "confirmed"));
}

/// S14: a target that somebody has mounted.
#[test]
fn a_mounted_target_is_refused() {
    let rig = Rig::start(|device| device);
    let slot = rig.device.machine().slot("b").unwrap();
    assert!(slot.is_loop(), "this test needs loop devices: run it as root");
    // Something that can be mounted.
    let loop_device = slot.device().canonicalize().unwrap();
    fs::write(&loop_device, fs::read(shelf().image(1)).unwrap()).unwrap();
    let mount_point = rig.dir.path().join("mnt");
    fs::create_dir(&mount_point).unwrap();
    let _mounted = Mounted::new(&loop_device, &mount_point);
    let output = rig.install(2);
    assert!(said(&output).contains("SLOT_BUSY") && said(&output).contains("mounted on"), "{}", said(&output));
}

/// X2: a configuration whose target is the running slot by another name.
#[test]
fn the_running_slot_is_never_the_target() {
    let mut rig = Rig::start(|device| device);
    rig.device.power_off();
    // Both names lead to the device of slot a.
    let (a, b) = (rig.device.machine().slot("a").unwrap(), rig.device.machine().slot("b").unwrap());
    let (real, name) = (a.device().canonicalize().unwrap(), b.device().to_owned());
    fs::remove_file(&name).unwrap();
    std::os::unix::fs::symlink(real, &name).unwrap();
    rig.device.power_on().unwrap();
    rig.wait("otad", |status| status.booted_slot == "a");
    let before = rig.device.slot_bytes("a", 1 << 20).unwrap();
    let output = rig.install(2);
    assert!(said(&output).contains("SLOT_IS_RUNNING"), "{}", said(&output));
    assert!(rig.device.slot_bytes("a", 1 << 20).unwrap() == before);
}

/// A partition of a loop device, behind the name of slot b.
struct Partitioned {
    disk: Loop,
    medium: PathBuf,
}

impl Partitioned {
    const SECTORS: u64 = (super::shelf::IMAGE_BYTES + (1 << 20)) / 512;

    fn new(rig: &Rig) -> Partitioned {
        let medium = rig.dir.path().join("disk.img");
        Partitioned { disk: Loop::new(&medium, 64 << 20), medium }
    }

    /// What the kernel takes for partition 2 from now on, as after another partition table.
    fn lies_at(&self, start: u64, sectors: u64) {
        let device = &self.disk.0;
        let _ = Command::new("delpart").args([device, "2"]).stderr(std::process::Stdio::null()).status();
        let numbers = [&start.to_string(), &sectors.to_string()];
        let added = Command::new("addpart").args([device, "2"]).args(numbers).status();
        assert!(added.unwrap().success(), "addpart {device} 2 {start} {sectors}");
    }
}

impl Drop for Partitioned {
    fn drop(&mut self) {
        let _ = Command::new("delpart").args([&self.disk.0, "2"]).status();
    }
}

/// S17: a partition that is not where it was is not written, until somebody says that it was meant.
#[test]
fn a_slot_that_moved_on_its_disk_is_not_written() {
    let mut rig = Rig::start(|device| device);
    let disk = Partitioned::new(&rig);
    let again = |rig: &mut Rig| {
        rig.device.power_off();
        rig.device.power_on().unwrap();
        rig.wait("otad", |status| status.booted_slot == "a").problems
    };
    disk.lies_at(2048, Partitioned::SECTORS);
    let name = rig.device.machine().slot("b").unwrap().device().to_owned();
    fs::remove_file(&name).unwrap();
    std::os::unix::fs::symlink(format!("{}p2", disk.disk.0), &name).unwrap();
    assert_eq!(again(&mut rig), Vec::new(), "what is seen for the first time is right");
    let learnt = rig.device.dir().join("data/layout");
    let line = format!("2048 {} {}\n", Partitioned::SECTORS, name.display());
    assert_eq!(fs::read_to_string(&learnt).unwrap(), line);

    for (start, sectors) in [(4096, Partitioned::SECTORS), (2048, Partitioned::SECTORS + 8)] {
        disk.lies_at(start, sectors);
        let problems = again(&mut rig);
        assert!(matches!(&problems[..], [problem] if problem.code == "LAYOUT_CHANGED"), "{problems:?}");
        let before = fs::read(&disk.medium).unwrap();
        let output = rig.install(2);
        let text = said(&output);
        assert!(
            text.contains("LAYOUT_CHANGED") && text.contains("2048") && text.contains(&sectors.to_string()),
            "{text}"
        );
        assert!(fs::read(&disk.medium).unwrap() == before, "a byte of the disk changed");
    }

    // While otad runs, too, and when it is no partition any more.
    disk.lies_at(2048, Partitioned::SECTORS);
    assert_eq!(again(&mut rig), Vec::new());
    disk.lies_at(8192, Partitioned::SECTORS);
    assert!(said(&rig.install(2)).contains("LAYOUT_CHANGED"));
    let partition = fs::read_link(&name).unwrap();
    let leads_to = |device: &Path| {
        fs::remove_file(&name).unwrap();
        std::os::unix::fs::symlink(device, &name).unwrap();
    };
    leads_to(disk.disk.0.as_ref());
    let text = said(&rig.install(2));
    assert!(text.contains("LAYOUT_CHANGED") && text.contains("no partition"), "{text}");
    leads_to(&partition);

    // A file that is damaged is learnt anew, and so is one that somebody removed who changed the table and knows it.
    fs::write(&learnt, format!("8192 many {}\n", name.display())).unwrap();
    assert_eq!(again(&mut rig), Vec::new());
    assert_eq!(fs::read_to_string(&learnt).unwrap(), line.replace("2048", "8192"));
    fs::remove_file(&learnt).unwrap();
    let output = rig.install(2);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        fs::read_to_string(&learnt).unwrap(),
        line.replace("2048", "8192"),
        "learnt before it was written"
    );
}

/// X1: command line and root device do not agree.
#[test]
fn without_agreement_on_the_running_slot_nothing_is_written() {
    let rig = Rig::start(|device| device);
    let other = rig.device.machine().slot("b").unwrap().device().to_owned();
    fs::write(rig.device.dir().join("boot/root-device"), format!("{}\n", other.display())).unwrap();
    let process = rig.device.lights().otad;
    rig.device.kill_otad();
    rig.wait("otad again", |_| rig.device.lights().otad != process && rig.device.lights().otad.is_some());
    let output = rig.install(2);
    assert!(said(&output).contains("BOOTED_SLOT_AMBIGUOUS"), "{}", said(&output));
    assert_eq!(rig.device.status().unwrap().booted_slot, "");
    let shown = rig.otactl(&["status"]);
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("problem      BOOTED_SLOT_AMBIGUOUS"),
        "{shown:?}"
    );
}

/// X3, D1: an armed update stays armed when a bundle that was to replace it is refused, and marking the running slot good
/// does not stop the boot loader from counting its trial.
#[test]
fn an_armed_update_stays_armed() {
    let rig = Rig::start(|device| device);
    assert!(rig.install(2).status.success());
    let armed = variables(&rig);
    let other_board = shelf().path("other-board-2.otab");
    shelf().make_bundle(3, "other-board", 3, &other_board, shelf().key());
    let output = rig.otactl(&["install", other_board.to_str().unwrap()]);
    assert!(said(&output).contains("INCOMPATIBLE"), "{}", said(&output));
    let status = rig.device.status().unwrap();
    assert_eq!((status.state.as_str(), status.primary_slot.as_str()), ("post-upgrade", "b"));
    assert_eq!(variables(&rig), armed);
    let mark = super::bus::busctl(
        &rig,
        &["call", "org.otad1", "/org/otad1", "org.otad1.Manager", "Mark", "ss", "booted", "good"],
    );
    assert!(mark.status.success(), "{mark:?}");
    assert_eq!(rig.device.environment().unwrap().get_str("upgrade_available"), Some("1"));
    // A better bundle replaces it.
    rig.update_for_good(2, "b");
}

/// V1, I6: the floor is the highest sequence that was ever committed; going back to a slot that is there leaves it.
#[test]
fn going_back_does_not_open_the_way_for_older_releases() {
    let rig = Rig::start(|device| device);
    let newest = shelf().path("newest.otab");
    shelf().make_bundle(2, "demo-board", 10, &newest, shelf().key());
    assert!(rig.otactl(&["install", newest.to_str().unwrap()]).status.success());
    assert!(rig.otactl(&["reboot"]).status.success());
    rig.wait("sequence 10", |status| status.rests_in("b") && status.last_outcome() == "committed");
    // A way back that is not wanted after all costs nothing.
    assert!(rig.otactl(&["rollback"]).status.success());
    rig.wait("slot a to be armed", |status| status.state == "post-upgrade" && status.primary_slot == "a");
    assert!(rig.otactl(&["cancel"]).status.success());
    let status = rig.wait("rest", |status| status.state == "idle");
    assert_eq!((status.slot("a").unwrap().state.as_str(), status.primary_slot.as_str()), ("confirmed", "b"));
    // And one that is taken.
    assert!(rig.otactl(&["rollback"]).status.success());
    rig.wait("slot a to be armed", |status| status.state == "post-upgrade" && status.primary_slot == "a");
    assert!(rig.otactl(&["reboot"]).status.success());
    rig.wait("version 1 again", |status| status.rests_in("a") && status.state == "idle");
    let output = rig.install(2);
    assert!(
        said(&output).contains("DOWNGRADE") && said(&output).contains("10 was committed"),
        "{}",
        said(&output)
    );
}

/// D6: what is neither a file nor a pipe.
#[test]
fn other_descriptors_are_refused() {
    let rig = Rig::start(|device| device);
    for source in ["/dev/zero", "/"] {
        let output = rig.otactl(&["install", source]);
        assert!(
            !output.status.success() && said(&output).contains("INVALID_SOURCE"),
            "{source}: {}",
            said(&output)
        );
    }
}

struct Mounted(PathBuf);

impl Mounted {
    fn new(device: &Path, point: &Path) -> Mounted {
        let status = Command::new("mount").args(["-o", "ro"]).arg(device).arg(point).status().unwrap();
        assert!(status.success());
        Mounted(point.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
