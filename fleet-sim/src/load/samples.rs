//! Times that were taken, and their shape.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use serde::Serialize;

/// Times of one kind of request, and how many got no good answer.
#[derive(Debug, Default)]
pub struct Samples {
    micros: RefCell<Vec<u64>>,
    failed: Cell<u64>,
}

/// What many times look like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shape {
    /// How many were made.
    pub count: u64,
    /// How many of them got no good answer in time; they are in the times with the time that this took.
    pub failed: u64,
    /// Half of them took at most so long, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 did.
    pub p99_ms: f64,
    /// All did.
    pub max_ms: f64,
}

impl Samples {
    /// Takes a time.
    pub fn add(&self, took: Duration, answered: bool) {
        self.micros.borrow_mut().push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.failed.set(self.failed.get() + u64::from(!answered));
    }

    /// What they look like.
    pub fn shape(&self) -> Shape {
        let mut micros = self.micros.borrow().clone();
        micros.sort_unstable();
        let count = micros.len() as u64;
        let at = |percent: usize| {
            let rank = (micros.len() * percent).div_ceil(100).saturating_sub(1);
            micros.get(rank).map_or(0.0, |micros| Duration::from_micros(*micros).as_secs_f64() * 1000.0)
        };
        Shape { count, failed: self.failed.get(), p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_taken() {
        let samples = Samples::default();
        assert_eq!(samples.shape().max_ms, 0.0);
        (1..=200).for_each(|ms| samples.add(Duration::from_millis(ms), ms < 200));
        let shape = samples.shape();
        assert_eq!((shape.count, shape.failed), (200, 1));
        assert_eq!((shape.p50_ms, shape.p99_ms, shape.max_ms), (100.0, 198.0, 200.0));
    }
}
