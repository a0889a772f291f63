//! Real block devices (loop), and files as a device would have them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bootenv::format::Copy;
use bootenv::{ByteOrder, Changes, Config, EnvLock, Environment, FileStore, Layout, LockDirs, Store};

use crate::support::{Place, open, run, succeed};

/// A loop device over a file; detached when dropped, also by a failing test.
struct Loop {
    device: PathBuf,
    dir: tempfile::TempDir,
}

impl Loop {
    fn new(size: u64) -> Loop {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        fs::File::create(&file).unwrap().set_len(size).unwrap();
        let output = succeed("losetup", ["--find".as_ref(), "--show".as_ref(), file.as_os_str()]);
        let device = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        Loop { device, dir }
    }

    fn config(&self, lines: &str) -> PathBuf {
        let path = self.dir.path().join("fw_env.config");
        fs::write(&path, lines.replace("DEV", self.device.to_str().unwrap())).unwrap();
        path
    }

    fn lock(&self) -> EnvLock {
        EnvLock::acquire(&LockDirs::new([self.dir.path().to_owned()]), Duration::from_secs(1)).unwrap()
    }

    fn disk(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("disk")).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run("losetup", ["--detach".as_ref(), self.device.as_os_str()]);
    }
}

fn environment(text: &str) -> Environment {
    bootenv::script::parse_environment(text.as_bytes()).unwrap()
}

#[test]
fn block_devices_hold_copies_at_their_offsets() {
    let device = Loop::new(1 << 20);
    // The second copy ends with the device; odd offsets are legal on a block device.
    for (lines, first, second) in [
        ("DEV 0x10000 0x4000\nDEV -0x4000 0x4000\n", 0x10000, 0xfc000),
        ("DEV 0x20200 0x1200\nDEV 0x30e00 0x1200\n", 0x20200, 0x30e00),
    ] {
        let config = device.config(lines);
        let mut env = open(&config);
        env.init(&device.lock(), &environment("a=1\nb=2\n")).unwrap();
        let size = env.store().size();
        env.commit(&device.lock(), &Changes::new().set("a", "3")).unwrap();
        let disk = device.disk();
        let decode =
            |at: usize| Copy::decode(&disk[at..at + size], Layout::Redundant, ByteOrder::NATIVE).unwrap();
        assert_eq!((decode(first).flags, decode(second).flags), (3, 2));
        assert!(decode(first).data.starts_with(b"a=3\0b=2\0\0"));
        assert!(disk[first - 0x200..first].iter().all(|&byte| byte == 0), "nothing else is touched");

        let theirs = succeed("fw_printenv", ["-c".as_ref(), config.as_os_str()]);
        assert_eq!(theirs.stdout, b"a=3\nb=2\n");
        let theirs = run("fw_setenv", ["-c".as_ref(), config.as_os_str(), "c".as_ref(), "4".as_ref()]);
        assert!(theirs.status.success());
        assert_eq!(env.load().unwrap().environment, environment("a=3\nb=2\nc=4\n"));
    }
}

/// The read goes to the device, not to a page cache: a change below the device is seen at once.
#[test]
fn reads_see_what_the_device_holds() {
    let device = Loop::new(1 << 20);
    let mut env = open(&device.config("DEV 0 0x4000\nDEV 0x4000 0x4000\n"));
    env.init(&device.lock(), &environment("a=1\n")).unwrap();
    env.load().unwrap();
    let disk = fs::OpenOptions::new().write(true).open(device.dir.path().join("disk")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&disk, &[0xee; 512], 0x4000).unwrap();
    disk.sync_all().unwrap();
    assert!(env.health().is_degraded());
}

#[test]
fn a_read_only_or_short_device_fails_and_the_other_copy_stays() {
    let device = Loop::new(1 << 20);
    let config = device.config("DEV 0 0x4000\nDEV 0x4000 0x4000\n");
    let mut env = open(&config);
    env.init(&device.lock(), &environment("a=1\n")).unwrap();
    let before = device.disk();
    succeed("blockdev", ["--setro".as_ref(), device.device.as_os_str()]);
    let error = env.commit(&device.lock(), &Changes::new().set("a", "2")).unwrap_err();
    assert_eq!(error.code(), "ENV_IO");
    assert!(error.to_string().contains("copy 2 still holds"), "{error}");
    succeed("blockdev", ["--setrw".as_ref(), device.device.as_os_str()]);
    assert_eq!(device.disk(), before);

    let mut env = open(&device.config("DEV 0 0x4000\nDEV 0xff000 0x4000\n"));
    let health = env.health();
    assert!(health.is_degraded());
    assert!(health.to_string().contains("it ends after 4096 of 16384 bytes"), "{health}");
    let mut env = open(&device.config("DEV 0 0x4000\nDEV -0x200000 0x4000\n"));
    assert!(env.health().to_string().contains("before the start of a device of 0x100000 bytes"));
}

