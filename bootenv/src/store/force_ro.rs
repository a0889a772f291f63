//! eMMC boot partitions are read-only until told otherwise.
//!
//! The kernel keeps `/dev/mmcblkXbootY` write-protected through `/sys/class/block/mmcblkXbootY/force_ro`. A write to the
//! environment lifts that for as long as it takes, and puts it back also when the write failed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel shows block devices.
pub const SYSFS_BLOCK: &str = "/sys/class/block";

/// Write access to a boot partition; dropping it without [`Unlocked::lock`] puts the protection back as well as it can.
#[derive(Debug)]
pub(super) struct Unlocked {
    switch: Option<PathBuf>,
}

impl Unlocked {
    /// Lifts the protection of `device` (a path without symbolic links) if it is an eMMC boot partition.
    pub(super) fn new(device: &Path, sysfs: &Path) -> io::Result<Unlocked> {
        let Some(name) = boot_partition(device) else { return Ok(Unlocked { switch: None }) };
        let switch = sysfs.join(name).join("force_ro");
        match fs::write(&switch, "0") {
            Ok(()) => Ok(Unlocked { switch: Some(switch) }),
            // Older kernels have no switch and no protection.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Unlocked { switch: None }),
            Err(error) => Err(with_path(&switch, "write 0 to", &error)),
        }
    }

    /// Puts the protection back.
    pub(super) fn lock(mut self) -> io::Result<()> {
        match self.switch.take() {
            Some(switch) => fs::write(&switch, "1").map_err(|error| with_path(&switch, "write 1 to", &error)),
            None => Ok(()),
        }
    }
}

impl Drop for Unlocked {
    fn drop(&mut self) {
        if let Some(switch) = &self.switch {
            // Reached only when the write itself failed, and that error is the one to report.
            let _ = fs::write(switch, "1");
        }
    }
}

fn with_path(path: &Path, act: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {act} {}: {error}", path.display()))
}

/// The kernel's name of an eMMC boot partition: `mmcblk`, a number, `boot`, a number.
fn boot_partition(device: &Path) -> Option<&str> {
    let name = device.file_name()?.to_str()?;
    let (card, partition) = name.strip_prefix("mmcblk")?.split_once("boot")?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (device.starts_with("/dev") && number(card) && number(partition)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(name: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(name)).unwrap();
        let switch = dir.path().join(name).join("force_ro");
        fs::write(&switch, "1").unwrap();
        (dir, switch)
    }

    #[test]
    fn protection_is_lifted_and_put_back() {
        let (dir, switch) = sysfs("mmcblk2boot0");
        let unlocked = Unlocked::new(Path::new("/dev/mmcblk2boot0"), dir.path()).unwrap();
        assert_eq!(fs::read(&switch).unwrap(), b"0");
        unlocked.lock().unwrap();
        assert_eq!(fs::read(&switch).unwrap(), b"1");
        drop(Unlocked::new(Path::new("/dev/mmcblk2boot0"), dir.path()).unwrap());
        assert_eq!(fs::read(&switch).unwrap(), b"1", "also after a failed write");
    }

    #[test]
    fn other_devices_are_left_alone() {
        let (dir, switch) = sysfs("mmcblk2boot0");
        for device in [
            "/dev/mmcblk2",
            "/dev/mmcblk2p1",
            "/dev/sda",
            "/tmp/mmcblk2boot0",
            "/dev/mmcblk2boot",
            "/dev/mmcblkxboot0",
        ] {
            Unlocked::new(Path::new(device), dir.path()).unwrap().lock().unwrap();
            assert_eq!(fs::read(&switch).unwrap(), b"1", "{device}");
        }
        Unlocked::new(Path::new("/dev/mmcblk0boot1"), dir.path()).unwrap().lock().unwrap();
    }
}
