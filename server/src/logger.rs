//! Log lines on standard error, one per event: `WARN artifact …`. The service manager adds time and name.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries talk at `info` about their own business (every SQL statement, for example).
        metadata.target().starts_with("otaserver") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Nobody is left to be told when standard error is gone.
            let _ = writeln!(std::io::stderr().lock(), "{:5} {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Sends log lines of this level and above to standard error, from now until the process ends.
pub fn install(level: LevelFilter) {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}
