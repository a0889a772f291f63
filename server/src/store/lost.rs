//! Which devices operators were told of as lost, so that they are told once, also when the server restarts.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use sqlx::Row;

use super::webhooks::tell;
use super::{Store, StoreError};
use crate::webhooks::Event;

/// Names in one message; the rest is a number.
const MAX_NAMES: usize = 100;

impl Store {
    /// Devices that were told of as lost, and when.
    pub async fn told_lost(&self) -> Result<HashMap<String, i64>, StoreError> {
        let rows = sqlx::query("SELECT device, at FROM lost_devices").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get("device")?, row.try_get("at")?))).collect()
    }

    /// Devices that went away to boot a new release: a boot may take longer than three contacts, and has a time limit of its own.
    pub async fn rebooting(&self) -> Result<HashSet<String>, StoreError> {
        let rows = sqlx::query("SELECT DISTINCT device FROM rollout_devices WHERE step = 'rebooting'")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok(row.try_get("device")?)).collect()
    }

    /// Tells of devices as lost, `lost` of which there are in all.
    pub async fn lose(&self, devices: &[String], lost: usize, now: i64) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for device in devices {
            sqlx::query(
                "INSERT INTO lost_devices (device, at) VALUES ($1, $2) ON CONFLICT (device) DO NOTHING",
            )
            .bind(device)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        }
        let named: Vec<&String> = devices.iter().take(MAX_NAMES).collect();
        let body = json!({ "count": devices.len(), "devices": named, "lost": lost });
        tell(&mut transaction, Event::DevicesLost, body).await?;
        Ok(transaction.commit().await?)
    }

    /// They are back.
    pub async fn found(&self, devices: &[String]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for device in devices {
            sqlx::query("DELETE FROM lost_devices WHERE device = $1")
                .bind(device)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }
}
