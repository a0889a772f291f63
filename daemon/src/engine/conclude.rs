//! The end of an attempt: history, the memory of failed releases, the report for the server, the end of the job.

use otad_dbus::value::outcome;
use serde_json::json;

use super::{Engine, JobEnd, Notice};
use crate::failure::Code;
use crate::install::prepare::Current;
use crate::lifecycle::event::{Attempt, Conclusion, Origin, Reason};
use crate::lifecycle::record::Record;

/// Log lines of a failed boot that go into the report.
const REPORT_LOG_LINES: usize = 60;

impl Engine {
    pub(super) fn conclude(&mut self, conclusion: Conclusion, attempt: Option<&Attempt>) {
        let Some(attempt) = attempt else { return };
        let (word, reason) = match conclusion {
            Conclusion::Installed => (outcome::INSTALLED, None),
            Conclusion::Unchanged => {
                let what = "this release is already installed and running; nothing was written";
                self.end_job(attempt, "done", Some(&Reason::new(Code::AlreadyInstalled, what)));
                return;
            }
            Conclusion::Committed => (outcome::COMMITTED, None),
            Conclusion::Failed(reason) => (outcome::FAILED, Some(reason)),
            Conclusion::RolledBack(reason) => (outcome::ROLLED_BACK, Some(reason)),
            Conclusion::Cancelled => {
                (outcome::CANCELLED, Some(Reason::new(Code::Cancelled, "cancelled on request")))
            }
        };
        match &reason {
            None => log::info!("{word}: version {} in slot {}", version(attempt), attempt.target),
            Some(reason) => log::error!("{word}: {}: {}", reason.code, reason.message),
        }
        self.count_failure(reason.as_ref(), attempt);
        self.remember_end(word, reason.clone(), attempt);
        self.queue_report(word, reason.as_ref(), attempt);
        if word == outcome::COMMITTED {
            self.ports.trail.end();
            self.ports.trail.clear();
            self.refresh_current(attempt);
            self.adopt_roots();
        }
        self.drop_stale_indexes();
        let result = match word {
            outcome::FAILED | outcome::ROLLED_BACK => "failed",
            outcome::CANCELLED => "cancelled",
            _ => "done",
        };
        self.end_job(attempt, result, reason.as_ref());
    }

    /// The poll loop must not take a release for ever that this device cannot use. What was refused before its manifest
    /// was verified counts by the digest that the server gave it.
    fn count_failure(&mut self, reason: Option<&Reason>, attempt: &Attempt) {
        let offered = match &attempt.origin {
            Origin::Server { release, .. } => Some(*release),
            Origin::Descriptor | Origin::Url(_) | Origin::OtherSlot => None,
        };
        let release = attempt.release.as_ref().map(|release| release.digest).or(offered);
        let (Some(release), Some(reason)) = (release, reason) else { return };
        if Code::from_text(&reason.code).is_none_or(says_something_of_the_release) {
            self.record.count_failure(release, &reason.code);
        }
    }

    fn remember_end(&mut self, word: &str, reason: Option<Reason>, attempt: &Attempt) {
        let ended = Record::ended(attempt, word, self.phase, reason, self.ports.clock.wall_seconds());
        // An update has one line in the history: its last word replaces "installed".
        let installed = self.record.history.last().is_some_and(|last| {
            last.outcome == outcome::INSTALLED && last.release == ended.release && last.slot == ended.slot
        });
        if installed {
            self.record.history.pop();
        }
        self.record.remember_end(ended);
    }

    fn queue_report(&mut self, word: &str, reason: Option<&Reason>, attempt: &Attempt) {
        if self.config.server.is_none() {
            return;
        }
        let now = self.ports.clock.wall_seconds();
        let rolled_back = word == outcome::ROLLED_BACK;
        let log = if rolled_back { self.ports.trail.last(REPORT_LOG_LINES) } else { Vec::new() };
        let report = json!({
            "device": self.ports.machine.device_id().unwrap_or_default(),
            "compatible": self.config.compatible,
            "report_id": format!("{}-{}-{word}", attempt.boot_id, attempt.job),
            "release": attempt.release.as_ref().map(|release| release.digest.to_string()).unwrap_or_default(),
            "version": version(attempt),
            "from_version": if word == outcome::COMMITTED { String::new() } else { self.current.version.clone() },
            "slot": attempt.target,
            "outcome": word,
            "phase": self.phase,
            "code": reason.map(|reason| reason.code.clone()).unwrap_or_default(),
            "message": reason.map(|reason| reason.message.clone()).unwrap_or_default(),
            "boot_id": self.boot_id,
            "started_at": attempt.started,
            "duration_ms": now.saturating_sub(attempt.started).saturating_mul(1000),
            "bytes_fetched": attempt.counts.fetched,
            "bytes_written": attempt.counts.written,
            "bytes_unchanged": attempt.counts.unchanged,
            "log": log,
        });
        self.record.queue_report(report);
    }

    /// What runs is now known by the record: the trial's slot was remembered when it was synced.
    fn refresh_current(&mut self, attempt: &Attempt) {
        let held = self.booted().ok().and_then(|slot| self.record.held(&slot).cloned());
        if let Some(release) = held {
            // Once, when it was installed: coming back to its slot later is no second permission.
            let lowers = release.lowers_floor && attempt.origin != Origin::OtherSlot;
            self.record.floor =
                if lowers { release.sequence } else { self.record.floor.max(release.sequence) };
            self.current = Current {
                version: release.version,
                sequence: release.sequence,
                release: Some(release.digest),
                floor: self.record.floor,
            };
            self.introduce();
        }
    }

    /// Removes kept indexes that neither a slot nor the next try of what just failed needs; best effort, a few hundred KiB stay at worst until the next update.
    fn drop_stale_indexes(&self) {
        let tried = self.state.attempt().and_then(|attempt| attempt.release.as_ref());
        let needed: Vec<String> = (self.record.slots.values().map(|held| &held.release).chain(tried))
            .flat_map(|release| release.images.iter().map(crate::install::index_name))
            .collect();
        for name in self.ports.fs.list("index/").unwrap_or_default() {
            if !needed.contains(&name)
                && let Err(error) = self.ports.fs.remove(&name)
            {
                log::warn!("cannot remove {name}: {error}");
            }
        }
    }

    fn end_job(&mut self, attempt: &Attempt, result: &'static str, reason: Option<&Reason>) {
        if self.job.as_ref().is_none_or(|job| job.id != attempt.job) {
            return;
        }
        self.job = None;
        self.source = None;
        self.plan = None;
        self.synced = None;
        self.notices.push(Notice::JobRemoved(JobEnd {
            id: attempt.job,
            result,
            error: reason.map(|reason| reason.code.clone()).unwrap_or_default(),
            message: reason.map(|reason| reason.message.clone()).unwrap_or_default(),
        }));
    }
}

/// A lost link, a busy device or a person's wish say nothing of the release.
fn says_something_of_the_release(code: Code) -> bool {
    !matches!(
        code,
        Code::Busy
            | Code::Cancelled
            | Code::EnvLocked
            | Code::Interrupted
            | Code::LayoutChanged
            | Code::NetFailed
            | Code::NetLength
            | Code::NetRange
            | Code::NetRedirect
            | Code::NetStalled
            | Code::NetStatus
            | Code::SourceChanged
            | Code::Resource
    )
}

fn version(attempt: &Attempt) -> &str {
    attempt.release.as_ref().map_or("unknown", |release| &release.version)
}
