//! How far a release reaches: every device it is for, held against where each of them stands.

use std::collections::HashMap;

use serde::Serialize;

use crate::fleet::bucket;
use crate::fleet::filter::membership;
use crate::fleet::judge::Stage;
use crate::presence::Presence;
use crate::store::{Device, Member, Rollout, Store, StoreError};

/// Rows that are read at a time.
const PAGE: u32 = 1000;

/// The devices of a release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Of its models and in its group.
    pub eligible: u32,
    /// Of these, offered it in its present stage.
    pub in_stage: u32,
    /// Of these, not done: they may still get it by themselves. Lost devices are not waited for.
    pub pending: u32,
    /// Eligible devices that run it, or something later.
    pub running: u32,
    /// Eligible devices that are lost.
    pub lost: u32,
}

/// Counts the devices of a release.
pub async fn reach(
    store: &Store,
    presence: &Presence,
    rollout: &Rollout,
    now: i64,
) -> Result<Reach, StoreError> {
    let models =
        store.artifact(&rollout.artifact).await?.map(|artifact| artifact.compatible).unwrap_or_default();
    let members = all_members(store, rollout).await?;
    let mut reach = Reach::default();
    let mut after: Option<String> = None;
    loop {
        let page = store.devices(after.as_deref(), PAGE).await?;
        for device in page.iter().filter(|device| models.contains(&device.compatible)) {
            count(&mut reach, presence, rollout, device, members.get(&device.device), now);
        }
        match page.last() {
            Some(last) if u32::try_from(page.len()).is_ok_and(|rows| rows >= PAGE) => {
                after = Some(last.device.clone());
            }
            _ => return Ok(reach),
        }
    }
}

fn count(
    reach: &mut Reach,
    presence: &Presence,
    rollout: &Rollout,
    device: &Device,
    member: Option<&Member>,
    now: i64,
) {
    if !membership(&rollout.filters, &device.facts()).member && member.is_none() {
        return;
    }
    let last_seen = presence.last_seen(&device.device).unwrap_or(device.last_seen);
    let lost = presence.is_lost(last_seen, now);
    let runs = device.sequence.is_some_and(|sequence| sequence >= rollout.sequence);
    let staging = rollout.stage == Stage::Staging;
    let in_stage = member.is_some()
        || !staging
        || bucket::is_within(&rollout.release, &device.device, rollout.policy.staging_percent);
    reach.eligible += 1;
    reach.in_stage += u32::from(in_stage);
    reach.running += u32::from(runs);
    reach.lost += u32::from(lost);
    let open = match member {
        Some(member) => member.is_pending(),
        None => !runs && !lost,
    };
    reach.pending += u32::from(in_stage && open);
}

async fn all_members(store: &Store, rollout: &Rollout) -> Result<HashMap<String, Member>, StoreError> {
    let mut members = HashMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.members(rollout, None, after.as_deref(), PAGE).await?;
        let full = u32::try_from(page.len()).is_ok_and(|rows| rows >= PAGE);
        after = page.last().map(|member| member.device.clone());
        members.extend(page.into_iter().map(|member| (member.device.clone(), member)));
        if !full {
            return Ok(members);
        }
    }
}
