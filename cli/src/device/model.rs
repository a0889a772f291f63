//! What `otactl` knows of a device: the manager, its slots, the running job and how the last update ended.
//!
//! Plain data, read from dictionaries of the bus. The JSON forms of these types are the documented schema of
//! `otactl status --json` and `otactl log --json`: fields are only ever added.

use std::collections::BTreeMap;

use otad_dbus::value::{result, state};
use otad_dbus::{JOB_INTERFACE, MANAGER_INTERFACE, MANAGER_PATH, SLOT_INTERFACE};
use serde::Serialize;
use zbus::fdo::ManagedObjects;
use zbus::message::Sequence;

use super::fields::{Absent, Dict, Fields, Malformed, job_path};

/// Everything that `otactl status` shows, taken in one round trip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Device {
    /// One of [`otad_dbus::value::state`].
    pub(super) state: String,
    pub(super) compatible: String,
    /// Version of the running system; empty when unknown.
    pub(super) version: String,
    /// Empty when the evidence does not agree.
    pub(super) booted_slot: String,
    pub(super) primary_slot: String,
    pub(super) api_revision: u32,
    /// By name.
    pub(super) slots: Vec<Slot>,
    /// The job under way.
    pub(super) job: Option<Job>,
    /// How the last update ended.
    pub(super) last_result: Option<Outcome>,
    /// What keeps the device from being updated; empty when all is well.
    pub(super) problems: Vec<Problem>,
    /// Version of the root of trust that the device follows; 0 when there is none.
    pub(super) root_version: u64,
    /// What no release may go below without the recovery role.
    pub(super) sequence_floor: u64,
}

/// Something that keeps the device from being updated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// A stable code.
    pub(super) code: String,
    pub(super) message: String,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Slot {
    pub(super) name: String,
    /// One of [`otad_dbus::value::slot_state`].
    pub(super) state: String,
    pub(super) booted: bool,
    pub(super) primary: bool,
    pub(super) version: String,
    pub(super) sequence: u64,
    pub(super) release: String,
    /// Seconds since 1970; 0 when unknown.
    pub(super) installed_at: u64,
    /// Role to device path.
    pub(super) images: BTreeMap<String, String>,
}

/// A job and how far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Job {
    pub(super) path: String,
    pub(super) phase: String,
    /// The whole job in percent.
    pub(super) progress: u32,
    /// Bytes of the phase.
    pub(super) bytes_done: u64,
    /// Bytes of the phase in all; 0 while unknown.
    pub(super) bytes_total: u64,
    pub(super) bytes_fetched: u64,
    pub(super) bytes_written: u64,
    /// Bytes that the target held already.
    pub(super) bytes_unchanged: u64,
    /// Empty until the manifest is verified.
    pub(super) version: String,
    /// The answer these values came in: signals that were received before it are older than they.
    #[serde(skip)]
    pub(super) as_of: Sequence,
}

/// How an update ended: `LastResult` and the entries of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Outcome {
    /// One of [`otad_dbus::value::outcome`].
    pub(super) outcome: String,
    /// A stable code, empty after a success.
    pub(super) code: String,
    pub(super) message: String,
    pub(super) version: String,
    pub(super) sequence: u64,
    pub(super) release: String,
    pub(super) slot: String,
    pub(super) phase: String,
    /// Seconds since 1970 by the clock of the device; 0 when unknown.
    pub(super) time: u64,
}

impl Device {
    /// Reads what `GetManagedObjects` returned.
    pub(super) fn read(objects: &ManagedObjects) -> Result<Device, Malformed> {
        let interface = |path: &str, name: &str| {
            objects.iter().find(|(candidate, _)| candidate.as_str() == path).and_then(|(_, interfaces)| {
                interfaces.iter().find(|(candidate, _)| candidate.as_str() == name).map(|(_, dict)| dict)
            })
        };
        let manager =
            interface(MANAGER_PATH, MANAGER_INTERFACE).ok_or(Malformed::Missing(MANAGER_INTERFACE))?;
        let fields = Fields::new(manager, Absent::Malformed);
        let mut slots = Vec::new();
        for dict in objects.values().flatten().filter(|(name, _)| name.as_str() == SLOT_INTERFACE) {
            slots.push(Slot::read(dict.1)?);
        }
        slots.sort_by(|one, other| one.name.cmp(&other.name));
        // The job's object may already be gone, or not be there yet, in the instant of the snapshot.
        let job = match job_path(&fields.path("CurrentJob")?) {
            Some(path) => interface(path.as_str(), JOB_INTERFACE)
                .map(|dict| Job::read(path.as_str(), dict))
                .transpose()?,
            None => None,
        };
        Ok(Device {
            state: fields.text("State")?,
            compatible: fields.text("Compatible")?,
            version: fields.text("Version")?,
            booted_slot: fields.text("BootedSlot")?,
            primary_slot: fields.text("PrimarySlot")?,
            api_revision: fields.small_number("ApiRevision")?,
            slots,
            job,
            last_result: Outcome::read(&fields.dict("LastResult")?)?,
            problems: problems(manager),
            root_version: later_number(manager, "RootVersion"),
            sequence_floor: later_number(manager, "SequenceFloor"),
        })
    }

