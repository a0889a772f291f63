//! Which artifact a device gets: by the releases that are declared for its model, or, where none ever was, the newest.
//!
//! What a device says when it asks is also evidence of how far it came: it runs the new release, or the old one again after a
//! reboot. It is let happen before anything is offered.

use serde::Serialize;

use crate::clock::unix_seconds;
use crate::fleet::filter::Facts;
use crate::fleet::offer::{Asking, Ruling, Standing, rule};
use crate::fleet::queue::Queue;
use crate::fleet::step::{self, Event, Step, Word};
use crate::release;
use crate::store::{Artifact, Detail, Member, Rollout, Store, StoreError, Taken, candidate};

/// otad's word for "nothing under way, and what runs is confirmed".
const IDLE: &str = "idle";

/// What a device says when it asks.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Its name.
    pub device: &'a str,
    /// Its model.
    pub compatible: &'a str,
    /// The version it runs, if it knows.
    pub version: Option<&'a str>,
    /// The sequence it runs; 0 when it does not know.
    pub sequence: u64,
    /// SHA-256 of the manifest it runs, if it knows.
    pub release: Option<&'a str>,
    /// Its boot, if it tells.
    pub boot_id: Option<&'a str>,
    /// What it is about, if it tells: a word of otad's own.
    pub state: Option<&'a str>,
    /// Whether the server keeps a record of it. A declared release is only for devices that it can follow.
    pub recorded: bool,
}

/// What follows from a question.
#[derive(Debug, Default)]
pub struct Answer {
    /// The artifact that the device should have.
    pub artifact: Option<Artifact>,
    /// The steps that the device took with this question.
    pub taken: Vec<Taken>,
}

/// What is offered where no release was ever declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeclared {
    /// The newest artifact of the model.
    Newest,
    /// Nothing.
    Nothing,
}

/// The places of releases.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Who waits for one.
    pub queue: &'a Queue,
    /// Devices that may be at it in all.
    pub most: u32,
}

/// Answers a question.
pub async fn answer(
    store: &Store,
    question: Question<'_>,
    undeclared: Undeclared,
    places: Places<'_>,
) -> Result<Answer, StoreError> {
    let rollouts = store.rollouts_for(question.compatible).await?;
    if rollouts.is_empty() {
        if undeclared == Undeclared::Nothing {
            return Ok(Answer::default());
        }
        let candidates = store.candidates(question.compatible, question.sequence).await?;
        let artifact = release::choose(candidates, question.sequence);
        return Ok(Answer { artifact, taken: Vec::new() });
    }
    let mut answer = Answer::default();
    // An offer is written down: for strangers beyond the number of devices that are recorded it would fill the database.
    if !question.recorded {
        return Ok(answer);
    }
    let members = observe(store, &rollouts, question, &mut answer.taken).await?;
    // What is installed or on trial comes to its end first; the device would not take anything else either.
    if members.iter().any(|m| matches!(m.step, Step::Installed | Step::Rebooting | Step::OnTrial)) {
        return Ok(answer);
    }
    let facts = facts(store, &rollouts, question).await?;
    for rollout in &rollouts {
        if offered(store, rollout, &members, &facts, question, places, &mut answer.taken).await? {
            answer.artifact = store.artifact(&rollout.artifact).await?;
            for member in members.iter().filter(|m| m.step == Step::Offered && m.rollout_id != rollout.id) {
                let detail = Detail { code: Some("SUPERSEDED"), ..Detail::default() };
                let gone = store.happen(member.rollout_id, question.device, Event::Withdrawn, detail).await?;
                answer.taken.extend(gone);
            }
            break;
        }
    }
    Ok(answer)
}

/// Lets happen what the question is evidence of, and returns where the device stands then.
async fn observe(
    store: &Store,
    rollouts: &[Rollout],
    question: Question<'_>,
    taken: &mut Vec<Taken>,
) -> Result<Vec<Member>, StoreError> {
    let mut members = store.memberships(question.device).await?;
    let latest =
        members.iter().max_by_key(|member| (member.offered_at, member.rollout_id)).map(|m| m.rollout_id);
    for member in &mut members {
        let Some(rollout) = rollouts.iter().find(|rollout| rollout.id == member.rollout_id) else { continue };
        let Some(event) = evidence(rollout, member, question, latest == Some(rollout.id)) else { continue };
        // Most questions bring nothing new, and then nothing is locked or written.
        if step::next(member.step, event).is_none() {
            continue;
        }
        let detail = Detail { boot_id: question.boot_id, ..Detail::default() };
        if let Some(new) = store.happen(rollout.id, question.device, event, detail).await? {
            member.step = new.step;
            taken.push(new);
        }
    }
    Ok(members)
}

