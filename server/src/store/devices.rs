//! Devices as they showed themselves: last seen, running version, last report; and what operators know about them.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError, from_db, to_db};
use crate::clock::unix_seconds;
use crate::fleet::filter::Facts;

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
    /// SHA-256 of the manifest it runs; `Some("")` when it says that it knows none, `None` when it did not say.
    pub release: Option<&'a str>,
    /// Its boot.
    pub boot_id: Option<&'a str>,
    /// What it is about: a word of otad's own.
    pub state: Option<&'a str>,
}

impl<'a> Sighting<'a> {
    /// A device of which only name and model are known.
    pub const fn of(device: &'a str, compatible: &'a str) -> Sighting<'a> {
        let (version, sequence, user_agent) = (None, None, "");
        Sighting {
            device,
            compatible,
            version,
            sequence,
            user_agent,
            release: None,
            boot_id: None,
            state: None,
        }
    }
}

impl<'a> From<&'a Device> for Sighting<'a> {
    fn from(device: &'a Device) -> Sighting<'a> {
        Sighting {
            device: &device.device,
            compatible: &device.compatible,
            version: device.version.as_deref(),
            sequence: device.sequence,
            user_agent: &device.user_agent,
            release: device.release.as_deref(),
            boot_id: device.boot_id.as_deref(),
            state: device.state.as_deref(),
        }
    }
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
    /// SHA-256 of the manifest it runs, if it told.
    pub release: Option<String>,
    /// Its boot, if it told.
    pub boot_id: Option<String>,
    /// What it is about, if it told: a word of otad's own.
    pub state: Option<String>,
    /// What operators know about it.
    pub attributes: BTreeMap<String, String>,
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

impl Device {
    /// As the filters of groups see it.
    pub fn facts(&self) -> Facts {
        Facts {
            device: self.device.clone(),
            model: self.compatible.clone(),
            version: self.version.clone(),
            attributes: self.attributes.clone(),
        }
    }
}

impl Store {
    /// Remembers that a device was here. What the device did not say keeps its old value.
    pub async fn saw(&self, sighting: Sighting<'_>) -> Result<(), StoreError> {
        let sequence = sighting.sequence.map(|value| to_db("sequence", value)).transpose()?;
        sqlx::query(
            "INSERT INTO devices (device, compatible, version, sequence, user_agent, first_seen, last_seen, release,
               boot_id, state)
             VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9)
             ON CONFLICT (device) DO UPDATE SET compatible = $2, version = coalesce($3, devices.version),
               sequence = coalesce($4, devices.sequence), user_agent = $5, last_seen = $6,
               release = coalesce($7, devices.release), boot_id = coalesce($8, devices.boot_id),
               state = coalesce($9, devices.state)",
        )
        .bind(sighting.device)
        .bind(sighting.compatible)
        .bind(sighting.version)
        .bind(sequence)
        .bind(sighting.user_agent)
        .bind(unix_seconds())
        .bind(sighting.release)
        .bind(sighting.boot_id)
        .bind(sighting.state)
        .execute(self.write_at_once())
        .await?;
        Ok(())
    }

    /// Writes last contacts, all of them in one transaction.
    pub async fn seen(&self, contacts: &[(String, i64)]) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for (device, at) in contacts {
            sqlx::query("UPDATE devices SET last_seen = $2 WHERE device = $1 AND last_seen < $2")
                .bind(device)
                .bind(at)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// A page of devices by name, after `after`, at most `limit`.
    pub async fn devices(&self, after: Option<&str>, limit: u32) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.device, d.compatible, d.version, d.sequence, d.user_agent, d.first_seen, d.last_seen,
               d.release, d.boot_id, d.state, r.report_id, r.outcome, r.version AS report_version, r.code, r.message, r.received_at
             FROM devices d LEFT JOIN reports r
               ON r.id = (SELECT max(id) FROM reports WHERE device = d.device)
             WHERE d.device > coalesce($1, '') ORDER BY d.device LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        let mut devices: Vec<Device> = rows.iter().map(read).collect::<Result<_, _>>()?;
        if let (Some(first), Some(last)) = (devices.first(), devices.last()) {
            let mut attributes = self.attributes(&first.device, &last.device).await?;
            for device in &mut devices {
                device.attributes = attributes.remove(&device.device).unwrap_or_default();
            }
        }
        Ok(devices)
    }

    /// Devices that were here since a time, without what was reported or is known about them otherwise.
    pub async fn devices_since(&self, at: i64) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.device, d.compatible, d.version, d.sequence, d.user_agent, d.first_seen, d.last_seen, d.release,
               d.boot_id, d.state, NULL AS report_id FROM devices d WHERE d.last_seen >= $1",
        )
        .bind(at)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// One device.
    pub async fn device(&self, name: &str) -> Result<Option<Device>, StoreError> {
        let row = sqlx::query(
            "SELECT d.device, d.compatible, d.version, d.sequence, d.user_agent, d.first_seen, d.last_seen,
               d.release, d.boot_id, d.state, r.report_id, r.outcome, r.version AS report_version, r.code, r.message,
               r.received_at
             FROM devices d LEFT JOIN reports r
               ON r.id = (SELECT max(id) FROM reports WHERE device = d.device)
             WHERE d.device = $1",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mut device = read(&row)?;
        device.attributes = self.attributes_of(name).await?;
        Ok(Some(device))
    }

    /// What operators know about one device.
    pub async fn attributes_of(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        Ok(self.attributes(name, name).await?.remove(name).unwrap_or_default())
    }

    /// The attributes of the devices between two names, both included.
    async fn attributes(&self, first: &str, last: &str) -> Result<Attributes, StoreError> {
        let rows =
            sqlx::query("SELECT device, name, value FROM device_attributes WHERE device BETWEEN $1 AND $2")
                .bind(first)
                .bind(last)
                .fetch_all(&self.pool)
                .await?;
        let mut attributes = Attributes::new();
        for row in &rows {
            let of: &mut BTreeMap<_, _> = attributes.entry(row.try_get("device")?).or_default();
            of.insert(row.try_get("name")?, row.try_get("value")?);
        }
        Ok(attributes)
    }

    /// Replaces what operators know about a device, which need not have been here yet.
    pub async fn set_attributes(
        &self,
        device: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM device_attributes WHERE device = $1")
            .bind(device)
            .execute(&mut *transaction)
            .await?;
        for (name, value) in attributes {
            sqlx::query("INSERT INTO device_attributes (device, name, value) VALUES ($1, $2, $3)")
                .bind(device)
                .bind(name)
                .bind(value)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Devices by running version: confirmed by their own word, whatever they are meant to run.
    pub async fn versions(&self) -> Result<Vec<(String, Option<String>, u64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT compatible, version, count(*) AS devices FROM devices GROUP BY compatible, version
             ORDER BY devices DESC, compatible, version LIMIT 1000",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let devices = from_db("number of devices", row.try_get("devices")?)?;
                Ok((row.try_get("compatible")?, row.try_get("version")?, devices))
            })
            .collect()
    }
}

/// Attributes by device.
type Attributes = HashMap<String, BTreeMap<String, String>>;

fn read(row: &AnyRow) -> Result<Device, StoreError> {
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
        release: row.try_get::<Option<String>, _>("release")?.filter(|release| !release.is_empty()),
        boot_id: row.try_get("boot_id")?,
        state: row.try_get("state")?,
        attributes: BTreeMap::new(),
        first_seen: row.try_get("first_seen")?,
        last_seen: row.try_get("last_seen")?,
        last_report,
    })
}
