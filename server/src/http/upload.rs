//! `POST /api/v1/artifacts` and `POST /api/v1/deltas`: an upload goes to disk while it is hashed, and on offer only after it
//! was checked: all of a bundle, the header of a delta.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::operators::Listed;
use super::{ApiError, App, input};
use crate::Limits;
use crate::blobs::{BlobError, Blobs, Spooled};
use crate::catalog::{Catalog, CatalogError};
use crate::kind::Kind;
use crate::store::Publication;

/// Parts of a body between the connection and the disk. A part is at most the connection's buffer.
const QUEUED_PARTS: usize = 8;

enum Piece {
    Data(Bytes),
    /// The body is complete. A queue that just closes means that the upload was given up.
    End,
}

/// Takes a bundle.
pub(super) async fn artifact(State(app): State<Arc<App>>, request: Request) -> Response {
    take(&app, Kind::Artifact, request).await
}

/// Takes a delta.
pub(super) async fn delta(State(app): State<Arc<App>>, request: Request) -> Response {
    take(&app, Kind::Delta, request).await
}

/// Takes an upload: 201 when it is new on offer, 200 with the same answer when it was already.
async fn take(app: &App, kind: Kind, mut request: Request) -> Response {
    let Ok(permit) = app.uploads.clone().try_acquire_owned() else {
        let message = format!("{} uploads are under way; try again later", app.limits.max_uploads);
        let busy = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message);
        return answer_and_linger(request, &app.limits, busy.into_response());
    };
    if let Err(error) = admit(app, request.headers()).await {
        return answer_and_linger(request, &app.limits, error.into_response());
    }
    let spooled = match spool(app, request.body_mut()).await {
        Ok(spooled) => spooled,
        Err(error) => return answer_and_linger(request, &app.limits, error.into_response()),
    };
    // A task of its own: an uploader that hangs up now must not leave a file without its row.
    let catalog = app.catalog.clone();
    let publishing = tokio::spawn(async move {
        let published = publish(&catalog, kind, spooled).await;
        drop(permit);
        published
    });
    match publishing.await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            log::warn!("{} refused: {error}", kind.noun());
            ApiError::from(error).into_response()
        }
        Err(error) => ApiError::internal(&error).into_response(),
    }
}

async fn publish(catalog: &Catalog, kind: Kind, spooled: Spooled) -> Result<Response, CatalogError> {
    let status = |publication| match publication {
        Publication::New => StatusCode::CREATED,
        Publication::Repeated => StatusCode::OK,
    };
    match kind {
        Kind::Artifact => {
            let (row, publication) = catalog.publish(spooled).await?;
            let status = status(publication);
            log::info!("{status}: {} holds version {}, sequence {}", row.sha256, row.version, row.sequence);
            Ok((status, Json(Listed::from(row))).into_response())
        }
        Kind::Delta => {
            let (row, publication) = catalog.publish_delta(spooled).await?;
            let status = status(publication);
            log::info!("{status}: {} leads from {} to {}", row.sha256, row.from_release, row.to_release);
            Ok((status, Json(Listed::from(row))).into_response())
        }
    }
}

/// Refuses what is certain to be refused before a byte of it is read.
async fn admit(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        let message = "send the file as it is, without Content-Encoding";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_REQUEST", message));
    }
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    let max = app.limits.max_artifact_bytes;
    if let Some(declared) = declared
        && declared > max
    {
        return Err(ApiError::too_large(format!(
            "the upload has {declared} bytes; at most {max} are accepted"
        )));
    }
    let (blobs, keep_free) = (app.catalog.blobs().clone(), app.limits.keep_free_bytes);
    tokio::task::spawn_blocking(move || blobs.require_space(declared.unwrap_or(0), keep_free))
        .await
        .map_err(|error| ApiError::internal(&error))??;
    Ok(())
}

/// Moves the body to a file in the incoming directory. The file is gone again when anything goes wrong.
async fn spool(app: &App, body: &mut Body) -> Result<Spooled, ApiError> {
    let (sender, receiver) = mpsc::channel(QUEUED_PARTS);
    let (blobs, keep_free) = (app.catalog.blobs().clone(), app.limits.keep_free_bytes);
    let writer = tokio::task::spawn_blocking(move || write(&blobs, keep_free, receiver));
    let moved = feed(app, body, sender).await;
    // Also after a refusal: when the client reads the answer, its file is gone.
    let written = written(writer).await;
    moved.and(written)
}

/// Hands the body to the writer, and its end if it comes. That the writer is gone is no error here: its own result says
/// why.
async fn feed(app: &App, body: &mut Body, sender: mpsc::Sender<Piece>) -> Result<(), ApiError> {
    let mut pace = Pace::start(&app.limits);
    while let Some(data) = next(body, &mut pace).await? {
        if sender.send(Piece::Data(data)).await.is_err() {
            return Ok(());
        }
    }
    let _ = sender.send(Piece::End).await;
    Ok(())
}

/// The next bytes of the body, or `None` at its end.
async fn next(body: &mut Body, pace: &mut Pace<'_>) -> Result<Option<Bytes>, ApiError> {
    loop {
        let frame = tokio::time::timeout(pace.limits.upload_idle, body.frame()).await;
        let frame = frame.map_err(|_| {
            ApiError::stalled(format!(
                "no bytes for {} s; send the file again",
                pace.limits.upload_idle.as_secs()
            ))
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(ApiError::invalid("the body ended early")),
            // Trailers carry nothing for us.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    pace.advance(data.len())?;
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// How much of an upload came, against the most and the slowest that is accepted.
struct Pace<'a> {
    limits: &'a Limits,
    begin: Instant,
    bytes: u64,
}

impl<'a> Pace<'a> {
    fn start(limits: &'a Limits) -> Self {
        Pace { limits, begin: Instant::now(), bytes: 0 }
    }

    fn advance(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let max = self.limits.max_artifact_bytes;
        if self.bytes > max {
            return Err(ApiError::too_large(format!("the upload is larger than the {max} bytes accepted")));
        }
        let elapsed = self.begin.elapsed();
        let due = elapsed.as_secs().saturating_mul(self.limits.upload_min_bytes_per_second);
        if elapsed > self.limits.upload_grace && self.bytes < due {
            let message = format!(
                "{} bytes in {} s; an upload has to make {} bytes per second",
                self.bytes,
                elapsed.as_secs(),
                self.limits.upload_min_bytes_per_second
            );
            return Err(ApiError::stalled(message));
        }
        Ok(())
    }
}

/// The disk's side of the queue, on a thread of its own. `None` when the upload was given up.
fn write(
    blobs: &Blobs,
    keep_free: u64,
    mut queue: mpsc::Receiver<Piece>,
) -> Result<Option<Spooled>, BlobError> {
    let mut spool = blobs.spool(keep_free)?;
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Piece::Data(data) => spool.write(&data)?,
            Piece::End => return spool.finish().map(Some),
        }
    }
    Ok(None)
}

async fn written(writer: JoinHandle<Result<Option<Spooled>, BlobError>>) -> Result<Spooled, ApiError> {
    match writer.await {
        Ok(Ok(Some(spooled))) => Ok(spooled),
        Ok(Ok(None)) => Err(ApiError::invalid("the body ended early")),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(ApiError::internal(&error)),
    }
}

/// Answers before the body was read, or read to its end.
pub(super) fn answer_and_linger(request: Request, limits: &Limits, response: Response) -> Response {
    // A client that waits for permission to send gets the answer instead; reading would give the permission.
    if !request.headers().contains_key(header::EXPECT) {
        input::linger(request.into_body(), limits);
    }
    response
}
