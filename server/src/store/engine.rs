//! The two engines that can hold the tables: SQLite in a file of its own, or PostgreSQL somewhere.
//!
//! Everything in which they differ is here; the statements are the same. The tables are those of the migrations, which are
//! written for SQLite and of which PostgreSQL gets the same text with its own words for three types.
//!
//! **One writer at a time** is what every transaction that writes relies on: what it read still holds when it commits. SQLite
//! promises that by `BEGIN IMMEDIATE`. On PostgreSQL the first act of such a transaction takes one advisory lock, which all
//! processes on a database share and which falls with the transaction, the connection or the process. `SERIALIZABLE` would
//! promise the same, but the numbers that decide about a place or a stage are read by everybody who changes them: most attempts
//! would have to be made again. Behind the lock none ever has to, and a reader never waits.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AnyPool, AssertSqlSafe, Executor};

use super::{StoreError, Transaction};

/// SQLite's page size, in bytes; its default since 2016 and that of most disks.
const PAGE_BYTES: u64 = 4096;
/// Readers in parallel on SQLite, which has one writer whatever is asked for.
const SQLITE_CONNECTIONS: u32 = 4;
/// Connections of one process to PostgreSQL, which takes 100 in all unless told otherwise.
const POSTGRES_CONNECTIONS: u32 = 8;
/// How long a statement waits for the one writer, and for a connection.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The advisory lock of whoever writes: "otad", and a number.
const WRITER_LOCK: i64 = 0x6f74_6164_0000_0001;
/// The advisory lock of whoever publishes or withdraws a file.
const CATALOG_LOCK: i64 = 0x6f74_6164_0000_0002;
/// How often a transaction is begun anew when the connection breaks before anything was done in it.
const BEGINS: u32 = 3;

/// What a session on PostgreSQL is set to. A process that is stopped, or whose machine is gone, must not keep the others from
/// writing for ever: its lock falls after 10 s.
const POSTGRES_SESSION: &str = "SET lock_timeout = '5s'; SET statement_timeout = '30s'; \
     SET idle_in_transaction_session_timeout = '10s'; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; \
     SET tcp_keepalives_count = 3; SET client_min_messages = warning";

/// Where the database is.
#[derive(Clone)]
pub enum Location {
    /// A file of SQLite, and the bytes at which it stops growing.
    File(PathBuf, u64),
    /// A database of PostgreSQL, by its URL.
    Postgres(String),
}

impl std::fmt::Debug for Location {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_string())
    }
}

impl std::fmt::Display for Location {
    /// What messages call it: path, or host and database, never a user or a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::File(path, _) => path.display().fmt(f),
            Location::Postgres(url) => match PgConnectOptions::from_str(url) {
                Ok(options) => {
                    let host = options.get_socket().map(|path| path.display().to_string());
                    let host = host.unwrap_or_else(|| options.get_host().to_owned());
                    write!(f, "{} on {host}:{}", options.get_database().unwrap_or("?"), options.get_port())
                }
                Err(_) => f.write_str("that --database names"),
            },
        }
    }
}

impl Location {
    /// The database that was named, or else the one in a data directory.
    pub fn of(named: Option<&Location>, data: &Path, max_bytes: u64) -> Location {
        named.cloned().unwrap_or_else(|| Location::File(data.join("otaserver.db"), max_bytes))
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(url: &str) -> Result<Location, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("a database is postgres://[USER[:PASSWORD]@]HOST[:PORT]/NAME".into());
        }
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| "not a URL of PostgreSQL: percent-encode what is no letter or digit".to_owned())?;
        match options.get_database() {
            Some(_) => Ok(Location::Postgres(url.to_owned())),
            None => Err("the URL names no database: it ends with /NAME".into()),
        }
    }
}

/// Which engine is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    /// A migration in the words of this engine. Text compares byte by byte on both, so that lists have one order.
    pub(super) fn dialect(self, sql: &str) -> String {
        match self {
            Engine::Sqlite => sql.to_owned(),
            Engine::Postgres => sql
                .replace(
                    "INTEGER PRIMARY KEY AUTOINCREMENT",
                    "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
                )
                .replace("INTEGER", "BIGINT")
                .replace("TEXT", "TEXT COLLATE \"C\"")
                .replace(") STRICT, WITHOUT ROWID;", ");")
                .replace(") STRICT;", ");"),
        }
    }

    /// Begins a transaction and takes the writer's lock.
    pub(super) async fn begin(self, pool: &AnyPool) -> Result<Transaction, StoreError> {
        match self {
            // `IMMEDIATE`, because a transaction that begins as a reader cannot wait for the writer's lock later.
            Engine::Sqlite => Ok(pool.begin_with("BEGIN IMMEDIATE").await?),
            Engine::Postgres => {
                let mut left = BEGINS;
                loop {
                    left -= 1;
                    match locked(pool, WRITER_LOCK, BUSY_TIMEOUT).await {
                        Err(error) if left > 0 && is_passing(&error) => {
                            log::info!("a transaction is begun anew: {error}");
                        }
                        result => return Ok(result?),
                    }
                }
            }
        }
    }

    /// Takes the lock of whoever publishes or withdraws, for up to `patience`; it falls with the value. On SQLite nobody else is there.
    pub(super) async fn catalog_lock(
        self,
        pool: &AnyPool,
        patience: Duration,
    ) -> Result<Option<Transaction>, StoreError> {
        match self {
            Engine::Sqlite => Ok(None),
            Engine::Postgres => {
                let mut transaction = locked(pool, CATALOG_LOCK, patience).await?;
                // It waits for files meanwhile.
                sqlx::raw_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
                    .execute(&mut *transaction)
                    .await?;
                Ok(Some(transaction))
            }
        }
    }
}

