//! The life of one device in one release, as data: which step follows which event.
//!
//! Success has one door. A device is [`Step::Confirmed`] only by a word from the new release itself, with the boot it was said
//! in and its version, that the update is committed ([`Word::evidence`]); "installed", "rebooting" and "on trial" are steps of their
//! own and count as nothing yet. [`next`] is total and has no wildcard over events: whoever adds one is asked about every step.

use serde::{Deserialize, Serialize};

/// Where a device stands in a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// It was told of the release.
    Offered,
    /// It reads and checks what is to be installed.
    Downloading,
    /// It writes the other slot.
    Installing,
    /// Written and armed; the reboot is still to come.
    Installed,
    /// It went away to boot the new system.
    Rebooting,
    /// The new system runs and has not confirmed itself.
    OnTrial,
    /// The new system runs and confirmed itself. The only success.
    Confirmed,
    /// The old system runs again.
    RolledBack,
    /// Not installed.
    Failed,
    /// Nothing was heard since the reboot.
    Silent,
    /// Taken back, by a person on either side.
    Cancelled,
}

/// What happened to a device in a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The server offers the release (again).
    Offer,
    /// The device says that it reads the release.
    Download,
    /// The device says that it writes.
    Install,
    /// The device reports the release as installed.
    Installed,
    /// The device says that it reboots, or falls silent when it has reason to.
    Reboot,
    /// The device asks from within the new release.
    RunsNew,
    /// The device asks from within another release.
    RunsOld(Boot),
    /// The device says that the release is committed.
    Committed(Evidence),
    /// The device reports a rollback.
    RolledBack,
    /// The device reports a failure.
    Failed,
    /// The device reports that somebody cancelled.
    Cancelled,
    /// The step took longer than the policy allows.
    TimedOut,
    /// The operator takes the release back.
    Withdrawn,
}

/// Whether the device has booted since it installed the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// It is the boot that installed.
    Same,
    /// It is another one.
    Later,
    /// The device does not tell its boots.
    Unknown,
}

/// Whether a word of success is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Release, version and a boot after the one that installed.
    Complete,
    /// Something of it is missing or wrong: counts as nothing.
    Lacking,
}

/// What a device says together with "committed".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<'a> {
    /// SHA-256 of the manifest that runs.
    pub release: Option<&'a str>,
    /// Its version.
    pub version: Option<&'a str>,
    /// The boot in which it was said.
    pub boot_id: Option<&'a str>,
}

impl Word<'_> {
    /// Judges the word for a release of this digest and version, installed in boot `installed_in` if that is known.
    pub fn evidence(&self, release: &str, version: &str, installed_in: Option<&str>) -> Evidence {
        let told = self.release == Some(release) && self.version == Some(version);
        let boot = self.boot_id.filter(|boot| !boot.is_empty() && Some(*boot) != installed_in);
        if told && boot.is_some() { Evidence::Complete } else { Evidence::Lacking }
    }
}

/// The boot of a question, seen from the boot that installed.
pub fn boot(installed_in: Option<&str>, now: Option<&str>) -> Boot {
    match (installed_in, now) {
        (Some(then), Some(now)) if then == now => Boot::Same,
        (Some(_), Some(_)) => Boot::Later,
        _ => Boot::Unknown,
    }
}

