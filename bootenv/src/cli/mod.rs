//! The command line: arguments to one act of the library, the result to text and an exit status.
//!
//! Exit statuses are stable: 0 done; 1 failed, or a variable is not set; 2 degraded (`check` only); 3 no valid environment;
//! 4 locked by another program; 64 wrong usage.

mod args;
mod compat;
mod output;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bootenv::format::Copy;
use bootenv::{BootEnv, Changes, Config, EnvLock, Environment, FileStore, Layout, script, txn};

use args::{Access, Command, MakeImage, Print};

const STATUS_OK: u8 = 0;
const STATUS_FAILED: u8 = 1;
const STATUS_DEGRADED: u8 = 2;
const STATUS_LOST: u8 = 3;
const STATUS_LOCKED: u8 = 4;
/// `EX_USAGE` of sysexits.h, because 2 is taken by `check`.
const STATUS_USAGE: u8 = 64;

/// A failure with the name the program was called by.
#[derive(Debug, thiserror::Error)]
#[error("{failure}")]
pub(crate) struct Error {
    program: String,
    failure: Failure,
}

impl Error {
    /// The name the program was called by.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    /// The exit status that stands for this failure.
    pub(crate) fn exit_status(&self) -> u8 {
        // U-Boot's tools know only 0 and 1 (their callers compare with those).
        if self.program != args::PROGRAM {
            return STATUS_FAILED;
        }
        match &self.failure {
            Failure::Usage(_) => STATUS_USAGE,
            Failure::Env(txn::Error::Lost { .. }) => STATUS_LOST,
            Failure::Lock(bootenv::lock::Error::Held { .. }) => STATUS_LOCKED,
            Failure::NotSet(_)
            | Failure::Config(_)
            | Failure::Store(_)
            | Failure::Lock(_)
            | Failure::Env(_)
            | Failure::Variable(_)
            | Failure::Script { .. }
            | Failure::File { .. }
            | Failure::Output(_) => STATUS_FAILED,
        }
    }
}

