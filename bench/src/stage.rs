//! Where everything happens: a directory on the disk and a tmpfs, both empty at the start. Whoever keeps watch removes them.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::error::Error;
use crate::slot::Medium;

/// The two places. The tmpfs is mounted in a mount namespace of this program only.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: PathBuf,
}

impl Stage {
    /// Makes it new in `dir`.
    pub(crate) fn new(dir: &Path) -> Result<Stage, Error> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", dir)(error));
            }
            _ => {}
        }
        let stage = Stage { dir: dir.to_owned() };
        let memory = stage.on(Medium::Memory);
        fs::create_dir_all(&memory).map_err(Error::io("create", &memory))?;
        let disk = stage.on(Medium::Disk);
        fs::create_dir_all(&disk).map_err(Error::io("create", &disk))?;
        let none: Option<&str> = None;
        mount(Some("otad-bench"), &memory, Some("tmpfs"), MsFlags::empty(), none)
            .map_err(|error| Error::io("mount a tmpfs on", &memory)(error.into()))?;
        Ok(stage)
    }

    /// The directory on that medium.
    pub(crate) fn on(&self, medium: Medium) -> PathBuf {
        self.dir.join(match medium {
            Medium::Memory => "memory",
            Medium::Disk => "disk",
        })
    }

    /// A new empty directory on that medium.
    pub(crate) fn room(&self, medium: Medium, name: &str) -> Result<PathBuf, Error> {
        let room = self.on(medium).join(name);
        let _ = fs::remove_dir_all(&room);
        fs::create_dir_all(&room).map_err(Error::io("create", &room))?;
        Ok(room)
    }
}
