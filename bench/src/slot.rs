//! A slot: a loop device on a file of a fixed size.
//!
//! The file has no name once the device is on it, so it goes with the device. This program does not hold the device open: the
//! kernel flushes it when the last one closes it, and updaters may count on that.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::process::{command, run};

/// The kernel's unit in `/sys/block/*/stat`.
const SECTOR_BYTES: u64 = 512;

/// What a slot's bytes are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Medium {
    /// A tmpfs: no disk in the way.
    #[serde(rename = "tmpfs")]
    Memory,
    /// A disk's file system, past the page cache.
    #[serde(rename = "disk")]
    Disk,
}

impl Medium {
    /// A word for tables.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Medium::Memory => "tmpfs",
            Medium::Disk => "disk",
        }
    }
}

/// A loop device of this program.
#[derive(Debug)]
pub(crate) struct Slot {
    device: PathBuf,
}

impl Slot {
    /// Makes an empty one on a new file in `dir`.
    pub(crate) fn make(dir: &Path, medium: Medium, bytes: u64) -> Result<Slot, Error> {
        let path = dir.join("slot.img");
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        file.set_len(bytes).map_err(Error::io("size", &path))?;
        let direct = match medium {
            Medium::Memory => "--direct-io=off",
            Medium::Disk => "--direct-io=on",
        };
        let shown = run(command("losetup", &["--find", "--show", direct]).arg(&path));
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        Ok(Slot { device: PathBuf::from(String::from_utf8_lossy(&shown?).trim_end()) })
    }

    /// Its device.
    pub(crate) fn device(&self) -> &Path {
        &self.device
    }

    /// Fills its beginning with a file, and makes it durable.
    pub(crate) fn fill(&self, content: &Path) -> Result<(), Error> {
        let mut dd = command("dd", &["bs=4M", "conv=fsync", "oflag=direct", "status=none"]);
        dd.arg(format!("if={}", content.display())).arg(format!("of={}", self.device.display()));
        run(&mut dd).map(drop)
    }

    /// Compares its beginning with a file.
    ///
    /// # Errors
    /// They differ, and where.
    pub(crate) fn compare(&self, content: &Path) -> Result<(), Error> {
        let bytes = fs::metadata(content).map_err(Error::io("look at", content))?.len().to_string();
        run(command("cmp", &["-n", &bytes]).arg(content).arg(&self.device)).map(drop)
    }

    /// Bytes that were written to it so far, ranges that were zeroed included.
    pub(crate) fn written_bytes(&self) -> Result<u64, Error> {
        let name = self.device.file_name().unwrap_or_default().to_string_lossy();
        let path = PathBuf::from(format!("/sys/block/{name}/stat"));
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let sectors = text.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
        let unknown = || Error::Setup(format!("{} has no seventh number: {text}", path.display()));
        Ok(sectors.ok_or_else(unknown)? * SECTOR_BYTES)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // If it fails, whoever keeps watch does it again.
        let _ = run(command("losetup", &["--detach"]).arg(&self.device));
    }
}
