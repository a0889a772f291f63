//! Deltas: which files lead from which release to which, and which of them are withdrawn.

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Publication, Store, StoreError, from_db, to_db};
use crate::clock::unix_seconds;

/// Deltas that are read for one offer, smallest first.
const MAX_CANDIDATES: i64 = 16;

/// The columns of a [`Delta`].
macro_rules! select_delta {
    ($rest:literal) => {
        concat!(
            "SELECT id, sha256, from_release, to_release, size, uploaded_at, withdrawn_at FROM deltas ",
            $rest
        )
    };
}

/// One uploaded delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delta {
    /// Order of the first upload.
    #[serde(skip)]
    pub id: i64,
    /// SHA-256 of the whole file, 64 lower-case hex digits: its name everywhere.
    pub sha256: String,
    /// SHA-256 of the manifest of the release that it starts from.
    #[serde(rename = "from")]
    pub from_release: String,
    /// SHA-256 of the manifest of the release that it leads to.
    #[serde(rename = "to")]
    pub to_release: String,
    /// Bytes of the file.
    pub size: u64,
    /// When it was (last) uploaded, Unix seconds.
    pub uploaded_at: i64,
    /// When it was withdrawn, Unix seconds. Its file is gone then.
    pub withdrawn_at: Option<i64>,
}

/// What an upload adds, as read from the header of the delta.
#[derive(Debug, Clone)]
pub struct NewDelta {
    /// SHA-256 of the whole file.
    pub sha256: String,
    /// The release that it starts from.
    pub from_release: String,
    /// The release that it leads to.
    pub to_release: String,
    /// Bytes of the file.
    pub size: u64,
}

impl Store {
    /// Whether a release has an artifact on offer.
    pub async fn offers_release(&self, release: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM artifacts WHERE release = $1 AND withdrawn_at IS NULL LIMIT 1")
            .bind(release)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// Records a delta whose file is in place, or puts a withdrawn one back on offer.
    pub async fn publish_delta(&self, new: &NewDelta) -> Result<(Delta, Publication), StoreError> {
        let mut transaction = self.write().await?;
        let changed = sqlx::query(
            "INSERT INTO deltas (sha256, from_release, to_release, size, uploaded_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (sha256) DO UPDATE SET withdrawn_at = NULL, uploaded_at = excluded.uploaded_at
               WHERE deltas.withdrawn_at IS NOT NULL",
        )
        .bind(&new.sha256)
        .bind(&new.from_release)
        .bind(&new.to_release)
        .bind(to_db("size", new.size)?)
        .bind(unix_seconds())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        let row = sqlx::query(select_delta!("WHERE sha256 = $1"))
            .bind(&new.sha256)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok((read(&row)?, if changed == 0 { Publication::Repeated } else { Publication::New }))
    }

    /// A page of deltas, newest first, older than `before` (a delta's SHA-256), at most `limit`.
    pub async fn deltas(&self, before: Option<&str>, limit: u32) -> Result<Vec<Delta>, StoreError> {
        let rows = sqlx::query(select_delta!(
            "WHERE $1 IS NULL OR id < (SELECT id FROM deltas WHERE sha256 = $1) ORDER BY id DESC LIMIT $2"
        ))
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// What is on offer between two releases, smallest first.
    pub async fn deltas_between(&self, from: &str, to: &str) -> Result<Vec<Delta>, StoreError> {
        let rows = sqlx::query(select_delta!(
            "WHERE from_release = $1 AND to_release = $2 AND withdrawn_at IS NULL ORDER BY size, id LIMIT $3"
        ))
        .bind(from)
        .bind(to)
        .bind(MAX_CANDIDATES)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Takes every delta to a release off offer, once no artifact of it is. Returns the SHA-256 of all that are withdrawn
    /// by now, also of those that were before: a kill may have kept their files from going.
    pub async fn withdraw_deltas_to(&self, release: &str) -> Result<Vec<String>, StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "UPDATE deltas SET withdrawn_at = $2 WHERE to_release = $1 AND withdrawn_at IS NULL AND NOT EXISTS
               (SELECT 1 FROM artifacts WHERE release = $1 AND withdrawn_at IS NULL)",
        )
        .bind(release)
        .bind(unix_seconds())
        .execute(&mut *transaction)
        .await?;
        let rows =
            sqlx::query("SELECT sha256 FROM deltas WHERE to_release = $1 AND withdrawn_at IS NOT NULL")
                .bind(release)
                .fetch_all(&mut *transaction)
                .await?;
        transaction.commit().await?;
        rows.iter().map(|row| Ok(row.try_get("sha256")?)).collect()
    }
}

fn read(row: &AnyRow) -> Result<Delta, StoreError> {
    Ok(Delta {
        id: row.try_get("id")?,
        sha256: row.try_get("sha256")?,
        from_release: row.try_get("from_release")?,
        to_release: row.try_get("to_release")?,
        size: from_db("size", row.try_get("size")?)?,
        uploaded_at: row.try_get("uploaded_at")?,
        withdrawn_at: row.try_get("withdrawn_at")?,
    })
}
