//! What the numbers of a release lead to: going on, waiting, or stopping by itself.

use serde::{Deserialize, Serialize};

use super::policy::Policy;

/// Where a release stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Written down; offered to nobody.
    Draft,
    /// Offered to the first devices.
    Staging,
    /// Offered to everybody it is for.
    Production,
    /// Everybody has a result. Devices that come later are still offered it.
    Completed,
    /// Stopped for good.
    Aborted,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 5] =
        [Stage::Draft, Stage::Staging, Stage::Production, Stage::Completed, Stage::Aborted];

    /// The spelling in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Draft => "draft",
            Stage::Staging => "staging",
            Stage::Production => "production",
            Stage::Completed => "completed",
            Stage::Aborted => "aborted",
        }
    }

    /// Reads the spelling of the database.
    pub fn parse(text: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.as_str() == text)
    }
}

/// The devices of a release by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Results {
    /// Confirmed.
    pub good: u32,
    /// Ended badly, and the release may be to blame.
    pub bad: u32,
}

impl Results {
    fn since(self, before: Results) -> Results {
        Results { good: self.good.saturating_sub(before.good), bad: self.bad.saturating_sub(before.bad) }
    }

    fn total(self) -> u64 {
        u64::from(self.good) + u64::from(self.bad)
    }
}

/// What a release should do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Stay,
    /// Too much went wrong; the sentence for the operator.
    Pause(String),
    /// Offer it to everybody.
    Promote,
    /// Everybody has it, or never will.
    Complete,
}

/// Judges a release that is under way. `forgiven` is what an operator saw when resuming it: only what came after counts.
/// `pending` counts the devices of the stage that may still get the release.
pub fn judge(policy: &Policy, stage: Stage, results: Results, forgiven: Results, pending: u32) -> Verdict {
    let fresh = results.since(forgiven);
    let share_bad = u64::from(fresh.bad) * 100;
    if fresh.bad >= policy.min_errors && share_bad > u64::from(policy.error_percent) * fresh.total() {
        let (bad, total, allowed) = (fresh.bad, fresh.total(), policy.error_percent);
        return match stage {
            Stage::Staging | Stage::Production => {
                Verdict::Pause(format!("{bad}/{total} failed, allowed are {allowed} %"))
            }
            Stage::Draft | Stage::Completed | Stage::Aborted => Verdict::Stay,
        };
    }
    match stage {
        Stage::Staging => {
            let enough = fresh.good >= policy.min_confirmed || (pending == 0 && fresh.good > 0);
            let met = u64::from(fresh.good) * 100 >= u64::from(policy.success_percent) * fresh.total();
            if policy.promote && enough && met { Verdict::Promote } else { Verdict::Stay }
        }
        Stage::Production if pending == 0 && results.total() > 0 => Verdict::Complete,
        Stage::Production | Stage::Draft | Stage::Completed | Stage::Aborted => Verdict::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W9: a bad bundle stops by itself; a good one needs nobody.
    #[test]
    fn w9_table() {
        let policy = Policy { min_confirmed: 5, ..Policy::default() };
        let manual = Policy { promote: false, ..policy.clone() };
        let none = Results::default();
        let pause = |text: &str| Verdict::Pause(text.into());
        for (name, policy, stage, good, bad, forgiven, pending, expected) in [
            ("nothing yet", &policy, Stage::Staging, 0, 0, none, 9, Verdict::Stay),
            ("nobody in the stage", &policy, Stage::Staging, 0, 0, none, 0, Verdict::Stay),
            ("not enough", &policy, Stage::Staging, 4, 0, none, 9, Verdict::Stay),
            ("enough", &policy, Stage::Staging, 5, 0, none, 9, Verdict::Promote),
            ("a small stage, all of it", &policy, Stage::Staging, 2, 0, none, 0, Verdict::Promote),
            ("enough, by hand", &manual, Stage::Staging, 5, 0, none, 9, Verdict::Stay),
            ("success below the threshold", &policy, Stage::Staging, 9, 1, none, 9, Verdict::Stay),
            ("two errors are not yet a rate", &policy, Stage::Staging, 0, 2, none, 9, Verdict::Stay),
            ("three are", &policy, Stage::Staging, 47, 3, none, 9, pause("3/50 failed, allowed are 5 %")),
            ("at the allowed rate", &policy, Stage::Staging, 57, 3, none, 9, Verdict::Promote),
            (
                "pause comes before complete",
                &policy,
                Stage::Production,
                10,
                10,
                none,
                0,
                pause("10/20 failed, allowed are 5 %"),
            ),
            ("resumed", &policy, Stage::Production, 10, 10, Results { good: 10, bad: 10 }, 5, Verdict::Stay),
            (
                "resumed and again",
                &policy,
                Stage::Production,
                10,
                13,
                Results { good: 10, bad: 10 },
                5,
                pause("3/3 failed, allowed are 5 %"),
            ),
            (
                "resumed and repaired",
                &policy,
                Stage::Production,
                20,
                0,
                Results { good: 10, bad: 10 },
                5,
                Verdict::Stay,
            ),
            ("all have it", &policy, Stage::Production, 10, 0, none, 0, Verdict::Complete),
            ("not all", &policy, Stage::Production, 10, 0, none, 1, Verdict::Stay),
            ("a fleet of nobody is not complete", &policy, Stage::Production, 0, 0, none, 0, Verdict::Stay),
            ("a draft does nothing", &policy, Stage::Draft, 0, 99, none, 0, Verdict::Stay),
            ("late trouble", &policy, Stage::Completed, 0, 99, none, 0, Verdict::Stay),
        ] {
            assert_eq!(judge(policy, stage, Results { good, bad }, forgiven, pending), expected, "{name}");
        }
    }
}