    /// Whether an update is under way before its reboot, with or without a job that this moment shows.
    pub(super) fn is_working(&self) -> bool {
        self.job.is_some() || self.state == state::PRE_UPGRADE || self.state == state::UPGRADING
    }
}

/// A number that an otad from before this property has not to tell: 0 then.
fn later_number(manager: &Dict, name: &str) -> u64 {
    manager.get(name).and_then(|value| u64::try_from(value.clone()).ok()).unwrap_or_default()
}

/// An otad that is older than this property has none to tell.
fn problems(manager: &Dict) -> Vec<Problem> {
    let told =
        manager.get("Problems").and_then(|value| Vec::<(String, String)>::try_from(value.clone()).ok());
    told.unwrap_or_default().into_iter().map(|(code, message)| Problem { code, message }).collect()
}

impl Slot {
    fn read(dict: &Dict) -> Result<Slot, Malformed> {
        let fields = Fields::new(dict, Absent::Malformed);
        Ok(Slot {
            name: fields.text("Name")?,
            state: fields.text("State")?,
            booted: fields.flag("Booted")?,
            primary: fields.flag("Primary")?,
            version: fields.text("Version")?,
            sequence: fields.number("Sequence")?,
            release: fields.text("Release")?,
            installed_at: fields.number("InstalledAt")?,
            images: fields.names("Images")?,
        })
    }
}

impl Job {
    /// A job of which nothing is known yet.
    pub(super) fn new(path: &str) -> Job {
        Job { path: path.to_owned(), ..Job::default() }
    }

    /// Reads all properties of a job.
    pub(super) fn read(path: &str, dict: &Dict) -> Result<Job, Malformed> {
        let mut job = Job::new(path);
        job.absorb(dict)?;
        Ok(job)
    }

    /// Takes over the properties that a `PropertiesChanged` carried; the others stay.
    pub(super) fn absorb(&mut self, changed: &Dict) -> Result<(), Malformed> {
        let fields = Fields::new(changed, Absent::Malformed);
        for key in changed.keys() {
            match key.as_str() {
                "Phase" => self.phase = fields.text("Phase")?,
                "Progress" => self.progress = fields.small_number("Progress")?.min(100),
                "BytesDone" => self.bytes_done = fields.number("BytesDone")?,
                "BytesTotal" => self.bytes_total = fields.number("BytesTotal")?,
                "BytesFetched" => self.bytes_fetched = fields.number("BytesFetched")?,
                "BytesWritten" => self.bytes_written = fields.number("BytesWritten")?,
                "BytesUnchanged" => self.bytes_unchanged = fields.number("BytesUnchanged")?,
                "Version" => self.version = fields.text("Version")?,
                // A property of a later revision of the interface: not ours to show.
                _ => {}
            }
        }
        Ok(())
    }
}

impl Outcome {
    /// Reads `LastResult` or an entry of the history; `None` for the empty dictionary.
    pub(super) fn read(dict: &Dict) -> Result<Option<Outcome>, Malformed> {
        if dict.is_empty() {
            return Ok(None);
        }
        let required = Fields::new(dict, Absent::Malformed);
        let fields = Fields::new(dict, Absent::Empty);
        Ok(Some(Outcome {
            outcome: required.text(result::OUTCOME)?,
            code: fields.text(result::CODE)?,
            message: fields.text(result::MESSAGE)?,
            version: fields.text(result::VERSION)?,
            sequence: fields.number(result::SEQUENCE)?,
            release: fields.text(result::RELEASE)?,
            slot: fields.text(result::SLOT)?,
            phase: fields.text(result::PHASE)?,
            time: fields.number(result::TIME)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::{OwnedVariant, Variant};

    fn dict<const N: usize>(entries: [(&str, Variant<'_>); N]) -> Dict {
        entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), OwnedVariant::try_from(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_job_takes_over_what_changed_and_nothing_else() {
        let mut job = Job::new("/org/otad1/job/7");
        job.absorb(&dict([("Phase", "writing".into()), ("BytesTotal", 100u64.into())])).unwrap();
        job.absorb(&dict([("BytesDone", 40u64.into()), ("Later", true.into()), ("Progress", 400u32.into())]))
            .unwrap();
        assert_eq!((job.phase.as_str(), job.bytes_done, job.bytes_total), ("writing", 40, 100));
        assert_eq!(job.progress, 100, "percent stays percent");
        assert_eq!(job.absorb(&dict([("Phase", 5u64.into())])), Err(Malformed::Type("Phase")));
    }

    #[test]
    fn an_empty_last_result_is_none_and_an_old_one_may_lack_keys() {
        assert_eq!(Outcome::read(&Dict::new()), Ok(None));
        let old = Outcome::read(&dict([("outcome", "committed".into())])).unwrap().unwrap();
        assert!(old.outcome == "committed" && old.code.is_empty() && old.time == 0);
        assert_eq!(Outcome::read(&dict([("code", "X".into())])), Err(Malformed::Missing("outcome")));
        assert_eq!(
            Outcome::read(&dict([("outcome", "failed".into()), ("time", "now".into())])),
            Err(Malformed::Type("time"))
        );
    }
}
