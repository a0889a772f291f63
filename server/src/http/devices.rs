//! What devices ask and tell. They need no token: what they are offered is public and signed, what they tell is only
//! shown to operators.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use otad_bundle::Digest;
use serde::{Deserialize, Serialize};

use super::download::url;
use super::{ApiError, App, input};
use crate::kind::Kind;
use crate::names::{check_model, check_name, check_version};
use crate::release;
use crate::store::{Artifact, Receipt, Report, Sighting};

/// Longest `User-Agent` that is kept, in bytes; the rest is cut off.
const MAX_USER_AGENT_BYTES: usize = 512;
/// Longest word of a report (slot, phase, code, boot id), in bytes.
const MAX_WORD_BYTES: usize = 64;
/// Longest message of a report, in bytes.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Most log lines of a report, and the longest of them in bytes.
const MAX_LOG_LINES: usize = 200;
const MAX_LOG_LINE_BYTES: usize = 1024;

#[derive(Debug, Deserialize)]
struct Check {
    device: String,
    compatible: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    sequence: u64,
    /// SHA-256 of the manifest of the release that runs: what a delta can start from.
    #[serde(default)]
    release: String,
}

/// What a device is offered.
#[derive(Debug, Serialize)]
struct Offer {
    version: String,
    sequence: u64,
    release: String,
    sha256: String,
    size: u64,
    url: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<OfferedDelta>,
}

/// A smaller way to the offered release. Devices take it or not; the artifact has everything.
#[derive(Debug, Serialize)]
struct OfferedDelta {
    url: String,
    size: u64,
    from: String,
}

/// `GET /device/v1/update`: 204 when the device is up to date, else 200 and the release.
pub(super) async fn update(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let check: Check = input::query(&uri)?;
    check_name("device", &check.device)?;
    check_model("compatible", &check.compatible)?;
    // A factory system may not know its version.
    let version = (!check.version.is_empty()).then_some(check.version.as_str());
    version.map_or(Ok(()), |version| check_version("version", version))?;
    // Nor has it the record of an installation.
    let running = (!check.release.is_empty()).then_some(check.release.as_str());
    running.map_or(Ok(()), check_release)?;
    let agent = user_agent(&headers);
    let sighting = Sighting {
        device: &check.device,
        compatible: &check.compatible,
        version,
        // The database holds signed numbers; a device that claims more is as far ahead as can be.
        sequence: Some(check.sequence.min(i64::MAX.unsigned_abs())),
        user_agent: &agent,
    };
    // Who was here is for people to look at. A full disk must not keep a fleet from its update.
    if let Err(error) = app.store.saw(sighting).await {
        log::warn!("device {} is not recorded: {error}", check.device);
    }
    let candidates = app.store.candidates(&check.compatible, check.sequence).await?;
    match release::choose(candidates, check.sequence) {
        None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(artifact) => Ok(Json(offer(&app, artifact, running).await?).into_response()),
    }
}

async fn offer(app: &App, artifact: Artifact, running: Option<&str>) -> Result<Offer, ApiError> {
    let candidates = match running {
        Some(running) => app.store.deltas_between(running, &artifact.release).await?,
        None => Vec::new(),
    };
    let delta = release::choose_delta(candidates, artifact.size).map(|delta| OfferedDelta {
        url: url(Kind::Delta, &delta.sha256),
        size: delta.size,
        from: delta.from_release,
    });
    Ok(Offer {
        version: artifact.version,
        sequence: artifact.sequence,
        release: artifact.release,
        url: url(Kind::Artifact, &artifact.sha256),
        sha256: artifact.sha256,
        size: artifact.size,
        description: artifact.description,
        delta,
    })
}

/// `POST /device/v1/reports`: stored once per device and `report_id`, 204 however often it comes.
pub(super) async fn report(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let report: Report = input::json(body, &app.limits).await?;
    check_report(&report)?;
    if app.store.report(&report).await? == Receipt::Stored {
        log::info!(
            "device {} reports {} {}",
            report.device,
            report.outcome.as_str(),
            report.version.as_deref().unwrap_or("(version unknown)")
        );
    }
    let sighting = Sighting {
        device: &report.device,
        compatible: &report.compatible,
        version: None,
        sequence: None,
        user_agent: &user_agent(&headers),
    };
    if let Err(error) = app.store.saw(sighting).await {
        log::warn!("device {} is not recorded: {error}", report.device);
    }
    Ok(StatusCode::NO_CONTENT)
}

fn check_report(report: &Report) -> Result<(), ApiError> {
    check_name("device", &report.device)?;
    check_model("compatible", &report.compatible)?;
    check_name("report_id", &report.report_id)?;
    for (field, version) in [("version", &report.version), ("from_version", &report.from_version)] {
        version.as_deref().map_or(Ok(()), |text| check_version(field, text))?;
    }
    report.release.as_deref().map_or(Ok(()), check_release)?;
    for (field, value, max) in [
        ("slot", &report.slot, MAX_WORD_BYTES),
        ("phase", &report.phase, MAX_WORD_BYTES),
        ("code", &report.code, MAX_WORD_BYTES),
        ("boot_id", &report.boot_id, MAX_WORD_BYTES),
        ("message", &report.message, MAX_MESSAGE_BYTES),
    ] {
        let length = value.as_ref().map_or(0, String::len);
        if length > max {
            return Err(ApiError::too_large(format!("`{field}` has {length} bytes; allowed are {max}")));
        }
    }
    if report.log.len() > MAX_LOG_LINES {
        let message = format!("`log` has {} lines; send the last {MAX_LOG_LINES}", report.log.len());
        return Err(ApiError::too_large(message));
    }
    match report.log.iter().position(|line| line.len() > MAX_LOG_LINE_BYTES) {
        Some(at) => Err(ApiError::too_large(format!(
            "line {} of `log` is longer than {MAX_LOG_LINE_BYTES} bytes",
            at + 1
        ))),
        None => Ok(()),
    }
}

fn check_release(release: &str) -> Result<(), ApiError> {
    let invalid = |_| ApiError::invalid("`release` is not the 64 lower-case hex digits of a SHA-256");
    release.parse::<Digest>().map(drop).map_err(invalid)
}

/// The `User-Agent` as kept: visible ASCII and spaces, cut to a fixed length.
fn user_agent(headers: &HeaderMap) -> String {
    let raw = headers.get(header::USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
    let visible = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '?' };
    raw.iter().take(MAX_USER_AGENT_BYTES).map(visible).collect()
}
