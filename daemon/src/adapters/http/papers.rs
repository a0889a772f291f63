//! The files of `[server]`: authorities, this device's certificate and key, its token; as they are now, with their names for messages.
//!
//! They are read by whoever may read secrets of this device, and used by whoever talks to the network, which may be another process.

use std::fmt;
use std::path::{Path, PathBuf};

use otad_bundle::Digest;

use crate::adapters::secret::refuse_if_public;
use crate::config::Server;
use crate::failure::{Code, Failure};

/// Bytes of a file of `[server]` at most; all authorities of a Linux distribution have 220 KiB.
const MAX_PAPER_BYTES: u64 = 512 * 1024;

/// One file.
#[derive(Clone, PartialEq, Eq)]
pub struct Paper {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// What a device shows and believes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Papers {
    /// Authorities that may vouch for servers, instead of those of the public web.
    pub ca: Option<Paper>,
    /// Keys that the update server may have.
    pub pins: Vec<Digest>,
    /// This device's certificate and its key.
    pub identity: Option<(Paper, Paper)>,
    /// The token that the update server gave this device.
    pub token: Option<Paper>,
}

impl Papers {
    /// Reads what does not concern this device alone: whom to believe.
    ///
    /// # Errors
    /// [`Code::Config`]: the file of authorities cannot be read.
    pub fn believed(server: &Server) -> Result<Papers, Failure> {
        let ca = server.ca.as_deref().map(Paper::authorities).transpose()?;
        Ok(Papers { ca, pins: server.pins.clone(), identity: None, token: None })
    }

    /// Reads every file that `[server]` names.
    ///
    /// # Errors
    /// [`Code::Config`]: one of them cannot be read, or holds a secret that everybody may read.
    pub fn read(server: &Server) -> Result<Papers, Failure> {
        let Server { identity, token_file, .. } = server;
        let identity = identity.as_ref().map(|files| {
            Ok((Paper::certificate(&files.certificate)?, Paper::secret("client-key", &files.key)?))
        });
        let token = token_file.as_deref().map(Paper::token).transpose()?;
        Ok(Papers { identity: identity.transpose()?, token, ..Papers::believed(server)? })
    }
}

impl Paper {
    pub(super) fn authorities(file: &Path) -> Result<Paper, Failure> {
        Paper::read("ca", file)
    }

    pub(super) fn certificate(file: &Path) -> Result<Paper, Failure> {
        Paper::read("client-certificate", file)
    }

    pub(super) fn token(file: &Path) -> Result<Paper, Failure> {
        Paper::secret("token-file", file)
    }

    pub(super) fn secret(key: &str, file: &Path) -> Result<Paper, Failure> {
        refuse_if_public(&format!("[server] {key}"), file)?;
        Paper::read(key, file)
    }

    fn read(key: &str, file: &Path) -> Result<Paper, Failure> {
        use std::io::Read as _;
        let mut text = String::new();
        let read = std::fs::File::open(file)
            .and_then(|open| open.take(MAX_PAPER_BYTES + 1).read_to_string(&mut text));
        let paper = Paper { path: file.to_owned(), text };
        match read {
            Ok(length) if length as u64 > MAX_PAPER_BYTES => {
                Err(paper.unusable(key, &format!("it is larger than {} KiB", MAX_PAPER_BYTES / 1024)))
            }
            Ok(_) => Ok(paper),
            Err(error) => Err(paper.unusable(key, &error)),
        }
    }

    /// What to say when it is of no use; `key` is its name in `[server]`.
    pub(super) fn unusable(&self, key: &str, why: &dyn fmt::Display) -> Failure {
        Failure::new(Code::Config, format!("[server] {key}: cannot use {}: {why}", self.path.display()))
    }
}

/// It may be a secret.
impl fmt::Debug for Paper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Paper").field(&self.path).finish()
    }
}
