//! The machine U-Boot started.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use otad_bundle::DeviceKey;
use sha2::{Digest as _, Sha256};

use crate::config::{Config, Decrypt};
use crate::failure::Failure;
use crate::ports::{DeviceId, Kernel, Machine};

use super::device_key;

/// The real machine.
#[derive(Debug)]
pub struct SystemMachine {
    cmdline: PathBuf,
    image_info: PathBuf,
    default_env: PathBuf,
    decrypt: Option<Decrypt>,
}

impl SystemMachine {
    /// Takes the paths from the configuration.
    pub fn new(config: &Config) -> Self {
        SystemMachine {
            cmdline: config.boot.cmdline.clone(),
            image_info: config.image_info.clone(),
            default_env: config.boot.default_env.clone(),
            decrypt: config.decrypt.clone(),
        }
    }
}

impl Machine for SystemMachine {
    fn command_line(&self) -> io::Result<String> {
        fs::read_to_string(&self.cmdline)
    }

    fn root_device(&self) -> io::Result<DeviceId> {
        let number = fs::metadata("/")?.dev();
        if nix::sys::stat::major(number) == 0 {
            // Overlays, tmpfs and NFS have no block device; guessing what is below them is not evidence.
            let what = "/ is not directly on a block device (overlay, NFS or RAM?); set root-device-check = false \
                        only if otad.slot= alone is to be trusted";
            return Err(io::Error::other(what));
        }
        Ok(DeviceId::Block(number))
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }

    fn device_id(&self) -> io::Result<String> {
        hashed_machine_id()
    }

    fn reboot(&self) -> io::Result<()> {
        let status = Command::new("systemctl").args(["--no-block", "reboot"]).status()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("systemctl reboot: {status}")))
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

/// The kernel that runs.
pub(super) fn kernel() -> Kernel {
    let release = nix::sys::utsname::uname().map(|said| said.release().to_string_lossy().into_owned());
    let build_id = fs::read("/sys/kernel/notes").ok().and_then(|notes| build_id(&notes));
    Kernel { release: release.unwrap_or_default(), build_id }
}

/// The GNU build id among ELF notes: each is the lengths of name and description and a type, 32 bits in the machine's byte order,
/// then name and description, each filled up to a multiple of four (elf(5)); that of a build id is of type 3 and named "GNU".
fn build_id(mut notes: &[u8]) -> Option<String> {
    let word = |bytes: &[u8; 4]| u32::from_ne_bytes(*bytes) as usize;
    loop {
        let (name_length, rest) = notes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(word(name_length).checked_next_multiple_of(4)?)?;
        let description = rest.get(..word(length))?;
        if word(kind) == 3 && name == b"GNU\0" {
            return Some(description.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = rest.get(word(length).checked_next_multiple_of(4)?..)?;
    }
}

/// machine-id(5) asks not to show the id itself on a network: this is a hash of it for otad alone.
pub(super) fn hashed_machine_id() -> io::Result<String> {
    let id = fs::read_to_string("/etc/machine-id")?;
    let hash: [u8; 32] =
        Sha256::new().chain_update(b"org.otad1 device id").chain_update(id.trim()).finalize().into();
    Ok(otad_bundle::Digest(hash).to_string().chars().take(32).collect())
}

/// A file's text; `None` when there is no such file.
pub(super) fn read_optional(path: &std::path::Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file's bytes; an error names the file.
pub(super) fn read_named(path: &std::path::Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len(), description.len()] {
            note.extend(u32::try_from(number).unwrap().to_ne_bytes());
        }
        note.extend(kind.to_ne_bytes());
        for part in [name, description] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    /// X4: the build id is found behind other notes, and what is cut short is none.
    #[test]
    fn a_kernel_answers_to_its_build_id() {
        let other =
            [note(b"Xen\0", 6, b"linux"), note(b"Linux\0", 257, &[1]), note(b"GNU\0", 5, &[1; 16])].concat();
        let notes = [other.clone(), note(b"GNU\0", 3, &[0xa5; 20])].concat();
        assert_eq!(build_id(&notes), Some("a5".repeat(20)));
        assert_eq!(build_id(&other), None);
        for length in 0..notes.len() {
            assert_eq!(build_id(&notes[..length]), None, "{length}");
        }
        assert_eq!(build_id(&[0xff; 64]), None, "lengths beyond all bounds");
        let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(kernel().release, running.trim());
    }
}
