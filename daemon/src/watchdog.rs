//! systemd: readiness, status line, watchdog.
//!
//! The watchdog is fed while this loop runs and, during an install, while the pipeline has moved within the stall limit:
//! a very slow device is not a hang, a stuck one is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libsystemd::daemon::{self, NotifyState};

use crate::bus::Desk;
use crate::engine::Status;

/// An install that gives no sign of life for so long is stuck: the network gives up after 8 tries of at most two minutes,
/// a pipe after five minutes, and the slowest flush seen on a worn card takes one.
const STALL_LIMIT: Duration = Duration::from_secs(1800);
/// The engine waits for the lock of the environment at most ten seconds, and for a flush of the record or of a worn card
/// a minute.
const ENGINE_LIMIT: Duration = Duration::from_secs(300);

/// How often the status line is refreshed when systemd asks for no watchdog.
const DEFAULT_PERIOD: Duration = Duration::from_secs(30);

/// Tells systemd that the bus name is there.
pub(crate) fn ready(status: &Status) {
    notify(&[NotifyState::Ready, NotifyState::Status(line(status))]);
}

/// Tells systemd that otad stops on purpose.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Feeds the watchdog; returns never, but lets it starve when an install or the engine is stuck.
pub(crate) async fn feed(desk: &Desk) {
    let period = daemon::watchdog_enabled(false).map_or(DEFAULT_PERIOD, |limit| limit / 2);
    let mut tick = tokio::time::interval(period);
    let mut seen = Seen { job: None, moves: 0, since: Instant::now() };
    let engine = Pulse::default();
    loop {
        tick.tick().await;
        let now = desk.status();
        engine.ask(desk);
        if !engine.beats() {
            log::error!(
                "the engine has not answered for {} s; the watchdog is not fed any more",
                ENGINE_LIMIT.as_secs()
            );
        } else if !seen.alive(&now) {
            log::error!(
                "the install has not moved for {} s; the watchdog is not fed any more",
                STALL_LIMIT.as_secs()
            );
        } else {
            notify(&[NotifyState::Watchdog, NotifyState::Status(line(&now))]);
        }
    }
}

/// The engine's answers to a message that asks for nothing.
#[derive(Default)]
struct Pulse {
    /// Since when an answer is missing.
    asked: Arc<Mutex<Option<Instant>>>,
}

impl Pulse {
    fn ask(&self, desk: &Desk) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none() {
            *asked = Some(Instant::now());
            let answered = self.asked.clone();
            desk.touch(Box::new(move || *answered.lock().unwrap_or_else(PoisonError::into_inner) = None));
        }
    }

    fn beats(&self) -> bool {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.is_none_or(|since| since.elapsed() < ENGINE_LIMIT)
    }
}

struct Seen {
    job: Option<u64>,
    moves: u64,
    since: Instant,
}

impl Seen {
    fn alive(&mut self, status: &Status) -> bool {
        let now = status.job.as_ref().map(|job| (job.id, job.progress.moves()));
        let (job, moves) = now.map_or((None, 0), |(id, moves)| (Some(id), moves));
        if job.is_none() || job != self.job || moves != self.moves {
            *self = Seen { job, moves, since: Instant::now() };
        }
        self.since.elapsed() < STALL_LIMIT
    }
}

fn line(status: &Status) -> String {
    let slot = status.booted.as_deref().unwrap_or("unknown");
    match &status.job {
        Some(job) => {
            let now = job.progress.snapshot();
            format!(
                "slot {slot}, {} {}: {} {} %",
                status.state.word(),
                now.version,
                now.phase.word(),
                now.percent()
            )
        }
        None => format!("slot {slot}, {}", status.state.word()),
    }
}

fn notify(states: &[NotifyState]) {
    // Without systemd there is nobody to tell, which is not an error.
    if let Err(error) = daemon::notify(false, states) {
        log::debug!("systemd was not told: {error}");
    }
}
