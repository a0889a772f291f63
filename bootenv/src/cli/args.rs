//! The arguments of `bootenv`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use bootenv::{ByteOrder, Changes, Layout, LockDirs, config, lock};
use lexopt::prelude::{Long, Short, Value};

use super::{Failure, argument_bytes};

/// The program's own name.
pub(super) const PROGRAM: &str = "bootenv";

const HELP: &str = "\
bootenv reads and changes the U-Boot environment, one verified transaction at a time.

usage:
  bootenv [options] print [-n] [--json] [NAME...]   all variables, or these; one that is not set exits 1
  bootenv [options] set [NAME=VALUE...] [--unset NAME...]
                                                    change all of them at once; NAME= removes too
  bootenv [options] apply FILE|-                    change all at once from lines `name value`, `name=value`,
                                                    `name` (removes), `# comment`
  bootenv [options] init FILE|-                     replace the whole environment, all copies, by the lines
                                                    `name=value` of FILE
  bootenv [options] check [--json]                  which copies are valid, which is in use, what is wrong
  bootenv make-image --size SIZE [--redundant] [--big-endian] [--pad BYTE] FILE|- OUT|-
                                                    write the image of one copy

options:
  -c, --config FILE         where the copies are (default /etc/fw_env.config)
  --lock-timeout SECONDS    how long to wait for other programs (default 10)
  --lock-dir DIR            take the lock there only (default /run/lock and /run)
  --little-endian, --big-endian
                            byte order of the checksum (default: this machine's)
  -h, --help                this text
  -V, --version             the version

SIZE and BYTE are decimal, or hexadecimal with 0x. Called as fw_printenv or fw_setenv it behaves as U-Boot's tools.

exit status: 0 done, 1 failed or not set, 2 degraded (check), 3 no valid environment, 4 locked, 64 usage
";

/// How the environment is reached.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) config: PathBuf,
    pub(super) lock_dirs: LockDirs,
    pub(super) lock_timeout: Duration,
    pub(super) byte_order: Option<ByteOrder>,
}

impl Default for Access {
    fn default() -> Self {
        Access {
            config: PathBuf::from(config::DEFAULT_PATH),
            lock_dirs: LockDirs::system(),
            lock_timeout: lock::DEFAULT_TIMEOUT,
            byte_order: None,
        }
    }
}

/// What to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Print this text: help or version.
    Text(String),
    Print(Print),
    Change(Changes),
    Apply(PathBuf),
    Init(PathBuf),
    Check {
        json: bool,
    },
    MakeImage(MakeImage),
}

/// How variables are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `name=value`.
    Lines,
    /// The value alone.
    Values,
    /// One JSON object.
    Json,
}

#[derive(Debug)]
pub(super) struct Print {
    pub(super) form: Form,
    pub(super) names: Vec<OsString>,
    /// What to print from when no copy is valid.
    pub(super) defaults: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct MakeImage {
    pub(super) size: usize,
    pub(super) layout: Layout,
    pub(super) byte_order: ByteOrder,
    pub(super) pad: u8,
    pub(super) input: PathBuf,
    pub(super) output: PathBuf,
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Failure::Usage(format!("{error}; see --help"))
    }
}

pub(super) fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("{message}; see --help"))
}

/// The version, as text to print.
pub(super) fn version(program: &str) -> Command {
    Command::Text(format!("{program} {}\n", env!("CARGO_PKG_VERSION")))
}

/// Reads the arguments after the program's name.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<(Access, Command), Failure> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut access = Access::default();
    let command = loop {
        let Some(argument) = parser.next()? else { return Err(usage("no command is given")) };
        match argument {
            Short('h') | Long("help") => return Ok((access, Command::Text(HELP.to_owned()))),
            Short('V') | Long("version") => return Ok((access, version(PROGRAM))),
            Value(command) => break command,
            Short('c') | Long("config") => access.config = parser.value()?.into(),
            Long("lock-dir") => access.lock_dirs = LockDirs::new([parser.value()?.into()]),
            Long("lock-timeout") => access.lock_timeout = seconds(&parser.value()?)?,
            Long("little-endian") => access.byte_order = Some(ByteOrder::Little),
            Long("big-endian") => access.byte_order = Some(ByteOrder::Big),
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    };
    let command = match command.as_bytes() {
        b"print" => print(&mut parser)?,
        b"set" => set(&mut parser)?,
        b"apply" => Command::Apply(one_path(&mut parser, "apply")?),
        b"init" => Command::Init(one_path(&mut parser, "init")?),
        b"check" => check(&mut parser)?,
        b"make-image" => make_image(&mut parser)?,
        _ => return Err(usage(format_args!("\"{}\" is not a command", command.to_string_lossy()))),
    };
    Ok((access, command))
}

