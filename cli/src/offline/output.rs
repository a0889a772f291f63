//! What offline commands print.

use std::io::{self, Write};

use crate::args::Globals;
use crate::exit::{Exit, Format};

/// Prints `text`, or with `--json` `value`, unless `--quiet`; JSON that was asked for is printed even then.
pub(super) fn show(globals: &Globals, text: &str, value: &serde_json::Value) -> Result<(), Exit> {
    match globals.format() {
        Format::Json => print(&format!("{value}\n")),
        Format::Text if globals.quiet => Ok(()),
        Format::Text => print(text),
    }
}

/// Prints the answer that was asked for; `--quiet` does not suppress it.
pub(super) fn answer(globals: &Globals, text: &str, value: &serde_json::Value) -> Result<(), Exit> {
    match globals.format() {
        Format::Json => print(&format!("{value}\n")),
        Format::Text => print(text),
    }
}

fn print(text: &str) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `otactl … | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Exit::failed(format!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}
