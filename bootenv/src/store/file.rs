//! Copies on block devices and in regular files.
//!
//! A write goes to the copy's place and is followed by `fsync`, whose result counts. The exception is a *single* copy
//! in a regular file of moderate size (a `uboot.env` on a FAT partition): the file is replaced as a whole, through a
//! temporary file, `rename` and `fsync` of the directory, so that a power cut leaves the old or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Store;
use super::direct;
use super::force_ro::{SYSFS_BLOCK, Unlocked};
use crate::config::{Config, Entry, size_as_u64};
use crate::format::{CopyId, Layout};

/// The largest regular file that is replaced as a whole for a single copy, in bytes. Larger files are disk images of a
/// development machine, where copying gigabytes to change a variable helps nobody.
const REPLACE_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// Why the place of a copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device is of a kind this crate cannot write.
    #[error("{} is {kind}; environments on block devices and in regular files are supported, raw flash (MTD) and UBI volumes are not", path.display())]
    Unsupported {
        /// The device of the configuration.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
}

impl Error {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        "CONFIG"
    }
}

/// The copies that an `fw_env.config` names. Holds no descriptor: every act opens the device anew, under the lock that
/// the transaction holds.
#[derive(Debug, Clone)]
pub struct FileStore {
    config: Config,
    sysfs: PathBuf,
}

impl FileStore {
    /// Takes the places from a configuration. A device that is missing is not an error here: its copy is a bad copy.
    pub fn new(config: &Config) -> Result<FileStore, Error> {
        for entry in std::iter::once(config.first()).chain(config.second()) {
            check_kind(&entry.device)?;
        }
        Ok(FileStore { config: config.clone(), sysfs: PathBuf::from(SYSFS_BLOCK) })
    }

    /// Uses another directory than `/sys/class/block`; for tests.
    #[must_use]
    pub fn with_sysfs(mut self, sysfs: impl Into<PathBuf>) -> Self {
        self.sysfs = sysfs.into();
        self
    }

    fn entry(&self, copy: CopyId) -> io::Result<&Entry> {
        let entry = match copy {
            CopyId::First => Some(self.config.first()),
            CopyId::Second => self.config.second(),
        };
        entry.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no {copy} is configured")))
    }

    fn write_in_place(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let unlocked = Unlocked::new(path, &self.sysfs)?;
        // Never `create`: a mistyped device must not become a file in /dev.
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(bytes, offset)?;
        file.sync_all()?;
        // Network and FUSE file systems report on close what they could not store, and dropping a `File` hides it.
        nix::unistd::close(file).map_err(io::Error::from)?;
        unlocked.lock()
    }
}

impl Store for FileStore {
    fn layout(&self) -> Layout {
        self.config.layout()
    }

    fn size(&self) -> usize {
        self.config.size()
    }

    fn place(&self, copy: CopyId) -> String {
        match self.entry(copy) {
            Ok(entry) => format!("{} at offset {}", entry.device.display(), hexadecimal(entry.offset)),
            Err(error) => error.to_string(),
        }
    }

    fn read(&mut self, copy: CopyId) -> io::Result<Vec<u8>> {
        let entry = self.entry(copy)?;
        let path = fs::canonicalize(&entry.device)?;
        let offset = absolute_offset(entry, &path)?;
        direct::read_at(&path, offset, entry.size)
    }

    fn write(&mut self, copy: CopyId, bytes: &[u8]) -> io::Result<()> {
        let entry = self.entry(copy)?;
        if bytes.len() != entry.size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes for a copy of {}", bytes.len(), entry.size),
            ));
        }
        let path = fs::canonicalize(&entry.device)?;
        let offset = absolute_offset(entry, &path)?;
        if self.layout() == Layout::Single && is_replaceable(&path)? {
            return replace(&path, offset, bytes);
        }
        self.write_in_place(&path, offset, bytes)
    }

    fn replaces_atomically(&self) -> bool {
        self.layout() == Layout::Single && is_replaceable(&self.config.first().device).unwrap_or(false)
    }
}

fn hexadecimal(offset: i64) -> String {
    let sign = if offset < 0 { "-" } else { "" };
    format!("{sign}0x{:x}", offset.unsigned_abs())
}

fn check_kind(device: &Path) -> Result<(), Error> {
    let unsupported = |kind| Err(Error::Unsupported { path: device.to_owned(), kind });
    let Ok(metadata) = fs::metadata(device) else {
        // `/dev/ubi0:name` names a volume, not a file.
        let volume =
            device.to_str().is_some_and(|path| path.starts_with("/dev/ubi") || path.starts_with("/dev/mtd"));
        return if volume { unsupported("a flash device or volume") } else { Ok(()) };
    };
    let kind = metadata.file_type();
    if kind.is_char_device() {
        return unsupported("a character device");
    }
    if kind.is_dir() {
        return unsupported("a directory");
    }
    if kind.is_fifo() || kind.is_socket() {
        return unsupported("a pipe or socket");
    }
    Ok(())
}

/// Turns the offset of the configuration into one from the start.
fn absolute_offset(entry: &Entry, path: &Path) -> io::Result<u64> {
    if let Ok(offset) = u64::try_from(entry.offset) {
        return Ok(offset);
    }
    // The other tools refuse this for files, whose length changes; a file here gets the same answer everywhere.
    if !fs::metadata(path)?.file_type().is_block_device() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "offset {} counts from the end, which only block devices have",
                hexadecimal(entry.offset)
            ),
        ));
    }
    let end = File::open(path)?.seek(SeekFrom::End(0))?;
    end.checked_sub(entry.offset.unsigned_abs()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "offset {} is before the start of a device of 0x{end:x} bytes",
                hexadecimal(entry.offset)
            ),
        )
    })
}

fn is_replaceable(path: &Path) -> io::Result<bool> {
    let metadata = fs::metadata(path)?;
    Ok(metadata.file_type().is_file() && metadata.len() <= REPLACE_LIMIT_BYTES)
}

/// Replaces a file by one that holds `bytes` at `offset` and is otherwise the same, with owner and permissions.
fn replace(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut content = fs::read(path)?;
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    let end = start.checked_add(bytes.len()).filter(|&end| size_as_u64(end) <= REPLACE_LIMIT_BYTES);
    let Some(end) = end else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("offset 0x{offset:x} is too far into a file of {} bytes", content.len()),
        ));
    };
    if content.len() < end {
        content.resize(end, 0);
    }
    content
        .get_mut(start..end)
        .ok_or_else(|| io::Error::other("range outside the file"))?
        .copy_from_slice(bytes);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file in a directory"));
    };
    // One fixed name: what a power cut left behind is overwritten the next time instead of piling up.
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(".new");
    let temporary = dir.join(temporary_name);
    let result = write_beside(path, &temporary, &content).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // The failure is what matters; a leftover does no harm.
        let _ = fs::remove_file(&temporary);
    }
    result?;
    File::open(dir)?.sync_all()
}

fn write_beside(path: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    let original = fs::metadata(path)?;
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(content)?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (original.uid(), original.gid()) {
        std::os::unix::fs::fchown(&file, Some(original.uid()), Some(original.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(original.mode() & 0o7777))?;
    file.sync_all()
}