/// What a question is evidence of, for a release that the device was offered. What it is doing is only ever about the `latest` one.
fn evidence(rollout: &Rollout, member: &Member, question: Question<'_>, latest: bool) -> Option<Event> {
    if member.attempts == 0 {
        return None;
    }
    let Question { release, version, boot_id, state, sequence, .. } = question;
    let installed_in = member.installed_in.as_deref();
    if release == Some(rollout.release.as_str()) {
        if state == Some(IDLE) {
            let word = Word { release, version, boot_id };
            return Some(Event::Committed(word.evidence(&rollout.release, &rollout.version, installed_in)));
        }
        return Some(Event::RunsNew);
    }
    if sequence >= rollout.sequence {
        // It has gone past this release, or runs the same numbers without a record of how it got them: evidence of nothing.
        return None;
    }
    match (member.step, state) {
        (Step::Offered | Step::Failed, Some("pre-upgrade")) if latest => Some(Event::Download),
        (Step::Offered | Step::Downloading | Step::Failed, Some("upgrading")) if latest => {
            Some(Event::Install)
        }
        _ => Some(Event::RunsOld(step::boot(installed_in, boot_id))),
    }
}

async fn facts(store: &Store, rollouts: &[Rollout], question: Question<'_>) -> Result<Facts, StoreError> {
    let filtered = rollouts.iter().any(|rollout| !rollout.filters.is_empty());
    Ok(Facts {
        device: question.device.to_owned(),
        model: question.compatible.to_owned(),
        version: question.version.map(str::to_owned),
        attributes: if filtered { store.attributes_of(question.device).await? } else { Default::default() },
    })
}

async fn offered(
    store: &Store,
    rollout: &Rollout,
    members: &[Member],
    facts: &Facts,
    question: Question<'_>,
    places: Places<'_>,
    taken: &mut Vec<Taken>,
) -> Result<bool, StoreError> {
    let standing = standing(members, rollout);
    let asking = Asking { facts, sequence: question.sequence, standing: standing.as_ref() };
    // Without the places first: counting them is for those who could take one.
    let now = unix_seconds();
    match rule(candidate(rollout, 0), asking, now) {
        Ruling::Repeat => Ok(true),
        Ruling::No(_) => Ok(false),
        Ruling::Offer => {
            let free = rollout.policy.max_concurrent.saturating_sub(store.places_taken(rollout).await?);
            if !places.queue.may_take(rollout.id, question.device, free, now) {
                return Ok(false);
            }
            let (ruling, step) = store.offer(rollout.id, asking, question.version, places.most).await?;
            taken.extend(step);
            let offered = !matches!(ruling, Ruling::No(_));
            if offered {
                places.queue.took(rollout.id, question.device);
            }
            Ok(offered)
        }
    }
}

fn standing(members: &[Member], rollout: &Rollout) -> Option<Standing> {
    members.iter().find(|member| member.rollout_id == rollout.id).map(Member::standing)
}

/// Why a device does not get a release, or that it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// Name of the release; null when none is declared for the model.
    pub release: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Whether the device would get it when it asks now.
    pub offered: bool,
    /// The sentence.
    pub because: String,
}

/// Says for each release of a device's model why the device gets it or not, the highest sequence first.
pub async fn why(
    store: &Store,
    facts: &Facts,
    sequence: u64,
    undeclared: Undeclared,
) -> Result<Vec<Why>, StoreError> {
    let rollouts = store.rollouts_for(&facts.model).await?;
    if rollouts.is_empty() {
        return Ok(vec![without_releases(store, facts, sequence, undeclared).await?]);
    }
    let members = store.memberships(&facts.device).await?;
    let mut reasons = Vec::new();
    for rollout in &rollouts {
        let standing = standing(&members, rollout);
        let asking = Asking { facts, sequence, standing: standing.as_ref() };
        let under_way = store.places_taken(rollout).await?;
        let (offered, because) = match rule(candidate(rollout, under_way), asking, unix_seconds()) {
            Ruling::Offer => (true, "it gets it with its next question".to_owned()),
            Ruling::Repeat => (true, "it was offered and is under way".to_owned()),
            Ruling::No(because) => (false, because),
        };
        let (release, version) = (Some(rollout.name.clone()), Some(rollout.version.clone()));
        reasons.push(Why { release, version, offered, because });
    }
    Ok(reasons)
}

async fn without_releases(
    store: &Store,
    facts: &Facts,
    sequence: u64,
    undeclared: Undeclared,
) -> Result<Why, StoreError> {
    if undeclared == Undeclared::Nothing {
        let because = "no release is declared for its model, and the server offers nothing else".to_owned();
        return Ok(Why { release: None, version: None, offered: false, because });
    }
    let newest = release::choose(store.candidates(&facts.model, sequence).await?, sequence);
    Ok(match newest {
        Some(artifact) => Why {
            release: None,
            version: Some(artifact.version),
            offered: true,
            because: "no release is declared for its model, so it gets the newest artifact".into(),
        },
        None => Why {
            release: None,
            version: None,
            offered: false,
            because: "no artifact for its model has a higher sequence than it runs".into(),
        },
    })
}
