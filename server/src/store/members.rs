//! Where every device stands in every release, and the one place where that changes.
//!
//! [`apply`] is that place: it asks [`step::next`], writes the step, the history and the record of the try in one transaction, and lets
//! the release be judged by its new numbers in the same one. So a kill between them is impossible, and what comes twice
//! changes nothing the second time.

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::happenings::{Happening, note};
use super::records::{self, NewRecord};
use super::rollouts::{Rollout, Turn, by_id, take_turn};
use super::{Store, StoreError, Transaction};
use crate::clock::unix_seconds;
use crate::fleet::class::Class;
use crate::fleet::judge::{Results, Verdict, judge};
use crate::fleet::offer::{Asking, Candidate, Ruling, Standing, rule};
use crate::fleet::step::{self, Event, Step};

/// The columns of a [`Member`].
macro_rules! select_member {
    ($rest:literal) => {
        concat!(
            "SELECT rollout_id, device, step, since, class, code, message, attempts, offered_at, next_try_at, ",
            "installed_in, from_version, denied FROM rollout_devices ",
            $rest
        )
    };
}

/// Counts who is at it, as SQL: [`Step::is_under_way`].
const UNDER_WAY: &str = "SELECT count(*) FROM rollout_devices WHERE ($1 IS NULL OR rollout_id = $1) AND step IN \
                         ('offered', 'downloading', 'installing', 'installed', 'rebooting', 'on-trial')";
/// Counts who holds one of the places of a release, as SQL: everybody at it but those who wait for their reboot. That has no time
/// limit, so whoever only says to have installed would hold a place for ever.
const PLACES_TAKEN: &str = "SELECT count(*) FROM rollout_devices WHERE ($1 IS NULL OR rollout_id = $1) AND step IN \
                            ('offered', 'downloading', 'installing', 'rebooting', 'on-trial')";

/// A device in a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The release.
    #[serde(skip)]
    pub rollout_id: i64,
    /// The device.
    pub device: String,
    /// Where it stands.
    pub step: Step,
    /// Since when, Unix seconds.
    pub since: i64,
    /// What kind of trouble it had.
    pub class: Option<Class>,
    /// The code of it.
    pub code: Option<String>,
    /// The sentence of it.
    pub message: Option<String>,
    /// How often it was offered the release.
    pub attempts: u32,
    /// When it was (last), Unix seconds.
    pub offered_at: i64,
    /// When it may be again, Unix seconds.
    pub next_try_at: Option<i64>,
    /// The boot that installed the release.
    #[serde(skip)]
    pub installed_in: Option<String>,
    /// What it ran before.
    pub from_version: Option<String>,
    /// The operator took it out.
    pub denied: bool,
}

impl Member {
    /// As the rules see it.
    pub fn standing(&self) -> Standing {
        Standing {
            step: self.step,
            class: self.class,
            code: self.code.clone(),
            next_try_at: self.next_try_at,
            denied: self.denied,
        }
    }

    /// Whether it may still come to have the release by itself.
    pub fn is_pending(&self) -> bool {
        let over = matches!(self.step, Step::RolledBack | Step::Failed | Step::Cancelled);
        !self.denied && (self.step.is_under_way() || (over && self.next_try_at.is_some()))
    }
}

/// What came with an event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Detail<'a> {
    /// Why, for programs.
    pub code: Option<&'a str>,
    /// Why, for people.
    pub message: Option<&'a str>,
    /// Where in the update.
    pub phase: Option<&'a str>,
    /// The boot it happened in.
    pub boot_id: Option<&'a str>,
    /// What the device ran before.
    pub from_version: Option<&'a str>,
    /// How long the update took.
    pub duration_ms: Option<u64>,
    /// What it fetched.
    pub bytes_fetched: Option<u64>,
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Name of the release.
    pub release: String,
    /// The group that the release is for.
    #[serde(skip)]
    pub group: Option<String>,
    /// The device.
    pub device: String,
    /// Where it stands now.
    pub step: Step,
}

