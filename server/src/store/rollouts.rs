//! Releases on their way through the fleet: what was declared, where it stands, and the turns it takes.

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::happenings::{Happening, note};
use super::webhooks::tell_of_release;
use super::{Store, StoreError, Transaction, from_db};
use crate::clock::unix_seconds;
use crate::fleet::filter::Filter;
use crate::fleet::judge::{Results, Stage};
use crate::fleet::policy::Policy;
use crate::webhooks::Event;

/// The columns of a [`Rollout`].
macro_rules! select_rollout {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.name, r.artifact, a.release, a.version, a.sequence, a.withdrawn_at, r.device_group, ",
            "g.filters, r.stage, r.paused, r.policy, r.start_at, r.good_before, r.bad_before, r.created_at, ",
            "r.started_at, r.ended_at FROM rollouts r JOIN artifacts a ON a.sha256 = r.artifact ",
            "LEFT JOIN device_groups g ON g.name = r.device_group ",
            $rest
        )
    };
}

/// A release on its way through the fleet.
#[derive(Debug, Clone, Serialize)]
pub struct Rollout {
    /// Order of declaration.
    #[serde(skip)]
    pub id: i64,
    /// Its name, chosen by the operator.
    pub name: String,
    /// SHA-256 of the artifact.
    pub artifact: String,
    /// SHA-256 of the manifest.
    pub release: String,
    /// Version of the release.
    pub version: String,
    /// Release counter.
    pub sequence: u64,
    /// Whether the artifact was withdrawn.
    pub withdrawn: bool,
    /// The group it is for; `None`: every device of its models.
    pub group: Option<String>,
    /// The filters of that group.
    #[serde(skip)]
    pub filters: Vec<Filter>,
    /// Where it stands.
    pub stage: Stage,
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// What the operator set.
    pub policy: Policy,
    /// When it begins by itself, Unix seconds.
    pub start_at: Option<i64>,
    /// Results that were forgiven when it was resumed.
    #[serde(skip)]
    pub forgiven: Results,
    /// When it was declared, Unix seconds.
    pub created_at: i64,
    /// When it went to staging, Unix seconds.
    pub started_at: Option<i64>,
    /// When it was completed or aborted, Unix seconds.
    pub ended_at: Option<i64>,
}

impl Rollout {
    /// Whether it may be offered to somebody.
    pub fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Staging | Stage::Production)
    }
}

/// What an operator declares.
#[derive(Debug, Clone)]
pub struct NewRollout {
    /// Its name.
    pub name: String,
    /// SHA-256 of the artifact.
    pub artifact: String,
    /// The group it is for.
    pub group: Option<String>,
    /// How it goes through the fleet.
    pub policy: Policy,
    /// When it begins by itself, Unix seconds.
    pub start_at: Option<i64>,
}

/// What an operator, or the server by itself, makes of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// From draft to staging.
    Start,
    /// To production.
    Promote,
    /// Stop offering it, for this reason.
    Pause(String),
    /// Go on, and forgive what has happened so far.
    Resume,
    /// Everybody has a result.
    Complete,
    /// Stop for good.
    Abort,
}

impl Turn {
    /// Where it leads: stage and reason of the pause. `None` when the release cannot take it.
    fn lead(&self, stage: Stage, paused: Option<&str>) -> Option<(Stage, Option<String>)> {
        let keep = |stage| (stage, paused.map(str::to_owned));
        match (self, stage) {
            (Turn::Start, Stage::Draft) => Some((Stage::Staging, None)),
            (Turn::Promote, Stage::Staging) => Some(keep(Stage::Production)),
            (Turn::Pause(reason), Stage::Staging | Stage::Production) if paused.is_none() => {
                Some((stage, Some(reason.clone())))
            }
            (Turn::Resume, Stage::Staging | Stage::Production) if paused.is_some() => Some((stage, None)),
            (Turn::Complete, Stage::Production) => Some((Stage::Completed, None)),
            (Turn::Abort, Stage::Draft | Stage::Staging | Stage::Production | Stage::Completed) => {
                Some((Stage::Aborted, None))
            }
            (
                Turn::Start | Turn::Promote | Turn::Pause(_) | Turn::Resume | Turn::Complete | Turn::Abort,
                Stage::Draft | Stage::Staging | Stage::Production | Stage::Completed | Stage::Aborted,
            ) => None,
        }
    }

