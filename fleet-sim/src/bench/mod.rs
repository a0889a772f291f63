//! `make bench-fleet`: a server under the load of a fleet, beside a write per heartbeat; and range downloads, beside nginx.

mod curve;
mod ranges;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

pub use curve::{curve, naive};
pub use ranges::ranges;

use crate::model::{Model, ModelError};
use crate::operator::{Operator, OperatorError};
use crate::server::{Server, ServerError, Setup};

/// Something could not be measured.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum BenchError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error(transparent)]
    Meter(#[from] crate::load::MeterError),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{0}")]
    Other(String),
}

impl BenchError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> BenchError {
        let what = what.into();
        move |source| BenchError::Io { what, source }
    }
}

/// What is measured, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where data and results are kept; on a disk, since what is written is measured.
    pub dir: PathBuf,
    /// The programs of this project.
    pub programs: PathBuf,
    /// Sizes of the fleet.
    pub devices: Vec<usize>,
    /// Devices at an update, beside each of them.
    pub updating: usize,
    /// Time between two questions of a device.
    pub interval: Duration,
    /// How long each load lasts.
    pub lasts: Duration,
    /// How long each round of downloads lasts, and how many there are.
    pub download: Duration,
    /// Rounds of downloads from each server.
    pub rounds: usize,
}

impl Options {
    fn otaserver(&self, data: &Path) -> Setup {
        let words = ["--heartbeat-seconds", "60", "--log-level", "error", "--data"].map(str::to_owned);
        let arguments = words.into_iter().chain([data.display().to_string()]).collect();
        Setup { program: self.programs.join("otaserver"), arguments }
    }
}

/// Starts a server with the trust root of the simulated models on a fresh directory below `dir`.
fn fresh_otaserver(options: &Options) -> Result<(Server, tempfile::TempDir), BenchError> {
    let data = tempfile::tempdir_in(&options.dir).map_err(BenchError::io("cannot make a directory"))?;
    // Any model has the same root.
    let root = Model::new("any", "http://127.0.0.1:1")?.root();
    std::fs::write(data.path().join("root.toml"), root).map_err(BenchError::io("cannot write root.toml"))?;
    Ok((Server::start(options.otaserver(data.path()))?, data))
}

/// Uploads a release of a model and offers it to all of its devices.
fn offer(
    server: &Server,
    compatible: &str,
    version: &str,
    sequence: u64,
    most: usize,
) -> Result<(), BenchError> {
    let operator = Operator::new(&server.url());
    let bundle = Model::new(compatible, &server.url())?.bundle(version, sequence)?;
    let uploaded = operator.upload(&bundle)?;
    let policy = json!({ "staging_percent": 100, "promote": false, "max_concurrent": most.max(1) });
    let declared = json!({
        "name": format!("{compatible}-{version}"),
        "artifact": uploaded.get("sha256").cloned().unwrap_or_default(),
        "policy": policy,
    });
    operator.post("/api/v1/releases", &declared)?;
    operator.post(&format!("/api/v1/releases/{compatible}-{version}/start"), &serde_json::Value::Null)?;
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::io("no runtime"))
}

fn address(server: &Server) -> Result<std::net::SocketAddr, BenchError> {
    let url = server.url();
    let text = url.strip_prefix("http://").unwrap_or(&url);
    text.parse().map_err(|_| BenchError::Other(format!("{url} is no address")))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
