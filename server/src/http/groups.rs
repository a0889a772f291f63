//! Groups of devices: making them, looking at them, and who is in them and why.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Subject;
use super::input::Named;
use super::operators::Page;
use super::{ApiError, App, input};
use crate::fleet::filter::{Filter, check_count, membership};
use crate::names::check_name;
use crate::store::{Group, Removal};

/// Devices that are looked at for one page of members.
const SCAN: u32 = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGroup {
    name: String,
    #[serde(default)]
    filters: Vec<Filter>,
}

/// `POST /api/v1/device-groups`: 201; the same group again is 201, too.
pub(super) async fn add(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    let new: NewGroup = input::json(body, &app.limits).await?;
    check_name("name", &new.name)?;
    check_count(&new.filters).map_err(ApiError::invalid)?;
    let group = app.store.add_group(&new.name, &new.filters).await?;
    let group =
        group.ok_or_else(|| ApiError::conflict("there is a group of this name with other filters"))?;
    Ok((StatusCode::CREATED, Extension(Subject(new.name)), Json(group)).into_response())
}

/// `GET /api/v1/device-groups`: every group, by name.
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "groups": app.store.groups().await? })))
}

/// `GET /api/v1/device-groups/NAME`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
) -> Result<Json<Group>, ApiError> {
    Ok(Json(find(&app, &name).await?))
}

/// `DELETE /api/v1/device-groups/NAME`: 204; 409 while a release is for it.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
) -> Result<StatusCode, ApiError> {
    check_name("group", &name)?;
    match app.store.remove_group(&name).await? {
        Removal::Removed => Ok(StatusCode::NO_CONTENT),
        Removal::Unknown => Err(ApiError::not_found("there is no group of this name")),
        Removal::InUse => Err(ApiError::conflict("a release is for this group")),
    }
}

/// `GET /api/v1/device-groups/NAME/devices`: who is in it, and why. A page may be short; `next` is null after the last.
pub(super) async fn devices(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let group = find(&app, &name).await?;
    let page: Page = input::query(&uri)?;
    let limit = usize::try_from(page.limit()?).unwrap_or(usize::MAX);
    let mut after = page.after_name()?;
    let mut found = Vec::new();
    // One scan per request bounds its time; a client that wants all follows `next`.
    let scanned = app.store.devices(after.as_deref(), SCAN).await?;
    let ended = u32::try_from(scanned.len()).is_ok_and(|rows| rows < SCAN);
    let mut full = false;
    for device in &scanned {
        after = Some(device.device.clone());
        let membership = membership(&group.filters, &device.facts());
        if membership.member {
            found.push(json!({
                "device": device.device, "model": device.compatible, "firmware_version": device.version,
                "because": membership.because,
            }));
        }
        if found.len() >= limit {
            full = true;
            break;
        }
    }
    let next = if ended && !full { None } else { after };
    Ok(Json(json!({ "group": group.name, "devices": found, "next": next })))
}

async fn find(app: &App, name: &str) -> Result<Group, ApiError> {
    check_name("group", name)?;
    let group = app.store.group(name).await?;
    group.ok_or_else(|| ApiError::not_found("there is no group of this name"))
}