/// What can go wrong, for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// A variable that was asked for is not set.
    #[error("## Error: \"{0}\" not defined")]
    NotSet(String),
    #[error(transparent)]
    Config(#[from] bootenv::config::Error),
    #[error(transparent)]
    Store(#[from] bootenv::store::Error),
    #[error(transparent)]
    Lock(#[from] bootenv::lock::Error),
    #[error(transparent)]
    Env(#[from] txn::Error),
    #[error(transparent)]
    Variable(#[from] bootenv::env::Error),
    #[error("{}: {source}", path.display())]
    Script { path: PathBuf, source: script::Error },
    #[error("cannot {act} {}: {source}", path.display())]
    File { act: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Runs the program with its arguments, the first of which is the name it was called by.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<u8, Error> {
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let name =
        Path::new(&called).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let rest = arguments.collect();
    let (program, result) = match name.as_str() {
        compat::PRINTENV => (compat::PRINTENV, compat::parse_printenv(rest)),
        compat::SETENV => (compat::SETENV, compat::parse_setenv(rest)),
        _ => (args::PROGRAM, args::parse(rest)),
    };
    result
        .and_then(|(access, command)| execute(&access, command))
        .map_err(|failure| Error { program: program.to_owned(), failure })
}

fn execute(access: &Access, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Text(text) => {
            output::write_all(text.as_bytes())?;
            Ok(STATUS_OK)
        }
        Command::Print(print) => self::print(access, &print),
        Command::Change(changes) => {
            commit(access, &changes)?;
            Ok(STATUS_OK)
        }
        Command::Apply(path) => {
            let text = read_input(&path)?;
            let changes = script::parse_script(&text).map_err(|source| Failure::Script { path, source })?;
            commit(access, &changes)?;
            Ok(STATUS_OK)
        }
        Command::Init(path) => {
            let environment = read_environment(&path)?;
            let lock = take_lock(access)?;
            open(access)?.init(&lock, &environment)?;
            Ok(STATUS_OK)
        }
        Command::Check { json } => check(access, json),
        Command::MakeImage(image) => make_image(&image),
    }
}

fn open(access: &Access) -> Result<BootEnv<FileStore>, Failure> {
    let config = Config::from_file(&access.config)?;
    let env = BootEnv::new(FileStore::new(&config)?);
    Ok(match access.byte_order {
        Some(order) => env.with_byte_order(order),
        None => env,
    })
}

fn take_lock(access: &Access) -> Result<EnvLock, Failure> {
    Ok(EnvLock::acquire(&access.lock_dirs, access.lock_timeout)?)
}

fn print(access: &Access, print: &Print) -> Result<u8, Failure> {
    let loaded = {
        let _lock = take_lock(access)?;
        open(access)?.load()
    };
    let environment = match (loaded, &print.defaults) {
        (Ok(loaded), _) => {
            if loaded.health.is_degraded() {
                eprintln!("warning: {}; the next change repairs it", loaded.health);
            }
            loaded.environment
        }
        (Err(error @ txn::Error::Lost { .. }), Some(path)) => {
            eprintln!("warning: {error}; these are the defaults from {}", path.display());
            read_environment(path)?
        }
        (Err(error), _) => return Err(error.into()),
    };
    output::variables(&environment, print)?;
    let missing = print.names.iter().find(|name| environment.get(name.as_bytes()).is_none());
    match missing {
        Some(name) => Err(Failure::NotSet(name.to_string_lossy().into_owned())),
        None => Ok(STATUS_OK),
    }
}

fn commit(access: &Access, changes: &Changes) -> Result<(), Failure> {
    let lock = take_lock(access)?;
    let mut env = open(access)?;
    let done = env.commit(&lock, changes)?;
    if let (Some(copy), true) = (done.written, done.repaired) {
        eprintln!("note: {copy} was bad and is valid again");
    }
    if let (Some(copy), true) = (done.written, done.rewritten) {
        eprintln!(
            "warning: {copy} read back wrong at first and had to be written twice: the device may be failing"
        );
    }
    Ok(())
}

fn check(access: &Access, json: bool) -> Result<u8, Failure> {
    let lock = take_lock(access)?;
    let mut env = open(access)?;
    let health = env.health();
    let loaded = env.load().ok();
    drop(lock);
    output::health(&env, &health, loaded.as_ref().map(|loaded| &loaded.environment), json)?;
    Ok(match health.current {
        None => STATUS_LOST,
        Some(_) if health.is_degraded() => STATUS_DEGRADED,
        Some(_) => STATUS_OK,
    })
}

fn make_image(image: &MakeImage) -> Result<u8, Failure> {
    let environment = read_environment(&image.input)?;
    let capacity = image.size.saturating_sub(image.layout.header_bytes());
    let data = environment.serialise(capacity, image.pad)?;
    // A redundant image starts at counter 1, as mkenvimage's does.
    let flags = if image.layout == Layout::Redundant { 1 } else { 0 };
    let bytes = Copy { flags, data }.encode(image.layout, image.byte_order);
    if image.output.as_os_str() == "-" {
        output::write_all(&bytes)?;
        return Ok(STATUS_OK);
    }
    let failed = |source| Failure::File { act: "write", path: image.output.clone(), source };
    fs::write(&image.output, bytes).map_err(failed)?;
    Ok(STATUS_OK)
}

fn read_environment(path: &Path) -> Result<Environment, Failure> {
    let text = read_input(path)?;
    script::parse_environment(&text).map_err(|source| Failure::Script { path: path.to_owned(), source })
}

/// Reads a file, or standard input for `-`.
fn read_input(path: &Path) -> Result<Vec<u8>, Failure> {
    let result = if path.as_os_str() == "-" {
        let mut text = Vec::new();
        io::stdin().lock().read_to_end(&mut text).map(|_| text)
    } else {
        fs::read(path)
    };
    result.map_err(|source| Failure::File { act: "read", path: path.to_owned(), source })
}

/// The bytes of a name or value given as an argument.
fn argument_bytes(argument: &OsString) -> Vec<u8> {
    argument.as_bytes().to_vec()
}

/// Flushes what was printed, so that a full disk or a closed pipe is an error and not silence.
fn flush(out: &mut impl Write) -> io::Result<()> {
    match out.flush() {
        // `fw_printenv | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
