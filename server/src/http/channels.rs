//! Channel documents: operators bring them, devices fetch them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::access::{Caller, require_certificate};
use super::{ApiError, App, input};
use crate::channels::{self, ChannelError};
use crate::names::check_model;

#[derive(Debug, Deserialize)]
struct Question {
    compatible: String,
}

/// `POST /api/v1/channels`: 204 when the document is kept, and for the same one again.
pub(super) async fn publish(State(app): State<Arc<App>>, body: Body) -> Result<StatusCode, ApiError> {
    let document = input::bytes(body, &app.limits).await?;
    let channel = channels::publish(&app.store, app.catalog.root(), &document).await?;
    log::info!("channel document {}: sequence {}", channel.counter, channel.sequence);
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /device/v1/channel?compatible=`: the newest document of a model, 204 when there is none.
pub(super) async fn newest(
    State(app): State<Arc<App>>,
    uri: Uri,
    caller: Caller,
) -> Result<Response, ApiError> {
    require_certificate(&app, &caller)?;
    let question: Question = input::query(&uri)?;
    check_model("compatible", &question.compatible)?;
    Ok(match app.store.channel(&question.compatible).await? {
        Some(document) => ([(header::CONTENT_TYPE, "application/toml")], document).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

impl From<ChannelError> for ApiError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Verify(error) => error.into(),
            ChannelError::Store(error) => error.into(),
            ChannelError::Replay { .. } => {
                ApiError::new(StatusCode::CONFLICT, "METADATA_REPLAY", error.to_string())
            }
            ChannelError::Io { .. } => ApiError::internal(&error),
        }
    }
}
