//! Who is there: the last contact of every device, in memory, written to the database in batches.
//!
//! A heartbeat is an update check that brings nothing new, and costs no write. What a device *says* about itself (model, version, boot)
//! is written at once when it changes. A kill loses at most [`FLUSH_SECONDS`] of "last seen", and since nobody can have been missed
//! while the server was away, nobody is called lost until it had the time to come back.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::Sighting;

/// How often last contacts are written, in seconds. They only tell an operator, after a restart, who was here before it.
pub const FLUSH_SECONDS: i64 = 300;
/// The same where several processes share a database, in seconds; and how often each reads what the others saw.
pub const SYNC_SECONDS: i64 = 5;
/// Contacts in a row that a device may miss.
const MISSED: i64 = 3;
/// Devices ask up to a fifth later than they are told, and lines are slow: one more tenth.
const LATE_PERCENT: i64 = 130;
/// The interval that is handed out varies by this share, so that a fleet that came back together spreads out.
const JITTER_PERCENT: u64 = 10;

/// What is to be done about a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// Nothing: it said the same as before.
    Quiet,
    /// It is new or says something new: write it down.
    Write,
    /// There are as many devices as the server keeps; this one is not recorded.
    Full,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    last_seen: i64,
    written: i64,
    said: u64,
    /// The row of the database as it was read last, as a hash.
    row: u64,
}

/// The last contact of every device.
#[derive(Debug)]
pub struct Presence {
    entries: Mutex<HashMap<String, Entry>>,
    hasher: RandomState,
    started: i64,
    /// How much later than it happened a contact with another process is known here, in seconds.
    lag_seconds: i64,
    interval_seconds: u32,
    max_devices: usize,
}

impl Presence {
    /// Begins at `now` with what the database holds.
    pub fn new(interval_seconds: u32, max_devices: usize, now: i64) -> Presence {
        let entries = Mutex::new(HashMap::new());
        Presence {
            entries,
            hasher: RandomState::new(),
            started: now,
            lag_seconds: 0,
            interval_seconds,
            max_devices,
        }
    }

