//! The card with the boot environment, while the power is off.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bootenv::config::Entry;
use bootenv::txn::Health;
use bootenv::{BootEnv, Changes, Config, CopyId, EnvLock, Environment, FileStore, LockDirs};

use super::error::Error;
use crate::build::{ENVIRONMENT_BYTES, ENVIRONMENT_OFFSETS_BYTES};

/// Size of one copy.
const COPY_BYTES: usize = ENVIRONMENT_BYTES as usize;

/// The image belongs to one run: nobody else holds the lock for long.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The card's image.
#[derive(Debug, Clone)]
pub struct Card {
    path: PathBuf,
}

impl Card {
    /// Takes the path of an image that exists.
    pub fn at(path: impl Into<PathBuf>) -> Card {
        Card { path: path.into() }
    }

    /// Its image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The variables of the copy that U-Boot would use.
    ///
    /// # Errors
    /// [`Error::Environment`] when neither copy is valid.
    pub fn environment(&self) -> Result<Environment, Error> {
        self.open()?.load().map(|loaded| loaded.environment).map_err(|error| self.refused(&error))
    }

    /// The state of both copies.
    pub fn health(&self) -> Result<Health, Error> {
        Ok(self.open()?.health())
    }

    /// The values of some variables; one that is not set is left out.
    pub fn variables(&self, names: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        let environment = self.environment()?;
        let found = names
            .iter()
            .filter_map(|name| environment.get_str(name).map(|value| ((*name).to_owned(), value.to_owned())));
        Ok(found.collect())
    }

    /// Changes variables as a program on the board would.
    pub fn change(&self, changes: &Changes) -> Result<(), Error> {
        let beside = self.path.parent().unwrap_or(Path::new(".")).to_owned();
        let lock = EnvLock::acquire(&LockDirs::new([beside]), LOCK_PATIENCE)
            .map_err(|error| self.refused(&error))?;
        self.open()?.commit(&lock, changes).map(drop).map_err(|error| self.refused(&error))
    }

    /// Writes zeros over a copy.
    pub fn destroy(&self, copy: CopyId) -> Result<(), Error> {
        let [first, second] = ENVIRONMENT_OFFSETS_BYTES;
        let offset = match copy {
            CopyId::First => first,
            CopyId::Second => second,
        };
        let file = File::options().write(true).open(&self.path).map_err(Error::io("open", &self.path))?;
        file.write_all_at(&vec![0; COPY_BYTES], offset.into()).map_err(Error::io("write", &self.path))
    }

    fn open(&self) -> Result<BootEnv<FileStore>, Error> {
        let [first, second] = ENVIRONMENT_OFFSETS_BYTES.map(|offset| Entry {
            device: self.path.clone(),
            offset: offset.into(),
            size: COPY_BYTES,
            sector_size: None,
            sectors: None,
            disable_lock: false,
        });
        let config = Config::new(first, Some(second)).map_err(|error| self.refused(&error))?;
        Ok(BootEnv::new(FileStore::new(&config).map_err(|error| self.refused(&error))?))
    }

    fn refused(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Environment { path: self.path.clone(), why: why.to_string() }
    }
}