/// Lets an event happen to a device in a release. `None` when it changes nothing.
pub(super) async fn apply(
    transaction: &mut Transaction,
    rollout: &Rollout,
    member: Option<&Member>,
    device: &str,
    event: Event,
    detail: Detail<'_>,
) -> Result<Option<Taken>, StoreError> {
    let now = unix_seconds();
    let next = match member {
        Some(member) => step::next(member.step, event),
        None => (event == Event::Offer).then_some(Step::Offered),
    };
    let Some(to) = next else { return Ok(None) };
    let bad = to.is_bad() || to == Step::Cancelled;
    let code = bad.then(|| detail.code.unwrap_or(default_code(to)));
    let class = code.map(Class::of_code);
    let attempts = member.map_or(0, |member| member.attempts) + u32::from(to == Step::Offered);
    let next_try_at =
        class.and_then(|class| rollout.policy.retry_after(class, attempts)).map(|wait| now + wait);
    let kept = |value: Option<String>| if to == Step::Offered { None } else { value };
    let installed_in = if to == Step::Installed && member.is_none_or(|member| member.installed_in.is_none()) {
        detail.boot_id.map(str::to_owned)
    } else {
        kept(member.and_then(|member| member.installed_in.clone()))
    };
    let from_version = detail.from_version.map(str::to_owned);
    let from_version = from_version.or_else(|| member.and_then(|member| member.from_version.clone()));
    let row = Member {
        rollout_id: rollout.id,
        device: device.to_owned(),
        step: to,
        since: now,
        class,
        code: code.map(str::to_owned),
        message: detail.message.filter(|_| bad).map(str::to_owned),
        attempts,
        offered_at: if to == Step::Offered { now } else { member.map_or(now, |member| member.offered_at) },
        next_try_at,
        installed_in,
        from_version,
        denied: member.is_some_and(|member| member.denied),
    };
    write(transaction, &row).await?;
    let happening = Happening {
        rollout_id: rollout.id,
        device: Some(device),
        before: member.map(|member| member.step.as_str()),
        after: to.as_str(),
        code,
        message: row.message.as_deref(),
    };
    note(transaction, &happening, now).await?;
    if bad || to == Step::Confirmed {
        record(transaction, rollout, &row, detail, now).await?;
        judge_by_numbers(transaction, rollout).await?;
    }
    let (release, group) = (rollout.name.clone(), rollout.group.clone());
    Ok(Some(Taken { release, group, device: device.to_owned(), step: to }))
}

/// The code of an end that nobody gave one.
const fn default_code(step: Step) -> &'static str {
    match step {
        Step::RolledBack => "ROLLED_BACK",
        Step::Silent => "SILENT",
        Step::Cancelled => "CANCELLED",
        Step::Offered
        | Step::Downloading
        | Step::Installing
        | Step::Installed
        | Step::Rebooting
        | Step::OnTrial
        | Step::Confirmed
        | Step::Failed => "INTERNAL",
    }
}

async fn write(transaction: &mut Transaction, row: &Member) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO rollout_devices (rollout_id, device, step, since, class, code, message, attempts, offered_at,
           next_try_at, installed_in, from_version, denied) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (rollout_id, device) DO UPDATE SET step = excluded.step, since = excluded.since,
           class = excluded.class, code = excluded.code, message = excluded.message, attempts = excluded.attempts,
           offered_at = excluded.offered_at, next_try_at = excluded.next_try_at,
           installed_in = excluded.installed_in, from_version = excluded.from_version",
    )
    .bind(row.rollout_id)
    .bind(&row.device)
    .bind(row.step.as_str())
    .bind(row.since)
    .bind(row.class.map(Class::as_str))
    .bind(&row.code)
    .bind(&row.message)
    .bind(i64::from(row.attempts))
    .bind(row.offered_at)
    .bind(row.next_try_at)
    .bind(&row.installed_in)
    .bind(&row.from_version)
    .bind(i64::from(row.denied))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn record(
    transaction: &mut Transaction,
    rollout: &Rollout,
    row: &Member,
    detail: Detail<'_>,
    now: i64,
) -> Result<(), StoreError> {
    // From the first word about it, by the server's own clock: a device's may stand anywhere, and the trial counts too.
    let lasted = u64::try_from(now - row.offered_at).ok().map(|seconds| seconds.saturating_mul(1000));
    records::upsert(
        transaction,
        &NewRecord {
            record_id: format!("{}-{}-{}", rollout.id, row.attempts, row.device),
            device: &row.device,
            rollout: Some(&rollout.name),
            group: rollout.group.as_deref(),
            release: Some(&rollout.release),
            version: Some(&rollout.version),
            from_version: row.from_version.as_deref(),
            status: row.step.as_str(),
            duration_ms: detail.duration_ms.filter(|told| *told > 0).or(lasted),
            class: row.class,
            code: row.code.as_deref(),
            phase: detail.phase,
            bytes_fetched: detail.bytes_fetched,
        },
        now,
    )
    .await
}

