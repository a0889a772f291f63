//! Reports of devices about how an update ended, with the last log lines of a boot that failed.

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::members::{self, Detail, Member, Taken};
use super::records::{self, NewRecord};
use super::rollouts::{self, Rollout};
use super::{Store, StoreError, Transaction, from_db, to_db};
use crate::clock::unix_seconds;
use crate::fleet::class::Class;
use crate::fleet::step::{Event, Word};

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

/// The empty text means unknown, as an absent field does. A NUL, which not every database holds, becomes a replacement character.
fn known<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(input)?.filter(|text| !text.is_empty());
    Ok(text.map(|text| text.replace('\0', "\u{fffd}")))
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
    /// Stores a report once, lets it count in the release that it is about, and forgets the device's oldest beyond the number
    /// that is kept. All of it or nothing: a report that comes again after a kill finds either.
    pub async fn report(&self, report: &Report) -> Result<(Receipt, Option<Taken>), StoreError> {
        let log = serde_json::to_string(&report.log)
            .map_err(|error| StoreError::Row { what: "log", value: error.to_string() })?;
        let number = |what, value: Option<u64>| value.map(|value| to_db(what, value)).transpose();
        let mut transaction = self.write().await?;
        let done = sqlx::query(
            "INSERT INTO reports (device, report_id, compatible, release, version, from_version, slot, outcome,
               phase, code, message, boot_id, started_at, duration_ms, bytes_fetched, log, received_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
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
            return Ok((Receipt::Repeated, None));
        }
        sqlx::query(
            "DELETE FROM reports WHERE device = $1 AND id <=
               (SELECT id FROM reports WHERE device = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
        )
        .bind(&report.device)
        .bind(KEPT_PER_DEVICE)
        .execute(&mut *transaction)
        .await?;
        let taken = count(&mut transaction, report).await?;
        transaction.commit().await?;
        Ok((Receipt::Stored, taken))
    }

    /// Every kept report of a device, newest first.
    pub async fn reports(&self, device: &str) -> Result<Vec<StoredReport>, StoreError> {
        let rows = sqlx::query(
            "SELECT device, compatible, report_id, release, version, from_version, slot, outcome, phase, code,
               message, boot_id, started_at, duration_ms, bytes_fetched, log, received_at
             FROM reports WHERE device = $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(device)
        .bind(KEPT_PER_DEVICE)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }
}

/// Lets a new report count: in the release that offered the update, or as a record of its own.
async fn count(transaction: &mut Transaction, report: &Report) -> Result<Option<Taken>, StoreError> {
    let detail = Detail {
        code: report.code.as_deref(),
        message: report.message.as_deref(),
        phase: report.phase.as_deref(),
        boot_id: report.boot_id.as_deref(),
        from_version: report.from_version.as_deref(),
        duration_ms: report.duration_ms,
        bytes_fetched: report.bytes_fetched,
    };
    let Some((rollout, member)) = meant(transaction, report).await? else {
        if report.outcome != Outcome::Installed {
            records::upsert(transaction, &on_its_own(report), unix_seconds()).await?;
        }
        return Ok(None);
    };
    let word = Word {
        release: report.release.as_deref(),
        version: report.version.as_deref(),
        boot_id: report.boot_id.as_deref(),
    };
    let event = match report.outcome {
        Outcome::Installed => Event::Installed,
        Outcome::Committed => {
            let installed_in = member.installed_in.as_deref();
            Event::Committed(word.evidence(&rollout.release, &rollout.version, installed_in))
        }
        Outcome::RolledBack => Event::RolledBack,
        Outcome::Failed => Event::Failed,
        Outcome::Cancelled => Event::Cancelled,
    };
    members::apply(transaction, &rollout, Some(&member), &report.device, event, detail).await
}

/// The release that a report is about: the one of its digest, or, when it failed too early to know that, what is under way.
async fn meant(
    transaction: &mut Transaction,
    report: &Report,
) -> Result<Option<(Rollout, Member)>, StoreError> {
    let row = sqlx::query(
        "SELECT d.rollout_id FROM rollout_devices d JOIN rollouts r ON r.id = d.rollout_id
           JOIN artifacts a ON a.sha256 = r.artifact
         WHERE d.device = $1 AND d.attempts > 0 AND (a.release = $2
           OR ($2 IS NULL AND d.step IN ('offered', 'downloading', 'installing')))
         ORDER BY d.offered_at DESC, d.rollout_id DESC LIMIT 1",
    )
    .bind(&report.device)
    .bind(&report.release)
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let id: i64 = row.try_get("rollout_id")?;
    let rollout = rollouts::by_id(transaction, id).await?;
    let member = members::member(transaction, id, &report.device).await?;
    Ok(member.map(|member| (rollout, member)))
}

fn on_its_own(report: &Report) -> NewRecord<'_> {
    let bad = !matches!(report.outcome, Outcome::Committed | Outcome::Installed);
    let code = report.code.as_deref().filter(|_| bad);
    NewRecord {
        // No name has a slash, so that no two devices come to the same id.
        record_id: format!("r-{}/{}", report.device, report.report_id),
        device: &report.device,
        rollout: None,
        group: None,
        release: report.release.as_deref(),
        version: report.version.as_deref(),
        from_version: report.from_version.as_deref(),
        status: if bad { report.outcome.as_str() } else { "confirmed" },
        duration_ms: report.duration_ms,
        class: bad.then(|| Class::of_code(code.unwrap_or_default())),
        code,
        phase: report.phase.as_deref(),
        bytes_fetched: report.bytes_fetched,
    }
}

fn read(row: &AnyRow) -> Result<StoredReport, StoreError> {
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
