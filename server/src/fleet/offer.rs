//! Whether a device gets a release now, and if not, why not: one function, so that the answer to the device and the answer
//! to the operator cannot differ.

use super::bucket;
use super::class::Class;
use super::filter::{Facts, Filter, membership};
use super::judge::Stage;
use super::policy::Policy;
use super::step::Step;
use super::window;

/// A release, as far as offering it is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// SHA-256 of the manifest.
    pub release: &'a str,
    /// Release counter.
    pub sequence: u64,
    /// Where it stands.
    pub stage: Stage,
    /// Why it is paused.
    pub paused: Option<&'a str>,
    /// Whether its artifact was withdrawn.
    pub withdrawn: bool,
    /// What the operator set.
    pub policy: &'a Policy,
    /// Who it is for; `None`: every device of its models.
    pub group: Option<(&'a str, &'a [Filter])>,
    /// Devices that are at it.
    pub under_way: u32,
}

/// A device, as far as offering is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// What is known of it.
    pub facts: &'a Facts,
    /// The sequence it runs.
    pub sequence: u64,
    /// Where it stands in the release, if it was ever offered it.
    pub standing: Option<&'a Standing>,
}

/// Where a device stands in a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The step.
    pub step: Step,
    /// What kind of trouble it had.
    pub class: Option<Class>,
    /// The code of it.
    pub code: Option<String>,
    /// When it may be offered the release again, Unix seconds; `None`: not by itself.
    pub next_try_at: Option<i64>,
    /// The operator does not want it to have the release.
    pub denied: bool,
}

/// What to do about a release and a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Offer it, for the first time or once more.
    Offer,
    /// It was offered and is under way: say the same again.
    Repeat,
    /// Not now, or never: the sentence for the operator.
    No(String),
}

/// Rules about one release and one device at `now` (Unix seconds).
pub fn rule(candidate: Candidate<'_>, asking: Asking<'_>, now: i64) -> Ruling {
    match refusal(candidate, asking, now) {
        Some(reason) => Ruling::No(reason),
        None => match asking.standing.map(|standing| standing.step) {
            Some(Step::Offered | Step::Downloading | Step::Installing) => Ruling::Repeat,
            _ => Ruling::Offer,
        },
    }
}

fn refusal(candidate: Candidate<'_>, asking: Asking<'_>, now: i64) -> Option<String> {
    if candidate.withdrawn {
        return Some("its artifact is withdrawn".into());
    }
    if asking.sequence >= candidate.sequence {
        let (runs, sequence) = (asking.sequence, candidate.sequence);
        return Some(format!("the device runs sequence {runs}, the release is sequence {sequence}"));
    }
    if let Some((name, filters)) = candidate.group {
        let membership = membership(filters, asking.facts);
        if !membership.member {
            return Some(format!("group {name} {}", membership.because));
        }
    }
    match candidate.stage {
        Stage::Draft => return Some("it is a draft".into()),
        Stage::Aborted => return Some("it was aborted".into()),
        Stage::Staging | Stage::Production | Stage::Completed => {}
    }
    if let Some(reason) = asking.standing.and_then(|standing| of_standing(standing, now)) {
        return Some(reason);
    }
    // What is under way goes on: a pause or the end of a window stops new updates, it does not break off those that run.
    let under_way = asking.standing.is_some_and(|standing| standing.step.is_under_way());
    if under_way { None } else { of_release(candidate, asking, now) }
}

fn of_standing(standing: &Standing, now: i64) -> Option<String> {
    if standing.denied {
        return Some("an operator took the device out of it".into());
    }
    let code = standing.code.as_deref().unwrap_or("no code");
    let wait = |what: &str| match standing.next_try_at {
        Some(at) if at <= now => None,
        Some(at) => Some(format!("it {what} ({code}); next try in {} s", at - now)),
        None => Some(format!("it {what} ({code}); not again until an operator says retry")),
    };
    match standing.step {
        Step::Offered | Step::Downloading | Step::Installing => None,
        Step::Installed => Some("it is installed and waits for the reboot".into()),
        Step::Rebooting => Some("it is rebooting into it".into()),
        Step::OnTrial => Some("it is on trial".into()),
        Step::Confirmed => Some("it was confirmed here before and left again".into()),
        Step::RolledBack => wait("was rolled back"),
        Step::Failed => wait("failed"),
        Step::Silent => Some("nothing was heard since the reboot into it".into()),
        Step::Cancelled => wait("was cancelled"),
    }
}

