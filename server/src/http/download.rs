//! `GET /artifacts/<sha256>.otab`: bundle files, whole or in part, without holding more than a window of them.

use std::io::SeekFrom;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use otad_bundle::Digest;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::range::{Answer, Part, decide};
use super::{ApiError, App};

/// What is read from a file at a time, in bytes: large enough for the disk, small enough for hundreds of downloads.
const WINDOW_BYTES: usize = 64 << 10;
/// A digest names one content for ever. `no-transform` keeps proxies from compressing what clients address by offset.
const CACHE_CONTROL: HeaderValue =
    HeaderValue::from_static("public, max-age=31536000, immutable, no-transform");
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.otad.bundle");

/// The path under which an artifact is served.
pub(super) fn url(sha256: &str) -> String {
    format!("/artifacts/{sha256}.otab")
}

/// Reads a digest from a path; anything but its one spelling is refused.
pub(super) fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|_| {
        let message = "an artifact is named by the 64 lower-case hex digits of its SHA-256";
        ApiError::new(StatusCode::BAD_REQUEST, "INVALID_NAME", message)
    })
}

/// Answers `GET` and `HEAD`.
pub(super) async fn download(
    State(app): State<Arc<App>>,
    file: Result<Path<String>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let name = file.map(|Path(name)| name).unwrap_or_default();
    let sha256 = digest(name.strip_suffix(".otab").unwrap_or_default())?;
    let artifact = app.store.artifact(&sha256.to_string()).await?;
    let Some(artifact) = artifact else {
        return Err(ApiError::not_found("there is no artifact with this SHA-256"));
    };
    if artifact.withdrawn_at.is_some() {
        return Err(ApiError::new(
            StatusCode::GONE,
            "WITHDRAWN",
            "this release was withdrawn by its operator",
        ));
    }
    let etag = format!("\"{sha256}\"");
    let size = artifact.size;
    // RFC 9110 section 14.2: a range is defined for GET only, so HEAD tells about the whole file.
    let answer = match (decide(&headers, &etag, size), &method) {
        (Answer::Send(_), &Method::HEAD) => Answer::Send(Part::Whole),
        (answer, _) => answer,
    };
    let mut response = match answer {
        Answer::PreconditionFailed => {
            let message = "the artifact with this name is not the one that If-Match asks for";
            return Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "SOURCE_CHANGED", message));
        }
        Answer::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Answer::Send(Part::Unsatisfiable) => {
            let message = format!("the range begins behind the end; the artifact has {size} bytes");
            let mut response =
                ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "NET_RANGE", message).into_response();
            response.headers_mut().insert(header::CONTENT_RANGE, value(format!("bytes */{size}"))?);
            response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            return Ok(response);
        }
        Answer::Send(Part::Whole) => {
            let body = if method == Method::HEAD {
                Body::empty()
            } else {
                open(&app, &sha256, size, 0, size).await?
            };
            sized(StatusCode::OK, body, size)
        }
        Answer::Send(Part::Bytes { first, last }) => {
            let length = last - first + 1;
            let body = open(&app, &sha256, size, first, length).await?;
            let mut response = sized(StatusCode::PARTIAL_CONTENT, body, length);
            response
                .headers_mut()
                .insert(header::CONTENT_RANGE, value(format!("bytes {first}-{last}/{size}"))?);
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, value(etag)?);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    Ok(response)
}

fn sized(status: StatusCode, body: Body, length: u64) -> Response {
    let headers = [(header::CONTENT_TYPE, CONTENT_TYPE), (header::CONTENT_LENGTH, HeaderValue::from(length))];
    (status, headers, body).into_response()
}

fn value(text: String) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(&text).map_err(|error| ApiError::internal(&error))
}

/// Opens the file and streams `length` bytes from `first` on.
async fn open(app: &App, sha256: &Digest, size: u64, first: u64, length: u64) -> Result<Body, ApiError> {
    let path = app.catalog.blobs().path(sha256);
    let failed =
        |error: std::io::Error| ApiError::internal(&format!("cannot read {}: {error}", path.display()));
    let mut file = File::open(&path).await.map_err(failed)?;
    let found = file.metadata().await.map_err(failed)?.len();
    if found != size {
        let problem = format!(
            "{} has {found} bytes instead of {size}: withdraw it and upload it again",
            path.display()
        );
        return Err(ApiError::internal(&problem));
    }
    file.seek(SeekFrom::Start(first)).await.map_err(failed)?;
    Ok(Body::from_stream(ReaderStream::with_capacity(file.take(length), WINDOW_BYTES)))
}
