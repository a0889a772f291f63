//! Reading what clients send: queries and small JSON bodies, bounded in bytes and in time.

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::ApiError;
use crate::Limits;

/// Longest part of a parser's message that is passed on, in characters.
const MAX_REASON_CHARS: usize = 160;

/// The parts of a path that have names. What cannot be read is an error like any other, not axum's text.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        let unreadable = |_| ApiError::new(StatusCode::BAD_REQUEST, "INVALID_NAME", "the path is not UTF-8");
        path.map(|Path(parts)| Named(parts)).map_err(unreadable)
    }
}

/// Reads the query of a request.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    match Query::try_from_uri(uri) {
        Ok(Query(value)) => Ok(value),
        Err(rejection) => {
            let reason = std::error::Error::source(&rejection).map(ToString::to_string).unwrap_or_default();
            Err(ApiError::invalid(format!("the query cannot be read: {}", harmless(&reason))))
        }
    }
}

/// Reads the JSON body of a report, within the limits for it.
pub(super) async fn json<T: DeserializeOwned>(body: Body, limits: &Limits) -> Result<T, ApiError> {
    parse(&bytes(body, limits).await?)
}

/// Reads JSON that has arrived.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message = format!("the body cannot be read: {}", harmless(&error.to_string()));
        ApiError::new(StatusCode::BAD_REQUEST, "INVALID_JSON", message)
    })
}

/// Reads a small body, within the limits of a report.
pub(super) async fn bytes(mut body: Body, limits: &Limits) -> Result<Vec<u8>, ApiError> {
    let (max, time) = (limits.max_report_bytes, limits.report_body);
    let collected = tokio::time::timeout(time, Limited::new(&mut body, max).collect())
        .await
        .map_err(|_| ApiError::stalled(format!("the body did not arrive within {} s", time.as_secs())))?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => {
            linger(body, limits);
            Err(ApiError::too_large(format!("the body is larger than the {max} bytes allowed")))
        }
        Err(_) => Err(ApiError::invalid("the body ended early")),
    }
}

/// Goes on reading a refused body for a while without keeping it. A server that closes while the client still sends makes
/// the client see a reset connection instead of the answer.
pub(super) fn linger(mut body: Body, limits: &Limits) {
    let rest = async move { while let Some(Ok(_)) = body.frame().await {} };
    tokio::spawn(tokio::time::timeout(limits.linger, rest));
}

/// A parser's message without what it may quote from the input: short, and nothing that means something to a browser.
fn harmless(reason: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || " _-`.,:()".contains(c) { c } else { '?' };
    reason.chars().take(MAX_REASON_CHARS).map(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W10: parsers quote their input; their messages leave without what a browser could run.
    #[test]
    fn w10_messages_are_harmless() {
        assert_eq!(harmless("unknown variant `<script>`"), "unknown variant `?script?`");
        assert_eq!(harmless("a\r\nb\0\u{202e}\"&"), "a??b????");
        assert_eq!(harmless(&"x".repeat(100_000)).len(), MAX_REASON_CHARS);
    }
}
