//! The arguments of U-Boot's own tools, `fw_printenv` and `fw_setenv`.
//!
//! As those, with differences on purpose, listed in `docs/boot-environment.md`: what does not fit is an error and nothing is
//! written; a lost environment is an error and never replaced by defaults; `-n` takes several names.

use std::ffi::OsString;
use std::path::PathBuf;

use bootenv::{Changes, LockDirs};
use lexopt::prelude::{Long, Short, Value};

use super::args::{Access, Command, Form, Print, usage, version};
use super::{Failure, argument_bytes};

/// The name that prints.
pub(super) const PRINTENV: &str = "fw_printenv";
/// The name that changes.
pub(super) const SETENV: &str = "fw_setenv";

const PRINTENV_HELP: &str = "\
usage: fw_printenv [options] [NAME...]
prints all variables of the U-Boot environment, or these

  -n, --noheader      print values without their names
  -c, --config FILE   where the copies are (default /etc/fw_env.config)
  -f, --defenv FILE   print from this file when no copy is valid
  -l, --lock DIR      take the lock in this directory (default /run/lock and /run)
  -h, --help          this text
  -v, -V, --version   the version
";

const SETENV_HELP: &str = "\
usage: fw_setenv [options] NAME [VALUE...]
       fw_setenv [options] -s FILE|-
sets a variable of the U-Boot environment to the values joined by blanks; without a value, removes it

  -s, --script FILE   change all that FILE says, at once: lines `name value` or `name=value`, `name` removes
  -c, --config FILE   where the copies are (default /etc/fw_env.config)
  -l, --lock DIR      take the lock in this directory (default /run/lock and /run)
  -h, --help          this text
  -v, -V, --version   the version

A value that starts with a dash goes after `--`.
";

/// What both tools share, as read so far.
#[derive(Default)]
struct Parsed {
    access: Access,
    no_header: bool,
    defaults: Option<PathBuf>,
    script: Option<PathBuf>,
    words: Vec<OsString>,
    /// Help or version was asked for.
    text: Option<Command>,
}

fn parse(arguments: Vec<OsString>, program: &str, help: &str) -> Result<Parsed, Failure> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut parsed = Parsed::default();
    let printing = program == PRINTENV;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => parsed.text = Some(Command::Text(help.to_owned())),
            Short('v' | 'V') | Long("version") => parsed.text = Some(version(program)),
            Short('c') | Long("config") => parsed.access.config = parser.value()?.into(),
            Short('l') | Long("lock") => parsed.access.lock_dirs = LockDirs::new([parser.value()?.into()]),
            Short('f') | Long("defenv") => parsed.defaults = Some(parser.value()?.into()),
            // An old option for encrypted environments, which U-Boot's tools still take and ignore.
            Short('a') => drop(parser.value()?),
            Short('n') | Long("noheader" | "no-header") if printing => parsed.no_header = true,
            Short('s') | Long("script") if !printing => parsed.script = Some(parser.value()?.into()),
            Value(word) => parsed.words.push(word),
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    Ok(parsed)
}

/// Reads the arguments of `fw_printenv`.
pub(super) fn parse_printenv(arguments: Vec<OsString>) -> Result<(Access, Command), Failure> {
    let parsed = parse(arguments, PRINTENV, PRINTENV_HELP)?;
    if let Some(text) = parsed.text {
        return Ok((parsed.access, text));
    }
    if parsed.no_header && parsed.words.is_empty() {
        return Err(usage("-n prints values without their names: say which"));
    }
    let form = if parsed.no_header { Form::Values } else { Form::Lines };
    Ok((parsed.access, Command::Print(Print { form, names: parsed.words, defaults: parsed.defaults })))
}

/// Reads the arguments of `fw_setenv`.
pub(super) fn parse_setenv(arguments: Vec<OsString>) -> Result<(Access, Command), Failure> {
    let parsed = parse(arguments, SETENV, SETENV_HELP)?;
    if let Some(text) = parsed.text {
        return Ok((parsed.access, text));
    }
    let mut words = parsed.words.iter().map(argument_bytes);
    match (parsed.script, words.next()) {
        (Some(script), None) => Ok((parsed.access, Command::Apply(script))),
        (Some(_), Some(_)) => Err(usage("a script and a variable exclude each other")),
        (None, None) => Err(usage("no variable is given")),
        (None, Some(name)) => {
            bootenv::env::check_name(&name)?;
            let value = words.collect::<Vec<_>>().join(&b' ');
            let changes =
                if value.is_empty() { Changes::new().unset(name) } else { Changes::new().set(name, value) };
            Ok((parsed.access, Command::Change(changes)))
        }
    }
}
