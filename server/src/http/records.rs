//! Upgrade records as JSON or CSV, and what they come to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{ApiError, App, input};
use crate::names::check_name;
use crate::store::{Record, Selection, Statistics};

/// Rows of a page, if the client does not say, and at most.
const PAGE_ROWS: u32 = 1000;
const MAX_PAGE_ROWS: u32 = 10_000;
/// The columns of the CSV form, in order.
const COLUMNS: &str = "record_id,device_id,release_name,group,release,firmware_version,from_version,timestamp,status,\
                       duration_ms,error_class,error_code,phase,bytes_fetched\r\n";

#[derive(Debug, Deserialize)]
struct Query {
    release: Option<String>,
    group: Option<String>,
    device: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    format: Option<Format>,
    limit: Option<u32>,
    after: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Csv,
}

impl Query {
    fn selection(self) -> Result<Selection, ApiError> {
        for (field, name) in [("release", &self.release), ("group", &self.group), ("device", &self.device)] {
            name.as_deref().map_or(Ok(()), |name| check_name(field, name))?;
        }
        let Query { release, group, device, from, to, .. } = self;
        Ok(Selection { release, group, device, from, to })
    }
}

/// `GET /api/v1/statistics`: success rate, kinds of trouble and durations, of a `release`, `group`, `device`, `from`, `to`.
pub(super) async fn statistics(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Statistics>, ApiError> {
    let query: Query = input::query(&uri)?;
    Ok(Json(app.store.statistics(&query.selection()?).await?))
}

/// `GET /api/v1/records`: the records themselves, newest first; `format=csv`, or `Accept: text/csv`, for a table.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query: Query = input::query(&uri)?;
    let limit = match query.limit.unwrap_or(PAGE_ROWS) {
        limit @ 1..=MAX_PAGE_ROWS => limit,
        limit => {
            return Err(ApiError::invalid(format!("`limit` is {limit}; allowed are 1 to {MAX_PAGE_ROWS}")));
        }
    };
    let accepts = headers.get(header::ACCEPT).is_some_and(|value| value.as_bytes().starts_with(b"text/csv"));
    let format = query.format.unwrap_or(if accepts { Format::Csv } else { Format::Json });
    let after = query.after.clone();
    let rows = app.store.records(&query.selection()?, after.as_deref(), i64::from(limit)).await?;
    match format {
        Format::Json => {
            let full = u32::try_from(rows.len()).is_ok_and(|rows| rows >= limit);
            let next = rows.last().filter(|_| full).map(|row| row.record_id.clone());
            Ok(Json(json!({ "records": rows, "next": next })).into_response())
        }
        Format::Csv => {
            let text = rows.iter().fold(COLUMNS.to_owned(), |text, row| text + &line(row));
            let kind = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
            Ok((kind, text).into_response())
        }
    }
}

/// A record as a line of CSV (RFC 4180).
fn line(record: &Record) -> String {
    let number = |value: Option<i64>| value.map(|value| value.to_string());
    let fields = [
        Some(record.record_id.clone()),
        Some(record.device_id.clone()),
        record.release_name.clone(),
        record.group.clone(),
        record.release.clone(),
        record.firmware_version.clone(),
        record.from_version.clone(),
        Some(record.timestamp.to_string()),
        Some(record.status.clone()),
        number(record.duration_ms),
        record.error_class.clone(),
        record.error_code.clone(),
        record.phase.clone(),
        number(record.bytes_fetched),
    ];
    let fields: Vec<_> = fields.into_iter().map(|field| quoted(&field.unwrap_or_default())).collect();
    fields.join(",") + "\r\n"
}

/// Quotes what needs it, and disarms what a spreadsheet would take for a formula: codes and phases come from devices.
fn quoted(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t']) && field.parse::<f64>().is_err();
    let field = if formula { format!("'{field}") } else { field.to_owned() };
    if field.contains([',', '"', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_disarmed() {
        for (field, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "'=1+1"),
            ("-5", "-5"),
            ("-cmd", "'-cmd"),
            ("@x,y", "\"'@x,y\""),
        ] {
            assert_eq!(quoted(field), expected);
        }
    }
}
