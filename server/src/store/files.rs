//! What artifacts and deltas have in common: a file on the disk, and being on offer or withdrawn.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, from_db};
use crate::clock::unix_seconds;
use crate::kind::Kind;

/// What the database knows about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRow {
    /// Bytes it must have.
    pub size: u64,
    /// Whether devices may have it. If not, it was withdrawn.
    pub offered: bool,
}

impl Store {
    /// The file of this kind with this SHA-256, withdrawn or not.
    pub async fn file(&self, kind: Kind, sha256: &str) -> Result<Option<FileRow>, StoreError> {
        let statement = match kind {
            Kind::Artifact => "SELECT size, withdrawn_at FROM artifacts WHERE sha256 = $1",
            Kind::Delta => "SELECT size, withdrawn_at FROM deltas WHERE sha256 = $1",
        };
        let row = sqlx::query(statement).bind(sha256).fetch_optional(&self.pool).await?;
        row.as_ref().map(read).transpose()
    }

    /// Every file of a kind by SHA-256: what the start compares with the disk.
    pub async fn inventory(&self, kind: Kind) -> Result<Vec<(String, FileRow)>, StoreError> {
        let statement = match kind {
            Kind::Artifact => "SELECT sha256, size, withdrawn_at FROM artifacts",
            Kind::Delta => "SELECT sha256, size, withdrawn_at FROM deltas",
        };
        let rows = sqlx::query(statement).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get("sha256")?, read(row)?))).collect()
    }

    /// Remembers which store holds the files. `false` when that is another one.
    pub async fn claim_artifacts(&self, identity: &str) -> Result<bool, StoreError> {
        let mark = format!("artifacts {identity}");
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO marks (name, at) SELECT $1, $2
             WHERE NOT EXISTS (SELECT 1 FROM marks WHERE name LIKE 'artifacts %')",
        )
        .bind(&mark)
        .bind(unix_seconds())
        .execute(&mut *transaction)
        .await?;
        let mine = sqlx::query("SELECT 1 FROM marks WHERE name = $1").bind(&mark);
        let mine = mine.fetch_optional(&mut *transaction).await?.is_some();
        transaction.commit().await?;
        Ok(mine)
    }

    /// Takes a file off offer. One that is withdrawn already keeps its date.
    pub async fn withdraw(&self, kind: Kind, sha256: &str) -> Result<(), StoreError> {
        let statement = match kind {
            Kind::Artifact => {
                "UPDATE artifacts SET withdrawn_at = $1 WHERE sha256 = $2 AND withdrawn_at IS NULL"
            }
            Kind::Delta => "UPDATE deltas SET withdrawn_at = $1 WHERE sha256 = $2 AND withdrawn_at IS NULL",
        };
        sqlx::query(statement).bind(unix_seconds()).bind(sha256).execute(self.write_at_once()).await?;
        Ok(())
    }
}

fn read(row: &AnyRow) -> Result<FileRow, StoreError> {
    let withdrawn_at: Option<i64> = row.try_get("withdrawn_at")?;
    Ok(FileRow { size: from_db("size", row.try_get("size")?)?, offered: withdrawn_at.is_none() })
}