/// Where an event leads; `None` when it changes nothing.
///
/// The truth wins over the server's own conclusions: a device that was given up as silent or timed out and then says something
/// is believed. Only a confirmation is final, so that nothing that arrives late can take a success back or count it twice.
#[rustfmt::skip]
pub fn next(step: Step, event: Event) -> Option<Step> {
    use Step::{Cancelled, Confirmed, Downloading, Failed, Installed, Installing, Offered, OnTrial, Rebooting, RolledBack, Silent};
    if step == Confirmed {
        return None;
    }
    let to = match event {
        Event::Offer => match step {
            RolledBack | Failed | Silent | Cancelled => Offered,
            Offered | Downloading | Installing | Installed | Rebooting | OnTrial | Confirmed => step,
        },
        Event::Download => match step {
            Offered | Failed => Downloading,
            Downloading | Installing | Installed | Rebooting | OnTrial | Confirmed | RolledBack | Silent | Cancelled => step,
        },
        Event::Install => match step {
            Offered | Downloading | Failed => Installing,
            Installing | Installed | Rebooting | OnTrial | Confirmed | RolledBack | Silent | Cancelled => step,
        },
        Event::Installed => match step {
            Offered | Downloading | Installing | Failed | Cancelled | RolledBack => Installed,
            Installed | Rebooting | OnTrial | Confirmed | Silent => step,
        },
        Event::Reboot => match step {
            Installed => Rebooting,
            Offered | Downloading | Installing | Rebooting | OnTrial | Confirmed | RolledBack | Failed | Silent | Cancelled => step,
        },
        Event::RunsNew => OnTrial,
        Event::RunsOld(boot) => match (step, boot) {
            (Installed | Rebooting | Silent | OnTrial, Boot::Later) | (OnTrial, Boot::Unknown) => RolledBack,
            // It was only the line that was silent: the reboot is still to come.
            (Rebooting | Silent, Boot::Same | Boot::Unknown) => Installed,
            (OnTrial, Boot::Same) | (Installed, Boot::Same | Boot::Unknown) => step,
            (Offered | Downloading | Installing | Confirmed | RolledBack | Failed | Cancelled, _) => step,
        },
        Event::Committed(Evidence::Complete) => Confirmed,
        Event::Committed(Evidence::Lacking) => step,
        Event::RolledBack => RolledBack,
        Event::Failed => match step {
            RolledBack => RolledBack,
            Offered | Downloading | Installing | Installed | Rebooting | OnTrial | Confirmed | Failed | Silent | Cancelled => Failed,
        },
        Event::Cancelled => match step {
            Offered | Downloading | Installing | Installed => Cancelled,
            Rebooting | OnTrial | Confirmed | RolledBack | Failed | Silent | Cancelled => step,
        },
        Event::TimedOut => match step {
            Offered | Downloading | Installing => Failed,
            Rebooting | OnTrial => Silent,
            // It waits for somebody to reboot it, which may take as long as it likes.
            Installed | Confirmed | RolledBack | Failed | Silent | Cancelled => step,
        },
        Event::Withdrawn => match step {
            Offered => Cancelled,
            Downloading | Installing | Installed | Rebooting | OnTrial | Confirmed | RolledBack | Failed | Silent | Cancelled => step,
        },
    };
    (to != step).then_some(to)
}

impl Step {
    /// All of them, in the order of a good update and then the bad ends.
    pub const ALL: [Step; 11] = [
        Step::Offered,
        Step::Downloading,
        Step::Installing,
        Step::Installed,
        Step::Rebooting,
        Step::OnTrial,
        Step::Confirmed,
        Step::RolledBack,
        Step::Failed,
        Step::Silent,
        Step::Cancelled,
    ];

