//! Releases on their way through the fleet: declaring them, their turns, their numbers, and deciding about single devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Identity, Subject};
use super::input::Named;
use super::operators::Page;
use super::{ApiError, App, download, input};
use crate::clock::unix_seconds;
use crate::fleet::class::Class;
use crate::fleet::policy::Policy;
use crate::fleet::step::Step;
use crate::names::check_name;
use crate::reach::{Reach, reach};
use crate::store::{NewRollout, Rollout, StoreError, Turn};

/// Longest reason that an operator gives, in bytes.
const MAX_REASON_BYTES: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRelease {
    name: String,
    artifact: String,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    policy: Policy,
    #[serde(default)]
    start_at: Option<i64>,
}

/// `POST /api/v1/releases`: declares a draft, 201.
pub(super) async fn add(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    let new: NewRelease = input::json(body, &app.limits).await?;
    check_name("name", &new.name)?;
    new.policy.check().map_err(ApiError::invalid)?;
    let artifact = download::digest(&new.artifact)?.to_string();
    let known = app.store.artifact(&artifact).await?;
    if known.is_none_or(|artifact| artifact.withdrawn_at.is_some()) {
        return Err(ApiError::conflict("no artifact with this SHA-256 is on offer: upload it first"));
    }
    if let Some(group) = &new.group {
        check_name("group", group)?;
        if app.store.group(group).await?.is_none() {
            return Err(ApiError::conflict("there is no group of this name: make it first"));
        }
    }
    let NewRelease { name, group, policy, start_at, .. } = new;
    let rollout = app.store.add_rollout(&NewRollout { name, artifact, group, policy, start_at }).await?;
    let rollout = rollout.ok_or_else(|| ApiError::conflict("there is a release of this name"))?;
    let subject = Extension(Subject(rollout.name.clone()));
    Ok((StatusCode::CREATED, subject, Json(shape(&app, &rollout).await?)).into_response())
}

/// `GET /api/v1/releases`: newest first, each with its numbers.
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let mut releases = Vec::new();
    for rollout in app.store.rollouts().await? {
        releases.push(shape(&app, &rollout).await?);
    }
    Ok(Json(json!({ "releases": releases })))
}

/// `GET /api/v1/releases/NAME`: as in the list, and `reach`: a count of the whole fleet.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
) -> Result<Json<Value>, ApiError> {
    let rollout = find(&app, &name).await?;
    let mut shape = shape(&app, &rollout).await?;
    let reach: Reach = reach(&app.store, &app.presence, &rollout, unix_seconds()).await?;
    if let Some(fields) = shape.as_object_mut() {
        fields.insert("reach".into(), json!(reach));
    }
    Ok(Json(shape))
}

/// `PATCH /api/v1/releases/NAME`: `{"policy":{…}}` replaces the policy.
pub(super) async fn set_policy(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Change {
        policy: Policy,
    }
    find(&app, &name).await?;
    let change: Change = input::json(body, &app.limits).await?;
    change.policy.check().map_err(ApiError::invalid)?;
    if !app.store.set_policy(&name, &change.policy).await? {
        return Err(ApiError::conflict("the release has ended"));
    }
    one(State(app), Named(name)).await
}

/// `POST /api/v1/releases/NAME/{start|promote|pause|resume|complete|abort}`.
pub(super) async fn turn(
    State(app): State<Arc<App>>,
    Named((name, word)): Named<(String, String)>,
    Extension(identity): Extension<Identity>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Why {
        reason: Option<String>,
    }
    let rollout = find(&app, &name).await?;
    let bytes = input::bytes(body, &app.limits).await?;
    let why: Why = if bytes.is_empty() { Why::default() } else { input::parse(&bytes)? };
    let reason = why.reason.unwrap_or_else(|| format!("by {}", identity.name));
    if reason.len() > MAX_REASON_BYTES || reason.chars().any(char::is_control) {
        return Err(ApiError::invalid(format!(
            "`reason` has up to {MAX_REASON_BYTES} bytes, without control characters"
        )));
    }
    let turn = match word.as_str() {
        "start" => Turn::Start,
        "promote" => Turn::Promote,
        "pause" => Turn::Pause(reason),
        "resume" => Turn::Resume,
        "complete" => Turn::Complete,
        "abort" => Turn::Abort,
        _ => {
            return Err(ApiError::not_found(
                "a release can start, promote, pause, resume, complete and abort",
            ));
        }
    };
    let turned = app.store.turn(&rollout.name, &turn).await?;
    let turned = turned.ok_or_else(|| {
        let stage = rollout.stage.as_str();
        let paused = if rollout.paused.is_some() { ", paused" } else { "" };
        ApiError::conflict(format!("the release is in stage {stage}{paused} and cannot be {}", turn.as_str()))
    })?;
    log::info!("release {} is {} by {}", turned.name, turn.as_str(), identity.name);
    Ok(Json(shape(&app, &turned).await?))
}

