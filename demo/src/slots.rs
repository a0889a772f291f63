//! The two slots: sparse files, or loop devices on them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cleanup::{Leftover, Ticket, make};
use crate::error::Error;
use crate::programs::{run, tool};

/// Names of the slots.
pub const SLOTS: [&str; 2] = ["a", "b"];

/// Where ext4 keeps its magic number: superblock at 1024, `s_magic` at 0x38 of it.
const EXT4_MAGIC_OFFSET_BYTES: u64 = 1024 + 0x38;
const EXT4_MAGIC: [u8; 2] = [0x53, 0xef];

/// What a slot is for otad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// A regular file; needs no rights.
    Files,
    /// A block device; needs root.
    LoopDevices,
    /// Loop devices where they can be made, else files.
    Best,
}

/// One slot.
#[derive(Debug)]
pub struct Slot {
    name: &'static str,
    /// The file that holds the bytes.
    medium: PathBuf,
    /// What otad is told: a link to the medium or to the loop device on it.
    device: PathBuf,
    /// Keeps the loop device, if it is one.
    attached: Option<Ticket>,
}

impl Slot {
    /// Makes an empty slot: `disk/slot-NAME.img` for the bytes and `dev/slot-NAME` for otad.
    pub(crate) fn make(dir: &Path, name: &'static str, bytes: u64, backing: Backing) -> Result<Slot, Error> {
        let medium = dir.join("disk").join(format!("slot-{name}.img"));
        let device = dir.join("dev").join(format!("slot-{name}"));
        let file = File::create_new(&medium).map_err(Error::io("create", &medium))?;
        file.set_len(bytes).map_err(Error::io("size", &medium))?;
        let attached = match backing {
            Backing::Files => None,
            Backing::LoopDevices => Some(attach(&medium)?),
            Backing::Best => attach(&medium).ok(),
        };
        let target = attached.as_ref().map_or(&medium, |(device, _)| device);
        std::os::unix::fs::symlink(target, &device).map_err(Error::io("link", &device))?;
        let ticket = attached.map(|(_, ticket)| ticket);
        Ok(Slot { name, medium, device, attached: ticket })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The path that otad is configured with.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// The file that holds the bytes: what is left when the power is cut.
    pub fn medium(&self) -> &Path {
        &self.medium
    }

    /// Whether it is a block device.
    pub fn is_loop(&self) -> bool {
        self.attached.is_some()
    }

    /// Fills the slot with an image, as the factory does.
    pub(crate) fn fill(&self, image: &Path) -> Result<(), Error> {
        let mut source = File::open(image).map_err(Error::io("open", image))?;
        let mut target =
            File::options().write(true).open(&self.device).map_err(Error::io("open", &self.device))?;
        std::io::copy(&mut source, &mut target).map_err(Error::io("fill", &self.device))?;
        target.sync_all().map_err(Error::io("flush", &self.device))
    }

    /// The slot's first bytes, from the medium.
    pub(crate) fn read(&self, bytes: usize) -> Result<Vec<u8>, Error> {
        let file = File::open(&self.medium).map_err(Error::io("open", &self.medium))?;
        let mut content = vec![0; bytes];
        file.read_exact_at(&mut content, 0).map_err(Error::io("read", &self.medium))?;
        Ok(content)
    }

    /// Whether the boot loader can load a kernel from it. It would read the file system, which begins with the
    /// superblock; a slot whose head was zeroed has none.
    pub fn loadable(&self) -> bool {
        let mut magic = [0; EXT4_MAGIC.len()];
        let read =
            File::open(&self.device).and_then(|file| file.read_exact_at(&mut magic, EXT4_MAGIC_OFFSET_BYTES));
        read.is_ok() && magic == EXT4_MAGIC
    }
}

fn attach(medium: &Path) -> Result<(PathBuf, Ticket), Error> {
    let losetup = tool("losetup")?;
    make(|| {
        let output = run(Command::new(losetup).args(["--find", "--show"]).arg(medium))?;
        let device = PathBuf::from(String::from_utf8_lossy(&output).trim_end());
        Ok((device.clone(), Leftover::LoopDevice(device)))
    })
}

/// Detaches loop devices that an earlier program left on files of a directory.
pub fn detach_leftovers(dir: &Path) {
    let Ok(losetup) = tool("losetup") else { return };
    for name in SLOTS {
        let medium = dir.join("disk").join(format!("slot-{name}.img"));
        let listed = run(Command::new(&losetup)
            .args(["--noheadings", "--output", "NAME", "--associated"])
            .arg(&medium));
        for device in String::from_utf8_lossy(&listed.unwrap_or_default()).lines() {
            // In use by somebody: then they are the ones to detach it.
            let _ = run(Command::new(&losetup).args(["--detach", device.trim()]));
        }
    }
}
