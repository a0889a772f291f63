//! Tokens of operators and of devices. Only their SHA-256 is kept: they are long and random, so there is nothing to guess.

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::Row;

use super::{Store, StoreError};
use crate::clock::unix_seconds;
use crate::role::Role;

/// An operator who has a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// The name in the audit log.
    pub name: String,
    /// What the token opens.
    pub role: Role,
    /// When it was made, Unix seconds.
    pub created_at: i64,
}

/// The hash by which a token is looked up, as hex.
pub fn hash(token: &[u8]) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Store {
    /// Gives a new operator a token, and marks for good that there was one. `false` when there is one of this name.
    pub async fn add_operator(&self, name: &str, role: Role, token: &str) -> Result<bool, StoreError> {
        let now = unix_seconds();
        let mut transaction = self.write().await?;
        let added = sqlx::query(
            "INSERT INTO operators (name, role, hash, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
        )
        .bind(name)
        .bind(role.as_str())
        .bind(hash(token.as_bytes()))
        .bind(now)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        sqlx::query("INSERT INTO marks (name, at) VALUES ('operators', $1) ON CONFLICT (name) DO NOTHING")
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(added > 0)
    }

    /// Every operator who has a token, by name.
    pub async fn operators(&self) -> Result<Vec<Operator>, StoreError> {
        let rows = sqlx::query("SELECT name, role, created_at FROM operators ORDER BY name")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let role: String = row.try_get("role")?;
                let role = Role::parse(&role).ok_or(StoreError::Row { what: "role", value: role })?;
                Ok(Operator { name: row.try_get("name")?, role, created_at: row.try_get("created_at")? })
            })
            .collect()
    }

    /// Takes an operator's token back. `false` when there was none.
    pub async fn remove_operator(&self, name: &str) -> Result<bool, StoreError> {
        let removed = sqlx::query("DELETE FROM operators WHERE name = $1")
            .bind(name)
            .execute(self.write_at_once())
            .await?;
        Ok(removed.rows_affected() > 0)
    }

    /// Whom a token belongs to.
    pub async fn operator_of(&self, token: &[u8]) -> Result<Option<(String, Role)>, StoreError> {
        let row = sqlx::query("SELECT name, role FROM operators WHERE hash = $1")
            .bind(hash(token))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            let role: String = row.try_get("role")?;
            let role = Role::parse(&role).ok_or(StoreError::Row { what: "role", value: role })?;
            Ok((row.try_get("name")?, role))
        })
        .transpose()
    }

    /// Whether any operator has or ever had a token.
    pub async fn had_operators(&self) -> Result<bool, StoreError> {
        let mark = sqlx::query("SELECT 1 FROM marks WHERE name = 'operators'");
        Ok(mark.fetch_optional(&self.pool).await?.is_some())
    }

    /// Gives a device a token; an earlier one stops working.
    pub async fn set_device_token(&self, device: &str, token: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO device_tokens (device, hash, created_at) VALUES ($1, $2, $3)
             ON CONFLICT (device) DO UPDATE SET hash = excluded.hash, created_at = excluded.created_at",
        )
        .bind(device)
        .bind(hash(token.as_bytes()))
        .bind(unix_seconds())
        .execute(self.write_at_once())
        .await?;
        Ok(())
    }

    /// Takes a device's token back. `false` when it had none.
    pub async fn remove_device_token(&self, device: &str) -> Result<bool, StoreError> {
        let removed = sqlx::query("DELETE FROM device_tokens WHERE device = $1")
            .bind(device)
            .execute(self.write_at_once())
            .await?;
        Ok(removed.rows_affected() > 0)
    }

    /// The hash of a device's token, if it has one.
    pub async fn device_token(&self, device: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT hash FROM device_tokens WHERE device = $1")
            .bind(device)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(row.try_get("hash")?)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database that had an operator before there were marks has the mark as soon as this version opens it.
    #[tokio::test]
    async fn that_there_was_an_operator_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let store = Store::open(&path, 1 << 20).await.unwrap();
        assert!(!store.had_operators().await.unwrap());
        assert!(store.add_operator("a", Role::Admin, "token").await.unwrap());
        for undo in [
            "DROP TABLE webhook_deliveries",
            "DROP TABLE webhooks",
            "DROP TABLE lost_devices",
            "DROP TABLE channels",
            "DROP TABLE marks",
            "DELETE FROM _sqlx_migrations WHERE version >= 4",
        ] {
            sqlx::query(undo).execute(&store.pool).await.unwrap();
        }
        store.close().await;
        let store = Store::open(&path, 1 << 20).await.unwrap();
        assert!(store.remove_operator("a").await.unwrap());
        assert!(store.operators().await.unwrap().is_empty());
        assert!(store.had_operators().await.unwrap());
        store.close().await;
    }
}
