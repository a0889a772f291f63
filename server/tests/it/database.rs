//! The database behind the server of a test: SQLite in its directory or, in the program `postgres`, one of its own in a PostgreSQL that
//! runs for the whole test program, as an unprivileged user, on a socket in a directory of its own.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use otaserver::store::Location;
use sqlx::{AnyConnection, Connection};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Where Debian keeps the programs of every version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// The lock of whoever writes, as the server takes it.
const WRITER_LOCK: i64 = 0x6f74_6164_0000_0001;

/// Serves until its standard input ends, which it does with the test program however that ends, and leaves nothing behind.
/// No test of this program cuts the power, so that nothing has to reach the disk.
const SERVE: &str = r#"
trap '' INT TERM HUP
"$1/initdb" --pgdata "$2/data" --no-sync --username otad --auth trust --encoding UTF8 --no-locale >"$2/log" 2>&1 &&
"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync=off -c full_page_writes=off -c dynamic_shared_memory_type=mmap -c max_connections=200 >>"$2/log" 2>&1 &
read -r _
kill -QUIT "$(head -n 1 "$2/data/postmaster.pid")"
wait
rm -r "$2"
"#;

/// Whether this is the program with PostgreSQL.
pub(crate) fn is_postgres() -> bool {
    env!("CARGO_CRATE_NAME") == "postgres"
}

/// The directory of a server, with the database that goes with it.
pub(crate) struct Data {
    directory: TempDir,
}

impl Data {
    pub(crate) fn in_directory(directory: TempDir) -> Data {
        if is_postgres() {
            cluster().run(&format!("CREATE DATABASE {} TEMPLATE template0", name(directory.path())));
        }
        Data { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if is_postgres() && !std::thread::panicking() {
            cluster().run(&format!("DROP DATABASE {} WITH (FORCE)", name(self.path())));
        }
    }
}

/// The database of the server in a directory, and of every other that is started with `--database` like it.
pub(crate) fn location(data: &Path, max_bytes: u64) -> Location {
    Location::of(url(data).map(|url| url.parse().unwrap()).as_ref(), data, max_bytes)
}

/// What `--database` is to be, if anything.
pub(crate) fn url(data: &Path) -> Option<String> {
    is_postgres().then(|| cluster().url(&name(data)))
}

/// Makes the database refuse new rows of a table, behind the server's back.
pub(crate) fn refuse_rows(data: &Path, table: &str) {
    Session::open(data).run(&if is_postgres() {
        format!("ALTER TABLE {table} ADD CONSTRAINT no_{table} CHECK (false) NOT VALID")
    } else {
        format!("CREATE TRIGGER no_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")
    });
}

/// Makes it take them again.
pub(crate) fn take_rows(data: &Path, table: &str) {
    Session::open(data).run(&if is_postgres() {
        format!("ALTER TABLE {table} DROP CONSTRAINT no_{table}")
    } else {
        format!("DROP TRIGGER no_{table}")
    });
}

/// Keeps the server from writing for as long as the value lives.
pub(crate) fn hold_the_writer(data: &Path) -> Session {
    let mut session = Session::open(data);
    let postgres = format!("SELECT pg_advisory_lock({WRITER_LOCK})");
    session.run(if is_postgres() { &postgres } else { "BEGIN IMMEDIATE" });
    session
}

/// A connection of a test's own.
pub(crate) struct Session {
    runtime: Runtime,
    connection: AnyConnection,
}

impl Session {
    pub(crate) fn open(data: &Path) -> Session {
        let sqlite = format!("sqlite://{}", data.join("otaserver.db").display());
        Session::try_open(&url(data).unwrap_or(sqlite)).unwrap()
    }

    fn try_open(url: &str) -> Result<Session, sqlx::Error> {
        sqlx::any::install_default_drivers();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(AnyConnection::connect(url))?;
        Ok(Session { runtime, connection })
    }

    pub(crate) fn run(&mut self, statement: &str) {
        let Session { runtime, connection } = self;
        let statement = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()));
        runtime.block_on(statement.execute(connection)).unwrap();
    }
}

/// Names of databases are made of a directory's, which has capitals.
fn name(data: &Path) -> String {
    let name = data.file_name().unwrap().as_encoded_bytes();
    name.iter().fold("t".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// The PostgreSQL of this test program.
struct Cluster {
    directory: PathBuf,
    /// Ends when its input is closed, that is with this program.
    _shell: Child,
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap().keep();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SERVE, "serve"]).arg(programs()).arg(&directory).current_dir("/");
        // PostgreSQL refuses to run as root.
        if nix::unistd::geteuid().is_root() {
            let user =
                nix::unistd::User::from_name("postgres").unwrap().expect("the user that the package brings");
            std::os::unix::fs::chown(&directory, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
            shell.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let shell = shell.stdin(Stdio::piped()).process_group(0).spawn().expect("start PostgreSQL");
        let cluster = Cluster { directory, _shell: shell };
        let begin = Instant::now();
        while let Err(error) = Session::try_open(&cluster.url("postgres")) {
            let mut log = String::new();
            let _ = std::fs::File::open(cluster.directory.join("log"))
                .and_then(|mut file| file.read_to_string(&mut log));
            assert!(begin.elapsed() < Duration::from_secs(60), "PostgreSQL does not start: {error}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    })
}

/// The programs of the newest version.
fn programs() -> PathBuf {
    let versions =
        std::fs::read_dir(PROGRAMS).into_iter().flatten().map(|entry| entry.unwrap().path().join("bin"));
    let newest = versions.filter(|bin| bin.join("initdb").exists()).max();
    newest.unwrap_or_else(|| {
        panic!("no PostgreSQL in {PROGRAMS}: install Debian's package `postgresql` (scripts/need test)")
    })
}

impl Cluster {
    fn url(&self, name: &str) -> String {
        format!("postgres:///{name}?host={}&user=otad", self.directory.display())
    }

    fn run(&self, statement: &str) {
        Session::try_open(&self.url("postgres")).unwrap().run(statement);
    }
}
