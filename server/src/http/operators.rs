//! What operators look at and take back. The gate in front is in `access`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ApiError, App, download, input};
use crate::names::check_name;
use crate::store::Artifact;

/// Rows of a page, if the client does not say, and at most.
const PAGE_ROWS: u32 = 100;
const MAX_PAGE_ROWS: u32 = 1000;

#[derive(Debug, Deserialize)]
struct Page {
    limit: Option<u32>,
    /// Where the page before ended: the `next` of its answer.
    after: Option<String>,
}

impl Page {
    fn limit(&self) -> Result<u32, ApiError> {
        match self.limit.unwrap_or(PAGE_ROWS) {
            limit @ 1..=MAX_PAGE_ROWS => Ok(limit),
            limit => Err(ApiError::invalid(format!("`limit` is {limit}; allowed are 1 to {MAX_PAGE_ROWS}"))),
        }
    }

    /// Where the next page begins, when this one is full.
    fn next<T>(limit: u32, rows: &[T], name: impl Fn(&T) -> &str) -> Option<String> {
        let full = u32::try_from(rows.len()).is_ok_and(|rows| rows >= limit);
        rows.last().filter(|_| full).map(|row| name(row).to_owned())
    }
}

/// An artifact as operators and uploaders see it.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    artifact: Artifact,
    url: String,
}

impl From<Artifact> for Listed {
    fn from(artifact: Artifact) -> Self {
        Listed { url: download::url(&artifact.sha256), artifact }
    }
}

/// `GET /api/v1/artifacts`: newest first, withdrawn ones too.
pub(super) async fn artifacts(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let page: Page = input::query(&uri)?;
    let limit = page.limit()?;
    let after = page.after.as_deref().map(download::digest).transpose()?.map(|digest| digest.to_string());
    let rows = app.store.artifacts(after.as_deref(), limit).await?;
    let next = Page::next(limit, &rows, |artifact| &artifact.sha256);
    let rows: Vec<Listed> = rows.into_iter().map(Listed::from).collect();
    Ok(Json(json!({ "artifacts": rows, "next": next })))
}

/// `GET /api/v1/devices`: by name, each with its last report in short.
pub(super) async fn devices(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let page: Page = input::query(&uri)?;
    let limit = page.limit()?;
    if let Some(after) = &page.after {
        check_name("after", after)?;
    }
    let rows = app.store.devices(page.after.as_deref(), limit).await?;
    let next = Page::next(limit, &rows, |device| &device.device);
    Ok(Json(json!({ "devices": rows, "next": next })))
}

#[derive(Debug, Deserialize)]
struct OfDevice {
    device: String,
}

/// `GET /api/v1/reports?device=`: every kept report of a device, newest first, with its log lines.
pub(super) async fn reports(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let of: OfDevice = input::query(&uri)?;
    check_name("device", &of.device)?;
    let rows = app.store.reports(&of.device).await?;
    Ok(Json(json!({ "reports": rows })))
}

/// `DELETE /api/v1/artifacts/<sha256>`: withdraws a release. Again is fine.
pub(super) async fn withdraw(
    State(app): State<Arc<App>>,
    sha256: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let sha256 = download::digest(&sha256.map(|Path(name)| name).unwrap_or_default())?;
    match app.catalog.withdraw(&sha256).await? {
        Some(artifact) => {
            log::info!(
                "withdrew {} (version {}, sequence {})",
                artifact.sha256,
                artifact.version,
                artifact.sequence
            );
            Ok(StatusCode::NO_CONTENT)
        }
        None => Err(ApiError::not_found("there is no artifact with this SHA-256")),
    }
}
