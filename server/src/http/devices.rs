//! What devices ask and tell. Those that have no token need none, unless the operator wants it so: what they are offered is
//! public and signed. What they tell counts in their releases.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use otad_bundle::Digest;
use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;

use super::access::{Caller, require_device};
use super::download::url;
use super::metrics::count;
use super::{ApiError, App, input};
use crate::assign::{self, Places, Question};
use crate::clock::unix_seconds;
use crate::kind::Kind;
use crate::names::{check_model, check_name, check_version};
use crate::presence::Noted;
use crate::release;
use crate::store::{Artifact, Receipt, Report, Sighting, StoreError};

/// When to ask again, in seconds.
const INTERVAL: HeaderName = HeaderName::from_static("otad-interval");
/// Longest `User-Agent` that is kept, in bytes; the rest is cut off.
const MAX_USER_AGENT_BYTES: usize = 512;
/// Longest word of a report (slot, phase, code, boot id), in bytes.
pub(super) const MAX_WORD_BYTES: usize = 64;
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
    /// The boot that asks; with `state`, what a confirmation needs.
    boot_id: Option<String>,
    /// What otad is about: `idle`, `pre-upgrade`, `upgrading`, `post-upgrade` or `failed`.
    state: Option<String>,
}

/// Takes a place among the requests of devices, or tells the device when to come back.
pub(super) fn admit(app: &App) -> Result<SemaphorePermit<'_>, ApiError> {
    app.device_requests.try_acquire().map_err(|_| {
        count(&app.asked.refused);
        ApiError::busy("as many devices ask as the server answers at a time; come back after Retry-After")
    })
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
    caller: Caller,
) -> Result<Response, ApiError> {
    let _place = admit(&app)?;
    count(&app.asked.checks);
    let check: Check = input::query(&uri)?;
    check_name("device", &check.device)?;
    check_model("compatible", &check.compatible)?;
    // A factory system may not know its version.
    let version = (!check.version.is_empty()).then_some(check.version.as_str());
    version.map_or(Ok(()), |version| check_version("version", version))?;
    // Nor has it the record of an installation.
    let running = (!check.release.is_empty()).then_some(check.release.as_str());
    running.map_or(Ok(()), check_release)?;
    for (field, word) in [("boot_id", &check.boot_id), ("state", &check.state)] {
        word.as_deref().map_or(Ok(()), |word| check_word(field, word))?;
    }
    require_device(&app, &caller, &check.device).await?;
    // The database holds signed numbers; a device that claims more is as far ahead as can be.
    let sequence = check.sequence.min(i64::MAX.unsigned_abs());
    let sighting = Sighting {
        device: &check.device,
        compatible: &check.compatible,
        version,
        sequence: Some(sequence),
        user_agent: &user_agent(&caller.headers),
        release: Some(&check.release),
        boot_id: check.boot_id.as_deref(),
        state: check.state.as_deref(),
    };
    let recorded = see(&app, sighting).await.unwrap_or_else(|error| {
        // Who was here is for people to look at: a full disk must not keep a fleet from its update.
        log::warn!("the contact of device {} is not recorded: {error}", check.device);
        app.presence.last_seen(&check.device).is_some()
    });
    let question = Question {
        device: &check.device,
        compatible: &check.compatible,
        version,
        sequence: check.sequence,
        release: running,
        boot_id: check.boot_id.as_deref(),
        state: check.state.as_deref(),
        recorded,
    };
    let places = Places { queue: &app.queue, most: app.limits.max_updates };
    let answer = assign::answer(&app.store, question, app.limits.undeclared, places).await?;
    let now = unix_seconds();
    answer.taken.iter().for_each(|taken| app.live.step(taken, now));
    let mut response = match answer.artifact {
        // It comes back in a minute: a connection kept for it until then is one that others do not get.
        None => (StatusCode::NO_CONTENT, [(header::CONNECTION, "close")]).into_response(),
        Some(artifact) => {
            count(&app.asked.offers);
            Json(offer(&app, artifact, running).await?).into_response()
        }
    };
    let interval = app.presence.interval(&check.device, now);
    response.headers_mut().insert(INTERVAL, HeaderValue::from(interval));
    Ok(response)
}

/// Notes that a device was here. `false` when there are as many as the server keeps, and this is none of them.
async fn see(app: &App, sighting: Sighting<'_>) -> Result<bool, StoreError> {
    let now = unix_seconds();
    match app.presence.note(sighting, now) {
        Noted::Quiet => {}
        Noted::Full => {
            log::debug!("device {} is not recorded: there are too many", sighting.device);
            return Ok(false);
        }
        Noted::Write => {
            app.store.saw(sighting).await?;
            count(&app.asked.writes);
            app.presence.written(sighting, now);
        }
    }
    Ok(true)
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

/// `POST /device/v1/reports`: stored once per device and `report_id`, 204 however often it comes. Of devices that are not recorded
/// nothing is stored, and they are not told: coming back would not help them.
pub(super) async fn report(
    State(app): State<Arc<App>>,
    caller: Caller,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let _place = admit(&app)?;
    let report: Report = input::json(body, &app.limits).await?;
    check_report(&report)?;
    require_device(&app, &caller, &report.device).await?;
    count(&app.asked.reports);
    let now = unix_seconds();
    if app.presence.last_seen(&report.device).is_some() {
        app.presence.touch(&report.device, now);
    } else {
        let user_agent = &user_agent(&caller.headers);
        let sighting = Sighting { user_agent, ..Sighting::of(&report.device, &report.compatible) };
        if !see(&app, sighting).await? {
            return Ok(StatusCode::NO_CONTENT);
        }
    }
    let (receipt, taken) = app.store.report(&report).await?;
    if receipt == Receipt::Stored {
        log::info!(
            "device {} reports {} {}",
            report.device,
            report.outcome.as_str(),
            report.version.as_deref().unwrap_or("(version unknown)")
        );
    }
    taken.iter().for_each(|taken| app.live.step(taken, now));
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

fn check_word(field: &'static str, word: &str) -> Result<(), ApiError> {
    if word.len() > MAX_WORD_BYTES || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("`{field}` has up to {MAX_WORD_BYTES} visible ASCII characters");
        return Err(ApiError::invalid(message));
    }
    Ok(())
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
