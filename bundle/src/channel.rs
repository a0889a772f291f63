//! The channel document: which release is the latest for a model, said by the online role, and until when that holds.
//!
//! It asserts freshness and assigns a release; it introduces nothing, because a release is installed by its own signatures. The file
//! has one spelling, so that no byte of it is without a signature:
//!
//! ```text
//! schema = 1
//! compatible = "acme-gateway"
//! counter = 17
//! issued = 2026-11-22T12:00:00Z
//! expires = 2026-11-25T12:00:00Z
//! release = "<64 hex digits>"
//! sequence = 42
//!
//! [[also]]
//! release = "<64 hex digits>"
//! sequence = 41
//!
//! [[signature]]
//! …
//! ```
//!
//! Releases that stand under `also` are fine as well, while the latest one is on its way through the fleet in stages: a device may be
//! left on one, or be offered it. There are at most [`ALSO_LIMIT`], each with a lower sequence than the one before it, and most documents
//! have none. `counter` rises with every document of a model. Signed is all before the empty line in front of the signatures, with the type `otab-channel-v1`;
//! signatures are spelled as in `manifest.sig`. Times are UTC, in whole seconds.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{Error, toml_problem};
use crate::instant;
use crate::key::{Signer, read_text};
use crate::signature::Signatures;
use crate::trust::{Role, Root};

/// The DSSE payload type of a channel document.
pub const CHANNEL_TYPE: &str = "otab-channel-v1";
/// Upper bound of a channel document in bytes; it is read before anything is authenticated.
pub const CHANNEL_LIMIT_BYTES: usize = 16 * 1024;
/// Most releases beside the latest one: stages overlap now and then, and a freeze must not hide in a list of everything.
pub const ALSO_LIMIT: usize = 16;

/// What a channel document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The model it is for.
    pub compatible: String,
    /// Its number, rising with every document of this model.
    pub counter: u64,
    /// When it was signed, in seconds since 1970.
    pub issued: u64,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// The latest release: SHA-256 of its manifest.
    pub release: Digest,
    /// The sequence of that release.
    pub sequence: u64,
    /// Older releases that are fine as well, newest first.
    pub also: Vec<NamedRelease>,
}

/// A release that a channel document names beside the latest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedRelease {
    /// SHA-256 of its manifest.
    pub release: Digest,
    /// Its sequence.
    pub sequence: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    schema: u64,
    compatible: String,
    counter: u64,
    issued: toml::value::Datetime,
    expires: toml::value::Datetime,
    release: Digest,
    sequence: u64,
    #[serde(default)]
    also: Vec<NamedRelease>,
}

impl Channel {
    /// Every release that is fine, the latest one first.
    pub fn named(&self) -> impl Iterator<Item = NamedRelease> {
        let latest = NamedRelease { release: self.release, sequence: self.sequence };
        std::iter::once(latest).chain(self.also.iter().copied())
    }

    /// The one spelling of what is signed.
    pub fn to_toml(&self) -> String {
        let mut text = String::from("schema = 1\n");
        let compatible = toml::Value::String(self.compatible.clone());
        let (issued, expires) = (instant::text(self.issued), instant::text(self.expires));
        // Writing to a String cannot fail.
        let _ = write!(text, "compatible = {compatible}\ncounter = {}\nissued = {issued}\n", self.counter);
        let _ = write!(text, "expires = {expires}\nrelease = \"{}\"\n", self.release);
        let _ = writeln!(text, "sequence = {}", self.sequence);
        for NamedRelease { release, sequence } in &self.also {
            let _ = write!(text, "\n[[also]]\nrelease = \"{release}\"\nsequence = {sequence}\n");
        }
        text
    }