    /// The word for the record of what happened.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Turn::Start => "started",
            Turn::Promote => "promoted",
            Turn::Pause(_) => "paused",
            Turn::Resume => "resumed",
            Turn::Complete => "completed",
            Turn::Abort => "aborted",
        }
    }
}

impl Store {
    /// Declares a release as a draft. `None` when there is one of this name.
    pub async fn add_rollout(&self, new: &NewRollout) -> Result<Option<Rollout>, StoreError> {
        let mut transaction = self.write().await?;
        let added = sqlx::query(
            "INSERT INTO rollouts (name, artifact, device_group, stage, policy, start_at, good_before, bad_before,
               created_at) VALUES ($1, $2, $3, 'draft', $4, $5, 0, 0, $6) ON CONFLICT (name) DO NOTHING",
        )
        .bind(&new.name)
        .bind(&new.artifact)
        .bind(&new.group)
        .bind(super::to_json("policy", &new.policy)?)
        .bind(new.start_at)
        .bind(unix_seconds())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        let row = sqlx::query(select_rollout!("WHERE r.name = $1"))
            .bind(&new.name)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        if added == 0 { Ok(None) } else { read(&row).map(Some) }
    }

    /// One release by name.
    pub async fn rollout(&self, name: &str) -> Result<Option<Rollout>, StoreError> {
        let row =
            sqlx::query(select_rollout!("WHERE r.name = $1")).bind(name).fetch_optional(&self.pool).await?;
        row.as_ref().map(read).transpose()
    }

    /// Every release, newest first.
    pub async fn rollouts(&self) -> Result<Vec<Rollout>, StoreError> {
        let rows =
            sqlx::query(select_rollout!("ORDER BY r.id DESC LIMIT 1000")).fetch_all(&self.pool).await?;
        rows.iter().map(read).collect()
    }

    /// Releases for a model, highest sequence first, whatever their stage.
    pub async fn rollouts_for(&self, compatible: &str) -> Result<Vec<Rollout>, StoreError> {
        let rows = sqlx::query(select_rollout!(
            "JOIN artifact_compatible c ON c.artifact_id = a.id AND c.compatible = $1
             ORDER BY a.sequence DESC, r.id DESC"
        ))
        .bind(compatible)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Lets a release take a turn. `Ok(None)` when it cannot take it from where it stands.
    pub async fn turn(&self, name: &str, turn: &Turn) -> Result<Option<Rollout>, StoreError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query(select_rollout!("WHERE r.name = $1"))
            .bind(name)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(None) };
        if !take_turn(&mut transaction, &read(&row)?, turn).await? {
            return Ok(None);
        }
        let row =
            sqlx::query(select_rollout!("WHERE r.name = $1")).bind(name).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        read(&row).map(Some)
    }

    /// Changes the policy of a release that has not ended.
    pub async fn set_policy(&self, name: &str, policy: &Policy) -> Result<bool, StoreError> {
        let changed = sqlx::query(
            "UPDATE rollouts SET policy = $1 WHERE name = $2 AND stage IN ('draft', 'staging', 'production')",
        )
        .bind(super::to_json("policy", policy)?)
        .bind(name)
        .execute(self.write_at_once())
        .await?
        .rows_affected();
        Ok(changed > 0)
    }
}

/// Reads a release within a transaction.
pub(super) async fn by_id(transaction: &mut Transaction, id: i64) -> Result<Rollout, StoreError> {
    let row = sqlx::query(select_rollout!("WHERE r.id = $1")).bind(id).fetch_one(&mut **transaction).await?;
    read(&row)
}

