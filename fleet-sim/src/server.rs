//! A real `otaserver` process that can be killed and comes back at the same address.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The system did not let it.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Which program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It started and did not say where it listens.
    #[error("the first line of otaserver is {0:?} and names no address; its log says why")]
    NoAddress(String),
}

/// What to start a server with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// Its arguments without `--listen`.
    pub arguments: Vec<String>,
}

/// A running server; it is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts a server on a free port of this machine.
    ///
    /// # Errors
    /// It does not start, or does not say where it listens.
    pub fn start(setup: Setup) -> Result<Server, ServerError> {
        let (child, address) = spawn(&setup, "127.0.0.1:0")?;
        Ok(Server { setup, child, address })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it in the middle of whatever it does (`SIGKILL`), and starts it again at the same address.
    ///
    /// # Errors
    /// It does not start again.
    pub fn kill_and_restart(&mut self) -> Result<(), ServerError> {
        self.kill();
        let (child, _) = spawn(&self.setup, &self.address.to_string())?;
        self.child = child;
        Ok(())
    }

    fn kill(&mut self) {
        // A process that is gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(setup: &Setup, listen: &str) -> Result<(Child, SocketAddr), ServerError> {
    let mut command = Command::new(&setup.program);
    command.args(["--listen", listen]).args(&setup.arguments);
    let program = setup.program.display().to_string();
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|source| ServerError::Start { program, source })?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        // What cannot be read names no address either.
        let _ = BufReader::new(output).read_line(&mut line);
    }
    let address = line.trim_end().strip_prefix("listening on http://").and_then(|text| text.parse().ok());
    match address {
        Some(address) => Ok((child, address)),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(ServerError::NoAddress(line))
        }
    }
}
