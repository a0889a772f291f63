//! Artifacts: which bundle files exist, for which models, and which of them are withdrawn.

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, Transaction, from_db, to_db};
use crate::clock::unix_seconds;

/// Candidates that are read for one update check. More than one, because the choice may come to look at more than
/// the sequence.
const MAX_CANDIDATES: i64 = 16;

/// The columns of an [`Artifact`]. Models come as lines, in the order of the manifest: their names have no control characters.
macro_rules! select_artifact {
    ($rest:literal) => {
        concat!(
            "SELECT a.id, a.sha256, a.release, a.version, a.sequence, a.size, a.description, a.uploaded_at, ",
            "a.withdrawn_at, (SELECT string_agg(m.compatible, '\n' ORDER BY m.position) FROM artifact_compatible m ",
            "WHERE m.artifact_id = a.id) AS compatible FROM artifacts a ",
            $rest
        )
    };
}

/// One uploaded bundle file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// Order of the first upload.
    #[serde(skip)]
    pub id: i64,
    /// SHA-256 of the whole file, 64 lower-case hex digits: its name everywhere.
    pub sha256: String,
    /// SHA-256 of the signed manifest: the identity of the release. Two files can hold one release.
    pub release: String,
    /// Version of the release.
    pub version: String,
    /// Release counter.
    pub sequence: u64,
    /// Models it is for.
    pub compatible: Vec<String>,
    /// Bytes of the file.
    pub size: u64,
    /// What the manifest says about the release.
    pub description: String,
    /// When it was (last) uploaded, Unix seconds.
    pub uploaded_at: i64,
    /// When it was withdrawn, Unix seconds. Its file is gone then.
    pub withdrawn_at: Option<i64>,
}

/// What an upload adds, as read from the verified bundle.
#[derive(Debug, Clone)]
pub struct NewArtifact {
    /// SHA-256 of the whole file.
    pub sha256: String,
    /// SHA-256 of the signed manifest.
    pub release: String,
    /// Version of the release.
    pub version: String,
    /// Release counter.
    pub sequence: u64,
    /// Models it is for.
    pub compatible: Vec<String>,
    /// Bytes of the file.
    pub size: u64,
    /// What the manifest says about the release.
    pub description: String,
}

/// What [`Store::publish`] or [`Store::publish_delta`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// The file was not on offer before.
    New,
    /// It was already.
    Repeated,
}

impl Store {
    /// Records an artifact whose file is in place, or puts a withdrawn one back on offer.
    pub async fn publish(&self, new: &NewArtifact) -> Result<(Artifact, Publication), StoreError> {
        let mut transaction = self.write().await?;
        let earlier = sqlx::query("SELECT id, withdrawn_at FROM artifacts WHERE sha256 = $1")
            .bind(&new.sha256)
            .fetch_optional(&mut *transaction)
            .await?;
        let publication = match earlier {
            Some(row) if row.try_get::<Option<i64>, _>("withdrawn_at")?.is_none() => Publication::Repeated,
            Some(row) => {
                sqlx::query("UPDATE artifacts SET withdrawn_at = NULL, uploaded_at = $1 WHERE id = $2")
                    .bind(unix_seconds())
                    .bind(row.try_get::<i64, _>("id")?)
                    .execute(&mut *transaction)
                    .await?;
                Publication::New
            }
            None => {
                insert(&mut transaction, new).await?;
                Publication::New
            }
        };
        let row = sqlx::query(select_artifact!("WHERE a.sha256 = $1"))
            .bind(&new.sha256)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok((read(&row)?, publication))
    }

    /// The artifact with this SHA-256, withdrawn or not.
    pub async fn artifact(&self, sha256: &str) -> Result<Option<Artifact>, StoreError> {
        let row = sqlx::query(select_artifact!("WHERE a.sha256 = $1"))
            .bind(sha256)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// A page of artifacts, newest first, older than `before` (an artifact's SHA-256), at most `limit`.
    pub async fn artifacts(&self, before: Option<&str>, limit: u32) -> Result<Vec<Artifact>, StoreError> {
        let rows = sqlx::query(select_artifact!(
            "WHERE $1 IS NULL OR a.id < (SELECT id FROM artifacts WHERE sha256 = $1) ORDER BY a.id DESC LIMIT $2"
        ))
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// What is on offer for a model above a sequence, best first.
    pub async fn candidates(&self, compatible: &str, above: u64) -> Result<Vec<Artifact>, StoreError> {
        // No stored sequence is above the largest signed integer, so neither is any update for such a device.
        let Ok(above) = i64::try_from(above) else { return Ok(Vec::new()) };
        let rows = sqlx::query(select_artifact!(
            "JOIN artifact_compatible c ON c.artifact_id = a.id
             WHERE c.compatible = $1 AND a.sequence > $2 AND a.withdrawn_at IS NULL
             ORDER BY a.sequence DESC, a.uploaded_at DESC, a.id DESC LIMIT $3"
        ))
        .bind(compatible)
        .bind(above)
        .bind(MAX_CANDIDATES)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }
}

async fn insert(transaction: &mut Transaction, new: &NewArtifact) -> Result<(), StoreError> {
    let row = sqlx::query(
        "INSERT INTO artifacts (sha256, release, version, sequence, size, description, uploaded_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
    )
    .bind(&new.sha256)
    .bind(&new.release)
    .bind(&new.version)
    .bind(to_db("sequence", new.sequence)?)
    .bind(to_db("size", new.size)?)
    .bind(&new.description)
    .bind(unix_seconds())
    .fetch_one(&mut **transaction)
    .await?;
    let id: i64 = row.try_get("id")?;
    for (position, compatible) in (0_i64..).zip(&new.compatible) {
        sqlx::query(
            "INSERT INTO artifact_compatible (compatible, artifact_id, position) VALUES ($1, $2, $3)",
        )
        .bind(compatible)
        .bind(id)
        .bind(position)
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

fn read(row: &AnyRow) -> Result<Artifact, StoreError> {
    let models: Option<String> = row.try_get("compatible")?;
    let compatible = models.iter().flat_map(|models| models.lines()).map(str::to_owned).collect();
    Ok(Artifact {
        id: row.try_get("id")?,
        sha256: row.try_get("sha256")?,
        release: row.try_get("release")?,
        version: row.try_get("version")?,
        sequence: from_db("sequence", row.try_get("sequence")?)?,
        compatible,
        size: from_db("size", row.try_get("size")?)?,
        description: row.try_get("description")?,
        uploaded_at: row.try_get("uploaded_at")?,
        withdrawn_at: row.try_get("withdrawn_at")?,
    })
}
