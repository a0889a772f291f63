//! The record: what otad must still know after a power cut, and the order in which it gets to disk.
//!
//! # Format
//! `record.json` in the data directory, UTF-8, two lines: `otad-record 1 <crc32>` (eight hexadecimal digits, zlib CRC-32
//! over the rest of the file) and one JSON object. The previous generation is kept as `record.old`.
//!
//! The reader is forgiving, because after a rollback the *old* otad reads what the *new* one wrote: unknown keys, and
//! entries of slots, history and failed releases that it does not understand, are kept and written again, and a state it
//! does not know is given back as `None` for recovery to settle from the boot environment. A file whose checksum is wrong is no file; the previous generation is used and said so.

use std::collections::BTreeMap;
use std::path::Path;

use otad_bundle::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{Attempt, Reason, Release, State};
use crate::config::SlotName;
use crate::failure::{self, Failure};
use crate::ports::StateFs;

const FILE: &str = "record.json";
const OLD: &str = "record.old";
const NEW: &str = "record.new";
const MAGIC: &str = "otad-record 1";
/// Results kept for `otactl log`; at about 300 bytes each the record stays below 16 KiB, rewritten five times an update.
const HISTORY_LIMIT: usize = 32;
/// Reports kept for a server that cannot be reached.
const REPORT_LIMIT: usize = 16;
/// Rolled-back releases remembered, so that the server's insistence does not loop the device.
const FAILED_LIMIT: usize = 16;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Where the update stands; a JSON value because a newer otad may have states this one does not know.
    #[serde(default)]
    state: Value,
    /// What each slot is known to hold.
    #[serde(default)]
    pub slots: BTreeMap<SlotName, Held>,
    /// What slots that otad did not write said of themselves when they ran.
    #[serde(default)]
    pub factory: BTreeMap<SlotName, Factory>,
    /// What slots held by the record before they were last written.
    #[serde(default)]
    pub replaced: BTreeMap<SlotName, Factory>,
    /// The highest sequence that was ever committed: the anti-rollback floor. Going back to a slot that is there leaves it; only a
    /// release that the recovery role signed for that lowers it.
    #[serde(default)]
    pub floor: u64,
    /// The newest root of trust that was ever stored: nothing is believed by an older one, even if the roots are lost.
    #[serde(default)]
    pub root_version: u64,
    /// Number of the next job.
    #[serde(default)]
    pub next_job: u64,
    /// How updates ended, oldest first.
    #[serde(default)]
    pub history: Vec<Ended>,
    /// Releases that did not work on this device.
    #[serde(default)]
    pub failed: Vec<FailedRelease>,
    /// What the server has not been told yet, as JSON bodies.
    #[serde(default)]
    pub reports: Vec<Value>,
    /// Keys that a newer otad wrote.
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
    /// Entries that a newer otad wrote, by the list they belong to.
    #[serde(skip)]
    strange: BTreeMap<&'static str, Value>,
}

/// What a slot is known to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The release, every byte of it read back.
    pub release: Release,
    /// Seconds since 1970; 0 when unknown.
    pub installed_at: u64,
}

/// Which release an image is, by what it says of itself or by what was known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factory {
    /// Its version.
    pub version: String,
    /// Its sequence.
    pub sequence: u64,
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// A word of [`otad_dbus::value::outcome`].
    pub outcome: String,
    /// Why, unless it went well.
    #[serde(default)]
    pub reason: Option<Reason>,
    /// Version, empty when the manifest was never verified.
    pub version: String,
    /// Sequence, 0 when the manifest was never verified.
    pub sequence: u64,
    /// Digest of the release.
    #[serde(default)]
    pub release: Option<Digest>,
    /// The slot that was the target.
    pub slot: SlotName,
    /// The phase of its job, or the state, in which it ended.
    pub phase: String,
    /// Seconds since 1970; 0 when unknown.
    pub time: u64,
}

/// A release that did not work on this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRelease {
    /// Which.
    pub release: Digest,
    /// How often.
    pub tries: u32,
    /// How the last time ended.
    pub code: String,
}

impl Record {
    /// The state, or `None` when a newer otad wrote one that this one does not know.
    pub fn state(&self) -> Option<State> {
        if self.state.is_null() {
            return Some(State::Idle);
        }
        serde_json::from_value(self.state.clone()).ok()
    }

    /// Sets the state.
    pub fn set_state(&mut self, state: &State) -> Result<(), serde_json::Error> {
        self.state = serde_json::to_value(state)?;
        Ok(())
    }

