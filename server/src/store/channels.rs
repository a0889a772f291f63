//! Channel documents: the newest one of every model.

use sqlx::Row;

use super::{Store, StoreError, from_db, to_db};

/// What became of a document that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It is the newest one now, or was already.
    Kept,
    /// The one that is kept has this counter, which is not lower.
    Behind(u64),
}

impl Store {
    /// Keeps a document whose counter is higher than that of the one before. The same document again changes nothing.
    pub async fn keep_channel(
        &self,
        compatible: &str,
        counter: u64,
        document: &str,
    ) -> Result<Keeping, StoreError> {
        let mut transaction = self.write().await?;
        let before = sqlx::query("SELECT counter, document FROM channels WHERE compatible = $1")
            .bind(compatible)
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(row) = before {
            let before = from_db("counter", row.try_get("counter")?)?;
            if row.try_get::<String, _>("document")? == document {
                return Ok(Keeping::Kept);
            }
            if counter <= before {
                return Ok(Keeping::Behind(before));
            }
        }
        sqlx::query(
            "INSERT INTO channels (compatible, counter, document) VALUES ($1, $2, $3)
             ON CONFLICT (compatible) DO UPDATE SET counter = excluded.counter, document = excluded.document",
        )
        .bind(compatible)
        .bind(to_db("counter", counter)?)
        .bind(document)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Keeping::Kept)
    }

    /// The newest document of a model.
    pub async fn channel(&self, compatible: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT document FROM channels WHERE compatible = $1")
            .bind(compatible)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(row.try_get("document")?)).transpose()
    }
}
