//! The data directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::failure::{Code, Failure, from_state};
use crate::ports::StateFs;

/// Subdirectories that exist from the start.
const SUBDIRECTORIES: &[&str] = &["index"];

/// A directory on a real file system.
#[derive(Debug)]
pub struct DataDirectory {
    root: PathBuf,
}

impl DataDirectory {
    /// Opens the directory, making it and its subdirectories when they are missing.
    pub fn open(root: &Path) -> Result<Self, Failure> {
        for sub in SUBDIRECTORIES {
            let dir = root.join(sub);
            fs::create_dir_all(&dir).map_err(|error| from_state("make", &dir, &error))?;
        }
        let probe = root.join(".probe");
        File::create(&probe).and_then(|_| fs::remove_file(&probe)).map_err(|error| {
            Failure::new(
                Code::StateIo,
                format!("data directory {} cannot be written: {error}", root.display()),
            )
        })?;
        Ok(DataDirectory { root: root.to_owned() })
    }

    /// Takes a directory for reading only, as it is.
    pub fn read_only(root: &Path) -> Self {
        DataDirectory { root: root.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl StateFs for DataDirectory {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>> {
        // Only otad reads its data: a record tells an attacker what the device runs.
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.path(name))?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.path(name))?))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        File::open(self.path(name))?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn sync_directory(&self) -> io::Result<()> {
        for sub in SUBDIRECTORIES {
            File::open(self.path(sub))?.sync_all()?;
        }
        File::open(&self.root)?.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let (dir, _) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(dir))? {
            if let Ok(name) = entry?.file_name().into_string() {
                let name = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                names.extend(name.starts_with(prefix).then_some(name));
            }
        }
        Ok(names)
    }

    fn free(&self) -> io::Result<u64> {
        let info = nix::sys::statvfs::statvfs(&self.root)?;
        Ok(info.blocks_available().saturating_mul(info.fragment_size()))
    }
}
