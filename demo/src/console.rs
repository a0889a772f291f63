//! The serial console: what the boot loader and the kernel said, with the seconds since the device was built.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::error::Error;

/// Somebody who watches the console.
pub type Watcher = Box<dyn Fn(&str) + Send + Sync>;

/// Keeps the lines in a file and shows them to whoever watches.
pub(crate) struct Console {
    path: PathBuf,
    file: Mutex<File>,
    started: Instant,
    watcher: Option<Watcher>,
}

impl Console {
    pub(crate) fn open(path: &Path, watcher: Option<Watcher>) -> Result<Console, Error> {
        let file = File::options().create(true).append(true).open(path).map_err(Error::io("open", path))?;
        Ok(Console { path: path.to_owned(), file: Mutex::new(file), started: Instant::now(), watcher })
    }

    pub(crate) fn print(&self, line: impl Display) {
        let line = format!("[{:9.3}] {line}", self.started.elapsed().as_secs_f64());
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A console that cannot be written stops no machine.
        let _ = writeln!(file, "{line}");
        drop(file);
        if let Some(watcher) = &self.watcher {
            watcher(&line);
        }
    }

    pub(crate) fn text(&self) -> Result<String, Error> {
        let bytes = std::fs::read(&self.path).map_err(Error::io("read", &self.path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("path", &self.path).finish_non_exhaustive()
    }
}
