//! Tokens of operators and devices. A token is shown once, in the answer that makes it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Identity, Subject};
use super::input::Named;
use super::{ApiError, App, input};
use crate::names::{check_name, check_operator};
use crate::role::Role;
use crate::secret;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOperator {
    name: String,
    role: Role,
}

/// `GET /api/v1/whoami`: name and role of whoever asks.
pub(super) async fn whoami(Extension(identity): Extension<Identity>) -> Json<Value> {
    Json(json!({ "name": identity.name, "role": identity.role }))
}

/// `GET /api/v1/operators`: who has a token.
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "operators": app.store.operators().await? })))
}

/// `POST /api/v1/operators`: 201 and the token.
pub(super) async fn add(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    let NewOperator { name, role } = input::json(body, &app.limits).await?;
    check_operator("name", &name)?;
    let token = secret::token().map_err(|error| ApiError::internal(&error))?;
    if !app.store.add_operator(&name, role, &token).await? {
        return Err(ApiError::conflict("there is an operator of this name: remove them first"));
    }
    let shape = json!({ "name": name, "role": role, "token": token });
    Ok((StatusCode::CREATED, Extension(Subject(name)), Json(shape)).into_response())
}

/// `DELETE /api/v1/operators/NAME`: 204; the token stops working at once.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Named(name): Named<String>,
) -> Result<StatusCode, ApiError> {
    check_name("name", &name)?;
    gone(app.store.remove_operator(&name).await?, "there is no operator of this name")
}

/// `POST /api/v1/devices/NAME/token`: 201 and the token; an earlier one stops working.
pub(super) async fn add_device(
    State(app): State<Arc<App>>,
    Named(device): Named<String>,
) -> Result<Response, ApiError> {
    check_name("device", &device)?;
    let token = secret::token().map_err(|error| ApiError::internal(&error))?;
    app.store.set_device_token(&device, &token).await?;
    Ok((StatusCode::CREATED, Json(json!({ "device": device, "token": token }))).into_response())
}

/// `DELETE /api/v1/devices/NAME/token`: 204.
pub(super) async fn remove_device(
    State(app): State<Arc<App>>,
    Named(device): Named<String>,
) -> Result<StatusCode, ApiError> {
    check_name("device", &device)?;
    gone(app.store.remove_device_token(&device).await?, "this device has no token")
}

fn gone(done: bool, otherwise: &str) -> Result<StatusCode, ApiError> {
    if done { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::not_found(otherwise)) }
}