/// Counts results, within a transaction.
pub(super) async fn results(transaction: &mut Transaction, rollout_id: i64) -> Result<Results, StoreError> {
    let rows = sqlx::query(
        "SELECT step, class, count(*) AS devices FROM rollout_devices WHERE rollout_id = $1 GROUP BY step, class",
    )
    .bind(rollout_id)
    .fetch_all(&mut **transaction)
    .await?;
    let mut results = Results::default();
    for row in &rows {
        let (step, class, devices) = read_count(row)?;
        if step == Step::Confirmed {
            results.good += devices;
        } else if step.is_bad() && class.is_none_or(Class::blames_the_release) {
            results.bad += devices;
        }
    }
    Ok(results)
}

/// Pauses or promotes a release by its numbers. Whether it is complete is asked elsewhere: that takes a look at the whole fleet.
async fn judge_by_numbers(transaction: &mut Transaction, rollout: &Rollout) -> Result<(), StoreError> {
    let rollout = by_id(transaction, rollout.id).await?;
    if rollout.paused.is_some() || !rollout.is_active() {
        return Ok(());
    }
    let results = results(transaction, rollout.id).await?;
    carry_out(
        transaction,
        &rollout,
        judge(&rollout.policy, rollout.stage, results, rollout.forgiven, u32::MAX),
    )
    .await
}

async fn carry_out(
    transaction: &mut Transaction,
    rollout: &Rollout,
    verdict: Verdict,
) -> Result<(), StoreError> {
    let turn = match verdict {
        Verdict::Stay => return Ok(()),
        Verdict::Pause(reason) => Turn::Pause(reason),
        Verdict::Promote => Turn::Promote,
        Verdict::Complete => Turn::Complete,
    };
    if take_turn(transaction, rollout, &turn).await? {
        let reason = if let Turn::Pause(reason) = &turn { reason } else { "" };
        log::warn!("release {} {} by itself {reason}", rollout.name, turn.as_str());
        super::audit::by_itself(transaction, turn.as_str(), &rollout.name).await?;
    }
    Ok(())
}

/// Takes back what was offered and not begun.
pub(super) async fn withdraw_offers(
    transaction: &mut Transaction,
    rollout: &Rollout,
    now: i64,
) -> Result<(), StoreError> {
    let rows = sqlx::query(select_member!("WHERE rollout_id = $1 AND step = 'offered'"))
        .bind(rollout.id)
        .fetch_all(&mut **transaction)
        .await?;
    for row in &rows {
        let member = Member { step: Step::Cancelled, since: now, ..read(row)? };
        write(transaction, &member).await?;
    }
    Ok(())
}