fn seconds(text: &OsStr) -> Result<Duration, Failure> {
    let text = text.to_string_lossy();
    let timeout = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    timeout.ok_or_else(|| usage(format_args!("lock timeout \"{text}\" is not a number of seconds")))
}

fn print(parser: &mut lexopt::Parser) -> Result<Command, Failure> {
    let mut print = Print { form: Form::Lines, names: Vec::new(), defaults: None };
    while let Some(argument) = parser.next()? {
        match argument {
            Short('n') => print.form = Form::Values,
            Long("json") => print.form = Form::Json,
            Value(name) => print.names.push(name),
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    if print.form == Form::Values && print.names.is_empty() {
        return Err(usage("-n prints values without their names: say which"));
    }
    Ok(Command::Print(print))
}

fn set(parser: &mut lexopt::Parser) -> Result<Command, Failure> {
    let mut changes = Changes::new();
    let mut unsetting = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("unset") => unsetting = true,
            Value(text) => {
                let bytes = argument_bytes(&text);
                changes = match (bytes.iter().position(|&byte| byte == b'='), unsetting) {
                    (Some(at), _) => {
                        let (name, value) = bytes.split_at(at);
                        changes.set(name, value.get(1..).unwrap_or_default())
                    }
                    (None, true) => changes.unset(bytes),
                    (None, false) => {
                        let text = text.to_string_lossy();
                        return Err(usage(format_args!(
                            "\"{text}\" is not NAME=VALUE (to remove it: --unset {text})"
                        )));
                    }
                };
            }
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    if changes.is_empty() {
        return Err(usage("nothing to set or unset is given"));
    }
    Ok(Command::Change(changes))
}

fn check(parser: &mut lexopt::Parser) -> Result<Command, Failure> {
    let mut json = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("json") => json = true,
            other @ (Short(_) | Long(_) | Value(_)) => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Check { json })
}

fn one_path(parser: &mut lexopt::Parser, command: &str) -> Result<PathBuf, Failure> {
    let mut path = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Value(value) if path.is_none() => path = Some(PathBuf::from(value)),
            other @ (Short(_) | Long(_) | Value(_)) => return Err(other.unexpected().into()),
        }
    }
    path.ok_or_else(|| usage(format_args!("{command} needs a file, or - for standard input")))
}

fn make_image(parser: &mut lexopt::Parser) -> Result<Command, Failure> {
    let (mut size, mut pad) = (None, 0);
    let (mut layout, mut byte_order) = (Layout::Single, ByteOrder::Little);
    let mut paths = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("size") => size = Some(number(&parser.value()?, "size")?),
            Long("pad") => {
                let value = number(&parser.value()?, "pad")?;
                pad = u8::try_from(value).map_err(|_| usage(format_args!("pad {value} is not a byte")))?;
            }
            Long("redundant") => layout = Layout::Redundant,
            Long("big-endian") => byte_order = ByteOrder::Big,
            Value(path) => paths.push(PathBuf::from(path)),
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    let size = size.ok_or_else(|| usage("make-image needs --size, the size U-Boot was built with"))?;
    if size > config::MAX_SIZE {
        return Err(usage(format_args!("size 0x{size:x} is more than 0x{:x}", config::MAX_SIZE)));
    }
    let [input, output] = <[PathBuf; 2]>::try_from(paths).map_err(|paths| {
        usage(format_args!("make-image needs FILE and OUT, {} paths are given", paths.len()))
    })?;
    Ok(Command::MakeImage(MakeImage { size, layout, byte_order, pad, input, output }))
}

fn number(text: &OsStr, what: &str) -> Result<usize, Failure> {
    let text = text.to_string_lossy();
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| {
        usage(format_args!("{what} \"{text}\" is not a number (decimal, or hexadecimal with 0x)"))
    })
}