    /// The spelling in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Offered => "offered",
            Step::Downloading => "downloading",
            Step::Installing => "installing",
            Step::Installed => "installed",
            Step::Rebooting => "rebooting",
            Step::OnTrial => "on-trial",
            Step::Confirmed => "confirmed",
            Step::RolledBack => "rolled-back",
            Step::Failed => "failed",
            Step::Silent => "silent",
            Step::Cancelled => "cancelled",
        }
    }

    /// Reads the spelling of the database.
    pub fn parse(text: &str) -> Option<Step> {
        Step::ALL.into_iter().find(|step| step.as_str() == text)
    }

    /// Whether the update is under way: a release with such devices is not done.
    pub const fn is_under_way(self) -> bool {
        match self {
            Step::Offered
            | Step::Downloading
            | Step::Installing
            | Step::Installed
            | Step::Rebooting
            | Step::OnTrial => true,
            Step::Confirmed | Step::RolledBack | Step::Failed | Step::Silent | Step::Cancelled => false,
        }
    }

    /// Whether it went wrong.
    pub const fn is_bad(self) -> bool {
        matches!(self, Step::RolledBack | Step::Failed | Step::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENTS: [Event; 16] = [
        Event::Offer,
        Event::Download,
        Event::Install,
        Event::Installed,
        Event::Reboot,
        Event::RunsNew,
        Event::RunsOld(Boot::Same),
        Event::RunsOld(Boot::Later),
        Event::RunsOld(Boot::Unknown),
        Event::Committed(Evidence::Complete),
        Event::Committed(Evidence::Lacking),
        Event::RolledBack,
        Event::Failed,
        Event::Cancelled,
        Event::TimedOut,
        Event::Withdrawn,
    ];

    #[test]
    fn table() {
        use Step::*;
        for (step, event, expected) in [
            (Offered, Event::Download, Some(Downloading)),
            (Downloading, Event::Install, Some(Installing)),
            (Installing, Event::Download, None),
            (Installing, Event::Installed, Some(Installed)),
            (Installed, Event::Reboot, Some(Rebooting)),
            (Installed, Event::TimedOut, None),
            (Rebooting, Event::RunsNew, Some(OnTrial)),
            (OnTrial, Event::Committed(Evidence::Complete), Some(Confirmed)),
            (OnTrial, Event::Committed(Evidence::Lacking), None),
            (Installed, Event::Committed(Evidence::Lacking), None),
            (Rebooting, Event::TimedOut, Some(Silent)),
            (OnTrial, Event::TimedOut, Some(Silent)),
            (Silent, Event::Committed(Evidence::Complete), Some(Confirmed)),
            (Silent, Event::RunsNew, Some(OnTrial)),
            (Silent, Event::RunsOld(Boot::Later), Some(RolledBack)),
            (Rebooting, Event::RunsOld(Boot::Same), Some(Installed)),
            (OnTrial, Event::RunsOld(Boot::Unknown), Some(RolledBack)),
            (Installing, Event::RunsOld(Boot::Later), None),
            (Offered, Event::TimedOut, Some(Failed)),
            (Failed, Event::Install, Some(Installing)),
            (Failed, Event::Offer, Some(Offered)),
            (Offered, Event::Offer, None),
            (Installing, Event::Offer, None),
            (Offered, Event::Withdrawn, Some(Cancelled)),
            (Installing, Event::Withdrawn, None),
            (RolledBack, Event::Failed, None),
            (Confirmed, Event::RolledBack, None),
            (Confirmed, Event::Offer, None),
        ] {
            assert_eq!(next(step, event), expected, "{step:?} {event:?}");
        }
    }

    /// Every pair, by rule: one door to success, no way out of it, and the same event twice is the same as once.
    #[test]
    fn rules_that_hold_for_every_pair() {
        for step in Step::ALL {
            assert_eq!(Step::parse(step.as_str()), Some(step));
            for event in EVENTS {
                let to = next(step, event);
                if to == Some(Step::Confirmed) {
                    assert_eq!(event, Event::Committed(Evidence::Complete), "{step:?}");
                }
                if step == Step::Confirmed {
                    assert_eq!(to, None, "{event:?}");
                }
                if let Some(to) = to {
                    assert_ne!(to, step);
                    assert_eq!(next(to, event), None, "{step:?} {event:?} twice");
                }
            }
        }
    }

    #[test]
    fn success_needs_release_version_and_a_later_boot() {
        let word = |release, version, boot_id| Word { release, version, boot_id };
        for (given, installed_in, expected) in [
            (word(Some("r"), Some("2"), Some("b2")), Some("b1"), Evidence::Complete),
            (word(Some("r"), Some("2"), Some("b2")), None, Evidence::Complete),
            (word(Some("r"), Some("2"), Some("b1")), Some("b1"), Evidence::Lacking),
            (word(Some("r"), Some("2"), Some("")), None, Evidence::Lacking),
            (word(Some("r"), Some("2"), None), None, Evidence::Lacking),
            (word(Some("r"), Some("1"), Some("b2")), Some("b1"), Evidence::Lacking),
            (word(Some("r"), None, Some("b2")), Some("b1"), Evidence::Lacking),
            (word(Some("other"), Some("2"), Some("b2")), Some("b1"), Evidence::Lacking),
            (word(None, Some("2"), Some("b2")), Some("b1"), Evidence::Lacking),
        ] {
            assert_eq!(given.evidence("r", "2", installed_in), expected, "{given:?} {installed_in:?}");
        }
    }

    proptest! {
        /// Whatever devices say in whatever order: nobody is confirmed without the evidence, and nobody twice.
        #[test]
        fn random_walks_confirm_at_most_once_and_only_with_evidence(
            walk in prop::collection::vec(0..EVENTS.len(), 1..200)
        ) {
            let mut step = Step::Offered;
            let mut confirmations = 0;
            for index in walk {
                let event = EVENTS[index];
                if let Some(to) = next(step, event) {
                    if to == Step::Confirmed {
                        prop_assert_eq!(event, Event::Committed(Evidence::Complete));
                        confirmations += 1;
                    }
                    step = to;
                }
            }
            prop_assert!(confirmations <= 1);
            prop_assert_eq!(confirmations == 1, step == Step::Confirmed);
        }
    }
}
