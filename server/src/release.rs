//! Choosing what a device is offered: a pure rule over what the store holds for its model.
//!
//! The first form knows one rule. Rollouts, pins and groups will be further inputs of [`choose`]; nothing else decides. Which
//! delta goes with the choice is [`choose_delta`]'s rule.

use crate::store::{Artifact, Delta};

/// Picks the release for a device that runs `running_sequence`: the highest sequence above it.
///
/// Two artifacts of one sequence should not exist, but an operator can upload them; the one that was uploaded last wins,
/// so that a repaired bundle replaces the broken one. `None` means that the device is up to date.
pub fn choose(candidates: Vec<Artifact>, running_sequence: u64) -> Option<Artifact> {
    candidates
        .into_iter()
        .filter(|artifact| artifact.withdrawn_at.is_none() && artifact.sequence > running_sequence)
        .max_by_key(|artifact| (artifact.sequence, artifact.uploaded_at, artifact.id))
}

/// Picks the delta that goes with an artifact of `artifact_size` bytes: the smallest of those between the two releases.
///
/// `None` when none saves anything. A device that is offered one still needs manifest and index from the artifact, and
/// falls back to it, so a delta of the same size would only cost.
pub fn choose_delta(candidates: Vec<Delta>, artifact_size: u64) -> Option<Delta> {
    candidates
        .into_iter()
        .filter(|delta| delta.withdrawn_at.is_none() && delta.size < artifact_size)
        .min_by_key(|delta| (delta.size, delta.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(id: i64, sequence: u64, uploaded_at: i64, withdrawn_at: Option<i64>) -> Artifact {
        Artifact {
            id,
            sha256: format!("{id:064x}"),
            release: String::new(),
            version: "1.0.0".into(),
            sequence,
            compatible: vec!["m".into()],
            size: 1,
            description: String::new(),
            uploaded_at,
            withdrawn_at,
        }
    }

    #[test]
    fn table() {
        let a = || artifact(1, 5, 100, None);
        let newer = || artifact(2, 6, 50, None);
        let withdrawn = || artifact(3, 9, 200, Some(201));
        let twin = || artifact(4, 5, 300, None);
        for (name, candidates, running, expected) in [
            ("nothing uploaded", vec![], 0, None),
            ("unknown version is sequence 0", vec![a()], 0, Some(1)),
            ("same sequence is up to date", vec![a()], 5, None),
            ("never down", vec![a()], 6, None),
            ("highest wins whatever the order", vec![newer(), a()], 4, Some(2)),
            ("highest wins whatever the upload time", vec![a(), newer()], 4, Some(2)),
            ("withdrawn is not offered", vec![withdrawn(), a()], 4, Some(1)),
            ("only withdrawn", vec![withdrawn()], 4, None),
            ("twins: the later upload", vec![twin(), a()], 4, Some(4)),
            ("a device beyond everything", vec![a(), newer()], u64::MAX, None),
        ] {
            assert_eq!(choose(candidates, running).map(|chosen| chosen.id), expected, "{name}");
        }
    }
    #[test]
    fn deltas() {
        let delta = |id: i64, size: u64, withdrawn_at: Option<i64>| Delta {
            id,
            sha256: format!("{id:064x}"),
            from_release: "a".into(),
            to_release: "b".into(),
            size,
            uploaded_at: 100,
            withdrawn_at,
        };
        for (name, candidates, expected) in [
            ("none", vec![], None),
            ("one", vec![delta(1, 999, None)], Some(1)),
            ("as large as the artifact", vec![delta(1, 1000, None)], None),
            ("larger", vec![delta(1, 1001, None)], None),
            ("the smallest", vec![delta(1, 500, None), delta(2, 400, None), delta(3, 600, None)], Some(2)),
            ("the first of equals", vec![delta(2, 400, None), delta(1, 400, None)], Some(1)),
            ("not a withdrawn one", vec![delta(1, 500, None), delta(2, 400, Some(101))], Some(1)),
        ] {
            assert_eq!(choose_delta(candidates, 1000).map(|chosen| chosen.id), expected, "{name}");
        }
    }
}
