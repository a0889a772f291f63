//! The machine of `backend = "file"`: a device made of files that the boot model starts.
//!
//! Whoever plays the power supply (the demo, a test) runs [`bootenv::model`] and leaves its outcome in the model
//! directory before it starts otad:
//!
//! | file | content |
//! |---|---|
//! | `boot-id` | an id that is new at every boot |
//! | `device-id` | the device's id |
//! | `root-device` | path of the device or file that `/` would be on |
//!
//! The command line is read from the configured `cmdline`, as on a real machine. A reboot is asked for by creating
//! `reboot`; otad then exits and the power supply boots the model again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use otad_bundle::DeviceKey;

use crate::config::{Config, Decrypt};
use crate::failure::Failure;
use crate::ports::{DeviceId, Kernel, Machine, SlotDevices as _};

use super::block::SystemDevices;
use super::device_key;
use super::machine::{kernel, read_named, read_optional};

/// The machine made of files.
#[derive(Debug)]
pub struct ModelMachine {
    dir: PathBuf,
    cmdline: PathBuf,
    image_info: PathBuf,
    default_env: PathBuf,
    decrypt: Option<Decrypt>,
}

impl ModelMachine {
    /// Takes the paths from the configuration.
    pub fn new(config: &Config, dir: &Path) -> Self {
        ModelMachine {
            dir: dir.to_owned(),
            cmdline: config.boot.cmdline.clone(),
            image_info: config.image_info.clone(),
            default_env: config.boot.default_env.clone(),
            decrypt: config.decrypt.clone(),
        }
    }

    fn line(&self, name: &str) -> io::Result<String> {
        let path = self.dir.join(name);
        let text = fs::read_to_string(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(text.trim_end().to_owned())
    }
}

impl Machine for ModelMachine {
    fn command_line(&self) -> io::Result<String> {
        fs::read_to_string(&self.cmdline)
    }

    fn root_device(&self) -> io::Result<DeviceId> {
        SystemDevices.identify(Path::new(&self.line("root-device")?))
    }

    fn boot_id(&self) -> io::Result<String> {
        self.line("boot-id")
    }

    fn device_id(&self) -> io::Result<String> {
        self.line("device-id")
    }

    fn reboot(&self) -> io::Result<()> {
        fs::write(self.dir.join("reboot"), "")
    }

    fn image_info(&self) -> io::Result<Option<String>> {
        read_optional(&self.image_info)
    }

    fn kernel(&self) -> Kernel {
        kernel()
    }

    fn device_key(&self) -> Result<Option<Box<dyn DeviceKey>>, Failure> {
        device_key::open(self.decrypt.as_ref())
    }

    fn default_environment(&self) -> io::Result<Vec<u8>> {
        read_named(&self.default_env)
    }
}
