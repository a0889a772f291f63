//! How long to keep trying: counts tries without progress, judges the rate, and says how long to wait.
//!
//! Pure but for the random part of a wait and the log line; never sleeps.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use super::Limits;
use super::client::{Next, Trouble};
use super::place::Place;
use crate::failure::{Code, Failure};

/// The state of one transfer's tries.
#[derive(Debug)]
pub(super) struct Patience {
    limits: Limits,
    /// Failed tries since the last progress.
    failed: u32,
    /// Bytes handed out since the last failed try.
    fresh: u64,
    /// Time spent waiting for bytes in this window, and the bytes that came. Time that the reader spends on writing a
    /// slow disk is not the network's fault and does not count.
    waited: Duration,
    came: u64,
}

impl Patience {
    pub(super) fn new(limits: &Limits) -> Patience {
        Patience { limits: limits.clone(), failed: 0, fresh: 0, waited: Duration::ZERO, came: 0 }
    }

    /// Bytes that were not there before were handed out. Only those count: a server that ignores ranges and breaks off
    /// at the same byte each time makes no progress, however much it sends.
    pub(super) fn progress(&mut self, bytes: u64) {
        self.fresh = self.fresh.saturating_add(bytes);
        if self.fresh >= self.limits.window_bytes {
            self.failed = 0;
        }
    }

    /// Judges the rate after a read that took `waited` and gave `bytes`.
    pub(super) fn pace(&mut self, waited: Duration, bytes: u64, place: &Place) -> Result<(), Trouble> {
        self.waited = self.waited.saturating_add(waited);
        self.came = self.came.saturating_add(bytes);
        if self.waited < self.limits.window {
            return Ok(());
        }
        let (waited, came) = (std::mem::take(&mut self.waited), std::mem::take(&mut self.came));
        if came >= self.limits.window_bytes {
            return Ok(());
        }
        let message = format!("{place} sent {came} bytes in {:.1} s", waited.as_secs_f32());
        Err(Trouble::passing(Code::NetStalled, message))
    }

    /// Says how long to wait before the next try, or that there is none.
    pub(super) fn after(&mut self, trouble: Trouble) -> Result<Duration, Failure> {
        let Trouble { failure, next } = trouble;
        let asked = match next {
            Next::GiveUp => return Err(failure),
            Next::Retry => Duration::ZERO,
            Next::RetryAfter(wait) if wait > self.limits.busy_wait => return Err(failure),
            Next::RetryAfter(wait) => wait,
        };
        self.fresh = 0;
        (self.waited, self.came) = (Duration::ZERO, 0);
        self.failed = self.failed.saturating_add(1);
        let (failed, tries) = (self.failed, self.limits.tries);
        if failed >= tries {
            let message =
                format!("{failure}; gave up after {tries} tries without progress, what was fetched is kept");
            return Err(Failure::new(failure.code, message));
        }
        let wait = self.backoff().max(asked);
        log::warn!("{failure}; retrying {failed}/{} in {:.1} s", tries.saturating_sub(1), wait.as_secs_f32());
        Ok(wait)
    }

    /// Doubles with each failed try, up to a limit; up to half is cut off at random, so that a fleet that lost its
    /// server does not come back all at once.
    fn backoff(&self) -> Duration {
        let doublings = self.failed.saturating_sub(1).min(16);
        let full = self.limits.backoff_first.saturating_mul(1 << doublings).min(self.limits.backoff_longest);
        // Each RandomState has keys of its own, from the system's random source.
        let random = RandomState::new().build_hasher().finish();
        let cut = u32::try_from(random % 512).unwrap_or_default();
        full - full / 1024 * cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience() -> Patience {
        Patience::new(&Limits {
            tries: 4,
            backoff_first: Duration::from_secs(1),
            backoff_longest: Duration::from_secs(3),
            busy_wait: Duration::from_secs(60),
            window: Duration::from_secs(10),
            window_bytes: 1000,
            ..Limits::default()
        })
    }

    fn passing() -> Trouble {
        Trouble::passing(Code::NetFailed, "broke".to_owned())
    }

    /// N1: waits double up to the limit, never below half, and end.
    #[test]
    fn waits_grow_and_end() {
        for _ in 0..200 {
            let mut patience = patience();
            for full in [1.0, 2.0, 3.0] {
                let wait = patience.after(passing()).unwrap().as_secs_f64();
                assert!((full / 2.0..=full).contains(&wait), "{wait} of {full}");
            }
            let failure = patience.after(passing()).unwrap_err();
            assert_eq!(failure.code, Code::NetFailed);
            assert!(failure.message.contains("4 tries"), "{failure}");
        }
    }

    /// N1: progress gives all tries back, a trickle does not.
    #[test]
    fn only_progress_resets_the_tries() {
        let mut patience = patience();
        for _ in 0..100 {
            patience.progress(1000);
            patience.after(passing()).unwrap();
        }
        for left in (0..3).rev() {
            patience.progress(999);
            assert_eq!(patience.after(passing()).is_ok(), left > 0, "{left} left");
        }
    }

    /// N2: a trickle is a stall, also when it never pauses for long; a slow line and a slow reader are not.
    #[test]
    fn the_rate_is_judged_by_time_spent_waiting() {
        let place = Place::parse("http://a/").unwrap();
        let mut trickle = patience();
        let stalled = (0..20).position(|_| trickle.pace(Duration::from_secs(1), 99, &place).is_err());
        assert_eq!(stalled, Some(9));
        let mut slow = patience();
        assert!((0..100).all(|_| slow.pace(Duration::from_secs(1), 100, &place).is_ok()));
        let mut slow_reader = patience();
        assert!((0..100_000).all(|_| slow_reader.pace(Duration::from_micros(5), 1, &place).is_ok()));
    }

    /// N7: a short wait is kept, a long one is a failure of its own.
    #[test]
    fn busy_servers_are_waited_for_within_reason() {
        let busy = |seconds| Trouble { next: Next::RetryAfter(Duration::from_secs(seconds)), ..passing() };
        assert_eq!(patience().after(busy(60)).unwrap(), Duration::from_secs(60));
        assert!(patience().after(busy(0)).unwrap() >= Duration::from_millis(500));
        assert!(patience().after(busy(61)).is_err());
    }
}
