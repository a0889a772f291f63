//! `GET /artifacts/<sha256>.otab` and `GET /deltas/<sha256>.otad-delta`: files, whole or in part, without holding more than a
//! window of them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use otad_bundle::Digest;

use super::range::{Answer, Part, Span, decide};
use super::several::Several;
use super::{ApiError, App};
use crate::blobs::{Blobs, Content};
use crate::kind::Kind;

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
    Stored { blobs: app.catalog.blobs(), kind, sha256, size: row.size }.answer(method, headers).await
}

/// A file on offer.
struct Stored<'a> {
    blobs: &'a Blobs,
    kind: Kind,
    sha256: Digest,
    size: u64,
}

impl Stored<'_> {
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
            Answer::Send(Part::Whole) => self.sized(StatusCode::OK, self.stream(0, size).await?, size),
            Answer::Send(Part::Bytes(span)) => {
                let body = self.stream(span.first, span.length()).await?;
                let mut response = self.sized(StatusCode::PARTIAL_CONTENT, body, span.length());
                let range = value(format!("bytes {}-{}/{size}", span.first, span.last))?;
                response.headers_mut().insert(header::CONTENT_RANGE, range);
                response
            }
            Answer::Send(Part::Several(spans)) => self.several(&spans).await?,
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
        let content_type = HeaderValue::from_static(self.content_type());
        let headers =
            [(header::CONTENT_TYPE, content_type), (header::CONTENT_LENGTH, HeaderValue::from(length))];
        (status, headers, body).into_response()
    }

    fn content_type(&self) -> &'static str {
        match self.kind {
            Kind::Artifact => "application/vnd.otad.bundle",
            Kind::Delta => "application/vnd.otad.delta",
        }
    }

    /// Opens the file and streams `length` bytes from `first` on.
    async fn stream(&self, first: u64, length: u64) -> Result<Body, ApiError> {
        let part = self.open().await?.part(first, length).await.map_err(|error| self.unreadable(&error))?;
        Ok(Body::from_stream(part))
    }

    /// Opens the file and streams these spans of it, each as a part of the body.
    async fn several(&self, spans: &[Span]) -> Result<Response, ApiError> {
        let several = Several::new(spans, &self.sha256, self.content_type(), self.size);
        let content_type = value(several.content_type())?;
        let length = HeaderValue::from(several.length());
        // A body that fails ends before its announced length, which the client notices.
        let body = Body::from_stream(several.body(self.open().await?));
        let headers = [(header::CONTENT_TYPE, content_type), (header::CONTENT_LENGTH, length)];
        Ok((StatusCode::PARTIAL_CONTENT, headers, body).into_response())
    }

    async fn open(&self) -> Result<Content, ApiError> {
        let (noun, sha256, size) = (self.kind.noun(), &self.sha256, self.size);
        match self.blobs.content(self.kind, sha256).await? {
            Some((content, found)) if found == size => Ok(content),
            Some((_, found)) => Err(ApiError::internal(&format!(
                "{noun} {sha256} has {found} bytes instead of {size}: withdraw it and upload it again"
            ))),
            None => Err(self.unreadable(&"its file is gone: upload it again")),
        }
    }

    fn unreadable(&self, error: &dyn std::fmt::Display) -> ApiError {
        ApiError::internal(&format!("cannot read {} {}: {error}", self.kind.noun(), self.sha256))
    }
}

fn value(text: String) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(&text).map_err(|error| ApiError::internal(&error))
}
