//! What operators look at and take back. The gate in front is in `access`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ApiError, App, download, input};
use crate::kind::Kind;
use crate::names::check_name;
use crate::store::{Artifact, Delta};

/// Rows of a page, if the client does not say, and at most.
const PAGE_ROWS: u32 = 100;
const MAX_PAGE_ROWS: u32 = 1000;

/// Which page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    limit: Option<u32>,
    /// Where the page before ended: the `next` of its answer.
    after: Option<String>,
}

impl Page {
    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        match self.limit.unwrap_or(PAGE_ROWS) {
            limit @ 1..=MAX_PAGE_ROWS => Ok(limit),
            limit => Err(ApiError::invalid(format!("`limit` is {limit}; allowed are 1 to {MAX_PAGE_ROWS}"))),
        }
    }

    /// The `after` of a list of files: a SHA-256.
    fn after_file(&self) -> Result<Option<String>, ApiError> {
        let digest = self.after.as_deref().map(download::digest).transpose()?;
        Ok(digest.map(|digest| digest.to_string()))
    }

    /// The `after` of a list of devices: a name.
    pub(super) fn after_name(&self) -> Result<Option<String>, ApiError> {
        self.after.as_deref().map_or(Ok(()), |after| check_name("after", after))?;
        Ok(self.after.clone())
    }

    /// The `after` of a list of numbered rows.
    pub(super) fn after_number(&self) -> Result<Option<i64>, ApiError> {
        let number = self.after.as_deref().map(str::parse).transpose();
        number.map_err(|_| ApiError::invalid("`after` is not a `next` of this list"))
    }

    /// Whether there may be more rows than these.
    pub(super) fn is_full<T>(&self, rows: &[T]) -> bool {
        let limit = self.limit.unwrap_or(PAGE_ROWS);
        u32::try_from(rows.len()).is_ok_and(|rows| rows >= limit)
    }

    /// Where the next page begins, when this one is full.
    pub(super) fn next<T>(limit: u32, rows: &[T], name: impl Fn(&T) -> &str) -> Option<String> {
        let full = u32::try_from(rows.len()).is_ok_and(|rows| rows >= limit);
        rows.last().filter(|_| full).map(|row| name(row).to_owned())
    }
}

/// A file as operators and uploaders see it.
#[derive(Debug, Serialize)]
pub(super) struct Listed<T> {
    #[serde(flatten)]
    row: T,
    url: String,
}

impl From<Artifact> for Listed<Artifact> {
    fn from(row: Artifact) -> Self {
        Listed { url: download::url(Kind::Artifact, &row.sha256), row }
    }
}

impl From<Delta> for Listed<Delta> {
    fn from(row: Delta) -> Self {
        Listed { url: download::url(Kind::Delta, &row.sha256), row }
    }
}

/// `GET /api/v1/artifacts`: newest first, withdrawn ones too.
pub(super) async fn artifacts(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let page: Page = input::query(&uri)?;
    let (limit, after) = (page.limit()?, page.after_file()?);
    let rows = app.store.artifacts(after.as_deref(), limit).await?;
    let next = Page::next(limit, &rows, |artifact| &artifact.sha256);
    let rows: Vec<_> = rows.into_iter().map(Listed::from).collect();
    Ok(Json(json!({ "artifacts": rows, "next": next })))
}

/// `GET /api/v1/deltas`: newest first, withdrawn ones too.
pub(super) async fn deltas(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let page: Page = input::query(&uri)?;
    let (limit, after) = (page.limit()?, page.after_file()?);
    let rows = app.store.deltas(after.as_deref(), limit).await?;
    let next = Page::next(limit, &rows, |delta| &delta.sha256);
    let rows: Vec<_> = rows.into_iter().map(Listed::from).collect();
    Ok(Json(json!({ "deltas": rows, "next": next })))
}

/// `GET /api/v1/devices`: by name, each with its last report in short.
pub(super) async fn devices(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let page: Page = input::query(&uri)?;
    let (limit, after) = (page.limit()?, page.after_name()?);
    let rows = app.store.devices(after.as_deref(), limit).await?;
    let next = Page::next(limit, &rows, |device| &device.device);
    let rows = rows.into_iter().map(|device| super::fleet::with_presence(&app, device));
    Ok(Json(json!({ "devices": rows.collect::<Result<Vec<_>, _>>()?, "next": next })))
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

/// `DELETE /api/v1/artifacts/<sha256>`: withdraws a release, and the deltas to it. Again is fine.
pub(super) async fn withdraw_artifact(
    State(app): State<Arc<App>>,
    sha256: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    withdraw(&app, Kind::Artifact, sha256).await
}

/// `DELETE /api/v1/deltas/<sha256>`: withdraws a delta. Again is fine.
pub(super) async fn withdraw_delta(
    State(app): State<Arc<App>>,
    sha256: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    withdraw(&app, Kind::Delta, sha256).await
}

async fn withdraw(
    app: &App,
    kind: Kind,
    sha256: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let sha256 = download::digest(&sha256.map(|Path(name)| name).unwrap_or_default())?;
    if app.catalog.withdraw(kind, &sha256).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found(format!("there is no {} with this SHA-256", kind.noun())))
    }
}