#[derive(Debug, Deserialize)]
struct Members {
    step: Option<Step>,
}

/// `GET /api/v1/releases/NAME/devices`: who was offered it and where they stand, by name; `step` picks one step.
pub(super) async fn devices(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let rollout = find(&app, &name).await?;
    let page: Page = input::query(&uri)?;
    let members: Members = input::query(&uri)?;
    let limit = page.limit()?;
    let after = page.after_name()?;
    let rows = app.store.members(&rollout, members.step, after.as_deref(), limit).await?;
    let next = Page::next(limit, &rows, |member| &member.device);
    Ok(Json(json!({ "release": rollout.name, "devices": rows, "next": next })))
}

/// `POST /api/v1/releases/NAME/devices/DEVICE/{retry|deny}`: 204. `retry` offers it again at once, `deny` never.
pub(super) async fn decide(
    State(app): State<Arc<App>>,
    Named((name, device, act)): Named<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let rollout = find(&app, &name).await?;
    check_name("device", &device)?;
    let denied = match act.as_str() {
        "retry" => false,
        "deny" => true,
        _ => return Err(ApiError::not_found("a device can be let retry or denied")),
    };
    if app.store.device(&device).await?.is_none() {
        return Err(ApiError::not_found("there is no device of this name"));
    }
    app.store.decide(&rollout, &device, denied).await?;
    if !denied {
        app.queue.prefer(rollout.id, &device, unix_seconds());
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn find(app: &App, name: &str) -> Result<Rollout, ApiError> {
    check_name("release", name)?;
    let rollout = app.store.rollout(name).await?;
    rollout.ok_or_else(|| ApiError::not_found("there is no release of this name"))
}

/// A release with its numbers.
async fn shape(app: &App, rollout: &Rollout) -> Result<Value, StoreError> {
    let mut by_step: BTreeMap<&str, u32> = Step::ALL.iter().map(|step| (step.as_str(), 0)).collect();
    let mut by_class: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut good, mut bad) = (0, 0);
    for (step, class, devices) in app.store.counts(rollout).await? {
        *by_step.entry(step.as_str()).or_default() += devices;
        if let Some(class) = class {
            *by_class.entry(class.as_str()).or_default() += devices;
        }
        good += if step == Step::Confirmed { devices } else { 0 };
        bad += if step.is_bad() && class.is_none_or(Class::blames_the_release) { devices } else { 0 };
    }
    let percent = |part: u32| {
        let permille = (u64::from(part) * 1000).checked_div(u64::from(good) + u64::from(bad));
        permille.and_then(|permille| u32::try_from(permille).ok()).map(|permille| f64::from(permille) / 10.0)
    };
    let status = if rollout.paused.is_some() { "paused" } else { rollout.stage.as_str() };
    let mut shape = serde_json::to_value(rollout)
        .map_err(|error| StoreError::Row { what: "release", value: error.to_string() })?;
    if let Some(fields) = shape.as_object_mut() {
        fields.insert("status".into(), json!(status));
        fields.insert("devices".into(), json!(by_step));
        fields.insert("errors".into(), json!(by_class));
        let results = json!({
            "good": good, "bad": bad, "success_percent": percent(good), "error_percent": percent(bad),
        });
        fields.insert("results".into(), results);
    }
    Ok(shape)
}
