//! Webhooks and what is to be delivered to them. What happens and that it is to be told are one transaction, so that a kill loses neither.

use serde::Serialize;
use serde_json::Value;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::rollouts::Rollout;
use super::{Store, StoreError, Transaction};
use crate::clock::unix_seconds;
use crate::webhooks::Event;

/// Webhooks of a server.
const MAX_WEBHOOKS: i64 = 20;
/// Deliveries that are kept per webhook, done or not; the oldest go first. A receiver that is away must not fill the disk.
const KEPT_PER_WEBHOOK: i64 = 1000;

/// A webhook, for an admin.
#[derive(Debug, Clone, Serialize)]
pub struct Webhook {
    /// Chosen by the admin.
    pub name: String,
    /// Where it leads.
    pub url: String,
    /// What it is told of.
    pub events: Vec<Event>,
    /// When it was made, Unix seconds.
    pub created_at: i64,
    /// Deliveries that are still to be made.
    pub pending: i64,
}

/// One delivery, for an admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// Its number, which the receiver sees, too.
    pub id: i64,
    /// What happened.
    pub event: String,
    /// When, Unix seconds.
    pub created_at: i64,
    /// How often it was tried.
    pub attempts: i64,
    /// When last, Unix seconds.
    pub tried_at: Option<i64>,
    /// The status of the last answer.
    pub status: Option<i64>,
    /// Why it is not delivered.
    pub problem: Option<String>,
    /// When it is tried again, Unix seconds; null when it is delivered or given up.
    pub next_try_at: Option<i64>,
}

/// A delivery that is to be made now.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the columns, one to one")]
pub struct Due {
    pub id: i64,
    pub webhook: String,
    pub url: String,
    pub secret: String,
    pub event: String,
    pub body: String,
    pub attempts: i64,
}

/// What came of a try.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why it is not delivered.
    pub problem: Option<String>,
    /// When to try again, Unix seconds.
    pub next_try_at: Option<i64>,
}

/// What became of a webhook that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addition {
    /// It is there.
    Added,
    /// There is one of this name.
    Taken,
    /// There are as many as a server has.
    Many,
}

