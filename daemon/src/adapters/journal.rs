//! Log lines for the journal, and the trail that a trial leaves for the system it may be rolled back to.
//!
//! Lines go to standard error; under systemd each starts with its priority (`<3>` … `<7>`, sd-daemon(3)), so that the
//! journal files it. While a trail is set, lines are also appended to a small file on the data partition: the old slot
//! cannot read the journal of a failed boot, but it can read that.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::ports::Trail;

/// A trail grows to this and then stops: the first lines of a failing boot say most.
const TRAIL_BYTES: u64 = 64 * 1024;

static LOGGER: OnceLock<Journal> = OnceLock::new();

/// The process's logger.
#[derive(Debug)]
pub struct Journal {
    priorities: bool,
    trail: Mutex<Option<File>>,
}

/// Installs the logger; a second call changes nothing.
pub fn install(level: LevelFilter) {
    let priorities = std::env::var_os("JOURNAL_STREAM").is_some();
    let journal = LOGGER.get_or_init(|| Journal { priorities, trail: Mutex::new(None) });
    if log::set_logger(journal).is_ok() {
        log::set_max_level(level);
    }
}

/// The trail of a trial, in a file on the data partition.
#[derive(Debug)]
pub struct FileTrail {
    path: PathBuf,
}

impl FileTrail {
    /// Names the file; it appears with the first line.
    pub fn new(path: PathBuf) -> Self {
        FileTrail { path }
    }
}

impl Trail for FileTrail {
    fn follow(&self) {
        match OpenOptions::new().create(true).append(true).open(&self.path) {
            Ok(file) => set_trail(Some(file)),
            Err(error) => {
                log::warn!("the log of this trial cannot be kept in {}: {error}", self.path.display())
            }
        }
    }

    fn end(&self) {
        set_trail(None);
    }

    fn clear(&self) {
        // Missing is what is wanted; anything else shows when the trail is followed.
        let _ = std::fs::remove_file(&self.path);
    }

    fn last(&self, count: usize) -> Vec<String> {
        let text = std::fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(count)).map(|line| (*line).to_owned()).collect()
    }
}

fn set_trail(file: Option<File>) {
    if let Some(journal) = LOGGER.get() {
        *journal.trail.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries are heard only when something is wrong with them.
        metadata.target().starts_with("otad") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = record.args().to_string().replace('\n', " ");
        let priority = match record.level() {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        // There is nobody to tell when standard error is gone.
        let _ = if self.priorities {
            writeln!(std::io::stderr(), "<{priority}>{line}")
        } else {
            writeln!(std::io::stderr(), "otad: {line}")
        };
        let mut trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) =
            trail.as_mut().filter(|file| file.metadata().is_ok_and(|data| data.len() < TRAIL_BYTES))
        {
            // Durable line by line: the next thing may be a watchdog reset.
            let _ = writeln!(file, "{line}").and_then(|()| file.sync_data());
        }
    }

    fn flush(&self) {}
}