fn of_release(candidate: Candidate<'_>, asking: Asking<'_>, now: i64) -> Option<String> {
    let policy = candidate.policy;
    if let Some(reason) = candidate.paused {
        return Some(format!("it is paused: {reason}"));
    }
    if candidate.stage == Stage::Staging
        && !bucket::is_within(candidate.release, &asking.facts.device, policy.staging_percent)
    {
        return Some(format!(
            "it is in staging, and the device is not among the first {} %",
            policy.staging_percent
        ));
    }
    if !window::is_open(&policy.windows, policy.utc_offset_minutes, now) {
        return Some("it waits for its maintenance window".into());
    }
    let (under_way, most) = (candidate.under_way, policy.max_concurrent);
    (under_way >= most).then(|| format!("it waits for a place: {under_way} of {most} devices are at it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_399_200;

    fn policy() -> Policy {
        Policy { staging_percent: 100, max_concurrent: 5, ..Policy::default() }
    }

    fn candidate(policy: &Policy) -> Candidate<'_> {
        Candidate {
            release: "r",
            sequence: 5,
            stage: Stage::Staging,
            paused: None,
            withdrawn: false,
            policy,
            group: None,
            under_way: 0,
        }
    }

    fn standing(step: Step, next_try_at: Option<i64>) -> Standing {
        Standing { step, class: None, code: Some("NET_FAILED".into()), next_try_at, denied: false }
    }

    #[test]
    fn the_release_decides() {
        let open = policy();
        let narrow = Policy { staging_percent: 1, ..policy() };
        let closed = Policy {
            windows: serde_json::from_str(r#"[{"from":"03:00","to":"04:00"}]"#).unwrap(),
            ..policy()
        };
        let filters: Vec<Filter> = serde_json::from_str(r#"[{"field":"model","equals":"x"}]"#).unwrap();
        let base = candidate(&open);
        let facts = Facts { device: "d".into(), model: "acme".into(), ..Facts::default() };
        for (candidate, expected) in [
            (base, None),
            (Candidate { withdrawn: true, ..base }, Some("withdrawn")),
            (Candidate { sequence: 1, ..base }, Some("runs sequence 1")),
            (Candidate { stage: Stage::Draft, ..base }, Some("draft")),
            (Candidate { stage: Stage::Aborted, ..base }, Some("aborted")),
            (Candidate { stage: Stage::Completed, ..base }, None),
            (Candidate { paused: Some("3/50 failed"), ..base }, Some("paused: 3/50 failed")),
            (Candidate { policy: &narrow, ..base }, Some("not among the first 1 %")),
            (Candidate { policy: &narrow, stage: Stage::Production, ..base }, None),
            (Candidate { policy: &closed, ..base }, Some("maintenance window")),
            (Candidate { under_way: 5, ..base }, Some("5 of 5")),
            (
                Candidate { group: Some(("g", &filters)), ..base },
                Some("group g does not match: model is acme"),
            ),
        ] {
            let ruling = rule(candidate, Asking { facts: &facts, sequence: 1, standing: None }, NOW);
            match expected {
                None => assert_eq!(ruling, Ruling::Offer, "{candidate:?}"),
                Some(text) => {
                    assert!(matches!(&ruling, Ruling::No(why) if why.contains(text)), "{ruling:?} {text}")
                }
            }
        }
    }

    #[test]
    fn the_standing_decides() {
        let policy = policy();
        let paused = Candidate { paused: Some("x"), under_way: 5, ..candidate(&policy) };
        let facts = Facts { device: "d".into(), ..Facts::default() };
        for (standing, expected) in [
            (standing(Step::Offered, None), Ok(Ruling::Repeat)),
            (standing(Step::Downloading, None), Ok(Ruling::Repeat)),
            (standing(Step::Installing, None), Ok(Ruling::Repeat)),
            (standing(Step::Installed, None), Err("waits for the reboot")),
            (standing(Step::OnTrial, None), Err("on trial")),
            (standing(Step::Confirmed, None), Err("confirmed here before")),
            (standing(Step::Failed, Some(NOW + 60)), Err("next try in 60 s")),
            (standing(Step::Failed, None), Err("until an operator")),
            (standing(Step::Failed, Some(NOW)), Err("paused")),
            (Standing { denied: true, ..standing(Step::Offered, None) }, Err("took the device out")),
        ] {
            let ruling = rule(paused, Asking { facts: &facts, sequence: 1, standing: Some(&standing) }, NOW);
            match expected {
                Ok(expected) => assert_eq!(ruling, expected, "{standing:?}"),
                Err(text) => {
                    assert!(matches!(&ruling, Ruling::No(why) if why.contains(text)), "{ruling:?} {text}")
                }
            }
        }
        let free = candidate(&policy);
        let failed = standing(Step::Failed, Some(NOW));
        let ruling = rule(free, Asking { facts: &facts, sequence: 1, standing: Some(&failed) }, NOW);
        assert_eq!(ruling, Ruling::Offer);
    }
}
