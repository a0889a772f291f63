//! Who changed what. A row is written before the change, and completed with what came of it.

use serde::Serialize;
use sqlx::Row;

use super::{Store, StoreError, Transaction};
use crate::clock::unix_seconds;

/// One change that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the columns, one to one")]
pub struct Entry {
    pub id: i64,
    pub at: i64,
    pub who: String,
    pub action: String,
    pub subject: String,
    /// The status of the answer; null when the server was killed before it gave one.
    pub status: Option<i64>,
}

impl Store {
    /// Writes down that somebody asks for a change, and returns the number of the row.
    pub async fn audit(&self, who: &str, action: &str, subject: &str) -> Result<i64, StoreError> {
        let row =
            sqlx::query("INSERT INTO audit (at, who, action, subject) VALUES ($1, $2, $3, $4) RETURNING id")
                .bind(unix_seconds())
                .bind(who)
                .bind(action)
                .bind(subject)
                .fetch_one(self.write_at_once())
                .await?;
        Ok(row.try_get("id")?)
    }

    /// Writes down what came of a change, and what it was about if its path did not say.
    pub async fn audit_done(&self, id: i64, status: u16, subject: Option<&str>) -> Result<(), StoreError> {
        sqlx::query("UPDATE audit SET status = $1, subject = coalesce($2, subject) WHERE id = $3")
            .bind(i64::from(status))
            .bind(subject)
            .bind(id)
            .execute(self.write_at_once())
            .await?;
        Ok(())
    }

    /// Changes, newest first, before the row `before`.
    pub async fn audit_log(&self, before: Option<i64>, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, at, who, action, subject, status FROM audit WHERE $1 IS NULL OR id < $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Entry {
                    id: row.try_get("id")?,
                    at: row.try_get("at")?,
                    who: row.try_get("who")?,
                    action: row.try_get("action")?,
                    subject: row.try_get("subject")?,
                    status: row.try_get("status")?,
                })
            })
            .collect()
    }
}

/// Writes down what the server did by itself, within a transaction.
pub(super) async fn by_itself(
    transaction: &mut Transaction,
    action: &str,
    subject: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO audit (at, who, action, subject, status) VALUES ($1, 'otaserver', $2, $3, 200)")
        .bind(unix_seconds())
        .bind(action)
        .bind(subject)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
