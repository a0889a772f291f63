//! What devices are doing right now, in memory: the latest word of each, in the order of the words.
//!
//! A listener remembers the number of the last word it has seen and asks for what came after. So the latest word always arrives, however
//! slow the listener, and nothing is queued for anybody: memory is bounded by the number of devices.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::store::Taken;

/// Devices whose latest word is kept; the oldest words go first.
const MAX_DEVICES: usize = 100_000;

/// The latest word of a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Word {
    /// The device.
    pub device: String,
    /// Name of the release; null when it updates by itself.
    pub release: Option<String>,
    /// The group that the release is for.
    pub group: Option<String>,
    /// Its step in the release, if it changed with this word.
    pub step: Option<&'static str>,
    /// What otad is doing.
    pub phase: Option<String>,
    /// How far it is.
    pub percent: Option<u8>,
    /// When, Unix seconds.
    pub at: i64,
}

/// The latest words.
#[derive(Debug, Default)]
pub struct Live {
    words: Mutex<Words>,
}

#[derive(Debug, Default)]
struct Words {
    last: u64,
    by_number: BTreeMap<u64, Word>,
    numbers: HashMap<String, u64>,
}

impl Live {
    /// A device took a step.
    pub fn step(&self, taken: &Taken, now: i64) {
        self.say(Word {
            device: taken.device.clone(),
            release: Some(taken.release.clone()),
            group: taken.group.clone(),
            step: Some(taken.step.as_str()),
            phase: None,
            percent: None,
            at: now,
        });
    }

    /// A device says something. What it leaves open about its release stays as it was.
    pub fn say(&self, mut word: Word) {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let words = &mut *words;
        if let Some(number) = words.numbers.get(&word.device)
            && let Some(before) = words.by_number.remove(number)
        {
            word.release = word.release.or(before.release);
            word.group = word.group.or(before.group);
            word.step = word.step.or(before.step);
        }
        words.last += 1;
        words.numbers.insert(word.device.clone(), words.last);
        words.by_number.insert(words.last, word);
        if words.by_number.len() > MAX_DEVICES
            && let Some((_, oldest)) = words.by_number.pop_first()
        {
            words.numbers.remove(&oldest.device);
        }
    }

    /// The words after number `after` that `wanted` takes, at most `limit`, and the number to ask with next.
    pub fn since(&self, after: u64, limit: usize, wanted: impl Fn(&Word) -> bool) -> (u64, Vec<Word>) {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for (number, word) in words.by_number.range(after.saturating_add(1)..) {
            if wanted(word) {
                found.push(word.clone());
                if found.len() >= limit {
                    return (*number, found);
                }
            }
        }
        (words.last, found)
    }

    /// The number of the newest word.
    pub fn last(&self) -> u64 {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// The latest word of a device.
    pub fn of(&self, device: &str) -> Option<Word> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.numbers.get(device).and_then(|number| words.by_number.get(number)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(device: &str, percent: u8) -> Word {
        let (release, group, step, phase) = (None, None, None, None);
        Word { device: device.into(), release, group, step, phase, percent: Some(percent), at: 0 }
    }

    #[test]
    fn the_latest_word_wins_and_always_arrives() {
        let live = Live::default();
        let first = Word { release: Some("r".into()), step: Some("downloading"), ..word("a", 1) };
        live.say(first);
        let (seen, _) = live.since(0, 10, |_| true);
        (2..=100).for_each(|percent| live.say(word("a", percent)));
        live.say(word("b", 7));
        let (seen, words) = live.since(seen, 10, |_| true);
        let latest: Vec<_> = words.iter().map(|word| (word.device.as_str(), word.percent)).collect();
        assert_eq!(latest, [("a", Some(100)), ("b", Some(7))]);
        assert_eq!((words[0].release.as_deref(), words[0].step), (Some("r"), Some("downloading")));
        assert!(live.since(seen, 10, |_| true).1.is_empty());
        // A listener that takes one at a time gets all of them.
        let (seen, one) = live.since(0, 1, |_| true);
        let (_, other) = live.since(seen, 1, |_| true);
        assert_eq!((one[0].device.as_str(), other[0].device.as_str()), ("a", "b"));
        assert!(live.since(0, 10, |word| word.device == "c").1.is_empty());
    }
}
