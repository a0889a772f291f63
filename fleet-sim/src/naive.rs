//! What a heartbeat costs when each is a write: a server that does nothing else, to compare with.
//!
//! One SQLite database in WAL mode, one transaction per heartbeat, and nothing of what a fleet server does besides.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// Whether a heartbeat is on the disk when it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `synchronous=FULL`: it is.
    Full,
    /// `synchronous=NORMAL`: a power cut may take the last ones.
    Normal,
}

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS device (name TEXT PRIMARY KEY, last_seen INTEGER NOT NULL)";
const HEARTBEAT: &str = "INSERT INTO device (name, last_seen) VALUES (?, unixepoch()) \
     ON CONFLICT (name) DO UPDATE SET last_seen = excluded.last_seen";

/// Serves heartbeats until the process ends; the first line on standard output names the address.
///
/// # Errors
/// The database cannot be opened, or the address not be listened on.
pub async fn serve(listen: &str, data: &Path, durability: Durability) -> Result<(), std::io::Error> {
    let options = SqliteConnectOptions::new()
        .filename(data.join("naive.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        });
    // SQLite has one writer.
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
    let pool = Arc::new(pool.map_err(std::io::Error::other)?);
    sqlx::query(SCHEMA).execute(&*pool).await.map_err(std::io::Error::other)?;
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/device/v1/update", get(heartbeat)).with_state(pool)).await
}

async fn heartbeat(
    State(pool): State<Arc<SqlitePool>>,
    Query(asked): Query<HashMap<String, String>>,
) -> (StatusCode, [(HeaderName, &'static str); 1]) {
    let status = match asked.get("device") {
        None => StatusCode::BAD_REQUEST,
        Some(device) => match sqlx::query(HEARTBEAT).bind(device).execute(&*pool).await {
            Ok(_) => StatusCode::NO_CONTENT,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        },
    };
    // Connections are not what is compared.
    (status, [(header::CONNECTION, "close")])
}