    /// The same where other processes see devices, too, and tell of them every [`SYNC_SECONDS`].
    pub fn shared(self) -> Presence {
        Presence { lag_seconds: 2 * SYNC_SECONDS, ..self }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // A panic elsewhere cannot leave an entry half written.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a device that the database holds, as it was or as another process has written it since. What it said here
    /// counts until the row changes.
    pub fn remember(&self, sighting: Sighting<'_>, last_seen: i64) {
        let row = self.said(sighting);
        let mut entries = self.entries();
        match entries.get_mut(sighting.device) {
            Some(entry) => {
                entry.last_seen = entry.last_seen.max(last_seen);
                entry.written = entry.written.max(last_seen);
                if entry.row != row {
                    (entry.row, entry.said) = (row, row);
                }
            }
            None => {
                let entry = Entry { last_seen, written: last_seen, said: row, row };
                entries.insert(sighting.device.to_owned(), entry);
            }
        }
    }

    /// A device asked for its update.
    pub fn note(&self, sighting: Sighting<'_>, now: i64) -> Noted {
        let said = self.said(sighting);
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(sighting.device) {
            entry.last_seen = entry.last_seen.max(now);
            return if entry.said == said { Noted::Quiet } else { Noted::Write };
        }
        if entries.len() >= self.max_devices { Noted::Full } else { Noted::Write }
    }

    /// What it said is written down.
    pub fn written(&self, sighting: Sighting<'_>, now: i64) {
        let said = self.said(sighting);
        let mut entries = self.entries();
        let row = entries.get(sighting.device).map_or(said, |entry| entry.row);
        let entry = Entry { last_seen: now, written: now, said, row };
        entries.insert(sighting.device.to_owned(), entry);
    }

    /// A device gave a sign of life that tells nothing about what it runs.
    pub fn touch(&self, device: &str, now: i64) {
        if let Some(entry) = self.entries().get_mut(device) {
            entry.last_seen = entry.last_seen.max(now);
        }
    }

    /// Last contacts that are not in the database yet, in its order: a batch then touches pages that lie side by side, each once.
    pub fn unwritten(&self) -> Vec<(String, i64)> {
        let entries = self.entries();
        let fresh = entries.iter().filter(|(_, entry)| entry.last_seen > entry.written);
        let mut fresh: Vec<_> = fresh.map(|(device, entry)| (device.clone(), entry.last_seen)).collect();
        drop(entries);
        fresh.sort_unstable();
        fresh
    }

    /// They are now.
    pub fn flushed(&self, batch: &[(String, i64)]) {
        let mut entries = self.entries();
        for (device, at) in batch {
            if let Some(entry) = entries.get_mut(device) {
                entry.written = entry.written.max(*at);
            }
        }
    }

    /// When a device was here last.
    pub fn last_seen(&self, device: &str) -> Option<i64> {
        self.entries().get(device).map(|entry| entry.last_seen)
    }

    /// Whether a device that was here last at `last_seen` has missed three contacts.
    pub fn is_lost(&self, last_seen: i64, now: i64) -> bool {
        let patience = i64::from(self.interval_seconds) * MISSED * LATE_PERCENT / 100;
        now - last_seen.max(self.started) > patience.max(1) + self.lag_seconds
    }

    /// How many devices are known, and how many of them are lost.
    pub fn count(&self, now: i64) -> (usize, usize) {
        let entries = self.entries();
        (entries.len(), entries.values().filter(|entry| self.is_lost(entry.last_seen, now)).count())
    }

    /// The devices that are lost.
    pub fn lost(&self, now: i64) -> Vec<String> {
        let entries = self.entries();
        let lost = entries.iter().filter(|(_, entry)| self.is_lost(entry.last_seen, now));
        lost.map(|(device, _)| device.clone()).collect()
    }

    /// When a device should ask again, in seconds, a little more or less for each.
    pub fn interval(&self, device: &str, now: i64) -> u64 {
        let interval = u64::from(self.interval_seconds);
        let span = interval * JITTER_PERCENT / 100;
        let offset = self.hasher.hash_one((device, now)).checked_rem(span * 2 + 1).unwrap_or(0);
        (interval - span + offset).max(1)
    }

    fn said(&self, sighting: Sighting<'_>) -> u64 {
        let Sighting { device: _, compatible, version, sequence, user_agent, release, boot_id, state } =
            sighting;
        self.hasher.hash_one((compatible, version, sequence, user_agent, release, boot_id, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting<'a>(device: &'a str, version: &'a str) -> Sighting<'a> {
        Sighting { version: Some(version), ..Sighting::of(device, "acme") }
    }

    #[test]
    fn heartbeats_are_quiet_and_news_is_written() {
        let presence = Presence::new(60, 2, 1000);
        assert_eq!(presence.note(sighting("a", "1"), 1000), Noted::Write);
        presence.written(sighting("a", "1"), 1000);
        assert_eq!(presence.note(sighting("a", "1"), 1060), Noted::Quiet);
        assert_eq!(presence.unwritten(), [("a".to_owned(), 1060)]);
        presence.flushed(&[("a".to_owned(), 1060)]);
        assert!(presence.unwritten().is_empty());
        assert_eq!(presence.note(sighting("a", "2"), 1070), Noted::Write);
        // A failed write is tried again with the next contact.
        assert_eq!(presence.note(sighting("a", "2"), 1080), Noted::Write);
        presence.remember(sighting("b", "1"), 900);
        assert_eq!(presence.note(sighting("b", "1"), 1080), Noted::Quiet);
        assert_eq!(presence.note(sighting("c", "1"), 1080), Noted::Full);
    }

    /// Lost after three missed contacts, and nobody because the server was away.
    #[test]
    fn lost_is_three_missed_and_a_restart_forgives() {
        let presence = Presence::new(60, 10, 10_000);
        for (last_seen, now, lost) in
            [(10_000, 10_180, false), (10_000, 10_240, true), (0, 10_180, false), (0, 10_240, true)]
        {
            assert_eq!(presence.is_lost(last_seen, now), lost, "{last_seen} {now}");
        }
    }

    /// What another process wrote is news here, too: a device that went on there and came back here says something new again.
    #[test]
    fn what_others_saw_is_known() {
        let presence = Presence::new(60, 10, 1000).shared();
        presence.remember(sighting("a", "1"), 1000);
        presence.remember(sighting("a", "1"), 1200);
        assert_eq!(
            (presence.last_seen("a"), presence.note(sighting("a", "1"), 1100)),
            (Some(1200), Noted::Quiet)
        );
        presence.remember(sighting("a", "2"), 1210);
        assert_eq!(presence.note(sighting("a", "1"), 1220), Noted::Write);
        presence.written(sighting("a", "1"), 1220);
        // The row as it was before that write is no news.
        presence.remember(sighting("a", "2"), 1210);
        assert_eq!(presence.note(sighting("a", "1"), 1230), Noted::Quiet);
        assert!(!presence.is_lost(1000, 1240) && presence.is_lost(1000, 1245));
    }

    #[test]
    fn intervals_spread() {
        let presence = Presence::new(60, 10, 0);
        let given: std::collections::HashSet<_> =
            (0..100).map(|n| presence.interval(&format!("d{n}"), 5)).collect();
        assert!(given.iter().all(|seconds| (54..=66).contains(seconds)) && given.len() > 5, "{given:?}");
        assert_eq!(Presence::new(1, 10, 0).interval("d", 0), 1);
    }
}