impl Store {
    /// Adds a webhook.
    pub async fn add_webhook(
        &self,
        name: &str,
        url: &str,
        events: &[Event],
        secret: &str,
    ) -> Result<Addition, StoreError> {
        let mut transaction = self.write().await?;
        let count: i64 = sqlx::query("SELECT count(*) AS webhooks FROM webhooks")
            .fetch_one(&mut *transaction)
            .await?
            .try_get("webhooks")?;
        let added = sqlx::query(
            "INSERT INTO webhooks (name, url, events, secret, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(name)
        .bind(url)
        .bind(super::to_json("events", &events)?)
        .bind(secret)
        .bind(unix_seconds())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        match (added, count) {
            (0, _) => Ok(Addition::Taken),
            (_, MAX_WEBHOOKS..) => Ok(Addition::Many),
            _ => transaction.commit().await.map(|()| Addition::Added).map_err(StoreError::from),
        }
    }

    /// Every webhook, by name.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        let rows = sqlx::query(
            "SELECT w.name, w.url, w.events, w.created_at, (SELECT count(*) FROM webhook_deliveries d
               WHERE d.webhook = w.name AND d.next_try_at IS NOT NULL) AS pending FROM webhooks w ORDER BY w.name",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Webhook {
                    name: row.try_get("name")?,
                    url: row.try_get("url")?,
                    events: super::from_json("events", row.try_get("events")?)?,
                    created_at: row.try_get("created_at")?,
                    pending: row.try_get("pending")?,
                })
            })
            .collect()
    }

    /// Removes a webhook and what was still to be delivered. `false` when there is none.
    pub async fn remove_webhook(&self, name: &str) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM webhook_deliveries WHERE webhook = $1")
            .bind(name)
            .execute(&mut *transaction)
            .await?;
        let removed =
            sqlx::query("DELETE FROM webhooks WHERE name = $1").bind(name).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(removed.rows_affected() > 0)
    }

    /// The deliveries of a webhook, newest first, before the row `before`; `None` when there is no such webhook.
    pub async fn deliveries(
        &self,
        webhook: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Option<Vec<Delivery>>, StoreError> {
        let known = sqlx::query("SELECT 1 AS one FROM webhooks WHERE name = $1").bind(webhook);
        if known.fetch_optional(&self.pool).await?.is_none() {
            return Ok(None);
        }
        let rows = sqlx::query(
            "SELECT id, event, created_at, attempts, tried_at, status, problem, next_try_at FROM webhook_deliveries
             WHERE webhook = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        )
        .bind(webhook)
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(delivery).collect::<Result<_, _>>().map(Some)
    }

    /// The oldest delivery of each webhook that is to be tried by `now`.
    pub async fn due_deliveries(&self, now: i64) -> Result<Vec<Due>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.id, d.webhook, w.url, w.secret, d.event, d.body, d.attempts
             FROM webhook_deliveries d JOIN webhooks w ON w.name = d.webhook
             WHERE d.id IN (SELECT min(id) FROM webhook_deliveries WHERE next_try_at <= $1 GROUP BY webhook)
             ORDER BY d.id",
        )
        .bind(now)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Due {
                    id: row.try_get("id")?,
                    webhook: row.try_get("webhook")?,
                    url: row.try_get("url")?,
                    secret: row.try_get("secret")?,
                    event: row.try_get("event")?,
                    body: row.try_get("body")?,
                    attempts: row.try_get("attempts")?,
                })
            })
            .collect()
    }

    /// Writes down what came of a try.
    pub async fn tried(&self, id: i64, tried: &Tried) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE webhook_deliveries SET attempts = attempts + 1, tried_at = $2, status = $3, problem = $4,
               next_try_at = $5 WHERE id = $1",
        )
        .bind(id)
        .bind(unix_seconds())
        .bind(tried.status.map(i64::from))
        .bind(&tried.problem)
        .bind(tried.next_try_at)
        .execute(self.write_at_once())
        .await?;
        Ok(())
    }
}

fn delivery(row: &AnyRow) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        id: row.try_get("id")?,
        event: row.try_get("event")?,
        created_at: row.try_get("created_at")?,
        attempts: row.try_get("attempts")?,
        tried_at: row.try_get("tried_at")?,
        status: row.try_get("status")?,
        problem: row.try_get("problem")?,
        next_try_at: row.try_get("next_try_at")?,
    })
}

/// Tells of a release, within the transaction in which it happened.
pub(super) async fn tell_of_release(
    transaction: &mut Transaction,
    event: Event,
    rollout: &Rollout,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    let body = serde_json::json!({
        "release": rollout.name, "version": rollout.version, "group": rollout.group, "reason": reason,
    });
    tell(transaction, event, body).await
}

/// Queues an event for every webhook that wants it, within a transaction.
pub(super) async fn tell(
    transaction: &mut Transaction,
    event: Event,
    mut body: Value,
) -> Result<(), StoreError> {
    let now = unix_seconds();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("event".into(), event.as_str().into());
        fields.insert("at".into(), now.into());
    }
    let body = body.to_string();
    for row in sqlx::query("SELECT name, events FROM webhooks").fetch_all(&mut **transaction).await? {
        let events: Vec<Event> = super::from_json("events", row.try_get("events")?)?;
        if !events.contains(&event) {
            continue;
        }
        let name: String = row.try_get("name")?;
        sqlx::query(
            "INSERT INTO webhook_deliveries (webhook, event, body, created_at, attempts, next_try_at)
             VALUES ($1, $2, $3, $4, 0, $4)",
        )
        .bind(&name)
        .bind(event.as_str())
        .bind(&body)
        .bind(now)
        .execute(&mut **transaction)
        .await?;
        sqlx::query(
            "DELETE FROM webhook_deliveries WHERE webhook = $1 AND id <=
               (SELECT id FROM webhook_deliveries WHERE webhook = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
        )
        .bind(&name)
        .bind(KEPT_PER_WEBHOOK)
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}
