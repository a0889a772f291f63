//! What the server does without being asked: it starts what is scheduled, ends what takes too long, completes releases, writes last
//! contacts and forgets what is old. Everything it needs is in the database, so a server that was killed goes on here.
//!
//! Where several processes share a database, each makes its rounds and nobody leads: whatever a round does is asked for again within
//! the transaction that does it, so that of two that come to the same only the first changes something, and one that is killed is
//! not missed.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::unix_seconds;
use crate::fleet::judge::Stage;
use crate::fleet::step::{Event, Step};
use crate::http::App;
use crate::others::Others;
use crate::presence::{FLUSH_SECONDS, SYNC_SECONDS};
use crate::reach::reach;
use crate::store::{Detail, Member, Rollout, StoreError, Taken, Turn};
use crate::webhooks::lost;

/// Last contacts that are written in one transaction: others want to write, too.
const FLUSH_BATCH: usize = 500;
/// How often old records are looked for, in seconds.
const FORGET_SECONDS: i64 = 3600;

/// How often a release in which nothing happens is held against the whole fleet, in seconds: devices come, go and get lost.
const LOOK_SECONDS: i64 = 30;

/// When a release was held against the whole fleet, and what had happened in it by then.
struct Look {
    last: Option<i64>,
    at: i64,
}

/// Makes rounds until the server ends.
pub async fn run(app: Arc<App>) {
    let started = unix_seconds();
    let mut rounds = tokio::time::interval(app.limits.round);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut flushed, mut forgotten, mut looked) = (started, started, started);
    let flush_seconds = if app.store.is_shared() { SYNC_SECONDS } else { FLUSH_SECONDS };
    let mut looks = HashMap::new();
    let mut others = Others::new(started);
    loop {
        rounds.tick().await;
        let now = unix_seconds();
        if let Err(error) = others.listen(&app, now).await {
            log::error!("what other servers do is not heard: {error}");
        }
        if let Err(error) = look_after_releases(&app, &mut looks, started, now).await {
            log::error!("releases are not looked after: {error}");
        }
        if now - looked >= app.limits.lost_seconds {
            looked = now;
            if let Err(error) = lost::look(&app, now).await {
                log::error!("nobody is told of lost devices: {error}");
            }
        }
        if now - flushed >= flush_seconds {
            flushed = now;
            flush(&app).await;
        }
        if now - forgotten >= FORGET_SECONDS {
            forgotten = now;
            let before = now - i64::from(app.limits.keep_records_days) * 24 * 3600;
            match app.store.forget(before).await {
                Ok(rows) => log::debug!("{rows} old rows are forgotten"),
                Err(error) => log::error!("old records are not removed: {error}"),
            }
        }
    }
}

/// Writes last contacts.
pub async fn flush(app: &App) {
    for batch in app.presence.unwritten().chunks(FLUSH_BATCH) {
        match app.store.seen(batch).await {
            Ok(()) => app.presence.flushed(batch),
            Err(error) => return log::warn!("last contacts are not written: {error}"),
        }
    }
}

async fn look_after_releases(
    app: &App,
    looks: &mut HashMap<i64, Look>,
    started: i64,
    now: i64,
) -> Result<(), StoreError> {
    let rollouts = app.store.rollouts().await?;
    app.queue.keep(|id| {
        rollouts
            .iter()
            .any(|rollout| rollout.id == id && !matches!(rollout.stage, Stage::Draft | Stage::Aborted))
    });
    for rollout in rollouts {
        match rollout.stage {
            Stage::Draft => start_if_due(app, &rollout, now).await?,
            Stage::Staging | Stage::Production | Stage::Completed | Stage::Aborted => {
                end_what_takes_too_long(app, &rollout, started, now).await?;
            }
        }
        if rollout.is_active() && rollout.paused.is_none() {
            complete_if_done(app, &rollout, looks, now).await?;
        }
    }
    Ok(())
}

async fn start_if_due(app: &App, rollout: &Rollout, now: i64) -> Result<(), StoreError> {
    if rollout.start_at.is_some_and(|at| at <= now)
        && app.store.turn(&rollout.name, &Turn::Start).await?.is_some()
    {
        log::info!("release {} starts as scheduled", rollout.name);
        let id = app.store.audit("otaserver", Turn::Start.as_str(), &rollout.name).await?;
        app.store.audit_done(id, 200, None).await?;
    }
    Ok(())
}

async fn end_what_takes_too_long(
    app: &App,
    rollout: &Rollout,
    started: i64,
    now: i64,
) -> Result<(), StoreError> {
    for step in Step::ALL {
        let Some((seconds, code)) = rollout.policy.timeout(step) else { continue };
        let since = now - i64::from(seconds);
        // While the server was away nobody could say anything: the clock begins anew with it.
        if since < started {
            continue;
        }
        let message = format!("nothing came of step {} within {seconds} s", step.as_str());
        let detail = Detail { code: Some(code), message: Some(&message), ..Detail::default() };
        for device in app.store.overdue(rollout, step, since).await? {
            let still = |member: &Member| member.step == step && member.since <= since;
            let taken = app.store.happen_while(rollout.id, &device, still, Event::TimedOut, detail).await?;
            tell(app, rollout, taken);
        }
    }
    for device in app.store.overdue(rollout, Step::Installed, now).await? {
        let seen = app.presence.last_seen(&device).unwrap_or(0);
        if app.presence.is_lost(seen, now) {
            let detail = Detail::default();
            tell(app, rollout, app.store.happen(rollout.id, &device, Event::Reboot, detail).await?);
        }
    }
    Ok(())
}

fn tell(app: &App, rollout: &Rollout, taken: Option<Taken>) {
    if let Some(taken) = taken {
        log::info!("device {} in release {}: {}", taken.device, rollout.name, taken.step.as_str());
        app.live.step(&taken, unix_seconds());
    }
}

/// The look at the whole fleet is only taken when nobody is at it, since the release is not done as long as somebody is; and only
/// when something happened since the last look, or that is long ago.
async fn complete_if_done(
    app: &App,
    rollout: &Rollout,
    looks: &mut HashMap<i64, Look>,
    now: i64,
) -> Result<(), StoreError> {
    let last = app.store.last_happening(rollout).await?;
    let fresh = looks.get(&rollout.id).is_some_and(|look| look.last == last && now - look.at < LOOK_SECONDS);
    if fresh || app.store.under_way(Some(rollout)).await? > 0 {
        return Ok(());
    }
    looks.insert(rollout.id, Look { last, at: now });
    let reach = reach(&app.store, &app.presence, rollout, now).await?;
    app.store.judge(rollout, reach.pending).await
}
