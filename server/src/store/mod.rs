//! The database: what was uploaded, who was seen, what was reported.
//!
//! It promises that a call that returned is on the disk and that a kill at any point leaves the state before or after a
//! call, never between. It never deletes or rebuilds a database: a broken one is an error that names it. The statements are
//! plain SQL that SQLite and PostgreSQL both take; in what they differ is in `engine.rs` alone.

mod artifacts;
mod audit;
mod channels;
mod deltas;
mod devices;
mod engine;
mod files;
mod groups;
mod happenings;
mod lost;
mod members;
mod records;
mod reports;
mod rollouts;
mod tokens;
mod webhooks;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AnyPool, AssertSqlSafe, SqlSafeStr};

use engine::Engine;

pub use artifacts::{Artifact, NewArtifact, Publication};
pub use audit::Entry;
pub use channels::Keeping;
pub use deltas::{Delta, NewDelta};
pub use devices::{Device, LastReport, Sighting};
pub use engine::Location;
pub use files::FileRow;
pub use groups::{Group, Removal};
pub use happenings::Past;
pub use members::{Detail, Member, Taken, candidate};
pub use records::{Record, Selection, Statistics};
pub use reports::{Outcome, Receipt, Report, StoredReport};
pub use rollouts::{NewRollout, Rollout, Turn};
pub use tokens::{Operator, hash};
pub use webhooks::{Addition, Delivery, Due, Tried, Webhook};

/// How long a health check waits before it calls the database stuck. Below the usual probe timeout of 5 s.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// SQLite's primary result code for a full disk or a database at its page limit (sqlite3.h, `SQLITE_FULL`).
const SQLITE_FULL: i32 = 13;
/// PostgreSQL's code for a full disk (SQLSTATE, `disk_full`).
const DISK_FULL: &str = "53100";
/// PostgreSQL's code for a text that is none (SQLSTATE, `character_not_in_repertoire`): ours are UTF-8, so it holds a NUL.
const NO_TEXT: &str = "22021";

/// Migrations in order. The list is append-only: a database in the field has run them as they stand here.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "first form", include_str!("../../migrations/0001_first_form.sql")),
    (2, "deltas", include_str!("../../migrations/0002_deltas.sql")),
    (3, "fleet", include_str!("../../migrations/0003_fleet.sql")),
    (4, "marks", include_str!("../../migrations/0004_marks.sql")),
    (5, "channels", include_str!("../../migrations/0005_channels.sql")),
    (6, "webhooks", include_str!("../../migrations/0006_webhooks.sql")),
];

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened or created.
    #[error("cannot open the database {name}: {source}; {advice}")]
    Open {
        /// Which database: a path, or a name and a host.
        name: String,
        /// What the engine said.
        source: sqlx::Error,
        /// What to do about it.
        advice: &'static str,
    },
    /// Its schema cannot be brought to this version.
    #[error(
        "cannot bring the database {name} to this version: {source}; a newer otaserver may have written it"
    )]
    Migrate {
        /// Which database: a path, or a name and a host.
        name: String,
        /// What the migration said.
        source: sqlx::migrate::MigrateError,
    },
    /// The disk, or the size the database may have, is used up.
    #[error("the database is full: {0}")]
    Full(sqlx::Error),
    /// A statement failed.
    #[error("the database failed: {0}")]
    Query(sqlx::Error),
    /// A text holds what PostgreSQL cannot.
    #[error("a text holds a NUL, which the database does not take")]
    Nul,
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
        let code = error.as_database_error().and_then(|database| database.code());
        // Extended codes of SQLite keep the primary one in their low byte.
        let primary = code.as_deref().and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff);
        match code.as_deref() {
            Some(DISK_FULL) => StoreError::Full(error),
            Some(NO_TEXT) => StoreError::Nul,
            // SQLSTATE has five characters, SQLite's numbers have less.
            Some(code) if code.len() < DISK_FULL.len() && primary == Some(SQLITE_FULL) => {
                StoreError::Full(error)
            }
            _ => StoreError::Query(error),
        }
    }
}

/// The right to publish or withdraw a file, for as long as the value lives.
#[derive(Debug)]
pub struct CatalogLock {
    _held: Transaction,
}

/// A transaction that writes: nobody else does until it ends.
type Transaction = sqlx::Transaction<'static, sqlx::Any>;

/// The open database. Cheap to clone; all clones share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    engine: Engine,
    /// Transactions that this process began in order to write.
    writes: Arc<AtomicU64>,
}

impl Store {
    /// Opens or creates the SQLite database `path`, which stops growing at `max_bytes`.
    pub async fn open(path: &Path, max_bytes: u64) -> Result<Store, StoreError> {
        Store::at(&Location::File(path.into(), max_bytes)).await
    }

    /// Opens a database and brings it to the schema of this version.
    pub async fn at(location: &Location) -> Result<Store, StoreError> {
        let (engine, pool) = engine::open(location).await?;
        let migrated = migrator(engine).run(&pool).await;
        migrated.map_err(|source| StoreError::Migrate { name: location.to_string(), source })?;
        Ok(Store { pool, engine, writes: Arc::default() })
    }

    /// Whether other processes may work with the same database.
    pub fn is_shared(&self) -> bool {
        self.engine == Engine::Postgres
    }

    /// Whether the database answers and would take a write. Nothing is written.
    pub async fn check(&self) -> Result<(), StoreError> {
        let probe = async {
            let mut transaction = self.engine.begin(&self.pool).await?;
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

    /// Waits for the right to publish or withdraw files. `None` where no other process can do so anyway.
    pub async fn lock_catalog(&self, patience: Duration) -> Result<Option<CatalogLock>, StoreError> {
        let held = self.engine.catalog_lock(&self.pool, patience).await?;
        Ok(held.map(|held| CatalogLock { _held: held }))
    }

    /// How many transactions this process has begun in order to write.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Begins a write.
    async fn write(&self) -> Result<Transaction, StoreError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.engine.begin(&self.pool).await
    }

    /// The pool, for a single statement that writes: it is a transaction of its own.
    fn write_at_once(&self) -> &AnyPool {
        self.writes.fetch_add(1, Ordering::Relaxed);
        &self.pool
    }
}

fn migrator(engine: Engine) -> Migrator {
    let migrations = MIGRATIONS.iter().map(|&(version, description, sql)| {
        let sql = AssertSqlSafe(engine.dialect(sql)).into_sql_str();
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, sql, false)
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
