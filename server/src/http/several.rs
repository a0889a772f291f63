//! Several ranges in one body: `multipart/byteranges` (RFC 9110 section 14.6, RFC 2046 section 5.1).
//!
//! Each part is the line end and boundary before it, two header lines, an empty line, and exactly the bytes of its range.
//! The length of the whole is known before the first byte.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use otad_bundle::Digest;

use super::range::Span;
use crate::blobs::Content;

/// Characters of the boundary: half the name of the file. No file can be made that holds its own SHA-256, so nothing in a
/// part looks like the end of it.
const BOUNDARY_CHARS: usize = 32;

/// A body that is not written yet.
pub(super) struct Several {
    boundary: String,
    /// What stands before each span.
    parts: Vec<(String, Span)>,
    /// What stands behind the last one.
    end: String,
}

impl Several {
    /// Lays out the body: these spans, in this order, of a file of `size` bytes.
    pub(super) fn new(spans: &[Span], sha256: &Digest, content_type: &str, size: u64) -> Several {
        let boundary: String = sha256.to_string().chars().take(BOUNDARY_CHARS).collect();
        let head = |span: &Span| {
            let Span { first, last } = span;
            format!(
                "\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
            )
        };
        let parts = spans.iter().map(|span| (head(span), *span)).collect();
        let end = format!("\r\n--{boundary}--\r\n");
        Several { boundary, parts, end }
    }

    /// The type of the body.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Bytes of the body.
    pub(super) fn length(&self) -> u64 {
        let parts = self.parts.iter().map(|(head, span)| head.len() as u64 + span.length());
        parts.sum::<u64>() + self.end.len() as u64
    }

    /// The body: before each part, its head; what is read of the file is one piece at a time.
    pub(super) fn body(self, content: Content) -> impl Stream<Item = io::Result<Bytes>> + Send {
        let content = Arc::new(content);
        let parts = stream::iter(self.parts).then(move |(head, span)| {
            let content = content.clone();
            async move {
                let bytes = content.part(span.first, span.length()).await?;
                Ok::<_, io::Error>(stream::iter([Ok(Bytes::from(head))]).chain(bytes))
            }
        });
        parts.try_flatten().chain(stream::iter([Ok(Bytes::from(self.end))]))
    }
}