impl Store {
    /// Where a device stands in each release that it was offered.
    pub async fn memberships(&self, device: &str) -> Result<Vec<Member>, StoreError> {
        let rows = sqlx::query(select_member!("WHERE device = $1 ORDER BY rollout_id DESC"))
            .bind(device)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// The devices of a release, by name, after `after`, in one step if it is given.
    pub async fn members(
        &self,
        rollout: &Rollout,
        step: Option<Step>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Member>, StoreError> {
        let rows = sqlx::query(select_member!(
            "WHERE rollout_id = $1 AND ($2 IS NULL OR step = $2) AND device > coalesce($3, '') ORDER BY device LIMIT $4"
        ))
        .bind(rollout.id)
        .bind(step.map(Step::as_str))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// The numbers of a release: devices by step and kind of trouble.
    pub async fn counts(&self, rollout: &Rollout) -> Result<Vec<(Step, Option<Class>, u32)>, StoreError> {
        let rows = sqlx::query(
            "SELECT step, class, count(*) AS devices FROM rollout_devices WHERE rollout_id = $1 GROUP BY step, class",
        )
        .bind(rollout.id)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read_count).collect()
    }

    /// Devices that are at it: in a release, or in all of them.
    pub async fn under_way(&self, rollout: Option<&Rollout>) -> Result<u32, StoreError> {
        let row =
            sqlx::query(UNDER_WAY).bind(rollout.map(|rollout| rollout.id)).fetch_one(&self.pool).await?;
        read_number(&row)
    }

    /// Devices that hold a place of a release.
    pub async fn places_taken(&self, rollout: &Rollout) -> Result<u32, StoreError> {
        let row = sqlx::query(PLACES_TAKEN).bind(rollout.id).fetch_one(&self.pool).await?;
        read_number(&row)
    }

    /// Offers a release to a device, if the rules still allow it now that nobody else can take the place.
    pub async fn offer(
        &self,
        rollout_id: i64,
        asking: Asking<'_>,
        running: Option<&str>,
        most_in_all: u32,
    ) -> Result<(Ruling, Option<Taken>), StoreError> {
        let mut transaction = self.write().await?;
        let rollout = by_id(&mut transaction, rollout_id).await?;
        let member = member(&mut transaction, rollout_id, &asking.facts.device).await?;
        let standing = member.as_ref().map(Member::standing);
        let count = sqlx::query(PLACES_TAKEN).bind(rollout_id).fetch_one(&mut *transaction).await?;
        let in_all = sqlx::query(PLACES_TAKEN).bind(None::<i64>).fetch_one(&mut *transaction).await?;
        let asking = Asking { standing: standing.as_ref(), ..asking };
        let ruling = rule(candidate(&rollout, read_number(&count)?), asking, unix_seconds());
        if ruling != Ruling::Offer {
            return Ok((ruling, None));
        }
        if read_number(&in_all)? >= most_in_all {
            return Ok((
                Ruling::No(format!("it waits for a place: {most_in_all} devices are at it in all")),
                None,
            ));
        }
        let detail = Detail { from_version: running, ..Detail::default() };
        let device = &asking.facts.device;
        let taken = apply(&mut transaction, &rollout, member.as_ref(), device, Event::Offer, detail).await?;
        transaction.commit().await?;
        Ok((Ruling::Offer, taken))
    }

    /// Lets an event happen to a device that was offered a release.
    pub async fn happen(
        &self,
        rollout_id: i64,
        device: &str,
        event: Event,
        detail: Detail<'_>,
    ) -> Result<Option<Taken>, StoreError> {
        self.happen_while(rollout_id, device, |_| true, event, detail).await
    }

    /// The same if the device still stands where the event is about: since it was looked at, it may have gone on, here or by the
    /// word of another process.
    pub async fn happen_while(
        &self,
        rollout_id: i64,
        device: &str,
        still: impl Fn(&Member) -> bool + Send,
        event: Event,
        detail: Detail<'_>,
    ) -> Result<Option<Taken>, StoreError> {
        let mut transaction = self.write().await?;
        let Some(member) = member(&mut transaction, rollout_id, device).await? else { return Ok(None) };
        if !still(&member) {
            return Ok(None);
        }
        let rollout = by_id(&mut transaction, rollout_id).await?;
        let taken = apply(&mut transaction, &rollout, Some(&member), device, event, detail).await?;
        if taken.is_some() {
            transaction.commit().await?;
        }
        Ok(taken)
    }

    /// Devices that have been in a step of a release since `since` or longer.
    pub async fn overdue(
        &self,
        rollout: &Rollout,
        step: Step,
        since: i64,
    ) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(
            "SELECT device FROM rollout_devices WHERE rollout_id = $1 AND step = $2 AND since <= $3",
        )
        .bind(rollout.id)
        .bind(step.as_str())
        .bind(since)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(row.try_get("device")?)).collect()
    }

