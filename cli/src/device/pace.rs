//! How fast a phase goes and how long it still takes: arithmetic over samples, no clock of its own.

use std::time::Duration;

/// How fast old samples fade: after this time they weigh 1/e, so about the last ten seconds count.
const MEMORY_SECONDS: f64 = 10.0;
/// Below this distance samples say more about scheduling than about speed.
const SHORTEST_SAMPLE: Duration = Duration::from_millis(200);

/// An estimate over the samples of one phase.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    phase: String,
    last: Option<(Duration, u64)>,
    bytes_per_second: Option<f64>,
}

impl Pace {
    /// Takes a sample: at `now` (since any fixed moment) `done` bytes of `phase` are done.
    pub(super) fn observe(&mut self, now: Duration, phase: &str, done: u64) {
        if self.phase != phase {
            *self = Pace { phase: phase.to_owned(), last: Some((now, done)), bytes_per_second: None };
            return;
        }
        let Some((before, done_before)) = self.last else {
            self.last = Some((now, done));
            return;
        };
        let elapsed = now.saturating_sub(before);
        if elapsed < SHORTEST_SAMPLE {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        let sample = to_f64(done.saturating_sub(done_before)) / seconds;
        let weight = (-seconds / MEMORY_SECONDS).exp();
        self.bytes_per_second = Some(
            self.bytes_per_second.map_or(sample, |estimate| estimate * weight + sample * (1.0 - weight)),
        );
        self.last = Some((now, done));
    }

    /// Bytes per second; `None` before the second sample of a phase.
    pub(super) fn speed(&self) -> Option<u64> {
        self.bytes_per_second.map(to_u64)
    }

    /// How long the rest of the phase takes at this speed; `None` when that is not known or would be days.
    pub(super) fn time_left(&self, done: u64, total: u64) -> Option<Duration> {
        const LONGEST: Duration = Duration::from_secs(48 * 3600);
        let speed = self.bytes_per_second.filter(|speed| *speed >= 1.0)?;
        let rest = total.checked_sub(done)?;
        let left = Duration::try_from_secs_f64(to_f64(rest) / speed).ok()?;
        (total > 0 && left <= LONGEST).then_some(left)
    }
}

/// An estimate does not need the 11 bits beyond an f64's mantissa.
#[allow(clippy::cast_precision_loss)]
fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// The estimate is never negative, and `as` saturates at the ends.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn to_u64(bytes: f64) -> u64 {
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(tenths: u64) -> Duration {
        Duration::from_millis(tenths * 100)
    }

    #[test]
    fn a_steady_stream_has_its_speed_and_its_end() {
        let mut pace = Pace::default();
        pace.observe(at(0), "writing", 0);
        assert_eq!((pace.speed(), pace.time_left(0, 100 * MIB)), (None, None));
        for second in 1..=5 {
            pace.observe(at(second * 10), "writing", second * 10 * MIB);
        }
        assert_eq!(pace.speed(), Some(10 * MIB));
        assert_eq!(pace.time_left(50 * MIB, 100 * MIB), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_new_phase_starts_anew_and_a_stall_shows() {
        let mut pace = Pace::default();
        pace.observe(at(0), "writing", 0);
        pace.observe(at(10), "writing", 80 * MIB);
        let fast = pace.speed().unwrap();
        pace.observe(at(200), "writing", 80 * MIB);
        assert!(pace.speed().unwrap() < fast / 4, "nineteen seconds without a byte");
        pace.observe(at(210), "flushing", 0);
        assert_eq!(pace.speed(), None);
    }

    #[test]
    fn nonsense_gives_no_estimate() {
        let mut pace = Pace::default();
        pace.observe(at(0), "writing", 10);
        pace.observe(at(1), "writing", 20);
        assert_eq!(pace.speed(), None, "too short to say anything");
        pace.observe(at(10), "writing", 5);
        assert_eq!(pace.speed(), Some(0), "backwards is not negative");
        assert_eq!(pace.time_left(5, 100), None, "never is not a time");
        assert_eq!(pace.time_left(100, 50), None);
    }
}
