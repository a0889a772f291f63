//! Asking the server: schedule, jitter, backoff, and which offers are taken.
//!
//! Runs on a thread of its own, one round after the other: hand in reports, then ask. What the server says is never
//! trusted; it only tells where a signed bundle may be.

use std::time::Duration;

use crate::config::Server;
use crate::failure::{Code, Failure};
use crate::install::prepare::Current;
use crate::lifecycle::event::{Stage, State};
use crate::lifecycle::record::{FailedRelease, Record};
use crate::ports::{Answer, Offer, Question};

/// After failures the interval doubles up to this.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
/// The interval varies by this share each time, so that a fleet that lost power together does not ask together.
const JITTER_PERCENT: u64 = 20;
/// How often a release is taken again after the boot counter gave it up: flickering power is not a bad image.
const TRIES_AFTER_BOOT_COUNT: u32 = 3;
/// How often a release is taken again after something else than its content failed, for example the slot's flash.
const TRIES_AFTER_OTHERS: u32 = 3;
/// How often a release is taken that was refused, or whose own health checks failed: it will not get better by itself.
const TRIES_AFTER_VERDICT: u32 = 1;

/// When to ask next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    interval: Duration,
    failures: u32,
}

impl Schedule {
    /// Starts with the configured interval.
    pub fn new(server: &Server) -> Self {
        Schedule { interval: server.interval, failures: 0 }
    }

    /// The server answered.
    pub fn answered(&mut self) {
        self.failures = 0;
    }

    /// It did not.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// How long to wait now; `random` is any number, evenly distributed.
    pub fn wait(&self, random: u64) -> Duration {
        let base = self.interval.saturating_mul(1 << self.failures.min(12));
        let base = base.min(LONGEST_INTERVAL.max(self.interval));
        let millis = u64::try_from(base.as_millis()).unwrap_or(u64::MAX);
        let span = millis / 100 * JITTER_PERCENT;
        let offset = random.checked_rem(span.saturating_mul(2).saturating_add(1)).unwrap_or(0);
        Duration::from_millis((millis - span).saturating_add(offset))
    }
}

/// What to tell the server.
pub fn question(device: String, compatible: &str, current: &Current) -> Question {
    let Current { version, sequence, release, .. } = current.clone();
    Question { device, compatible: compatible.to_owned(), version, sequence, release }
}

/// Whether the device may start an install by itself now.
pub fn may_install(state: &State) -> bool {
    match state {
        State::Idle | State::Failed(..) => true,
        State::PreUpgrade(_)
        | State::Upgrading(_)
        | State::PostUpgrade(_, Stage::Arming | Stage::Armed | Stage::Trial | Stage::RollingBack(_)) => false,
    }
}

/// Decides about the server's answer: the offer to take, nothing, or why not.
pub fn decide(
    answer: Answer,
    record: &Record,
    running: Option<otad_bundle::Digest>,
) -> Result<Option<Offer>, Failure> {
    let Answer::Offer(offer) = answer else { return Ok(None) };
    if running == Some(offer.release) {
        return Ok(None);
    }
    let failed = record.failed.iter().find(|failed| failed.release == offer.release);
    match failed.filter(|failed| failed.tries >= limit(failed)) {
        None => Ok(Some(offer)),
        Some(failed) => {
            let (version, code) = (&offer.version, &failed.code);
            let tries =
                if failed.tries == 1 { "1 try".to_owned() } else { format!("{} tries", failed.tries) };
            let what = format!(
                "version {version} did not work on this device ({code}, {tries}) and is not taken again"
            );
            Err(Failure::new(
                Code::ReleaseFailedBefore,
                format!("{what}; install it by hand to try once more"),
            ))
        }
    }
}

fn limit(failed: &FailedRelease) -> u32 {
    match Code::from_text(&failed.code) {
        Some(Code::RolledBack) => TRIES_AFTER_BOOT_COUNT,
        Some(Code::HealthFailed | Code::HealthTimeout) => TRIES_AFTER_VERDICT,
        Some(code) if code.class() == otad_dbus::Class::Rejected => TRIES_AFTER_VERDICT,
        Some(_) | None => TRIES_AFTER_OTHERS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otad_bundle::Digest;

    #[test]
    fn the_interval_doubles_after_failures_and_stays_within_bounds() {
        let server = Server { url: String::new(), interval: Duration::from_secs(60) };
        let mut schedule = Schedule::new(&server);
        for random in [0, 1, 12_345, u64::MAX] {
            let wait = schedule.wait(random);
            assert!((48..=72).contains(&wait.as_secs()), "{wait:?}");
        }
        schedule.failed();
        assert!(schedule.wait(0) >= Duration::from_secs(96));
        (0..100).for_each(|_| schedule.failed());
        assert!(schedule.wait(u64::MAX / 3) <= LONGEST_INTERVAL * 12 / 10);
        schedule.answered();
        assert!(schedule.wait(0) < Duration::from_secs(72));
    }

    /// A release that failed its own health checks is not taken again; one that only lost its boots is, a few times.
    #[test]
    fn failed_releases_are_remembered() {
        let release = Digest([7; 32]);
        let offer = || {
            Answer::Offer(Offer { release, version: "3.0.0".into(), url: "http://x/y".into(), delta: None })
        };
        let mut record = Record::default();
        assert!(decide(offer(), &record, None).unwrap().is_some());
        assert_eq!(decide(offer(), &record, Some(release)), Ok(None));
        for n in 1..=TRIES_AFTER_BOOT_COUNT {
            record.count_failure(release, "ROLLED_BACK");
            assert_eq!(decide(offer(), &record, None).is_ok(), n < TRIES_AFTER_BOOT_COUNT);
        }
        record.count_failure(Digest([8; 32]), "HEALTH_FAILED");
        let other = Answer::Offer(Offer {
            release: Digest([8; 32]),
            version: "4.0.0".into(),
            url: String::new(),
            delta: None,
        });
        assert_eq!(decide(other, &record, None).unwrap_err().code, Code::ReleaseFailedBefore);
    }
}