    /// Adds a result, forgetting the oldest beyond the limit.
    pub fn remember_end(&mut self, ended: Ended) {
        push_bounded(&mut self.history, ended, HISTORY_LIMIT);
    }

    /// Queues a report for the server, forgetting the oldest beyond the limit.
    pub fn queue_report(&mut self, report: Value) {
        push_bounded(&mut self.reports, report, REPORT_LIMIT);
    }

    /// Counts a failure of a release on this device.
    pub fn count_failure(&mut self, release: Digest, code: &str) {
        let known = self.failed.iter().position(|failed| failed.release == release);
        let tries = known.map(|at| self.failed.remove(at).tries).unwrap_or(0).saturating_add(1);
        push_bounded(&mut self.failed, FailedRelease { release, tries, code: code.to_owned() }, FAILED_LIMIT);
    }

    /// What a slot holds, if it is known.
    pub fn held(&self, slot: &str) -> Option<&Release> {
        self.slots.get(slot).map(|held| &held.release)
    }

    /// Makes the result entry for an attempt.
    pub fn ended(attempt: &Attempt, outcome: &str, phase: &str, reason: Option<Reason>, time: u64) -> Ended {
        let release = attempt.release.as_ref();
        Ended {
            outcome: outcome.to_owned(),
            reason,
            version: release.map(|release| release.version.clone()).unwrap_or_default(),
            sequence: release.map_or(0, |release| release.sequence),
            release: release.map(|release| release.digest),
            slot: attempt.target.clone(),
            phase: phase.to_owned(),
            time,
        }
    }
}

/// The id that makes handing in a report twice harmless.
pub fn report_id(report: &Value) -> &str {
    report.get("report_id").and_then(Value::as_str).unwrap_or_default()
}

fn push_bounded<T>(list: &mut Vec<T>, item: T, limit: usize) {
    list.push(item);
    let surplus = list.len().saturating_sub(limit);
    list.drain(..surplus);
}

/// What loading found.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The record; empty when there was none.
    pub record: Record,
    /// What to say about it, when it was not simply there and whole.
    pub remark: Option<String>,
}

/// Reads the record: the current generation, else the previous one, else an empty one.
pub fn load(fs: &dyn StateFs) -> Result<Loaded, Failure> {
    let current = read(fs, FILE)?;
    if let Some(Ok(record)) = current {
        return Ok(Loaded { record, remark: None });
    }
    let old = read(fs, OLD)?;
    Ok(match (current, old) {
        // Cut between the two renames of `save`: the previous generation is the newest whole one.
        (None, Some(Ok(record))) => Loaded { record, remark: None },
        (Some(Err(why)), Some(Ok(record))) => Loaded {
            record,
            remark: Some(format!("{FILE} is damaged ({why}); the previous generation is used")),
        },
        (None, None) => Loaded { record: Record::default(), remark: None },
        (Some(Err(why)), _) | (None, Some(Err(why))) => Loaded {
            record: Record::default(),
            remark: Some(format!("the record is damaged ({why}); it is rebuilt from the boot environment")),
        },
        (Some(Ok(record)), _) => Loaded { record, remark: None },
    })
}

fn read(fs: &dyn StateFs, name: &str) -> Result<Option<Result<Record, String>>, Failure> {
    let bytes = fs.read(name).map_err(|error| failure::from_state("read", Path::new(name), &error))?;
    Ok(bytes.map(|bytes| decode(&bytes)))
}

/// Makes the record durable: a power cut at any point leaves the old or the new content (P12).
pub fn save(fs: &dyn StateFs, record: &Record) -> Result<(), Failure> {
    let at =
        |act: &'static str| move |error: std::io::Error| failure::from_state(act, Path::new(FILE), &error);
    let body =
        serde_json::to_value(record).map(|value| with_strange(value, &record.strange).to_string()).map_err(
            |error| Failure::new(failure::Code::Internal, format!("cannot encode the record: {error}")),
        )?;
    let bytes = encode(&body);
    fs.create(NEW)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.flush()))
        .map_err(at("write"))?;
    fs.sync(NEW).map_err(at("flush"))?;
    if fs.read(FILE).map_err(at("read"))?.is_some_and(|bytes| decode(&bytes).is_ok()) {
        fs.rename(FILE, OLD).map_err(at("rename"))?;
    }
    fs.rename(NEW, FILE).map_err(at("rename"))?;
    fs.sync_directory().map_err(at("flush the directory of"))
}

fn encode(body: &str) -> Vec<u8> {
    let crc = crc32fast::hash(body.as_bytes());
    format!("{MAGIC} {crc:08x}\n{body}").into_bytes()
}