    fn parse(text: &str) -> Result<Channel, Error> {
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let (at, problem) = toml_problem(text, &error);
            Error::Channel { at, problem }
        })?;
        let seconds =
            |at: &str, time| instant::seconds(time).ok_or_else(|| wrong(at, "must be a time in UTC"));
        let channel = Channel {
            compatible: raw.compatible,
            counter: raw.counter,
            issued: seconds("issued", &raw.issued)?,
            expires: seconds("expires", &raw.expires)?,
            release: raw.release,
            sequence: raw.sequence,
            also: raw.also,
        };
        if raw.schema != 1 {
            return Err(wrong("schema", format!("{} is not known, this version reads 1", raw.schema)));
        }
        for (at, number) in [("counter", channel.counter), ("sequence", channel.sequence)] {
            if i64::try_from(number).is_err() {
                return Err(wrong(at, format!("{number} is larger than 2^63-1")));
            }
        }
        if channel.expires <= channel.issued {
            return Err(wrong("expires", "must be later than issued"));
        }
        if channel.also.len() > ALSO_LIMIT {
            return Err(wrong("also", format!("{} releases, the limit is {ALSO_LIMIT}", channel.also.len())));
        }
        if !channel.named().map(|named| named.sequence).is_sorted_by(|newer, older| newer > older) {
            return Err(wrong("also", "each release needs a lower sequence than the one before it"));
        }
        if channel.to_toml() != text {
            return Err(wrong("document", "not in its canonical spelling"));
        }
        Ok(channel)
    }
}

/// A channel document as it travels; nothing in it is believed before [`SignedChannel::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedChannel {
    channel: Channel,
    signatures: Signatures,
}

impl SignedChannel {
    /// A document that nobody has signed yet.
    ///
    /// # Errors
    /// It would not be read again.
    pub fn draft(channel: &Channel) -> Result<SignedChannel, Error> {
        let channel = Channel::parse(&channel.to_toml())?;
        Ok(SignedChannel { channel, signatures: Signatures::default() })
    }

    /// Parses a document; judges its form alone.
    ///
    /// # Errors
    /// [`Error::Channel`], [`Error::Unsigned`], or [`Error::SignatureFile`].
    pub fn parse(bytes: &[u8]) -> Result<SignedChannel, Error> {
        if bytes.len() > CHANNEL_LIMIT_BYTES {
            let problem = format!("{} bytes, the limit is {CHANNEL_LIMIT_BYTES}", bytes.len());
            return Err(wrong("document", problem));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("document", "not UTF-8"))?;
        let end = text.find("\n[[signature]]\n").ok_or(Error::Unsigned)?;
        let (body, rest) = text.split_at(end);
        let signatures = Signatures::parse(rest.strip_prefix('\n').unwrap_or(rest).as_bytes())?;
        Ok(SignedChannel { channel: Channel::parse(body)?, signatures })
    }

    /// Reads and parses a file.
    pub fn read(path: &Path) -> Result<SignedChannel, Error> {
        SignedChannel::parse(read_text(path, CHANNEL_LIMIT_BYTES)?.as_bytes())
    }

    /// Adds the signature of `signer`.
    ///
    /// # Errors
    /// The key has signed already, or the signer fails.
    pub fn sign(&mut self, signer: &dyn Signer) -> Result<(), Error> {
        self.signatures.sign(CHANNEL_TYPE, self.channel.to_toml().as_bytes(), signer)
    }

    /// The file.
    pub fn to_text(&self) -> String {
        format!("{}\n{}", self.channel.to_toml(), self.signatures.to_toml())
    }

    /// What it says, if the online role of `root` signed it.
    ///
    /// # Errors
    /// What [`Root::verify`] returns.
    pub fn verify(&self, root: &Root) -> Result<&Channel, Error> {
        root.verify(Role::Online, CHANNEL_TYPE, self.channel.to_toml().as_bytes(), &self.signatures)?;
        Ok(&self.channel)
    }

    /// What it says, whoever signed it: for looking only.
    pub fn unverified(&self) -> &Channel {
        &self.channel
    }
}

fn wrong(at: &str, problem: impl Into<String>) -> Error {
    Error::Channel { at: at.to_owned(), problem: problem.into() }
}
