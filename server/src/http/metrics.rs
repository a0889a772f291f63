//! Numbers for Prometheus, in its text form (version 0.0.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{ApiError, App};
use crate::clock::unix_seconds;

/// What was asked of this process since it started.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Update checks.
    pub(super) checks: AtomicU64,
    /// Of these, answered with an offer.
    pub(super) offers: AtomicU64,
    /// Of these, a contact that was news and was written at once.
    pub(super) writes: AtomicU64,
    /// Reports of outcomes.
    pub(super) reports: AtomicU64,
    /// Questions and reports that were told to come back later.
    pub(super) refused: AtomicU64,
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// `GET /api/v1/metrics`.
pub(super) async fn all(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let (devices, lost) = app.presence.count(unix_seconds());
    let mut text = String::new();
    let mut simple = |name: &str, kind: &str, help: &str, value: String| {
        text += &format!(
            "# HELP otaserver_{name} {help}\n# TYPE otaserver_{name} {kind}\notaserver_{name} {value}\n"
        );
    };
    let asked = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
    simple("devices", "gauge", "Devices that were ever seen.", devices.to_string());
    simple("devices_lost", "gauge", "Devices that missed three contacts.", lost.to_string());
    simple(
        "updates_under_way",
        "gauge",
        "Devices at an update.",
        app.store.under_way(None).await?.to_string(),
    );
    simple("update_checks_total", "counter", "Update checks.", asked(&app.asked.checks));
    simple(
        "update_offers_total",
        "counter",
        "Update checks answered with an offer.",
        asked(&app.asked.offers),
    );
    simple(
        "contact_writes_total",
        "counter",
        "Contacts written to the database at once.",
        asked(&app.asked.writes),
    );
    simple("reports_total", "counter", "Reports of outcomes.", asked(&app.asked.reports));
    simple(
        "device_requests_refused_total",
        "counter",
        "Device requests answered with 429.",
        asked(&app.asked.refused),
    );
    simple(
        "database_writes_total",
        "counter",
        "Transactions begun in order to write.",
        app.store.writes().to_string(),
    );
    text += "# HELP otaserver_release_devices Devices of a release by step.\n# TYPE otaserver_release_devices gauge\n";
    for rollout in app.store.rollouts().await? {
        for (step, class, devices) in app.store.counts(&rollout).await? {
            // Names of releases have no character that the form would need escaped.
            let class = class.map_or("", |class| class.as_str());
            let (name, step) = (&rollout.name, step.as_str());
            let labels = format!("release=\"{name}\",step=\"{step}\",class=\"{class}\"");
            text += &format!("otaserver_release_devices{{{labels}}} {devices}\n");
        }
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