/// A single copy in a file is replaced as a whole: the old file is intact until the new one has its name.
#[test]
fn a_single_copy_in_a_file_is_replaced_not_overwritten() {
    let place = Place::new(1, 0x1000);
    let file = &place.copies[0];
    fs::set_permissions(file, fs::Permissions::from_mode(0o640)).unwrap();
    let mut env = place.open();
    env.init(&place.lock(), &environment("a=1\n")).unwrap();
    let old = fs::File::open(file).unwrap();
    let inode = fs::metadata(file).unwrap().ino();
    env.commit(&place.lock(), &Changes::new().set("a", "2")).unwrap();
    assert!(env.store().replaces_atomically());
    assert_ne!(fs::metadata(file).unwrap().ino(), inode);
    assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o640);
    let kept = std::io::read_to_string(old).unwrap_or_default();
    assert!(!kept.contains("a=2"));
    assert_eq!(env.load().unwrap().environment, environment("a=2\n"));
    let names: Vec<_> =
        fs::read_dir(place.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{names:?}");

    // Through a symbolic link the file is replaced, not the link; what is around the copy stays.
    let link = place.path("link");
    std::os::unix::fs::symlink(file, &link).unwrap();
    fs::write(file, [vec![7; 0x200], fs::read(file).unwrap(), vec![8; 0x300]].concat()).unwrap();
    fs::write(place.config(), format!("{} 0x200 0x1000\n", link.display())).unwrap();
    place.open().commit(&place.lock(), &Changes::new().set("a", "3")).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let bytes = fs::read(file).unwrap();
    assert_eq!((bytes.len(), &bytes[..0x200], &bytes[0x1200..]), (0x1500, &[7; 0x200][..], &[8; 0x300][..]));
    assert_eq!(place.open().load().unwrap().environment, environment("a=3\n"));
}

/// E1: copies in files, one truncated: used and repaired by the library (libubootenv 0.3.2 would write defaults here).
#[test]
fn e1_a_truncated_file_is_a_bad_copy_and_is_repaired() {
    let place = Place::new(2, 0x1000);
    let mut env = place.open();
    env.init(&place.lock(), &environment("a=1\n")).unwrap();
    for copy in &place.copies {
        for len in [0, 3, 0xfff] {
            let file = fs::OpenOptions::new().write(true).open(copy).unwrap();
            file.set_len(len).unwrap();
            assert!(env.health().is_degraded());
            env.commit(&place.lock(), &Changes::new()).unwrap();
            assert!(env.health().is_healthy());
            assert_eq!(env.load().unwrap().environment, environment("a=1\n"));
        }
    }
    fs::remove_file(&place.copies[0]).unwrap();
    assert!(env.health().is_degraded());
    let error = env.commit(&place.lock(), &Changes::new()).unwrap_err();
    assert!(error.to_string().contains("copy 2 still holds"), "a device is never made up: {error}");
    assert!(!place.copies[0].exists());
    fs::remove_file(&place.copies[1]).unwrap();
    let error = env.load().unwrap_err();
    assert_eq!(error.code(), "ENV_IO", "a device that is not there is not a lost environment");
    assert!(
        error.to_string().ends_with("check the device, the configuration and the permissions"),
        "{error}"
    );
}

#[test]
fn what_cannot_hold_an_environment_is_refused() {
    let refused = |line: &str| FileStore::new(&Config::parse(line).unwrap()).unwrap_err().to_string();
    assert!(refused("/dev/null 0 0x1000").contains("is a character device"));
    assert!(refused("/ 0 0x1000").contains("is a directory"));
    assert!(refused("/dev/ubi0:env 0 0x1000").contains("raw flash (MTD) and UBI volumes are not"));
    let place = Place::new(1, 0x1000);
    let line = format!("{} -0x1000 0x1000", place.copies[0].display());
    let mut env = bootenv::BootEnv::new(FileStore::new(&Config::parse(&line).unwrap()).unwrap());
    assert!(env.health().to_string().contains("which only block devices have"));
    assert!(Path::new("/dev/null").exists());
}
