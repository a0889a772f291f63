//! The database: what was uploaded, who was seen, what was reported.
//!
//! It promises that a call that returned is on the disk (WAL with `synchronous=FULL`) and that a kill at any point
//! leaves the state before or after a call, never between. It never deletes or rebuilds a database: a broken one is an
//! error that names the file. The statements are plain SQL so that another engine can stand behind the same functions.

mod artifacts;
mod audit;
mod deltas;
mod devices;
mod files;
mod groups;
mod happenings;
mod members;
mod records;
mod reports;
mod rollouts;
mod tokens;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, SqlSafeStr};

pub use artifacts::{Artifact, NewArtifact, Publication};
pub use audit::Entry;
pub use deltas::{Delta, NewDelta};
pub use devices::{Device, LastReport, Sighting};
pub use files::FileRow;
pub use groups::{Group, Removal};
pub use happenings::Past;
pub use members::{Detail, Member, Taken, candidate};
pub use records::{Record, Selection, Statistics};
pub use reports::{Outcome, Receipt, Report, StoredReport};
pub use rollouts::{NewRollout, Rollout, Turn};
pub use tokens::{Operator, hash};

/// SQLite's page size, in bytes; its default since 2016 and that of most disks.
const PAGE_BYTES: u64 = 4096;
/// Readers in parallel; SQLite has one writer whatever is asked for.
const CONNECTIONS: u32 = 4;
/// How long a statement waits for the one writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a health check waits before it calls the database stuck. Below the usual probe timeout of 5 s.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// SQLite's primary result code for a full disk or a database at its page limit (sqlite3.h, `SQLITE_FULL`).
const SQLITE_FULL: i32 = 13;

/// Migrations in order. The list is append-only: a database in the field has run them as they stand here.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "first form", include_str!("../../migrations/0001_first_form.sql")),
    (2, "deltas", include_str!("../../migrations/0002_deltas.sql")),
    (3, "fleet", include_str!("../../migrations/0003_fleet.sql")),
    (4, "marks", include_str!("../../migrations/0004_marks.sql")),
];

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened or created.
    #[error(
        "cannot open the database {path}: {source}; it is never rebuilt by itself: restore a backup, or move it away to start empty"
    )]
    Open {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// Its schema cannot be brought to this version.
    #[error(
        "cannot bring the database {path} to this version: {source}; a newer otaserver may have written it"
    )]
    Migrate {
        /// The database file.
        path: PathBuf,
        /// What the migration said.
        source: sqlx::migrate::MigrateError,
    },
    /// The disk, or the size the database may have, is used up.
    #[error("the database is full: {0}")]
    Full(sqlx::Error),
    /// A statement failed.
    #[error("the database failed: {0}")]
    Query(sqlx::Error),
    /// No answer in time: another process holds it, or the disk hangs.
    #[error("the database gave no answer within {} s", HEALTH_TIMEOUT.as_secs())]
    Stuck,
    /// A number does not fit into the database's 64-bit signed integers.
    #[error("{what} {value} is above {}, the largest the database holds", i64::MAX)]
    TooLarge {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// A row holds something this version cannot read.
    #[error("the database holds a {what} that cannot be read: {value}")]
    Row {
        /// What it should be.
        what: &'static str,
        /// What it is.
        value: String,
    },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // Extended codes keep the primary one in their low byte.
        let primary = error
            .as_database_error()
            .and_then(|database| database.code())
            .and_then(|code| code.parse::<i32>().ok())
            .map(|code| code & 0xff);
        if primary == Some(SQLITE_FULL) { StoreError::Full(error) } else { StoreError::Query(error) }
    }
}

/// The open database. Cheap to clone; all clones share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens or creates `path` and brings it to the schema of this version.
    pub async fn open(path: &Path, max_bytes: u64) -> Result<Store, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // NORMAL may lose a commit in a power cut, and an upload that was answered with 201 must not vanish.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("max_page_count", (max_bytes / PAGE_BYTES).max(16).to_string());
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open { path: path.into(), source })?;
        migrator().run(&pool).await.map_err(|source| StoreError::Migrate { path: path.into(), source })?;
        Ok(Store { pool })
    }

    /// Whether the database answers and would take a write. Nothing is written.
    pub async fn check(&self) -> Result<(), StoreError> {
        let probe = async {
            let mut transaction = self.write().await?;
            sqlx::query("SELECT count(*) FROM artifacts").fetch_one(&mut *transaction).await?;
            transaction.rollback().await?;
            Ok(())
        };
        tokio::time::timeout(HEALTH_TIMEOUT, probe).await.map_err(|_| StoreError::Stuck)?
    }

    /// Flushes what is open and closes the files.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Begins a write. `IMMEDIATE`, because a transaction that begins as a reader cannot wait for the writer's lock later.
    async fn write(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|&(version, description, sql)| {
        Migration::new(
            version,
            Cow::Borrowed(description),
            MigrationType::Simple,
            AssertSqlSafe(sql).into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}

/// Converts a number of ours to the database's signed integers.
fn to_db(what: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::TooLarge { what, value })
}

/// Converts a number of the database, which only ever got ours, back.
fn from_db(what: &'static str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Row { what, value: value.to_string() })
}

/// Writes a value of ours as JSON, for a column that is never searched.
fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Row { what, value: error.to_string() })
}

/// Reads a value of ours back.
fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, text: String) -> Result<T, StoreError> {
    serde_json::from_str(&text).map_err(|_| StoreError::Row { what, value: text })
}
