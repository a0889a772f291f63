//! Reports of devices about how an update ended, with the last log lines of a boot that failed.

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, from_db, to_db};
use crate::clock::unix_seconds;

/// Reports that are kept per device; the oldest go first. A device that fails in a loop must not fill the disk.
const KEPT_PER_DEVICE: i64 = 50;

/// How an update ended, or how far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Written and armed; the reboot is still to come.
    Installed,
    /// Booted, healthy and confirmed.
    Committed,
    /// Booted or tried to, did not confirm itself; the old system runs again.
    RolledBack,
    /// Not installed.
    Failed,
    /// A person or a program stopped it.
    Cancelled,
}

impl Outcome {
    /// The spelling in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Installed => "installed",
            Outcome::Committed => "committed",
            Outcome::RolledBack => "rolled-back",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
        }
    }
}

/// A report as a device sends it. Fields that this version does not know are ignored: a device may be newer. A text
/// that is unknown may be absent, null or empty.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// The device's own name.
    pub device: String,
    /// Its model.
    pub compatible: String,
    /// Chosen by the device, once per outcome: the same id again changes nothing.
    pub report_id: String,
    /// SHA-256 of the manifest, if the device got that far.
    #[serde(default, deserialize_with = "known")]
    pub release: Option<String>,
    /// The version that was to be installed.
    #[serde(default, deserialize_with = "known")]
    pub version: Option<String>,
    /// The version that ran before.
    #[serde(default, deserialize_with = "known")]
    pub from_version: Option<String>,
    /// The slot that was written.
    #[serde(default, deserialize_with = "known")]
    pub slot: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Where it ended.
    #[serde(default, deserialize_with = "known")]
    pub phase: Option<String>,
    /// Why, for programs.
    #[serde(default, deserialize_with = "known")]
    pub code: Option<String>,
    /// Why, for people.
    #[serde(default, deserialize_with = "known")]
    pub message: Option<String>,
    /// The boot that the report is about.
    #[serde(default, deserialize_with = "known")]
    pub boot_id: Option<String>,
    /// When the update began, Unix seconds by the device's clock.
    #[serde(default)]
    pub started_at: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// Bytes that were fetched over the network.
    #[serde(default)]
    pub bytes_fetched: Option<u64>,
    /// The last log lines of the boot that failed.
    #[serde(default)]
    pub log: Vec<String>,
}

/// The empty text means unknown, as an absent field does.
fn known<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(input)?.filter(|text| !text.is_empty()))
}

/// A report, for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields of `Report`, one to one")]
pub struct StoredReport {
    pub device: String,
    pub compatible: String,
    pub report_id: String,
    pub release: Option<String>,
    pub version: Option<String>,
    pub from_version: Option<String>,
    pub slot: Option<String>,
    pub outcome: String,
    pub phase: Option<String>,
    pub code: Option<String>,
    pub message: Option<String>,
    pub boot_id: Option<String>,
    pub started_at: Option<u64>,
    pub duration_ms: Option<u64>,
    pub bytes_fetched: Option<u64>,
    pub log: Vec<String>,
    /// When it arrived, Unix seconds by the server's clock.
    pub received_at: i64,
}

/// Whether a report was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It was stored.
    Stored,
    /// This device sent this id before; the first stays as it is.
    Repeated,
}

impl Store {
    /// Stores a report once, and forgets the device's oldest beyond the number that is kept.
    pub async fn report(&self, report: &Report) -> Result<Receipt, StoreError> {
        let log = serde_json::to_string(&report.log)
            .map_err(|error| StoreError::Row { what: "log", value: error.to_string() })?;
        let number = |what, value: Option<u64>| value.map(|value| to_db(what, value)).transpose();
        let mut transaction = self.write().await?;
        let done = sqlx::query(
            "INSERT INTO reports (device, report_id, compatible, release, version, from_version, slot, outcome,
               phase, code, message, boot_id, started_at, duration_ms, bytes_fetched, log, received_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (device, report_id) DO NOTHING",
        )
        .bind(&report.device)
        .bind(&report.report_id)
        .bind(&report.compatible)
        .bind(&report.release)
        .bind(&report.version)
        .bind(&report.from_version)
        .bind(&report.slot)
        .bind(report.outcome.as_str())
        .bind(&report.phase)
        .bind(&report.code)
        .bind(&report.message)
        .bind(&report.boot_id)
        .bind(number("started_at", report.started_at)?)
        .bind(number("duration_ms", report.duration_ms)?)
        .bind(number("bytes_fetched", report.bytes_fetched)?)
        .bind(log)
        .bind(unix_seconds())
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(Receipt::Repeated);
        }
        sqlx::query(
            "DELETE FROM reports WHERE device = ?1 AND id <=
               (SELECT id FROM reports WHERE device = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(&report.device)
        .bind(KEPT_PER_DEVICE)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Receipt::Stored)
    }

    /// Every kept report of a device, newest first.
    pub async fn reports(&self, device: &str) -> Result<Vec<StoredReport>, StoreError> {
        let rows = sqlx::query(
            "SELECT device, compatible, report_id, release, version, from_version, slot, outcome, phase, code,
               message, boot_id, started_at, duration_ms, bytes_fetched, log, received_at
             FROM reports WHERE device = ? ORDER BY id DESC LIMIT ?",
        )
        .bind(device)
        .bind(KEPT_PER_DEVICE)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &SqliteRow) -> Result<StoredReport, StoreError> {
    let log: String = row.try_get("log")?;
    let number = |what: &'static str| -> Result<Option<u64>, StoreError> {
        row.try_get::<Option<i64>, _>(what)?.map(|value| from_db(what, value)).transpose()
    };
    Ok(StoredReport {
        device: row.try_get("device")?,
        compatible: row.try_get("compatible")?,
        report_id: row.try_get("report_id")?,
        release: row.try_get("release")?,
        version: row.try_get("version")?,
        from_version: row.try_get("from_version")?,
        slot: row.try_get("slot")?,
        outcome: row.try_get("outcome")?,
        phase: row.try_get("phase")?,
        code: row.try_get("code")?,
        message: row.try_get("message")?,
        boot_id: row.try_get("boot_id")?,
        started_at: number("started_at")?,
        duration_ms: number("duration_ms")?,
        bytes_fetched: number("bytes_fetched")?,
        received_at: row.try_get("received_at")?,
        log: serde_json::from_str(&log).map_err(|_| StoreError::Row { what: "log", value: log })?,
    })
}
