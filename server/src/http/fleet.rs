//! The fleet as a whole, one device in full, what happened, and who changed what.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::input::Named;
use super::operators::Page;
use super::{ApiError, App, input};
use crate::assign;
use crate::clock::unix_seconds;
use crate::fleet::filter::membership;
use crate::names::{MAX_MODEL_BYTES, check_name};
use crate::store::Device;

/// Most attributes of a device.
const MAX_ATTRIBUTES: usize = 64;
/// Steps that are shown of a device.
const SHOWN_STEPS: u32 = 50;

/// Adds to a device what only this process knows: the newest contact, and what follows from it.
pub(super) fn with_presence(app: &App, mut device: Device) -> Result<Value, ApiError> {
    let now = unix_seconds();
    device.last_seen = app.presence.last_seen(&device.device).unwrap_or(0).max(device.last_seen);
    let presence = if app.presence.is_lost(device.last_seen, now) { "lost" } else { "online" };
    let live = app.live.of(&device.device);
    let mut shape = serde_json::to_value(device).map_err(|error| ApiError::internal(&error))?;
    if let Some(fields) = shape.as_object_mut() {
        fields.insert("presence".into(), json!(presence));
        fields.insert("live".into(), json!(live));
    }
    Ok(shape)
}

/// `GET /api/v1/devices/NAME`: what it said, where it stands in its releases, why it gets no update, and its last steps.
pub(super) async fn device(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
) -> Result<Json<Value>, ApiError> {
    check_name("device", &name)?;
    let device = app.store.device(&name).await?;
    let device = device.ok_or_else(|| ApiError::not_found("there is no device of this name"))?;
    let facts = device.facts();
    let sequence = device.sequence.unwrap_or(0);
    let why = assign::why(&app.store, &facts, sequence, app.limits.undeclared).await?;
    let groups: Vec<Value> = (app.store.groups().await?.iter())
        .map(|group| {
            let membership = membership(&group.filters, &facts);
            json!({ "group": group.name, "member": membership.member, "because": membership.because })
        })
        .collect();
    let mut releases = Vec::new();
    let rollouts = app.store.rollouts().await?;
    for member in app.store.memberships(&name).await? {
        let rollout = rollouts.iter().find(|rollout| rollout.id == member.rollout_id);
        releases.push(json!({ "release": rollout.map(|rollout| &rollout.name), "standing": member }));
    }
    let history = app.store.happenings(Some(&name), None, None, SHOWN_STEPS).await?;
    let mut shape = with_presence(&app, device)?;
    if let Some(fields) = shape.as_object_mut() {
        fields.insert("why".into(), json!(why));
        fields.insert("groups".into(), json!(groups));
        fields.insert("releases".into(), json!(releases));
        fields.insert("history".into(), json!(history));
    }
    Ok(Json(shape))
}

/// `PUT /api/v1/devices/NAME/attributes`: replaces what operators know about a device, which need not have been here yet.
pub(super) async fn set_attributes(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    check_name("device", &name)?;
    let attributes: BTreeMap<String, String> = input::json(body, &app.limits).await?;
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(ApiError::invalid(format!(
            "{} attributes; allowed are {MAX_ATTRIBUTES}",
            attributes.len()
        )));
    }
    for (key, value) in &attributes {
        check_name("attribute", key)?;
        if value.len() > MAX_MODEL_BYTES || value.chars().any(char::is_control) {
            let message = format!("a value has up to {MAX_MODEL_BYTES} bytes and no control characters");
            return Err(ApiError::invalid(message));
        }
    }
    app.store.set_attributes(&name, &attributes).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/v1/fleet`: how many devices there are, how many are lost, and what they run.
pub(super) async fn overview(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let (devices, lost) = app.presence.count(unix_seconds());
    let versions: Vec<Value> = (app.store.versions().await?.into_iter())
        .map(|(model, version, devices)| json!({ "model": model, "version": version, "devices": devices }))
        .collect();
    let under_way = app.store.under_way(None).await?;
    Ok(Json(json!({
        "devices": devices, "online": devices - lost, "lost": lost, "updating": under_way, "versions": versions,
        "heartbeat_seconds": app.limits.heartbeat_seconds,
    })))
}

#[derive(Debug, Deserialize)]
struct Of {
    device: Option<String>,
    release: Option<String>,
}

/// `GET /api/v1/activity`: the steps of devices and the turns of releases, newest first; of one `device` or one `release`.
pub(super) async fn activity(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let page: Page = input::query(&uri)?;
    let of: Of = input::query(&uri)?;
    for (field, name) in [("device", &of.device), ("release", &of.release)] {
        name.as_deref().map_or(Ok(()), |name| check_name(field, name))?;
    }
    let (limit, before) = (page.limit()?, page.after_number()?);
    let rows = app.store.happenings(of.device.as_deref(), of.release.as_deref(), before, limit).await?;
    let next = rows.last().filter(|_| page.is_full(&rows)).map(|row| row.id.to_string());
    Ok(Json(json!({ "activity": rows, "next": next })))
}

/// `GET /api/v1/audit`: who changed what, newest first.
pub(super) async fn audit(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let page: Page = input::query(&uri)?;
    let rows = app.store.audit_log(page.after_number()?, page.limit()?).await?;
    let next = rows.last().filter(|_| page.is_full(&rows)).map(|row| row.id.to_string());
    Ok(Json(json!({ "audit": rows, "next": next })))
}
