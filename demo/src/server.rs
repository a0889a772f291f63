//! The update server beside the device.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::Error;
use crate::process::Guarded;
use crate::programs::{Binaries, run, tail, tool};

/// What `otaserver` prints first.
const ANNOUNCEMENT: &str = "listening on ";

/// A running `otaserver` on a free port of this machine; killed when dropped.
#[derive(Debug)]
pub struct Server {
    _process: Guarded,
    url: String,
}

/// What the server says of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Artifact {
    /// SHA-256 of the bundle.
    pub sha256: String,
    /// SHA-256 of the signed manifest.
    pub release: String,
    /// Version of the release.
    pub version: String,
    /// Where it is, below the server's URL.
    pub url: String,
}

/// What a device told the server; what it did not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// How the update ended.
    pub outcome: String,
    /// Version of the update.
    pub version: Option<String>,
    /// The stable code of the reason.
    pub code: Option<String>,
    /// The reason.
    pub message: Option<String>,
    /// After a rollback: the last lines of the boot that failed.
    #[serde(default)]
    pub log: Vec<String>,
}

#[derive(Deserialize)]
struct Artifacts {
    artifacts: Vec<Artifact>,
}

#[derive(Deserialize)]
struct Reports {
    reports: Vec<Report>,
}

impl Server {
    /// Starts it with its data in `dir` and its log in `otaserver.log` beside.
    pub fn start(dir: &Path, root: &Path, binaries: &Binaries) -> Result<Server, Error> {
        let log = dir.with_extension("log");
        let arguments: [OsString; 8] = [
            "--data".into(),
            dir.into(),
            "--listen".into(),
            "127.0.0.1:0".into(),
            // Devices take the longer of this and their own interval.
            "--heartbeat-seconds".into(),
            "1".into(),
            "--root".into(),
            root.into(),
        ];
        let mut process = Guarded::start(&binaries.path("otaserver"), &arguments, Stdio::piped(), &log)?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(Error::io("read the address of", "otaserver"))?;
        }
        match line.trim_end().strip_prefix(ANNOUNCEMENT) {
            Some(url) => Ok(Server { _process: process, url: url.to_owned() }),
            None => Err(Error::Program {
                command: "otaserver".to_owned(),
                status: "it does not listen".to_owned(),
                said: tail(&std::fs::read(&log).unwrap_or_default()),
            }),
        }
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The command line that uploads a bundle.
    pub fn upload_command(&self, bundle: &Path) -> Vec<OsString> {
        let url = format!("{}/api/v1/artifacts", self.url);
        let fixed = ["--silent", "--show-error", "--fail-with-body", "-X", "POST", "-T"].map(OsString::from);
        fixed.into_iter().chain([bundle.into(), url.into()]).collect()
    }

    /// Uploads a bundle.
    pub fn upload(&self, bundle: &Path) -> Result<Artifact, Error> {
        let answer = run(Command::new(tool("curl")?).args(self.upload_command(bundle)))?;
        Self::parse_artifact(&answer)
    }

    /// Reads the answer to an upload.
    pub fn parse_artifact(answer: &[u8]) -> Result<Artifact, Error> {
        parse(answer)
    }

    /// Everything that was uploaded, the newest first.
    pub fn artifacts(&self) -> Result<Vec<Artifact>, Error> {
        self.get::<Artifacts>("/api/v1/artifacts").map(|answer| answer.artifacts)
    }

    /// The URL of an artifact.
    pub fn artifact_url(&self, artifact: &Artifact) -> String {
        format!("{}{}", self.url, artifact.url)
    }

    /// The reports of a device, the newest first.
    pub fn reports(&self, device: &str) -> Result<Vec<Report>, Error> {
        self.get::<Reports>(&format!("/api/v1/reports?device={device}")).map(|answer| answer.reports)
    }

    fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let url = format!("{}{path}", self.url);
        parse(&run(Command::new(tool("curl")?).args(["--silent", "--show-error", "--fail-with-body", &url]))?)
    }
}

fn parse<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(answer).map_err(|error| {
        Error::Setup(format!("the server's answer is not understood: {error}: {}", tail(answer)))
    })
}
