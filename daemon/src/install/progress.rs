//! How far an install is: written by the install thread, read by anybody at any time.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lifecycle::event::Counts;

/// What an install is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Opening the source and verifying the signature.
    Verifying,
    /// Reading the target to find what it holds already.
    Scanning,
    /// Making the target not bootable.
    Disarming,
    /// Writing chunks.
    Writing,
    /// Waiting for the device to make them durable.
    Flushing,
    /// Reading everything back from the device.
    ReadingBack,
    /// Letting the new system test itself.
    PreRun,
    /// Telling the boot loader.
    Arming,
}

impl Phase {
    /// The word on the bus.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Verifying => "verifying",
            Phase::Scanning => "scanning",
            Phase::Disarming => "disarming",
            Phase::Writing => "writing",
            Phase::Flushing => "flushing",
            Phase::ReadingBack => "reading-back",
            Phase::PreRun => "pre-run",
            Phase::Arming => "arming",
        }
    }

    /// Where the phase begins and ends in percent of the whole job; rough shares of the time on eMMC.
    fn share(self) -> (u64, u64) {
        match self {
            Phase::Verifying => (0, 1),
            Phase::Scanning => (1, 10),
            Phase::Disarming => (10, 11),
            Phase::Writing => (11, 80),
            Phase::Flushing => (80, 82),
            Phase::ReadingBack => (82, 98),
            Phase::PreRun => (98, 99),
            Phase::Arming => (99, 100),
        }
    }
}

/// How far an install is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What it does.
    pub phase: Phase,
    /// Bytes of the phase that are done.
    pub done: u64,
    /// Bytes of the phase in all; 0 while unknown.
    pub total: u64,
    /// Bytes fetched and written so far.
    pub counts: Counts,
    /// Version, once verified.
    pub version: String,
}

impl Snapshot {
    /// The whole job in percent.
    pub fn percent(&self) -> u32 {
        let (from, to) = self.phase.share();
        let part = (to - from).saturating_mul(self.done.min(self.total)).checked_div(self.total).unwrap_or(0);
        u32::try_from(from + part).unwrap_or(100)
    }
}

/// The shared progress of one install.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slow: Mutex<(Phase, String)>,
    done: AtomicU64,
    total: AtomicU64,
    fetched: AtomicU64,
    written: AtomicU64,
    unchanged: AtomicU64,
    /// Counts every sign of life; the watchdog compares it with what it saw before.
    moves: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Progress(Arc::new(Inner {
            slow: Mutex::new((Phase::Verifying, String::new())),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            written: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            moves: AtomicU64::new(0),
        }))
    }
}

impl Progress {
    /// Begins a phase.
    pub fn begin(&self, phase: Phase, total: u64) {
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
        self.slow().0 = phase;
        self.0.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more bytes of the phase are done.
    pub fn advance(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
        self.0.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Something came, although no chunk is complete yet.
    pub fn alive(&self) {
        self.0.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes were read from the source in all.
    pub fn fetched(&self, bytes: u64) {
        self.0.fetched.store(bytes, Ordering::Relaxed);
        self.0.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more bytes were written to the target.
    pub fn wrote(&self, bytes: u64) {
        self.0.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many more bytes of the release need not be written, because the target holds them.
    pub fn unchanged(&self, bytes: u64) {
        self.0.unchanged.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The phase begins anew: what was done so far was only a look.
    pub fn rewind(&self) {
        self.0.done.store(0, Ordering::Relaxed);
    }

    /// The version is known.
    pub fn version(&self, version: &str) {
        version.clone_into(&mut self.slow().1);
    }

    /// How far it is now.
    pub fn snapshot(&self) -> Snapshot {
        let (phase, version) = self.slow().clone();
        Snapshot {
            phase,
            version,
            done: self.0.done.load(Ordering::Relaxed),
            total: self.0.total.load(Ordering::Relaxed),
            counts: self.counts(),
        }
    }

    /// What was fetched and written so far.
    pub fn counts(&self) -> Counts {
        Counts {
            fetched: self.0.fetched.load(Ordering::Relaxed),
            written: self.0.written.load(Ordering::Relaxed),
            unchanged: self.0.unchanged.load(Ordering::Relaxed),
        }
    }

    /// A number that changes whenever the install moves.
    pub fn moves(&self) -> u64 {
        self.0.moves.load(Ordering::Relaxed)
    }

    fn slow(&self) -> std::sync::MutexGuard<'_, (Phase, String)> {
        // The guarded code cannot panic; a poisoned lock still holds a valid value.
        self.0.slow.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_never_falls_from_phase_to_phase() {
        let progress = Progress::default();
        let mut last = 0;
        use Phase::*;
        for phase in [Verifying, Scanning, Disarming, Writing, Flushing, ReadingBack, PreRun, Arming] {
            progress.begin(phase, 10);
            for _ in 0..10 {
                progress.advance(1);
                let now = progress.snapshot().percent();
                assert!(now >= last && now <= 100, "{phase:?}: {last} then {now}");
                last = now;
            }
        }
        assert_eq!(last, 100);
    }
}
