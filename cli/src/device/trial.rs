//! Decides from what otad says whether an installed release was confirmed: the question behind `--wait-commit`.
//!
//! Pure: a [`Device`] in, a [`Verdict`] out. The wait itself is in [`super::install`].

use otad_dbus::value::{outcome, state};

use super::model::{Device, Outcome};

/// The release that is waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Awaited {
    /// Its digest, as far as known.
    pub(super) release: String,
    /// Its version, as far as known.
    pub(super) version: String,
    /// The last outcome that was seen before now: it is not news.
    pub(super) seen: Option<Outcome>,
    /// What is known of its job.
    pub(super) job: JobKnown,
    /// Whether otad was away in between.
    pub(super) daemon: Daemon,
}

/// What is known of the job that installed the release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum JobKnown {
    /// Otad went away before the job ended.
    #[default]
    Open,
    /// It ended well: the release was armed.
    Done,
}

/// Whether otad has been there all the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Daemon {
    /// Since the install began.
    #[default]
    Stayed,
    /// It went away and came back: a restart or a reboot lies between.
    Returned,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The release runs and is confirmed.
    Committed(Outcome),
    /// It was rolled back, failed or was cancelled.
    Lost(Outcome),
    /// An update to something else took its place.
    Superseded(Outcome),
    /// Otad came back and has neither the job nor a word about it.
    NoTrace,
    /// Not decided yet.
    Pending,
}

impl Awaited {
    /// Judges the device as it is now.
    pub(super) fn judge(&self, device: &Device) -> Verdict {
        let is_over = self.daemon == Daemon::Returned
            && !device.is_working()
            && (device.state == state::IDLE || device.state == state::FAILED);
        let Some(last) = &device.last_result else {
            return if is_over { Verdict::NoTrace } else { Verdict::Pending };
        };
        // A device without a clock can end two updates in exactly the same words. After a restart the state tells that
        // the trial is over, and then an armed release's outcome is this one, news or not.
        let is_news = self.seen.as_ref() != Some(last) || (is_over && self.job == JobKnown::Done);
        if !is_news {
            return if is_over { Verdict::NoTrace } else { Verdict::Pending };
        }
        if !self.is_about(last) {
            return Verdict::Superseded(last.clone());
        }
        match last.outcome.as_str() {
            outcome::COMMITTED => Verdict::Committed(last.clone()),
            outcome::INSTALLED => Verdict::Pending,
            _ => Verdict::Lost(last.clone()),
        }
    }

    /// Learns from the outcome that a job which ended well left behind.
    pub(super) fn learn(&mut self, device: &Device) {
        let Some(last) = &device.last_result else { return };
        if self.seen.as_ref() != Some(last) && self.is_about(last) {
            self.release.clone_from(&last.release);
            self.version.clone_from(&last.version);
            // Only "installed" is behind us; anything later is still to be judged.
            if last.outcome == outcome::INSTALLED {
                self.seen = Some(last.clone());
            }
        }
    }

    fn is_about(&self, last: &Outcome) -> bool {
        if !self.release.is_empty() && !last.release.is_empty() {
            return self.release == last.release;
        }
        self.version.is_empty() || last.version.is_empty() || self.version == last.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(outcome: &str, version: &str, time: u64) -> Outcome {
        Outcome {
            outcome: outcome.to_owned(),
            code: String::new(),
            message: String::new(),
            version: version.to_owned(),
            sequence: 1,
            release: format!("digest-of-{version}"),
            slot: "b".to_owned(),
            phase: String::new(),
            time,
        }
    }

    fn device(state: &str, last_result: Option<Outcome>) -> Device {
        Device {
            state: state.to_owned(),
            compatible: "acme-gateway".to_owned(),
            version: "1.0.0".to_owned(),
            booted_slot: "a".to_owned(),
            primary_slot: "a".to_owned(),
            api_revision: 1,
            slots: Vec::new(),
            job: None,
            last_result,
            problems: Vec::new(),
            root_version: 0,
            sequence_floor: 0,
        }
    }

    fn awaited(seen: Option<Outcome>, job: JobKnown, daemon: Daemon) -> Awaited {
        Awaited { release: "digest-of-2".to_owned(), version: "2".to_owned(), seen, job, daemon }
    }

    /// Each row: what was seen before, the job, the daemon, the state now, the last result now, the verdict.
    #[test]
    fn the_table_of_verdicts() {
        use Daemon::{Returned, Stayed};
        use JobKnown::{Done, Open};
        let installed = || Some(last("installed", "2", 5));
        let earlier = || Some(last("committed", "1", 1));
        let committed = last("committed", "2", 9);
        let rolled_back = last("rolled-back", "2", 9);
        let other = last("installed", "3", 9);
        for (row, (seen, job, daemon, state, now, verdict)) in [
            (installed(), Done, Stayed, "post-upgrade", installed(), Verdict::Pending),
            (installed(), Done, Returned, "post-upgrade", installed(), Verdict::Pending),
            (
                installed(),
                Done,
                Returned,
                "idle",
                Some(committed.clone()),
                Verdict::Committed(committed.clone()),
            ),
            (earlier(), Done, Stayed, "idle", Some(committed.clone()), Verdict::Committed(committed.clone())),
            (
                installed(),
                Done,
                Returned,
                "failed",
                Some(rolled_back.clone()),
                Verdict::Lost(rolled_back.clone()),
            ),
            (
                installed(),
                Done,
                Stayed,
                "post-upgrade",
                Some(other.clone()),
                Verdict::Superseded(other.clone()),
            ),
            // The clock is not set: the second roll-back looks like the first.
            (
                Some(rolled_back.clone()),
                Done,
                Returned,
                "failed",
                Some(rolled_back.clone()),
                Verdict::Lost(rolled_back.clone()),
            ),
            // The daemon died in the middle and says so when it is back.
            (
                earlier(),
                Open,
                Returned,
                "failed",
                Some(last("failed", "2", 7)),
                Verdict::Lost(last("failed", "2", 7)),
            ),
            (earlier(), Open, Returned, "upgrading", earlier(), Verdict::Pending),
            (earlier(), Open, Returned, "idle", earlier(), Verdict::NoTrace),
            (None, Open, Returned, "idle", None, Verdict::NoTrace),
            (None, Open, Stayed, "idle", None, Verdict::Pending),
            (earlier(), Open, Stayed, "idle", earlier(), Verdict::Pending),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(awaited(seen, job, daemon).judge(&device(state, now)), verdict, "row {row}");
        }
    }

    #[test]
    fn what_a_job_left_behind_names_the_release() {
        let mut awaited = Awaited::default();
        awaited.learn(&device("post-upgrade", Some(last("installed", "2", 5))));
        assert_eq!((awaited.release.as_str(), awaited.version.as_str()), ("digest-of-2", "2"));
        assert_eq!(awaited.seen, Some(last("installed", "2", 5)));
        // Another release's outcome teaches nothing.
        awaited.learn(&device("idle", Some(last("committed", "3", 6))));
        assert_eq!(awaited.version, "2");
    }
}
