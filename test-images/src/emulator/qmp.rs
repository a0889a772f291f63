//! The hand at the hardware: QEMU's machine protocol, one JSON object per line.
//!
//! Specification: QEMU, `docs/interop/qmp-spec.rst`. Events that come between are skipped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::Error;

/// Within this time a machine that is not stuck answers, also on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that was greeted.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Greets the emulator at the other end of a stream.
    pub fn greet(stream: UnixStream) -> Result<Qmp, Error> {
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| refused("greeting", &error))?;
        let mut qmp = Qmp { reader: BufReader::new(stream) };
        let greeting = qmp.next("greeting")?;
        if greeting.get("QMP").is_none() {
            return Err(refused("greeting", &greeting));
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns what it returned.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, Error> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes()).map_err(|error| refused(command, &error))?;
        loop {
            let mut answer = self.next(command)?;
            if let Some(returned) = answer.get_mut("return") {
                return Ok(returned.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(refused(command, error));
            }
        }
    }

    /// Plugs the network cable in or pulls it.
    pub fn set_link(&mut self, network: &str, is_up: bool) -> Result<(), Error> {
        self.execute("set_link", &json!({ "name": network, "up": is_up })).map(drop)
    }

    fn next(&mut self, command: &str) -> Result<Value, Error> {
        let mut line = String::new();
        let count = self.reader.read_line(&mut line).map_err(|error| refused(command, &error))?;
        if count == 0 {
            return Err(refused(command, &"it has ended"));
        }
        serde_json::from_str(&line).map_err(|error| refused(command, &error))
    }
}

fn refused(command: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Qmp { command: command.to_owned(), why: why.to_string() }
}
