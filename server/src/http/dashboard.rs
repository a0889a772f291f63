//! The operators' page: files that are part of the binary. They hold no data and ask no token; the page asks `/api/v1` like
//! everybody else.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::App;

/// What a browser may do with the page: run and show what this server gives out, and talk to nobody else. No inline code or
/// style, no HTML made from text, no frame around it, no form that leaves it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// A file, where it is, and what it is.
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! file {
    ($path:literal, $name:literal, $kind:literal) => {
        File { path: $path, kind: $kind, text: include_str!(concat!("../../web/", $name)) }
    };
}

static FILES: [File; 12] = [
    file!("/", "index.html", "text/html; charset=utf-8"),
    file!("/web/style.css", "style.css", "text/css; charset=utf-8"),
    file!("/web/icon.svg", "icon.svg", "image/svg+xml"),
    file!("/web/app.js", "app.js", "text/javascript; charset=utf-8"),
    file!("/web/api.js", "api.js", "text/javascript; charset=utf-8"),
    file!("/web/charts.js", "charts.js", "text/javascript; charset=utf-8"),
    file!("/web/device.js", "device.js", "text/javascript; charset=utf-8"),
    file!("/web/dom.js", "dom.js", "text/javascript; charset=utf-8"),
    file!("/web/lists.js", "lists.js", "text/javascript; charset=utf-8"),
    file!("/web/overview.js", "overview.js", "text/javascript; charset=utf-8"),
    file!("/web/release.js", "release.js", "text/javascript; charset=utf-8"),
    file!("/web/words.js", "words.js", "text/javascript; charset=utf-8"),
];

/// Builds the routes of the page.
pub(super) fn routes() -> Router<Arc<App>> {
    FILES
        .iter()
        .fold(Router::new(), |router, file| router.route(file.path, get(move || async { answer(file) })))
}

fn answer(file: &File) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(file.kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        // Asked for again with every visit: the page always goes with the server.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, file.text).into_response()
}