async fn locked(pool: &AnyPool, lock: i64, patience: Duration) -> Result<Transaction, sqlx::Error> {
    // Every statement sees what is committed when it begins. Stricter kinds would still see what was before the lock was had.
    let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    if patience != BUSY_TIMEOUT {
        let set = format!(
            "SET LOCAL lock_timeout = '{0}s'; SET LOCAL statement_timeout = '{0}s'",
            patience.as_secs()
        );
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *transaction).await?;
    }
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(lock).execute(&mut *transaction).await?;
    Ok(transaction)
}

/// Whether the same again may go better at once: the connection broke, or PostgreSQL asks for it (classes 40 and 57P of SQLSTATE).
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("40") || code.starts_with("57P"))
        }
        _ => false,
    }
}

/// Opens the database, or makes it on SQLite.
pub(super) async fn open(location: &Location) -> Result<(Engine, AnyPool), StoreError> {
    sqlx::any::install_default_drivers();
    let failed = |source| StoreError::Open {
        name: location.to_string(),
        source,
        advice: match location {
            Location::File(..) => {
                "it is never rebuilt by itself: restore a backup, or move it away to start empty"
            }
            Location::Postgres(_) => "otaserver makes its tables, but not the database: createdb does",
        },
    };
    let (engine, url, session, connections) = match location {
        Location::File(path, max_bytes) => (
            Engine::Sqlite,
            sqlite_url(path).map_err(failed)?,
            sqlite_session(*max_bytes),
            SQLITE_CONNECTIONS,
        ),
        Location::Postgres(url) => {
            (Engine::Postgres, url.clone(), POSTGRES_SESSION.to_owned(), POSTGRES_CONNECTIONS)
        }
    };
    let pool = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(BUSY_TIMEOUT)
        .after_connect(move |connection, _| {
            let session = sqlx::raw_sql(AssertSqlSafe(session.clone()));
            Box::pin(async move { connection.execute(session).await.map(drop) })
        })
        .connect_with(AnyConnectOptions::from_str(&url).map_err(failed)?)
        .await
        .map_err(failed)?;
    if engine == Engine::Postgres {
        warn_of_what_loses_commits(&pool).await?;
    }
    Ok((engine, pool))
}

fn sqlite_session(max_bytes: u64) -> String {
    // NORMAL may lose a commit in a power cut, and an upload that was answered with 201 must not vanish.
    format!(
        "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
         PRAGMA max_page_count = {}",
        BUSY_TIMEOUT.as_millis(),
        (max_bytes / PAGE_BYTES).max(16)
    )
}

/// A path as a URL: absolute, and with every byte that could mean something else in one written as `%XX`.
fn sqlite_url(path: &Path) -> Result<String, sqlx::Error> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut url = String::from("sqlite://");
    for &byte in std::path::absolute(path)?.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => url.push(char::from(byte)),
            _ => url += &format!("%{byte:02X}"),
        }
    }
    Ok(url + "?mode=rwc")
}

/// What was answered must survive a power cut; PostgreSQL can be set up so that it does not.
async fn warn_of_what_loses_commits(pool: &AnyPool) -> Result<(), StoreError> {
    let off = sqlx::query_scalar::<_, Option<String>>(
        "SELECT string_agg(name, ', ') FROM pg_settings
         WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'",
    );
    if let Some(off) = off.fetch_one(pool).await? {
        log::warn!(
            "PostgreSQL runs with {off} off: what devices and operators were promised can be lost in a power cut"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_database_is() {
        let secret = "postgres://ota:s%40cret@db.example:5433/fleet";
        let location: Location = secret.parse().unwrap();
        assert_eq!(
            (location.to_string(), format!("{location:?}")),
            ("fleet on db.example:5433".into(), "fleet on db.example:5433".into())
        );
        let socket: Location = "postgres:///fleet?host=/run/postgresql&user=ota".parse().unwrap();
        assert_eq!(socket.to_string(), "fleet on /run/postgresql:5432");
        for wrong in ["mysql://host/db", "fleet", "postgres://ota:s@cret@host:port/fleet"] {
            let message = Location::from_str(wrong).unwrap_err();
            assert!(!message.contains("cret"), "{message}");
        }
    }

    #[test]
    fn a_path_is_no_query() {
        let url = sqlite_url(Path::new("/srv/a b?mode=memory#x%41/ota.db")).unwrap();
        assert_eq!(url, "sqlite:///srv/a%20b%3Fmode%3Dmemory%23x%2541/ota.db?mode=rwc");
    }
}
