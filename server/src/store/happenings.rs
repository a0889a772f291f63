//! What happened, step by step: the history of a device, of a release, and of the whole fleet.

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::members::Taken;
use super::rollouts::Rollout;
use super::{Store, StoreError, Transaction};
use crate::fleet::step::Step;

/// Steps that are kept per device; the oldest go first. A device that fails in a loop must not fill the disk.
const KEPT_PER_DEVICE: i64 = 200;

/// The columns of a [`Past`], before the row `$3`, at most `$4` of them.
macro_rules! select_past {
    ($which:literal) => {
        concat!(
            "SELECT h.id, h.at, r.name AS rollout, a.version, h.device, h.before, h.after, h.code, h.message ",
            "FROM happenings h JOIN rollouts r ON r.id = h.rollout_id JOIN artifacts a ON a.sha256 = r.artifact ",
            "WHERE ",
            $which,
            " AND ($3 IS NULL OR h.id < $3) ORDER BY h.id DESC LIMIT $4"
        )
    };
}

/// Something to write down.
#[derive(Debug)]
pub(super) struct Happening<'a> {
    pub(super) rollout_id: i64,
    pub(super) device: Option<&'a str>,
    pub(super) before: Option<&'a str>,
    pub(super) after: &'a str,
    pub(super) code: Option<&'a str>,
    pub(super) message: Option<&'a str>,
}

/// Something that was written down. Without a device it is a turn of the release itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the columns, one to one")]
pub struct Past {
    pub id: i64,
    pub at: i64,
    /// Name of the release.
    pub release: String,
    pub version: String,
    pub device: Option<String>,
    pub before: Option<String>,
    pub after: String,
    pub code: Option<String>,
    pub message: Option<String>,
}

/// Writes down what happened, and forgets what happened to this device long ago.
pub(super) async fn note(
    transaction: &mut Transaction,
    happening: &Happening<'_>,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO happenings (at, rollout_id, device, before, after, code, message) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(now)
    .bind(happening.rollout_id)
    .bind(happening.device)
    .bind(happening.before)
    .bind(happening.after)
    .bind(happening.code)
    .bind(happening.message)
    .execute(&mut **transaction)
    .await?;
    if happening.device.is_some() {
        sqlx::query(
            "DELETE FROM happenings WHERE device = $1 AND id <=
               (SELECT id FROM happenings WHERE device = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
        )
        .bind(happening.device)
        .bind(KEPT_PER_DEVICE)
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

impl Store {
    /// The number of the last thing that happened in a release.
    pub async fn last_happening(&self, rollout: &Rollout) -> Result<Option<i64>, StoreError> {
        let row = sqlx::query("SELECT max(id) AS last FROM happenings WHERE rollout_id = $1")
            .bind(rollout.id)
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get("last")?)
    }

    /// The number of the last thing that happened anywhere.
    pub async fn newest_happening(&self) -> Result<i64, StoreError> {
        let row =
            sqlx::query("SELECT coalesce(max(id), 0) AS last FROM happenings").fetch_one(&self.pool).await?;
        Ok(row.try_get("last")?)
    }

    /// What happened to devices after a number, oldest first: number, time, and the step if it was one. Numbers are given out by one
    /// writer at a time, so that none appears behind a higher one.
    pub async fn steps_after(
        &self,
        id: i64,
        limit: u32,
    ) -> Result<Vec<(i64, i64, Option<Taken>)>, StoreError> {
        let rows = sqlx::query(
            "SELECT h.id, h.at, r.name AS rollout, r.device_group, h.device, h.after FROM happenings h
               JOIN rollouts r ON r.id = h.rollout_id WHERE h.id > $1 AND h.device IS NOT NULL ORDER BY h.id LIMIT $2",
        )
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &AnyRow| -> Result<_, StoreError> {
            // What an operator decides about a device is written down here, too, and no step.
            let step = Step::parse(&row.try_get::<String, _>("after")?);
            let (release, group, device) =
                (row.try_get("rollout")?, row.try_get("device_group")?, row.try_get("device")?);
            let taken = step.map(|step| Taken { release, group, device, step });
            Ok((row.try_get("id")?, row.try_get("at")?, taken))
        };
        rows.iter().map(read).collect()
    }

    /// What happened, newest first: to a device, in a release, or (both `None`) anywhere; before the row `before`.
    pub async fn happenings(
        &self,
        device: Option<&str>,
        rollout: Option<&str>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Past>, StoreError> {
        // Three statements instead of `$1 IS NULL OR …`: each has an index of its own.
        let statement = match (device, rollout) {
            (Some(_), _) => select_past!("h.device = $1 AND ($2 IS NULL OR r.name = $2)"),
            (None, Some(_)) => {
                select_past!("$1 IS NULL AND h.rollout_id = (SELECT id FROM rollouts WHERE name = $2)")
            }
            (None, None) => select_past!("$1 IS NULL AND $2 IS NULL"),
        };
        let rows = sqlx::query(statement)
            .bind(device)
            .bind(rollout)
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &AnyRow) -> Result<Past, StoreError> {
    Ok(Past {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        release: row.try_get("rollout")?,
        version: row.try_get("version")?,
        device: row.try_get("device")?,
        before: row.try_get("before")?,
        after: row.try_get("after")?,
        code: row.try_get("code")?,
        message: row.try_get("message")?,
    })
}
