//! What artifacts and deltas have in common: a file on the disk, and being on offer or withdrawn.

use sqlx::Row;

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
            Kind::Artifact => "SELECT size, withdrawn_at IS NULL AS offered FROM artifacts WHERE sha256 = ?",
            Kind::Delta => "SELECT size, withdrawn_at IS NULL AS offered FROM deltas WHERE sha256 = ?",
        };
        let row = sqlx::query(statement).bind(sha256).fetch_optional(&self.pool).await?;
        row.map(|row| {
            Ok(FileRow { size: from_db("size", row.try_get("size")?)?, offered: row.try_get("offered")? })
        })
        .transpose()
    }

    /// Every file of a kind by SHA-256: what the start compares with the disk.
    pub async fn inventory(&self, kind: Kind) -> Result<Vec<(String, FileRow)>, StoreError> {
        let statement = match kind {
            Kind::Artifact => "SELECT sha256, size, withdrawn_at IS NULL AS offered FROM artifacts",
            Kind::Delta => "SELECT sha256, size, withdrawn_at IS NULL AS offered FROM deltas",
        };
        let rows = sqlx::query(statement).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let size = from_db("size", row.try_get("size")?)?;
                Ok((row.try_get("sha256")?, FileRow { size, offered: row.try_get("offered")? }))
            })
            .collect()
    }

    /// Takes a file off offer. One that is withdrawn already keeps its date.
    pub async fn withdraw(&self, kind: Kind, sha256: &str) -> Result<(), StoreError> {
        let statement = match kind {
            Kind::Artifact => {
                "UPDATE artifacts SET withdrawn_at = ? WHERE sha256 = ? AND withdrawn_at IS NULL"
            }
            Kind::Delta => "UPDATE deltas SET withdrawn_at = ? WHERE sha256 = ? AND withdrawn_at IS NULL",
        };
        sqlx::query(statement).bind(unix_seconds()).bind(sha256).execute(&self.pool).await?;
        Ok(())
    }
}
