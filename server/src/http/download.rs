//! `GET /artifacts/<sha256>.otab` and `GET /deltas/<sha256>.otad-delta`: files, whole or in part, without holding more than a
//! window of them.

use std::io::SeekFrom;
use std::path::PathBuf;
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
use crate::kind::Kind;

/// What is read from a file at a time, in bytes: large enough for the disk, small enough for hundreds of downloads.
const WINDOW_BYTES: usize = 64 << 10;
/// A digest names one content for ever. `no-transform` keeps proxies from compressing what clients address by offset.
const CACHE_CONTROL: HeaderValue =
    HeaderValue::from_static("public, max-age=31536000, immutable, no-transform");

/// The path under which a file is served.
pub(super) fn url(kind: Kind, sha256: &str) -> String {
    format!("/{}/{sha256}{}", kind.directory(), kind.suffix())
}

/// Reads a digest from a path; anything but its one spelling is refused.
pub(super) fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|_| {
        let message = "a file is named by the 64 lower-case hex digits of its SHA-256";
        ApiError::new(StatusCode::BAD_REQUEST, "INVALID_NAME", message)
    })
}

/// Answers `GET` and `HEAD` of an artifact.
pub(super) async fn artifact(
    State(app): State<Arc<App>>,
    file: Result<Path<String>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    send(&app, Kind::Artifact, file, &method, &headers).await
}

/// Answers `GET` and `HEAD` of a delta.
pub(super) async fn delta(
    State(app): State<Arc<App>>,
    file: Result<Path<String>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    send(&app, Kind::Delta, file, &method, &headers).await
}

async fn send(
    app: &App,
    kind: Kind,
    file: Result<Path<String>, PathRejection>,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let name = file.map(|Path(name)| name).unwrap_or_default();
    let sha256 = digest(name.strip_suffix(kind.suffix()).unwrap_or_default())?;
    let noun = kind.noun();
    let Some(row) = app.store.file(kind, &sha256.to_string()).await? else {
        return Err(ApiError::not_found(format!("there is no {noun} with this SHA-256")));
    };
    if !row.offered {
        let message = format!("this {noun} was withdrawn by its operator");
        return Err(ApiError::new(StatusCode::GONE, "WITHDRAWN", message));
    }
    Stored { path: app.catalog.blobs().path(kind, &sha256), kind, sha256, size: row.size }
        .answer(method, headers)
        .await
}

/// A file on offer.
struct Stored {
    path: PathBuf,
    kind: Kind,
    sha256: Digest,
    size: u64,
}

impl Stored {
    async fn answer(&self, method: &Method, headers: &HeaderMap) -> Result<Response, ApiError> {
        let (size, etag) = (self.size, format!("\"{}\"", self.sha256));
        // RFC 9110 section 14.2: a range is defined for GET only, so HEAD tells about the whole file.
        let answer = match (decide(headers, &etag, size), method) {
            (Answer::Send(_), &Method::HEAD) => Answer::Send(Part::Whole),
            (answer, _) => answer,
        };
        let mut response = match answer {
            Answer::PreconditionFailed => {
                let message = "the file with this name is not the one that If-Match asks for";
                return Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "SOURCE_CHANGED", message));
            }
            // RFC 9110 section 8.6: the length of a 304 is that of the 200 it stands for. Left out, axum says 0.
            Answer::NotModified => {
                (StatusCode::NOT_MODIFIED, [(header::CONTENT_LENGTH, HeaderValue::from(size))])
                    .into_response()
            }
            Answer::Send(Part::Unsatisfiable) => return self.unsatisfiable(),
            Answer::Send(Part::Whole) if method == Method::HEAD => {
                self.sized(StatusCode::OK, Body::empty(), size)
            }
            Answer::Send(Part::Whole) => self.sized(StatusCode::OK, self.open(0, size).await?, size),
            Answer::Send(Part::Bytes { first, last }) => {
                let length = last - first + 1;
                let mut response =
                    self.sized(StatusCode::PARTIAL_CONTENT, self.open(first, length).await?, length);
                let range = value(format!("bytes {first}-{last}/{size}"))?;
                response.headers_mut().insert(header::CONTENT_RANGE, range);
                response
            }
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, value(etag)?);
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
        Ok(response)
    }

    fn unsatisfiable(&self) -> Result<Response, ApiError> {
        let (noun, size) = (self.kind.noun(), self.size);
        let message = format!("the range begins behind the end; the {noun} has {size} bytes");
        let mut response =
            ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "NET_RANGE", message).into_response();
        response.headers_mut().insert(header::CONTENT_RANGE, value(format!("bytes */{size}"))?);
        response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        Ok(response)
    }

    fn sized(&self, status: StatusCode, body: Body, length: u64) -> Response {
        let content_type = match self.kind {
            Kind::Artifact => HeaderValue::from_static("application/vnd.otad.bundle"),
            Kind::Delta => HeaderValue::from_static("application/vnd.otad.delta"),
        };
        let headers =
            [(header::CONTENT_TYPE, content_type), (header::CONTENT_LENGTH, HeaderValue::from(length))];
        (status, headers, body).into_response()
    }

    /// Opens the file and streams `length` bytes from `first` on.
    async fn open(&self, first: u64, length: u64) -> Result<Body, ApiError> {
        let (path, size) = (self.path.display(), self.size);
        let failed = |error: std::io::Error| ApiError::internal(&format!("cannot read {path}: {error}"));
        let mut file = File::open(&self.path).await.map_err(failed)?;
        let found = file.metadata().await.map_err(failed)?.len();
        if found != size {
            let problem =
                format!("{path} has {found} bytes instead of {size}: withdraw it and upload it again");
            return Err(ApiError::internal(&problem));
        }
        file.seek(SeekFrom::Start(first)).await.map_err(failed)?;
        Ok(Body::from_stream(ReaderStream::with_capacity(file.take(length), WINDOW_BYTES)))
    }
}

fn value(text: String) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(&text).map_err(|error| ApiError::internal(&error))
}
