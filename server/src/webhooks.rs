//! Telling operators of what happens: the queue in the database, delivered at least once.
//!
//! A receiver that fails, hangs or redirects is tried again, later each time, and given up after [`MAX_ATTEMPTS`]. One delivery of a webhook is under
//! way at a time, and `MAX_IN_FLIGHT` in all, so that nobody's trouble holds up the others for longer than a timeout.

mod client;
pub mod lost;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

pub use client::{Client, ClientError, Plain, Target};

use crate::clock::unix_seconds;
use crate::http::App;
use crate::store::{Due, Tried};

/// How often a delivery is tried: with the waits between, for about 12 hours.
pub const MAX_ATTEMPTS: i64 = 18;
/// Deliveries at the same time.
const MAX_IN_FLIGHT: usize = 4;
/// How often the queue is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait between two tries, in seconds.
const LONGEST_WAIT_SECONDS: i64 = 3600;
/// Wait when a try could not be written down: it will be made again.
const UNWRITTEN: Duration = Duration::from_secs(30);

/// What operators can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A release was paused, by its numbers or by an operator.
    ReleasePaused,
    /// Every device of a release has a result, or an operator says so.
    ReleaseCompleted,
    /// Devices have missed three contacts.
    DevicesLost,
}

impl Event {
    /// The spelling in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Event::ReleasePaused => "release-paused",
            Event::ReleaseCompleted => "release-completed",
            Event::DevicesLost => "devices-lost",
        }
    }
}

/// Delivers until the server ends.
pub async fn run(app: Arc<App>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut flights: JoinSet<String> = JoinSet::new();
    let mut in_flight = HashSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(Ok(webhook)) = flights.join_next() => {
                in_flight.remove(&webhook);
            }
        }
        if in_flight.len() >= MAX_IN_FLIGHT {
            continue;
        }
        match app.store.due_deliveries(unix_seconds()).await {
            Err(error) => log::error!("webhooks are not delivered: {error}"),
            Ok(due) => {
                for due in due {
                    if in_flight.len() < MAX_IN_FLIGHT && in_flight.insert(due.webhook.clone()) {
                        flights.spawn(deliver(app.clone(), due));
                    }
                }
            }
        }
    }
}

async fn deliver(app: Arc<App>, due: Due) -> String {
    let limit = app.limits.webhook_timeout;
    let sent = tokio::time::timeout(limit, app.webhooks.post(&due)).await;
    let sent = sent.unwrap_or(Err(ClientError::Slow(limit.as_secs())));
    let tried = outcome(&sent, due.attempts + 1, app.limits.webhook_retry, unix_seconds());
    match &tried.problem {
        None => log::debug!("webhook {} took {}", due.webhook, due.event),
        Some(problem) => {
            log::warn!("webhook {} did not take {} {}: {problem}", due.webhook, due.event, due.id)
        }
    }
    if let Err(error) = app.store.tried(due.id, &tried).await {
        log::error!("it is not written down that webhook {} was tried: {error}", due.webhook);
        tokio::time::sleep(UNWRITTEN).await;
    }
    due.webhook
}

/// What follows from a try.
fn outcome(sent: &Result<u16, ClientError>, attempts: i64, first_wait: Duration, now: i64) -> Tried {
    let (status, problem) = match sent {
        Ok(status @ 200..=299) => return Tried { status: Some(*status), ..Tried::default() },
        Ok(status @ 300..=399) => (Some(*status), "it redirects, which is not followed".to_owned()),
        Ok(status) => (Some(*status), format!("it answered {status}")),
        Err(error) => (None, error.to_string()),
    };
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(12);
    let wait =
        i64::try_from(first_wait.as_secs()).unwrap_or(LONGEST_WAIT_SECONDS).saturating_mul(1 << doublings);
    let next_try_at = (attempts < MAX_ATTEMPTS).then_some(now + wait.min(LONGEST_WAIT_SECONDS));
    Tried { status, problem: Some(problem), next_try_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_get_rarer_and_end() {
        let first = Duration::from_secs(30);
        let failed = |attempts| outcome(&Ok(500), attempts, first, 1000).next_try_at;
        assert_eq!(
            [1, 2, 3, 8, 17, 18].map(failed),
            [Some(1030), Some(1060), Some(1120), Some(4600), Some(4600), None]
        );
        let total: i64 = (1..MAX_ATTEMPTS).filter_map(failed).map(|at| at - 1000).sum();
        assert!((10 * 3600..14 * 3600).contains(&total), "about 12 hours: {total}");
        assert_eq!(outcome(&Ok(204), 5, first, 1000), Tried { status: Some(204), ..Tried::default() });
        assert!(outcome(&Ok(302), 1, first, 1000).problem.unwrap().contains("redirects"));
    }
}
