//! Devices as they showed themselves: last seen, running version, last report.

use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, from_db, to_db};
use crate::clock::unix_seconds;

/// An unchanged device is written down at most this often, in seconds: every poll would otherwise cost a flush of the
/// disk, and "seen in the last ten seconds" is as good as "now".
const SIGHTING_SECONDS: i64 = 10;

/// What an update check tells about the device that asks.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// The device's own name.
    pub device: &'a str,
    /// Its model.
    pub compatible: &'a str,
    /// The version it runs, if it knows.
    pub version: Option<&'a str>,
    /// The sequence it runs; `None` when the device did not say (a report).
    pub sequence: Option<u64>,
    /// Its `User-Agent`.
    pub user_agent: &'a str,
}

/// A device, for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// The device's own name.
    pub device: String,
    /// Its model.
    pub compatible: String,
    /// The version it runs, if it told.
    pub version: Option<String>,
    /// The sequence it runs, if it told.
    pub sequence: Option<u64>,
    /// Its `User-Agent`.
    pub user_agent: String,
    /// First contact, Unix seconds.
    pub first_seen: i64,
    /// Last contact, Unix seconds.
    pub last_seen: i64,
    /// Its last report.
    pub last_report: Option<LastReport>,
}

/// The last report of a device, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastReport {
    /// Chosen by the device.
    pub report_id: String,
    /// How the update ended.
    pub outcome: String,
    /// The version it was about.
    pub version: Option<String>,
    /// Why, if it failed.
    pub code: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// When it arrived, Unix seconds.
    pub received_at: i64,
}

impl Store {
    /// Remembers that a device was here. What the device did not say keeps its old value.
    pub async fn saw(&self, sighting: Sighting<'_>) -> Result<(), StoreError> {
        let now = unix_seconds();
        let known = sqlx::query(
            "SELECT compatible, version, sequence, user_agent, last_seen FROM devices WHERE device = ?",
        )
        .bind(sighting.device)
        .fetch_optional(&self.pool)
        .await?;
        if let Some(row) = known
            && unchanged(&row, sighting, now)?
        {
            return Ok(());
        }
        let sequence = sighting.sequence.map(|value| to_db("sequence", value)).transpose()?;
        sqlx::query(
            "INSERT INTO devices (device, compatible, version, sequence, user_agent, first_seen, last_seen)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
             ON CONFLICT (device) DO UPDATE SET compatible = ?2, version = coalesce(?3, version),
               sequence = coalesce(?4, sequence), user_agent = ?5, last_seen = ?6",
        )
        .bind(sighting.device)
        .bind(sighting.compatible)
        .bind(sighting.version)
        .bind(sequence)
        .bind(sighting.user_agent)
        .bind(now)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A page of devices by name, after `after`, at most `limit`.
    pub async fn devices(&self, after: Option<&str>, limit: u32) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.device, d.compatible, d.version, d.sequence, d.user_agent, d.first_seen, d.last_seen,
               r.report_id, r.outcome, r.version AS report_version, r.code, r.message, r.received_at
             FROM devices d LEFT JOIN reports r
               ON r.id = (SELECT max(id) FROM reports WHERE device = d.device)
             WHERE d.device > coalesce(?, '') ORDER BY d.device LIMIT ?",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }
}

fn unchanged(row: &SqliteRow, sighting: Sighting<'_>, now: i64) -> Result<bool, StoreError> {
    let sequence: Option<i64> = row.try_get("sequence")?;
    let version: Option<String> = row.try_get("version")?;
    let same = row.try_get::<String, _>("compatible")? == sighting.compatible
        && row.try_get::<String, _>("user_agent")? == sighting.user_agent
        && sighting.version.is_none_or(|said| version.as_deref() == Some(said))
        && sighting
            .sequence
            .is_none_or(|said| sequence.and_then(|was| u64::try_from(was).ok()) == Some(said));
    // A clock that was set back must not silence a device for years.
    let age = now - row.try_get::<i64, _>("last_seen")?;
    Ok(same && (0..SIGHTING_SECONDS).contains(&age))
}

fn read(row: &SqliteRow) -> Result<Device, StoreError> {
    let sequence: Option<i64> = row.try_get("sequence")?;
    let last_report = match row.try_get::<Option<String>, _>("report_id")? {
        Some(report_id) => Some(LastReport {
            report_id,
            outcome: row.try_get("outcome")?,
            version: row.try_get("report_version")?,
            code: row.try_get("code")?,
            message: row.try_get("message")?,
            received_at: row.try_get("received_at")?,
        }),
        None => None,
    };
    Ok(Device {
        device: row.try_get("device")?,
        compatible: row.try_get("compatible")?,
        version: row.try_get("version")?,
        sequence: sequence.map(|value| from_db("sequence", value)).transpose()?,
        user_agent: row.try_get("user_agent")?,
        first_seen: row.try_get("first_seen")?,
        last_seen: row.try_get("last_seen")?,
        last_report,
    })
}
