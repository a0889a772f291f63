//! What was made before from the same inputs is not made again.
//!
//! Every part is a directory `NAME-HASH`, where the hash covers everything it was made from. A part is made under another
//! name and renamed when it is complete, so whatever has its name can be used. Only the newest parts of a name are kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::error::Error;
use super::step;

/// The one in use and the one before: going back to an earlier state of the tree is then quick.
pub(crate) const THIS_AND_THE_LAST: usize = 2;

/// Half of a SHA-256's hexadecimal digits would do for ever; these do for one machine.
const HASH_DIGITS: usize = 16;

/// Everything a part is made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs(Sha256);

impl Inputs {
    /// Starts with the text of the module that makes the part: `include_str!` of itself.
    pub(crate) fn of(module: &str) -> Inputs {
        Inputs::default().text(module)
    }

    /// Adds a text; its length keeps neighbours apart.
    pub(crate) fn text(mut self, text: impl AsRef<[u8]>) -> Inputs {
        let bytes = text.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a file's content.
    pub(crate) fn file(self, path: &Path) -> Result<Inputs, Error> {
        Ok(self.text(fs::read(path).map_err(Error::io("read", path))?))
    }

    /// Adds every file of a directory, with its name and whether it can be executed.
    pub(crate) fn tree(self, directory: &Path) -> Result<Inputs, Error> {
        use std::os::unix::fs::PermissionsExt as _;
        let mut names = Vec::new();
        for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
            names.push(entry.map_err(Error::io("list", directory))?.path());
        }
        names.sort();
        names.iter().try_fold(self, |inputs, path| {
            let inputs = inputs.text(path.file_name().unwrap_or_default().as_encoded_bytes());
            let about = fs::metadata(path).map_err(Error::io("look at", path))?;
            if about.is_dir() {
                return inputs.tree(path);
            }
            inputs.text((about.permissions().mode() & 0o111).to_le_bytes()).file(path)
        })
    }

    fn hash(self) -> String {
        self.0
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .chars()
            .take(HASH_DIGITS)
            .collect()
    }
}

/// The directory of all parts.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    directory: PathBuf,
    kept_per_name: usize,
}

impl Cache {
    /// Uses a directory, which is made if it is missing, and keeps the newest parts of every name.
    pub(crate) fn new(directory: impl Into<PathBuf>, kept_per_name: usize) -> Result<Cache, Error> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        Ok(Cache { directory, kept_per_name })
    }

    /// Keeps other processes from building here until the lock is dropped.
    pub(crate) fn lock(&self) -> Result<Flock<fs::File>, Error> {
        let path = self.directory.join("lock");
        let file = fs::File::create(&path).map_err(Error::io("create", &path))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::Io {
            act: "lock",
            path,
            source: errno.into(),
        })
    }

    /// Returns the part of these inputs; `make` fills its directory if there is none yet.
    pub(crate) fn part(
        &self,
        name: &str,
        inputs: Inputs,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let part = self.directory.join(format!("{name}-{}", inputs.hash()));
        if part.is_dir() {
            touch(&part)?;
            return Ok(part);
        }
        let unfinished = self.directory.join(format!("{name}.unfinished"));
        remove_if_there(&unfinished)?;
        fs::create_dir_all(&unfinished).map_err(Error::io("create", &unfinished))?;
        step::timed(name, || make(&unfinished))?;
        fs::rename(&unfinished, &part).map_err(Error::io("rename", &unfinished))?;
        touch(&part)?;
        self.forget_old(name)?;
        Ok(part)
    }

    fn forget_old(&self, name: &str) -> Result<(), Error> {
        let mut parts: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(Error::io("list", &self.directory))? {
            let path = entry.map_err(Error::io("list", &self.directory))?.path();
            let file_name = path.file_name().unwrap_or_default().to_string_lossy();
            if file_name
                .rsplit_once('-')
                .is_some_and(|(stem, hash)| stem == name && hash.len() == HASH_DIGITS)
            {
                let used = fs::metadata(&path).and_then(|about| about.modified());
                parts.push((used.map_err(Error::io("look at", &path))?, path));
            }
        }
        parts.sort_by(|left, right| right.cmp(left));
        parts.iter().skip(self.kept_per_name).try_for_each(|(_, path)| remove_if_there(path))
    }
}

/// Marks a part as used now.
fn touch(part: &Path) -> Result<(), Error> {
    fs::File::open(part)
        .and_then(|directory| directory.set_modified(SystemTime::now()))
        .map_err(Error::io("touch", part))
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_inputs_are_made_once_and_others_again() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::new(place.path(), THIS_AND_THE_LAST).unwrap();
        let mut made = 0;
        let mut get = |text: &str| {
            let inputs = Inputs::default().text(text);
            cache.part("thing", inputs, |dir| {
                made += 1;
                fs::write(dir.join("x"), text).map_err(Error::io("write", dir))
            })
        };
        let first = get("one").unwrap();
        assert_eq!(get("one").unwrap(), first);
        assert_ne!(get("two").unwrap(), first);
        get("three").unwrap();
        assert_eq!(made, 3);
        assert!(!first.exists(), "the oldest of three is forgotten");
    }

    #[test]
    fn a_part_that_failed_is_not_taken_for_one() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::new(place.path(), THIS_AND_THE_LAST).unwrap();
        let failed = cache.part("thing", Inputs::default(), |_| Err(Error::Unexpected("no".to_owned())));
        assert!(failed.is_err());
        let mut made = false;
        cache
            .part("thing", Inputs::default(), |_| {
                made = true;
                Ok(())
            })
            .unwrap();
        assert!(made);
    }

    #[test]
    fn neighbours_cannot_be_mistaken() {
        assert_ne!(
            Inputs::default().text("ab").text("c").hash(),
            Inputs::default().text("a").text("bc").hash()
        );
    }
}
