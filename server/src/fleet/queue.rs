//! Who waits for a place in a release, and since when: the next one goes to whoever waits longest.
//!
//! A place that is free is kept for those at the head of the line until they ask again, which they do within a heartbeat; who has not asked for a few
//! of them is passed over, and keeps its rank for a day. In memory: a restart forgets the order, and nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Heartbeats after which a device is not waited for.
const MISSED: i64 = 4;
/// How long the rank of a device is kept that does not ask, in seconds.
const KEPT_SECONDS: i64 = 24 * 3600;

/// Before everybody who waits.
const FIRST: u64 = 0;

#[derive(Debug, Clone, Copy)]
struct Wait {
    rank: u64,
    last: i64,
}

#[derive(Debug)]
struct Lines {
    next: u64,
    by_release: HashMap<i64, HashMap<String, Wait>>,
}

/// The lines, one for each release.
#[derive(Debug)]
pub struct Queue {
    lines: Mutex<Lines>,
    patience_seconds: i64,
}

impl Queue {
    /// Begins empty, for devices that ask this often.
    pub fn new(interval_seconds: u32) -> Queue {
        let lines = Mutex::new(Lines { next: FIRST + 1, by_release: HashMap::new() });
        Queue { lines, patience_seconds: i64::from(interval_seconds) * MISSED }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A panic elsewhere cannot leave a line half written.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a device is near enough to the head of the line for one of `free` places. It stands in the line until it [took](Self::took) one.
    pub fn may_take(&self, release: i64, device: &str, free: u32, now: i64) -> bool {
        let mut lines = self.lines();
        let Lines { next, by_release } = &mut *lines;
        let line = by_release.entry(release).or_default();
        line.retain(|_, wait| now - wait.last <= KEPT_SECONDS);
        let rank = line.get(device).map_or(*next, |wait| wait.rank);
        *next += u64::from(rank == *next);
        line.insert(device.to_owned(), Wait { rank, last: now });
        let before = |wait: &&Wait| wait.rank < rank && now - wait.last <= self.patience_seconds;
        u32::try_from(line.values().filter(before).count()).is_ok_and(|before| before < free)
    }

    /// It has its place.
    pub fn took(&self, release: i64, device: &str) {
        if let Some(line) = self.lines().by_release.get_mut(&release) {
            line.remove(device);
        }
    }

    /// An operator wants it to be next.
    pub fn prefer(&self, release: i64, device: &str, now: i64) {
        let first = Wait { rank: FIRST, last: now };
        self.lines().by_release.entry(release).or_default().insert(device.to_owned(), first);
    }

    /// Forgets the lines of releases that have none any more.
    pub fn keep(&self, going: impl Fn(i64) -> bool) {
        self.lines().by_release.retain(|release, _| going(*release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W1: places go to who waits longest, not to who asks at the right moment; who is gone is passed over and keeps its rank.
    #[test]
    fn w1_who_waits_longest_comes_first() {
        let queue = Queue::new(60);
        let ask = |device, free, now| queue.may_take(7, device, free, now);
        assert!(!ask("a", 0, 100) && !ask("b", 0, 110) && !ask("c", 0, 120));
        assert!(!ask("c", 1, 170) && !ask("b", 1, 171), "one place, and two wait longer than c");
        assert!(ask("b", 2, 172), "two places: for a and b");
        assert!(ask("a", 1, 173));
        queue.took(7, "a");
        assert!(ask("b", 1, 180), "a has its place");
        // b does not come back for it: after four heartbeats it is passed over, and first again when it does.
        assert!(!ask("c", 1, 420));
        assert!(ask("c", 1, 421));
        assert!(ask("b", 1, 500) && !ask("c", 1, 501));
        // Whom an operator wants to try again comes before all of them.
        queue.prefer(7, "late", 501);
        assert!(ask("late", 1, 502) && !ask("b", 1, 502));
        // Another release has a line of its own; what has ended has none.
        assert!(queue.may_take(8, "c", 1, 503));
        queue.keep(|rollout| rollout == 8);
        assert!(ask("z", 1, 503));
    }
}