fn decode(bytes: &[u8]) -> Result<Record, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    let (head, body) = text.split_once('\n').ok_or("no header line")?;
    let stored = head
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or("not a record of version 1")?;
    let actual = format!("{:08x}", crc32fast::hash(body.as_bytes()));
    if stored != actual {
        return Err(format!("checksum {actual} instead of {stored}"));
    }
    let mut value: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let mut strange = BTreeMap::new();
    set_aside::<Held>(&mut value, "slots", &mut strange);
    set_aside::<Ended>(&mut value, "history", &mut strange);
    set_aside::<FailedRelease>(&mut value, "failed", &mut strange);
    let record: Record = serde_json::from_value(value).map_err(|error| error.to_string())?;
    Ok(Record { strange, ..record })
}

/// Takes the entries of a list or map that are no `T` out of the record, so that they cannot spoil the rest of it.
fn set_aside<T: serde::de::DeserializeOwned>(
    record: &mut Value,
    key: &'static str,
    strange: &mut BTreeMap<&'static str, Value>,
) {
    let is_strange = |value: &Value| serde_json::from_value::<T>(value.clone()).is_err();
    match record.get_mut(key) {
        Some(Value::Array(list)) => {
            let (odd, known): (Vec<_>, Vec<_>) = std::mem::take(list).into_iter().partition(is_strange);
            *list = known;
            if !odd.is_empty() {
                strange.insert(key, Value::Array(odd));
            }
        }
        Some(Value::Object(map)) => {
            let (odd, known): (serde_json::Map<_, _>, serde_json::Map<_, _>) =
                std::mem::take(map).into_iter().partition(|(_, value)| is_strange(value));
            *map = known;
            if !odd.is_empty() {
                strange.insert(key, Value::Object(odd));
            }
        }
        _ => {}
    }
}

/// Puts what was set aside back where it was; what this otad has written since comes first.
fn with_strange(mut record: Value, strange: &BTreeMap<&'static str, Value>) -> Value {
    for (&key, odd) in strange {
        match (record.get_mut(key), odd) {
            (Some(Value::Array(list)), Value::Array(odd)) => {
                let known = std::mem::replace(list, odd.clone());
                list.extend(known);
            }
            (Some(Value::Object(map)), Value::Object(odd)) => {
                for (name, value) in odd {
                    map.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            _ => {}
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_newer_otad_keeps_what_this_one_does_not_know() {
        let newer = r#"{"state":{"hibernating":3},"slots":{},"next_job":7,"fleet":{"x":1}}"#;
        let record = decode(&encode(newer)).unwrap();
        assert_eq!(record.state(), None);
        let again: Value = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(again["fleet"]["x"], 1);
        assert_eq!(again["state"]["hibernating"], 3);
        assert_eq!(record.next_job, 7);
    }

    #[test]
    fn an_entry_of_a_newer_otad_does_not_spoil_the_others() {
        let newer = r#"{"slots":{"b":{"release":{"kind":"archive"}},"a":{"release":{"digest":
            "0000000000000000000000000000000000000000000000000000000000000000","version":"1.0.0","sequence":1,"images":[]},
            "installed_at":5}},"history":[{"odd":1}],"failed":[]}"#;
        let record = decode(&encode(newer)).unwrap();
        assert_eq!(record.held("a").map(|release| release.sequence), Some(1));
        assert_eq!(record.held("b"), None);
        let again = with_strange(serde_json::to_value(&record).unwrap(), &record.strange);
        assert_eq!(again["slots"]["b"]["release"]["kind"], "archive");
        assert_eq!(again["history"][0]["odd"], 1);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let good = encode(r#"{"state":"idle","next_job":1}"#);
        assert!(decode(&good).is_ok());
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(decode(&bad).is_err(), "bit {at}");
        }
        for length in 0..good.len() {
            assert!(decode(&good[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn lists_are_bounded_and_failures_counted() {
        let mut record = Record::default();
        for n in 0..100u8 {
            record.count_failure(Digest([n; 32]), "ROLLED_BACK");
            record.queue_report(Value::from(n));
        }
        record.count_failure(Digest([99; 32]), "HEALTH_FAILED");
        assert_eq!(record.failed.len(), FAILED_LIMIT);
        assert_eq!(record.failed.last().map(|f| (f.tries, f.code.as_str())), Some((2, "HEALTH_FAILED")));
        assert_eq!(record.reports.len(), REPORT_LIMIT);
        assert_eq!(record.reports.last(), Some(&Value::from(99)));
    }
}
