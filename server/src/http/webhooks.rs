//! Webhooks: where they lead, and what came of their deliveries. For admins alone: whoever adds one makes the server send requests.

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
use crate::names::check_name;
use crate::secret;
use crate::store::Addition;
use crate::webhooks::{Event, Target};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewWebhook {
    name: String,
    url: String,
    events: Vec<Event>,
}

/// `GET /api/v1/webhooks`: every webhook, by name.
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "webhooks": app.store.webhooks().await? })))
}

/// `POST /api/v1/webhooks`: 201 and the secret that signs what is sent.
pub(super) async fn add(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    let NewWebhook { name, url, mut events } = input::json(body, &app.limits).await?;
    check_name("name", &name)?;
    events.sort_unstable();
    events.dedup();
    if events.is_empty() {
        return Err(ApiError::invalid("`events` names at least one event"));
    }
    let target = Target::parse(&url).and_then(|target| target.check(app.webhooks.plain));
    target.map_err(|error| ApiError::invalid(format!("`url`: {error}")))?;
    let secret = secret::token().map_err(|error| ApiError::internal(&error))?;
    match app.store.add_webhook(&name, &url, &events, &secret).await? {
        Addition::Added => {}
        Addition::Taken => {
            return Err(ApiError::conflict("there is a webhook of this name: remove it first"));
        }
        Addition::Many => return Err(ApiError::conflict("there are as many webhooks as a server has")),
    }
    let shape = json!({ "name": name, "url": url, "events": events, "secret": secret });
    Ok((StatusCode::CREATED, Extension(Subject(name)), Json(shape)).into_response())
}

/// `DELETE /api/v1/webhooks/NAME`: 204; what was still to be delivered is dropped.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
) -> Result<StatusCode, ApiError> {
    check_name("webhook", &name)?;
    if app.store.remove_webhook(&name).await? { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}

/// `GET /api/v1/webhooks/NAME/deliveries`: newest first, each with what came of its last try.
pub(super) async fn deliveries(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    check_name("webhook", &name)?;
    let page: Page = input::query(&uri)?;
    let rows = app.store.deliveries(&name, page.after_number()?, page.limit()?).await?;
    let rows = rows.ok_or_else(unknown)?;
    let next = rows.last().filter(|_| page.is_full(&rows)).map(|row| row.id.to_string());
    Ok(Json(json!({ "webhook": name, "deliveries": rows, "next": next })))
}

fn unknown() -> ApiError {
    ApiError::not_found("there is no webhook of this name")
}
