//! Upgrade records: one row per try of a device, for statistics and export.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, Transaction, to_db};
use crate::fleet::class::Class;

/// Records that are kept per device; the oldest go first.
const KEPT_PER_DEVICE: i64 = 200;
/// Rows that statistics look at, newest first: bounds the time of the answer.
const MAX_COUNTED: i64 = 200_000;

/// What is told about a try.
#[derive(Debug)]
pub(super) struct NewRecord<'a> {
    pub(super) record_id: String,
    pub(super) device: &'a str,
    pub(super) rollout: Option<&'a str>,
    pub(super) group: Option<&'a str>,
    pub(super) release: Option<&'a str>,
    pub(super) version: Option<&'a str>,
    pub(super) from_version: Option<&'a str>,
    pub(super) status: &'a str,
    pub(super) duration_ms: Option<u64>,
    pub(super) class: Option<Class>,
    pub(super) code: Option<&'a str>,
    pub(super) phase: Option<&'a str>,
    pub(super) bytes_fetched: Option<u64>,
}

/// A try of a device, as it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the columns, one to one")]
pub struct Record {
    pub record_id: String,
    pub device_id: String,
    /// Name of the release; null for an update that no release asked for.
    pub release_name: Option<String>,
    pub group: Option<String>,
    pub release: Option<String>,
    pub firmware_version: Option<String>,
    pub from_version: Option<String>,
    pub timestamp: i64,
    pub status: String,
    pub duration_ms: Option<i64>,
    pub error_class: Option<String>,
    pub error_code: Option<String>,
    pub phase: Option<String>,
    pub bytes_fetched: Option<i64>,
}

/// Which records are meant.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Name of a release.
    pub release: Option<String>,
    /// Name of a group.
    pub group: Option<String>,
    /// Name of a device.
    pub device: Option<String>,
    /// From here on, Unix seconds.
    pub from: Option<i64>,
    /// Before this, Unix seconds.
    pub to: Option<i64>,
}

/// What records come to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// How many there are.
    pub updates: u64,
    /// Confirmed ones.
    pub confirmed: u64,
    /// Their share, in percent with one digit; null when there is none at all.
    pub success_percent: Option<f64>,
    /// How many ended in each way.
    pub by_status: BTreeMap<String, u64>,
    /// Kinds of trouble.
    pub by_class: BTreeMap<String, u64>,
    /// Codes of trouble.
    pub by_code: BTreeMap<String, u64>,
    /// How long the confirmed ones took.
    pub duration_ms: Percentiles,
    /// By day (UTC, Unix seconds of its begin): confirmed and others.
    pub by_day: BTreeMap<i64, [u64; 2]>,
}

/// Durations below which a share of all lies.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "percentiles")]
pub struct Percentiles {
    pub p50: Option<i64>,
    pub p90: Option<i64>,
    pub p99: Option<i64>,
}

/// Writes the last word about a try; a later word about the same one replaces it.
pub(super) async fn upsert(
    transaction: &mut Transaction,
    new: &NewRecord<'_>,
    now: i64,
) -> Result<(), StoreError> {
    let number = |what, value: Option<u64>| value.map(|value| to_db(what, value)).transpose();
    sqlx::query(
        "INSERT INTO records (record_id, device_id, rollout, device_group, release, firmware_version, from_version,
           timestamp, status, duration_ms, error_class, error_code, phase, bytes_fetched)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         ON CONFLICT (record_id) DO UPDATE SET timestamp = excluded.timestamp, status = excluded.status,
           duration_ms = excluded.duration_ms, error_class = excluded.error_class, error_code = excluded.error_code,
           phase = excluded.phase, bytes_fetched = coalesce(excluded.bytes_fetched, records.bytes_fetched)
         WHERE records.device_id = excluded.device_id",
    )
    .bind(&new.record_id)
    .bind(new.device)
    .bind(new.rollout)
    .bind(new.group)
    .bind(new.release)
    .bind(new.version)
    .bind(new.from_version)
    .bind(now)
    .bind(new.status)
    .bind(number("duration_ms", new.duration_ms)?)
    .bind(new.class.map(Class::as_str))
    .bind(new.code)
    .bind(new.phase)
    .bind(number("bytes_fetched", new.bytes_fetched)?)
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "DELETE FROM records WHERE device_id = $1 AND timestamp <
           (SELECT timestamp FROM records WHERE device_id = $1 ORDER BY timestamp DESC LIMIT 1 OFFSET $2)",
    )
    .bind(new.device)
    .bind(KEPT_PER_DEVICE)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

