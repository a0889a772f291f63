//! Every error as it leaves the server: a status, a stable code, one sentence. Always JSON.

use std::hash::{BuildHasher, RandomState};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::blobs::BlobError;
use crate::catalog::CatalogError;
use crate::names::NameError;
use crate::store::StoreError;
use crate::verify::VerifyError;

/// Seconds after which a client may try again when the trouble is the server's.
const RETRY_SECONDS: u32 = 30;

/// An error answer: `{"error":{"code":"…","message":"…"}}`.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    /// Makes an error answer. `message` must not repeat what the client sent.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into() }
    }

    /// The request breaks a rule that its sender can read in the message.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// The path exists, the method does not; axum adds the `Allow` header.
    pub fn method_not_allowed() -> ApiError {
        let message = "this path does not have this method; the Allow header lists those it has";
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
    }

    /// It does not fit to what is there.
    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, "CONFLICT", message)
    }

    /// More than the server does at the same time; the answer says when to come back.
    pub fn busy(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "BUSY", message)
    }

    /// More than is accepted.
    pub fn too_large(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_EXCEEDED", message)
    }

    /// The body stopped coming, or comes too slowly.
    pub fn stalled(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "NET_STALLED", message)
    }

    /// No room; more is said in the log.
    pub fn quota(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "QUOTA", message)
    }

    /// The server's own trouble. The client gets no details: they name paths.
    pub fn internal(error: &dyn std::fmt::Display) -> ApiError {
        log::error!("{error}");
        let message = "the server failed; its log says why";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
    }

    /// The data directory does not answer.
    pub fn unhealthy(error: BlobError) -> ApiError {
        log::error!("{error}");
        let message = "the data directory does not answer; the server's log says why";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "STATE_IO", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": { "code": self.code, "message": self.message } }));
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            // Spread, so that those who were turned away together do not come back together.
            let spread = RandomState::new().hash_one(0_u8).checked_rem(u64::from(RETRY_SECONDS)).unwrap_or(0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(u64::from(RETRY_SECONDS) / 2 + spread));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "INVALID_NAME", error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge { .. } | StoreError::Nul => ApiError::invalid(error.to_string()),
            StoreError::Full(_) => {
                log::error!("{error}");
                ApiError::quota("the server's database is full; its operator has to make room")
            }
            StoreError::Stuck => {
                log::error!("{error}");
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "DATABASE", error.to_string())
            }
            StoreError::Open { .. }
            | StoreError::Migrate { .. }
            | StoreError::Query(_)
            | StoreError::Row { .. } => {
                log::error!("{error}");
                let message = "the server's database does not answer; its log says why";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "DATABASE", message)
            }
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::LowSpace { .. } => {
                log::warn!("upload refused: {error}");
                ApiError::quota(error.to_string())
            }
            BlobError::Full { .. } => {
                log::error!("{error}");
                ApiError::quota("the server's disk is full; its operator has to make room")
            }
            BlobError::Objects { .. } => {
                log::error!("{error}");
                let message = "the artifact store does not answer; the server's log says why";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "STATE_IO", message)
            }
            BlobError::Worker(_) | BlobError::Io { .. } => ApiError::internal(&error),
        }
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Blob(error) => error.into(),
            CatalogError::Store(error) => error.into(),
            CatalogError::Worker(_) | CatalogError::OtherStore => ApiError::internal(&error),
            CatalogError::Verify(error) => error.into(),
            CatalogError::UnknownRelease { .. } => {
                let message =
                    "no artifact of the release that the delta leads to is on offer; upload its bundle first";
                ApiError::new(StatusCode::CONFLICT, "RELEASE_UNKNOWN", message)
            }
        }
    }
}

impl From<VerifyError> for ApiError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Root { .. } => {
                log::error!("{error}");
                let message =
                    "the server has no valid trust root, so it cannot check bundles; its log says why";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "TRUST_INVALID", message)
            }
            VerifyError::Trouble(_) => ApiError::internal(&error),
            VerifyError::Content(error) => {
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), error.to_string())
            }
        }
    }
}
