//! The HTTP surface: which routes exist, who may use them, and what every answer carries.
//!
//! Routes are thin: they check what came in, call the catalog or the store, and shape the answer. Everything under
//! `/api/` is for operators and passes one gate; a route that is added there cannot forget it.

mod access;
mod channels;
mod dashboard;
mod devices;
mod download;
mod error;
mod fleet;
mod groups;
mod input;
mod metrics;
mod openapi;
mod operators;
mod progress;
pub mod range;
mod records;
mod releases;
mod routes;
mod several;
mod tokens;
mod upload;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

pub use access::{Access, TokenError};
pub use error::ApiError;
pub use openapi::document;
pub use routes::{Needs, Rule, rules};

use crate::Limits;
use crate::catalog::Catalog;
use crate::clock::unix_seconds;
use crate::fleet::queue::Queue;
use crate::live::Live;
use crate::presence::Presence;
use crate::store::{Sighting, Store, StoreError};
use crate::webhooks::Client;

/// Devices that are read at a time when the server starts.
const DEVICE_PAGE: u32 = 1000;

/// The other end of the connection. The listener puts it into every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// A certificate of a device was verified on this connection. The listener puts it into every request of it.
#[derive(Debug, Clone)]
pub struct Certified(
    /// The device that it names; `None` when it names none.
    pub Option<String>,
);

/// What the routes work with.
#[derive(Debug)]
pub struct App {
    /// Artifacts and deltas: files and rows together.
    pub catalog: Catalog,
    /// Devices, reports, and reading what is on offer.
    pub store: Store,
    /// Who is an operator.
    pub access: Access,
    /// What a client may cost.
    pub limits: Limits,
    /// Who is there.
    pub presence: Presence,
    /// Who waits for a place.
    pub queue: Queue,
    /// What devices are doing.
    pub live: Live,
    /// How webhooks are reached.
    pub webhooks: Client,
    rules: Vec<Rule>,
    uploads: Arc<Semaphore>,
    device_requests: Semaphore,
    listeners: Arc<Semaphore>,
    asked: metrics::Asked,
}

impl App {
    /// Brings the parts together, with what the database knows of who was there.
    pub async fn open(
        catalog: Catalog,
        store: Store,
        access: Access,
        webhooks: Client,
        limits: Limits,
    ) -> Result<App, StoreError> {
        let presence = Presence::new(limits.heartbeat_seconds, limits.max_devices, unix_seconds());
        let presence = if store.is_shared() { presence.shared() } else { presence };
        let mut after: Option<String> = None;
        loop {
            let page = store.devices(after.as_deref(), DEVICE_PAGE).await?;
            for device in &page {
                presence.remember(Sighting::from(device), device.last_seen);
            }
            match page.last() {
                Some(last) => after = Some(last.device.clone()),
                None => break,
            }
        }
        Ok(App {
            uploads: Arc::new(Semaphore::new(limits.max_uploads)),
            device_requests: Semaphore::new(limits.max_device_requests),
            listeners: Arc::new(Semaphore::new(limits.max_listeners)),
            rules: rules(),
            queue: Queue::new(limits.heartbeat_seconds),
            live: Live::default(),
            asked: metrics::Asked::default(),
            catalog,
            store,
            access,
            webhooks,
            limits,
            presence,
        })
    }
}

/// Builds every route of the server.
pub fn router(app: Arc<App>) -> Router {
    let (operators, others) = routes::routers();
    let operators = operators
        // Also behind the gate: a stranger learns nothing about which operator routes exist.
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), access::require_operator));
    others
        .nest(routes::OPERATORS, operators)
        .merge(dashboard::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::map_response(harden))
        .with_state(app)
}

async fn not_found() -> ApiError {
    ApiError::not_found("there is nothing at this path")
}

async fn method_not_allowed() -> ApiError {
    ApiError::method_not_allowed()
}

/// Whether the server can do its work: the database takes writes, the data directory answers.
async fn health(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    app.store.check().await?;
    let blobs = app.catalog.blobs().clone();
    tokio::task::spawn_blocking(move || blobs.free_bytes())
        .await
        .map_err(|error| ApiError::internal(&error))?
        .map_err(ApiError::unhealthy)?;
    Ok(axum::Json(serde_json::json!({ "status": "ok" })).into_response())
}

/// Headers of every answer: no browser may guess a type or run anything, no cache may keep what did not say so.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    response
}