impl Store {
    /// Records, newest first, at most `limit`, older than the record `before`.
    pub async fn records(
        &self,
        of: &Selection,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query(
            "SELECT record_id, device_id, rollout, device_group, release, firmware_version, from_version, timestamp,
               status, duration_ms, error_class, error_code, phase, bytes_fetched FROM records
             WHERE ($1 IS NULL OR rollout = $1) AND ($2 IS NULL OR device_group = $2)
               AND ($3 IS NULL OR device_id = $3) AND timestamp >= coalesce($4, 0)
               AND ($5 IS NULL OR timestamp < $5)
               AND ($6 IS NULL OR (timestamp, record_id) <
                     (SELECT timestamp, record_id FROM records WHERE record_id = $6))
             ORDER BY timestamp DESC, record_id DESC LIMIT $7",
        )
        .bind(&of.release)
        .bind(&of.group)
        .bind(&of.device)
        .bind(of.from)
        .bind(of.to)
        .bind(before)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// What the records of a selection come to.
    pub async fn statistics(&self, of: &Selection) -> Result<Statistics, StoreError> {
        Ok(sum_up(&self.records(of, None, MAX_COUNTED).await?))
    }

    /// Forgets records and history from before a time, Unix seconds.
    pub async fn forget(&self, before: i64) -> Result<u64, StoreError> {
        // A write like the others, so that no two lock the same rows in another order each.
        let mut transaction = self.write().await?;
        let mut forgotten = 0;
        for statement in [
            "DELETE FROM records WHERE timestamp < $1",
            "DELETE FROM happenings WHERE at < $1",
            "DELETE FROM audit WHERE at < $1",
        ] {
            forgotten +=
                sqlx::query(statement).bind(before).execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(forgotten)
    }
}

fn sum_up(records: &[Record]) -> Statistics {
    const DAY_SECONDS: i64 = 24 * 3600;
    let mut sum = Statistics::default();
    let mut durations = Vec::new();
    for record in records {
        let confirmed = record.status == "confirmed";
        sum.updates += 1;
        sum.confirmed += u64::from(confirmed);
        *sum.by_status.entry(record.status.clone()).or_default() += 1;
        if let Some(class) = &record.error_class {
            *sum.by_class.entry(class.clone()).or_default() += 1;
        }
        if let Some(code) = &record.error_code {
            *sum.by_code.entry(code.clone()).or_default() += 1;
        }
        let day = record.timestamp - record.timestamp.rem_euclid(DAY_SECONDS);
        let [good, other] = sum.by_day.entry(day).or_default();
        *(if confirmed { good } else { other }) += 1;
        durations.extend(record.duration_ms.filter(|_| confirmed));
    }
    durations.sort_unstable();
    let at = |percent: usize| {
        let rank = (durations.len() * percent).div_ceil(100);
        durations.get(rank.saturating_sub(1)).copied()
    };
    sum.duration_ms = Percentiles { p50: at(50), p90: at(90), p99: at(99) };
    let permille = (sum.confirmed * 1000).checked_div(sum.updates);
    sum.success_percent =
        permille.and_then(|permille| u32::try_from(permille).ok()).map(|p| f64::from(p) / 10.0);
    sum
}

fn read(row: &AnyRow) -> Result<Record, StoreError> {
    Ok(Record {
        record_id: row.try_get("record_id")?,
        device_id: row.try_get("device_id")?,
        release_name: row.try_get("rollout")?,
        group: row.try_get("device_group")?,
        release: row.try_get("release")?,
        firmware_version: row.try_get("firmware_version")?,
        from_version: row.try_get("from_version")?,
        timestamp: row.try_get("timestamp")?,
        status: row.try_get("status")?,
        duration_ms: row.try_get("duration_ms")?,
        error_class: row.try_get("error_class")?,
        error_code: row.try_get("error_code")?,
        phase: row.try_get("phase")?,
        bytes_fetched: row.try_get("bytes_fetched")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word about a try changes it; the same id from another device changes nothing.
    #[tokio::test]
    async fn a_record_belongs_to_its_device() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("db"), 1 << 20).await.unwrap();
        for (device, status) in [("a", "failed"), ("b", "confirmed"), ("a", "rolled-back")] {
            let new = NewRecord {
                record_id: "same".into(),
                device,
                rollout: None,
                group: None,
                release: None,
                version: None,
                from_version: None,
                status,
                duration_ms: None,
                class: None,
                code: None,
                phase: None,
                bytes_fetched: None,
            };
            let mut transaction = store.write().await.unwrap();
            upsert(&mut transaction, &new, 1).await.unwrap();
            transaction.commit().await.unwrap();
            let kept = store.records(&Selection::default(), None, 10).await.unwrap();
            let kept: Vec<_> = kept.iter().map(|row| (&*row.device_id, &*row.status)).collect();
            assert_eq!(kept, [("a", if device == "a" { status } else { "failed" })]);
        }
        store.close().await;
    }

    #[test]
    fn numbers_of_a_few_records() {
        let record = |status: &str, duration_ms, class: Option<&str>| Record {
            record_id: String::new(),
            device_id: String::new(),
            release_name: None,
            group: None,
            release: None,
            firmware_version: None,
            from_version: None,
            timestamp: 86_400 + duration_ms,
            status: status.into(),
            duration_ms: Some(duration_ms),
            error_class: class.map(str::to_owned),
            error_code: class.map(|_| "X".into()),
            phase: None,
            bytes_fetched: None,
        };
        let mut records: Vec<_> = (1..=100).map(|n| record("confirmed", n, None)).collect();
        records.push(record("failed", 9999, Some("write")));
        let sum = sum_up(&records);
        assert_eq!((sum.updates, sum.confirmed, sum.success_percent), (101, 100, Some(99.0)));
        assert_eq!(sum.duration_ms, Percentiles { p50: Some(50), p90: Some(90), p99: Some(99) });
        assert_eq!(sum.by_class, BTreeMap::from([("write".into(), 1)]));
        assert_eq!(sum.by_day, BTreeMap::from([(86_400, [100, 1])]));
        assert_eq!(sum_up(&[]), Statistics::default());
    }
}
