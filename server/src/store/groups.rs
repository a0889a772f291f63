//! Groups of devices: names and filters. Membership is never stored: it is worked out when it is asked for.

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError};
use crate::clock::unix_seconds;
use crate::fleet::filter::Filter;

/// A group of devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What all of its devices have in common.
    pub filters: Vec<Filter>,
    /// When it was made, Unix seconds.
    pub created_at: i64,
}

/// What became of a group that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// There is none of this name.
    Unknown,
    /// A release is for it.
    InUse,
}

impl Store {
    /// Makes a group, or returns `None` when there is one of this name with other filters.
    pub async fn add_group(&self, name: &str, filters: &[Filter]) -> Result<Option<Group>, StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO device_groups (name, filters, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
        )
        .bind(name)
        .bind(super::to_json("filters", &filters)?)
        .bind(unix_seconds())
        .execute(&mut *transaction)
        .await?;
        let row = sqlx::query("SELECT name, filters, created_at FROM device_groups WHERE name = $1")
            .bind(name)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Some(read(&row)?).filter(|group| group.filters == filters))
    }

    /// Every group, by name.
    pub async fn groups(&self) -> Result<Vec<Group>, StoreError> {
        let rows = sqlx::query("SELECT name, filters, created_at FROM device_groups ORDER BY name")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// One group.
    pub async fn group(&self, name: &str) -> Result<Option<Group>, StoreError> {
        let row = sqlx::query("SELECT name, filters, created_at FROM device_groups WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Removes a group that no release is for.
    pub async fn remove_group(&self, name: &str) -> Result<Removal, StoreError> {
        let mut transaction = self.write().await?;
        let used = sqlx::query("SELECT 1 FROM rollouts WHERE device_group = $1 LIMIT 1")
            .bind(name)
            .fetch_optional(&mut *transaction)
            .await?;
        if used.is_some() {
            return Ok(Removal::InUse);
        }
        let removed = sqlx::query("DELETE FROM device_groups WHERE name = $1")
            .bind(name)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        transaction.commit().await?;
        Ok(if removed == 0 { Removal::Unknown } else { Removal::Removed })
    }
}

fn read(row: &AnyRow) -> Result<Group, StoreError> {
    Ok(Group {
        name: row.try_get("name")?,
        filters: super::from_json("filters", row.try_get("filters")?)?,
        created_at: row.try_get("created_at")?,
    })
}
