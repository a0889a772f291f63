//! Keeping other programs away from the environment.
//!
//! The two tool sets of the field lock different files, so they do not exclude each other: libubootenv takes
//! `fw_printenv.lock` in `/var/lock` (on most systems the same as `/run/lock`), U-Boot's own tools take it in `/run`.
//! An [`EnvLock`] holds both, with `flock(2)`. It is taken in a fixed order, gives up after a timeout, and a caller
//! without it cannot write: [`BootEnv`](crate::BootEnv) asks for it as proof.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// Name of the lock file in every directory.
pub const LOCK_NAME: &str = "fw_printenv.lock";
/// How long to wait for the lock unless the caller says otherwise; an environment write takes well under a second.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a held lock is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// libubootenv's place, and what systems without `/run/lock` use instead.
const LIBUBOOTENV_DIRS: [&str; 2] = ["/run/lock", "/var/lock"];
/// U-Boot's place.
const U_BOOT_DIR: &str = "/run";

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program holds it.
    #[error("{} is held by another program, waited {} ms; try again, or see who holds it with `fuser -v` on that file", path.display(), waited.as_millis())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
    },
    /// The file cannot be opened or locked.
    #[error("cannot lock {}: {source}; nothing was read or written", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Held { .. } => "ENV_LOCKED",
            Error::Io { .. } => "ENV_IO",
        }
    }
}

/// The directories that hold the lock files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockDirs {
    dirs: Vec<PathBuf>,
}

impl LockDirs {
    /// The directories of the tools of the field.
    pub fn system() -> Self {
        let present = LIBUBOOTENV_DIRS.iter().map(PathBuf::from).filter(|dir| dir.is_dir());
        LockDirs::new(present.chain([PathBuf::from(U_BOOT_DIR)]))
    }

    /// Other directories: those a test or the option of a command names.
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut unique: Vec<PathBuf> = Vec::new();
        for dir in dirs {
            // Two names of one directory would be two descriptors of one file, and the second would wait for the first.
            let dir = dir.canonicalize().unwrap_or(dir);
            if !unique.contains(&dir) {
                unique.push(dir);
            }
        }
        LockDirs { dirs: unique }
    }
}

impl Default for LockDirs {
    fn default() -> Self {
        LockDirs::system()
    }
}

/// Proof that no other program changes the environment; released when dropped.
#[derive(Debug)]
pub struct EnvLock {
    _held: Vec<Flock<File>>,
}

impl EnvLock {
    /// Takes every lock, waiting at most `timeout` in total. On an error none is held.
    pub fn acquire(dirs: &LockDirs, timeout: Duration) -> Result<EnvLock, Error> {
        let started = Instant::now();
        let mut held = Vec::with_capacity(dirs.dirs.len());
        for dir in &dirs.dirs {
            held.push(take(dir.join(LOCK_NAME), started, timeout)?);
        }
        Ok(EnvLock { _held: held })
    }

    /// A lock of nothing, for environments that only exist in memory.
    #[cfg(feature = "testing")]
    pub fn of_nothing() -> EnvLock {
        EnvLock { _held: Vec::new() }
    }
}

fn take(path: PathBuf, started: Instant, timeout: Duration) -> Result<Flock<File>, Error> {
    let mut file = open(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(held),
            Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
            Err((_, errno)) => return Err(Error::Io { path, source: errno.into() }),
        };
        let waited = started.elapsed();
        if waited >= timeout {
            return Err(Error::Held { path, waited });
        }
        std::thread::sleep(RETRY_INTERVAL.min(timeout.saturating_sub(waited)));
    }
}

/// Opens the lock file, for reading only: that is enough for `flock`, and a file made by root can be locked by a program
/// that may only read the environment. No symbolic link is followed, since `/run/lock` is writable for everybody.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(flags)
            .open(path),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_fails_after_the_timeout_and_leaves_no_other_lock_behind() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let both = LockDirs::new([one.path().to_owned(), two.path().to_owned()]);
        let second = LockDirs::new([two.path().to_owned()]);
        let held = EnvLock::acquire(&second, Duration::ZERO).unwrap();
        let error = EnvLock::acquire(&both, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.code(), "ENV_LOCKED");
        assert!(error.to_string().contains(two.path().to_str().unwrap()), "{error}");
        EnvLock::acquire(&LockDirs::new([one.path().to_owned()]), Duration::ZERO).unwrap();
        drop(held);
        EnvLock::acquire(&both, Duration::ZERO).unwrap();
    }

    #[test]
    fn two_names_of_one_directory_are_one_lock() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        EnvLock::acquire(&LockDirs::new([dir.path().to_owned(), link]), Duration::ZERO).unwrap();
    }

    #[test]
    fn a_missing_directory_or_a_planted_link_fails() {
        let dir = tempfile::tempdir().unwrap();
        let missing = LockDirs::new([dir.path().join("no")]);
        assert_eq!(EnvLock::acquire(&missing, Duration::ZERO).unwrap_err().code(), "ENV_IO");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join(LOCK_NAME)).unwrap();
        let planted = LockDirs::new([dir.path().to_owned()]);
        assert_eq!(EnvLock::acquire(&planted, Duration::ZERO).unwrap_err().code(), "ENV_IO");
    }
}
