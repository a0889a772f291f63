//! When a trial is healthy: all checks hold, without a break, for the settle time, before the deadline.
//!
//! A check that fails starts the settle time again; what decides is the deadline, because a system that is still
//! starting fails checks for good reasons.

use std::time::Duration;

use crate::config;
use crate::failure::{Code, Failure};
use crate::ports::{Clock, HealthChecks, Stop};

/// Pause between two rounds of checks, as a share of the settle time.
const ROUNDS_PER_SETTLE: u32 = 5;
/// Bounds of that pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a system on trial is held to: the device's own checks, and that it could be updated again, as far as its own files tell. A
/// release that commits without its keys is one that nobody can repair from afar.
pub struct OfTrial<'a> {
    /// The device's checks.
    pub checks: &'a dyn HealthChecks,
    /// Root of trust, device key and the files of `[server]`, if this is a trial.
    pub updatable: Option<&'a (dyn Fn() -> Result<(), Failure> + Sync)>,
}

impl HealthChecks for OfTrial<'_> {
    fn run(&self, limit: Duration) -> Result<(), Failure> {
        self.checks.run(limit)?;
        self.updatable.map_or(Ok(()), |updatable| updatable()).map_err(|failure| {
            Failure::new(failure.code, format!("this system could not be updated: {}", failure.message))
        })
    }

    fn pre_run(&self, image: &std::path::Path) -> Result<(), Failure> {
        self.checks.pre_run(image)
    }
}

/// Watches until the system is healthy (`Ok`), the deadline passes, or somebody stops it (`Cancelled`).
pub fn watch(
    health: &config::Health,
    checks: &dyn HealthChecks,
    clock: &dyn Clock,
    stop: &Stop,
) -> Result<(), Failure> {
    let pause = (health.settle / ROUNDS_PER_SETTLE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    let start = clock.monotonic();
    let mut healthy_since = None;
    let mut last = None;
    let mut breaks = 0u32;
    loop {
        if stop.requested() {
            return Err(crate::install::stopped());
        }
        let left = health.deadline.saturating_sub(clock.monotonic().saturating_sub(start));
        if left.is_zero() {
            return Err(too_late(health, last, breaks));
        }
        match checks.run(left) {
            _ if stop.requested() => return Err(crate::install::stopped()),
            Ok(()) => {
                let now = clock.monotonic();
                let since = *healthy_since.get_or_insert(now);
                if now.saturating_sub(since) >= health.settle {
                    return Ok(());
                }
            }
            Err(failure) => {
                if healthy_since.take().is_some() {
                    breaks += 1;
                }
                if last.as_ref() != Some(&failure) {
                    log::warn!("not healthy yet: {failure}");
                }
                // A round that the deadline cut off says nothing new: the reason is what failed by itself before.
                if last.is_none() || failure.code != Code::HealthTimeout {
                    last = Some(failure);
                }
            }
        }
        clock.sleep(pause.min(left));
    }
}

/// The deadline passed: the last failure is the reason, if there was one.
fn too_late(health: &config::Health, last: Option<Failure>, breaks: u32) -> Failure {
    let (deadline, settle) = (health.deadline.as_secs(), health.settle.as_secs());
    match last {
        Some(failure) if breaks > 0 => {
            let what = format!(
                "{}; health broke {breaks} times and never held for {settle} s within {deadline} s",
                failure.message
            );
            Failure::new(failure.code, what)
        }
        Some(failure) => {
            Failure::new(failure.code, format!("{}; not healthy within {deadline} s", failure.message))
        }
        None => Failure::new(
            Code::HealthTimeout,
            format!("health did not hold for {settle} s within {deadline} s"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Script {
        now: Mutex<Duration>,
        answers: Mutex<Vec<bool>>,
    }

    /// How long a round of checks takes.
    const ROUND: Duration = Duration::from_millis(700);

    impl Clock for Script {
        fn monotonic(&self) -> Duration {
            *self.now.lock().unwrap()
        }
        fn wall_seconds(&self) -> u64 {
            0
        }
        fn sleep(&self, time: Duration) {
            *self.now.lock().unwrap() += time;
        }
    }

    /// Fails with its own words, and is killed when it gets less time than it takes.
    impl HealthChecks for Script {
        fn run(&self, limit: Duration) -> Result<(), Failure> {
            if limit < ROUND {
                return Err(Failure::new(Code::HealthTimeout, "killed"));
            }
            *self.now.lock().unwrap() += ROUND;
            let mut answers = self.answers.lock().unwrap();
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
            if answer { Ok(()) } else { Err(Failure::new(Code::HealthFailed, "no sensor")) }
        }
        fn pre_run(&self, _image: &std::path::Path) -> Result<(), Failure> {
            Ok(())
        }
    }

    fn run(answers: &[bool]) -> Result<(), Failure> {
        let script = Script { now: Mutex::default(), answers: Mutex::new(answers.to_vec()) };
        let health = config::Health {
            checks: None,
            units: Vec::new(),
            settle: Duration::from_secs(10),
            deadline: Duration::from_secs(60),
        };
        watch(&health, &script, &script, &Stop::default())
    }

    /// H3: one good round is not health; it has to hold, and each break starts the settle time again.
    #[test]
    fn health_has_to_hold() {
        assert_eq!(run(&[true]), Ok(()));
        assert_eq!(run(&[false, false, true]), Ok(()));
        assert_eq!(run(&[true, true, false, true]), Ok(()));
        // The last round before the deadline is cut off, and the reason is still the check's own.
        let failure = run(&[false]).unwrap_err();
        assert_eq!(failure.code, Code::HealthFailed);
        assert!(failure.message.starts_with("no sensor"), "{failure}");
        let flapping: Vec<bool> = (0..100).map(|n| n % 4 != 3).collect();
        let failure = run(&flapping).unwrap_err();
        assert!(failure.message.starts_with("no sensor; health broke"), "{failure}");
    }
}
