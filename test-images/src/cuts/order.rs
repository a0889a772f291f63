//! What the two drives had stored at one and the same moment.
//!
//! Each drive has a log of its own, and neither says when the other one wrote. A state that mixes them freely may be one
//! that never was: a slot that is armed before it was flushed would look like a defect of otad. So an onlooker reads the
//! numbers of entries of both logs, thousands of times a second, while the machine runs, and only pairs that were really
//! seen together are used: QEMU counts an entry before it tells the guest that the request is done, so what the guest did
//! *because* of an entry is never counted without it. The number of the first drive is read again behind that of the
//! second, and the pair is dropped when it has changed.
//!
//! Between two pairs with the same number on one drive, every number in between was true on the other. A place that no
//! pair fixes is not used, and counted as such.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::log::count;

/// Pause between two looks: much shorter than one flush of the guest takes.
const LOOK: Duration = Duration::from_micros(100);

/// How many entries each log had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Moment {
    /// Entries of the disk's log.
    pub disk: u64,
    /// Entries of the card's log.
    pub card: u64,
}

/// A moment and when it was first seen, in milliseconds since the power came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The moment.
    pub moment: Moment,
    /// When.
    pub at_ms: u64,
}

/// Watches two logs until it is told to stop.
#[derive(Debug)]
pub struct Onlooker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Vec<Sighting>>>,
}

impl Onlooker {
    /// Begins to watch two files that exist.
    pub fn watch(disk: &Path, card: &Path) -> std::io::Result<Onlooker> {
        let [disk, card] = [File::open(disk)?, File::open(card)?];
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::Builder::new()
            .name("onlooker".to_owned())
            .spawn(move || look(&disk, &card, &told))?;
        Ok(Onlooker { stop, thread })
    }

    /// Stops and returns every moment that was seen, in order, each once.
    pub fn stop(self) -> std::io::Result<Vec<Sighting>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the onlooker panicked")))
    }
}

fn look(disk: &File, card: &File, stop: &AtomicBool) -> std::io::Result<Vec<Sighting>> {
    let begin = Instant::now();
    let mut seen: Vec<Sighting> = Vec::new();
    loop {
        // Read first: what was there when the stop was told is still seen.
        let is_last = stop.load(Ordering::Relaxed);
        let moment = Moment { disk: count(disk)?, card: count(card)? };
        let is_new = seen.last().is_none_or(|last| last.moment != moment);
        if is_new && count(disk)? == moment.disk {
            let at_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            seen.push(Sighting { moment, at_ms });
        }
        if is_last {
            return Ok(seen);
        }
        std::thread::sleep(LOOK);
    }
}

/// Every moment that is certain, in order, with the time of the sighting before it: those that were seen, and those
/// between two of them that agree on one drive.
pub fn certain(seen: &[Sighting]) -> Vec<Sighting> {
    let mut moments = Vec::new();
    for pair in seen.windows(2) {
        let [before, after] = pair else { continue };
        let (from, to) = (before.moment, after.moment);
        let at_ms = before.at_ms;
        if from.card == to.card {
            let between = from.disk..to.disk;
            moments.extend(between.map(|disk| Sighting { moment: Moment { disk, card: from.card }, at_ms }));
        } else if from.disk == to.disk {
            let between = from.card..to.card;
            moments.extend(between.map(|card| Sighting { moment: Moment { disk: from.disk, card }, at_ms }));
        } else {
            moments.push(*before);
        }
    }
    moments.extend(seen.last());
    moments
}

#[cfg(test)]
mod tests {
    use super::{Moment, Sighting, certain};

    #[test]
    fn only_what_was_seen_or_lies_between_is_certain() {
        let seen: Vec<Sighting> = [(0, 0), (2, 0), (2, 2), (4, 3), (5, 3)]
            .iter()
            .map(|(disk, card)| Sighting { moment: Moment { disk: *disk, card: *card }, at_ms: 0 })
            .collect();
        let found: Vec<(u64, u64)> =
            certain(&seen).iter().map(|sighting| (sighting.moment.disk, sighting.moment.card)).collect();
        // (3, 2), (3, 3), (4, 2) may never have been.
        assert_eq!(found, [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (4, 3), (5, 3)]);
    }
}