    /// What an operator decides about one device: take it out (or back in), or let it try again at once.
    pub async fn decide(&self, rollout: &Rollout, device: &str, denied: bool) -> Result<(), StoreError> {
        let now = unix_seconds();
        let mut transaction = self.write().await?;
        let known = member(&mut transaction, rollout.id, device).await?;
        if known.is_none() {
            let row = Member {
                rollout_id: rollout.id,
                device: device.to_owned(),
                step: Step::Cancelled,
                since: now,
                class: None,
                code: None,
                message: None,
                attempts: 0,
                offered_at: now,
                next_try_at: Some(now),
                installed_in: None,
                from_version: None,
                denied,
            };
            write(&mut transaction, &row).await?;
        }
        sqlx::query(
            "UPDATE rollout_devices SET denied = $1, next_try_at = CASE WHEN step IN
               ('rolled-back', 'failed', 'cancelled') THEN $2 ELSE next_try_at END WHERE rollout_id = $3 AND device = $4",
        )
        .bind(i64::from(denied))
        .bind((!denied).then_some(now))
        .bind(rollout.id)
        .bind(device)
        .execute(&mut *transaction)
        .await?;
        let after = if denied { "denied" } else { "allowed" };
        let before = known.as_ref().map(|member| member.step.as_str());
        let (rollout_id, device) = (rollout.id, Some(device));
        let happening = Happening { rollout_id, device, before, after, code: None, message: None };
        note(&mut transaction, &happening, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Judges a release by its numbers and by how many devices of its stage may still get it. When it came to another stage since
    /// they were counted, they say nothing: nobody of the staging left is not the whole fleet done.
    pub async fn judge(&self, seen: &Rollout, pending: u32) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let rollout = by_id(&mut transaction, seen.id).await?;
        if rollout.stage != seen.stage || rollout.paused.is_some() || !rollout.is_active() {
            return Ok(());
        }
        let results = results(&mut transaction, rollout.id).await?;
        let verdict = judge(&rollout.policy, rollout.stage, results, rollout.forgiven, pending);
        carry_out(&mut transaction, &rollout, verdict).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// A release as the rules see it.
pub fn candidate(rollout: &Rollout, under_way: u32) -> Candidate<'_> {
    Candidate {
        release: &rollout.release,
        sequence: rollout.sequence,
        stage: rollout.stage,
        paused: rollout.paused.as_deref(),
        withdrawn: rollout.withdrawn,
        policy: &rollout.policy,
        group: rollout.group.as_deref().map(|name| (name, rollout.filters.as_slice())),
        under_way,
    }
}

/// Reads where a device stands, within a transaction.
pub(super) async fn member(
    transaction: &mut Transaction,
    rollout_id: i64,
    device: &str,
) -> Result<Option<Member>, StoreError> {
    let row = sqlx::query(select_member!("WHERE rollout_id = $1 AND device = $2"))
        .bind(rollout_id)
        .bind(device)
        .fetch_optional(&mut **transaction)
        .await?;
    row.as_ref().map(read).transpose()
}

fn read_number(row: &AnyRow) -> Result<u32, StoreError> {
    let value: i64 = row.try_get(0)?;
    u32::try_from(value).map_err(|_| StoreError::Row { what: "count", value: value.to_string() })
}

fn read_step(text: String) -> Result<Step, StoreError> {
    Step::parse(&text).ok_or(StoreError::Row { what: "step", value: text })
}

fn read_count(row: &AnyRow) -> Result<(Step, Option<Class>, u32), StoreError> {
    let class: Option<String> = row.try_get("class")?;
    let devices: i64 = row.try_get("devices")?;
    let devices =
        u32::try_from(devices).map_err(|_| StoreError::Row { what: "count", value: devices.to_string() })?;
    Ok((read_step(row.try_get("step")?)?, class.as_deref().and_then(Class::parse), devices))
}

fn read(row: &AnyRow) -> Result<Member, StoreError> {
    let class: Option<String> = row.try_get("class")?;
    let attempts: i64 = row.try_get("attempts")?;
    Ok(Member {
        rollout_id: row.try_get("rollout_id")?,
        device: row.try_get("device")?,
        step: read_step(row.try_get("step")?)?,
        since: row.try_get("since")?,
        class: class.as_deref().and_then(Class::parse),
        code: row.try_get("code")?,
        message: row.try_get("message")?,
        attempts: u32::try_from(attempts)
            .map_err(|_| StoreError::Row { what: "number of tries", value: attempts.to_string() })?,
        offered_at: row.try_get("offered_at")?,
        next_try_at: row.try_get("next_try_at")?,
        installed_in: row.try_get("installed_in")?,
        from_version: row.try_get("from_version")?,
        denied: row.try_get::<i64, _>("denied")? != 0,
    })
}
