//! Power cycles of a machine without otad: what the boot loader and the kernel's first second do.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bootenv::{Changes, SchemeKind};
use otad_demo::machine::Boot;
use otad_demo::{Binaries, Device, image};
use tempfile::TempDir;

/// A small image whose userland is one file that names it.
fn small_image(dir: &Path, name: &str, panic: Option<&str>) -> std::path::PathBuf {
    let (tree, image) = (dir.join(format!("{name}-tree")), dir.join(format!("{name}.ext4")));
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/name"), name).unwrap();
    if let Some(why) = panic {
        fs::write(tree.join("etc/panic"), why).unwrap();
    }
    image::make(&tree, &image, 8 << 20).unwrap();
    image
}

fn device(dir: &TempDir, scheme: SchemeKind) -> Device {
    let image = small_image(dir.path(), "one", None);
    // Only the machine is used here; otad is never started.
    let binaries = Binaries::in_directory(dir.path());
    let builder = Device::builder(dir.path().join("device")).scheme(scheme, 3).slot_bytes(10 << 20);
    builder.factory_image(image).build(&binaries).unwrap()
}

fn running(slot: &str) -> Boot {
    Boot::Running { slot: slot.to_owned() }
}

/// Puts slot b on trial, as otad does.
fn arm_b(device: &Device) {
    let environment = device.environment().unwrap();
    let changes: Changes = device.machine().scheme().arm(&environment, "b").unwrap();
    let mut armed = environment;
    armed.apply(&changes).unwrap();
    device.machine().write_environment(&armed).unwrap();
}

fn fill(device: &Device, slot: &str, image: &Path) {
    let slot = device.machine().slot(slot).unwrap();
    File::options()
        .write(true)
        .open(slot.device())
        .unwrap()
        .write_all_at(&fs::read(image).unwrap(), 0)
        .unwrap();
}

fn value(device: &Device, name: &str) -> Option<String> {
    device.environment().unwrap().get_str(name).map(str::to_owned)
}

#[test]
fn the_factory_slot_boots_and_its_userland_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(&dir, SchemeKind::Bootcount);
    let before = fs::read(device.dir().join("disk/uboot.env")).unwrap();
    for _ in 0..2 {
        assert_eq!(device.machine().boot().unwrap(), running("a"));
    }
    assert_eq!(fs::read_to_string(device.dir().join("rootfs/etc/name")).unwrap(), "one");
    let command_line = fs::read_to_string(device.dir().join("boot/cmdline")).unwrap();
    assert_eq!(command_line, "otad.slot=a otad.bootcount=1\n");
    // A confirmed slot costs no write of the environment.
    assert_eq!(fs::read(device.dir().join("disk/uboot.env")).unwrap(), before);
}

#[test]
fn every_boot_has_an_id_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(&dir, SchemeKind::Bootcount);
    let boot_id = || {
        device.machine().boot().unwrap();
        fs::read_to_string(device.dir().join("boot/boot-id")).unwrap()
    };
    assert_ne!(boot_id(), boot_id());
}

/// A kernel that panics three times costs its slot the trial; then the other slot runs, and the environment says why.
#[test]
fn a_panicking_slot_is_given_up_after_its_boots() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(&dir, SchemeKind::Bootcount);
    fill(&device, "b", &small_image(dir.path(), "two", Some("no init found\n")));
    arm_b(&device);
    for _ in 0..3 {
        let panicked = Boot::Panicked { slot: "b".to_owned(), why: "no init found".to_owned() };
        assert_eq!(device.machine().boot().unwrap(), panicked);
    }
    assert_eq!(device.machine().boot().unwrap(), running("a"));
    assert_eq!(value(&device, "otad_rolled_back").as_deref(), Some("b"));
    let console = device.console().unwrap();
    assert_eq!(console.matches("Kernel panic - not syncing: no init found").count(), 3, "{console}");
}

/// E2: with both copies gone the built-in environment boots the slot that has a file system.
#[test]
fn a_lost_environment_boots_the_slot_that_can_be_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(&dir, SchemeKind::Bootcount);
    fill(&device, "b", &small_image(dir.path(), "two", None));
    let head = vec![0; 128 << 10];
    let slot = device.machine().slot("a").unwrap().device().to_owned();
    File::options().write(true).open(slot).unwrap().write_all_at(&head, 0).unwrap();
    let env = device.dir().join("disk/uboot.env");
    File::options().write(true).open(&env).unwrap().write_all_at(&[0xff; 0x8000], 0).unwrap();
    assert!(device.environment().is_err());
    assert_eq!(device.machine().boot().unwrap(), running("b"));
    let command_line = fs::read_to_string(device.dir().join("boot/cmdline")).unwrap();
    assert!(command_line.ends_with("otad.env=default\n"), "{command_line}");
}

/// E1: one bad copy is no reason to forget anything.
#[test]
fn a_bad_copy_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(&dir, SchemeKind::Bootcount);
    let env = device.dir().join("disk/uboot.env");
    for offset in [0, 0x4000] {
        let intact = fs::read(&env).unwrap();
        File::options().write(true).open(&env).unwrap().write_all_at(&[0x55; 64], offset).unwrap();
        assert_eq!(device.machine().boot().unwrap(), running("a"));
        assert_eq!(value(&device, "ethaddr").as_deref(), Some("02:00:00:00:00:01"));
        fs::write(&env, intact).unwrap();
    }
}

#[test]
fn slots_that_cannot_be_loaded_reset_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(&dir, SchemeKind::Bootcount);
    let slot = device.machine().slot("a").unwrap().device().to_owned();
    File::options().write(true).open(slot).unwrap().write_all_at(&[0; 4096], 0).unwrap();
    assert_eq!(device.machine().boot().unwrap(), Boot::Reset);
}

/// A file system whose beginning looks right and whose rest does not is a kernel panic, not an error of the demo.
#[test]
fn a_root_file_system_that_cannot_be_read_panics() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(&dir, SchemeKind::Bootcount);
    let slot = device.machine().slot("a").unwrap().device().to_owned();
    File::options().write(true).open(slot).unwrap().write_all_at(&vec![0xaa; 4 << 20], 4096).unwrap();
    assert!(matches!(device.machine().boot().unwrap(), Boot::Panicked { slot, .. } if slot == "a"));
}

#[test]
fn boot_order_counts_every_boot() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(&dir, SchemeKind::BootOrder);
    for left in ["2", "1", "0"] {
        assert_eq!(device.machine().boot().unwrap(), running("a"));
        assert_eq!(value(&device, "BOOT_A_LEFT").as_deref(), Some(left));
    }
    assert_eq!(device.machine().boot().unwrap(), Boot::Reset);
    assert_eq!(device.machine().boot().unwrap(), running("a"));
}

/// The slots are handed over as the configuration names them, and what is written there is on the medium.
#[test]
fn slots_are_what_the_configuration_names() {
    let dir = tempfile::tempdir().unwrap();
    let device = device(&dir, SchemeKind::Bootcount);
    let text = fs::read_to_string(device.config_path()).unwrap();
    for slot in device.machine().slots() {
        assert!(text.contains(&format!("images.rootfs = \"{}\"", slot.device().display())), "{text}");
    }
    let image = fs::read(dir.path().join("one.ext4")).unwrap();
    assert!(device.slot_bytes("a", image.len()).unwrap() == image);
}

/// A path that `fw_env.config` or a script would take apart is refused at once.
#[test]
fn directories_with_blanks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Device::builder(dir.path().join("with blank")).build(&Binaries::in_directory(dir.path()));
    assert!(refused.unwrap_err().to_string().contains("only letters, digits"));
}