/// Takes a turn within a transaction, and says whether it could be taken.
pub(super) async fn take_turn(
    transaction: &mut Transaction,
    rollout: &Rollout,
    turn: &Turn,
) -> Result<bool, StoreError> {
    let Some((stage, paused)) = turn.lead(rollout.stage, rollout.paused.as_deref()) else { return Ok(false) };
    let now = unix_seconds();
    // An operator who resumes or promotes has seen the results so far.
    let forgiven = match turn {
        Turn::Resume => super::members::results(transaction, rollout.id).await?,
        Turn::Start | Turn::Promote | Turn::Pause(_) | Turn::Complete | Turn::Abort => rollout.forgiven,
    };
    sqlx::query(
        "UPDATE rollouts SET stage = $1, paused = $2, good_before = $3, bad_before = $4,
           started_at = coalesce(started_at, $5), ended_at = $6 WHERE id = $7",
    )
    .bind(stage.as_str())
    .bind(&paused)
    .bind(i64::from(forgiven.good))
    .bind(i64::from(forgiven.bad))
    .bind((stage != Stage::Draft && stage != Stage::Aborted).then_some(now))
    .bind(matches!(stage, Stage::Completed | Stage::Aborted).then_some(now))
    .bind(rollout.id)
    .execute(&mut **transaction)
    .await?;
    let happening = Happening {
        rollout_id: rollout.id,
        device: None,
        before: Some(rollout.stage.as_str()),
        after: turn.as_str(),
        code: None,
        message: paused.as_deref(),
    };
    note(transaction, &happening, now).await?;
    match turn {
        Turn::Pause(reason) => {
            tell_of_release(transaction, Event::ReleasePaused, rollout, Some(reason)).await?
        }
        Turn::Complete => tell_of_release(transaction, Event::ReleaseCompleted, rollout, None).await?,
        Turn::Start | Turn::Promote | Turn::Resume | Turn::Abort => {}
    }
    if *turn == Turn::Abort {
        super::members::withdraw_offers(transaction, rollout, now).await?;
    }
    Ok(true)
}

fn read(row: &AnyRow) -> Result<Rollout, StoreError> {
    let stage: String = row.try_get("stage")?;
    let filters: Option<String> = row.try_get("filters")?;
    let count = |what: &'static str| -> Result<u32, StoreError> {
        let value: i64 = row.try_get(what)?;
        u32::try_from(value).map_err(|_| StoreError::Row { what, value: value.to_string() })
    };
    Ok(Rollout {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        artifact: row.try_get("artifact")?,
        release: row.try_get("release")?,
        version: row.try_get("version")?,
        sequence: from_db("sequence", row.try_get("sequence")?)?,
        withdrawn: row.try_get::<Option<i64>, _>("withdrawn_at")?.is_some(),
        group: row.try_get("device_group")?,
        filters: filters.map_or(Ok(Vec::new()), |text| super::from_json("filters", text))?,
        stage: Stage::parse(&stage).ok_or(StoreError::Row { what: "stage", value: stage })?,
        paused: row.try_get("paused")?,
        policy: super::from_json("policy", row.try_get("policy")?)?,
        start_at: row.try_get("start_at")?,
        forgiven: Results { good: count("good_before")?, bad: count("bad_before")? },
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns() {
        use Stage::*;
        let pause = || Turn::Pause("x".into());
        for (turn, stage, paused, expected) in [
            (Turn::Start, Draft, None, Some((Staging, None))),
            (Turn::Start, Staging, None, None),
            (Turn::Promote, Staging, None, Some((Production, None))),
            (Turn::Promote, Draft, None, None),
            (Turn::Promote, Staging, Some("y"), Some((Production, Some("y")))),
            (pause(), Staging, None, Some((Staging, Some("x")))),
            (pause(), Production, Some("y"), None),
            (pause(), Completed, None, None),
            (Turn::Resume, Production, Some("y"), Some((Production, None))),
            (Turn::Resume, Production, None, None),
            (Turn::Complete, Production, None, Some((Completed, None))),
            (Turn::Complete, Staging, None, None),
            (Turn::Abort, Production, Some("y"), Some((Aborted, None))),
            (Turn::Abort, Aborted, None, None),
        ] {
            let expected =
                expected.map(|(stage, paused): (Stage, Option<&str>)| (stage, paused.map(str::to_owned)));
            assert_eq!(turn.lead(stage, paused), expected, "{turn:?} {stage:?} {paused:?}");
        }
    }
}
