//! The signed description of a release.
//!
//! Owns `manifest.toml`: its types, its rules and its bounds. Callers hand in bytes whose signature was verified before
//! ([`crate::Bundle::open`] does); the parser nevertheless survives every input, because a signing key can be stolen and
//! a build system can be wrong. All sizes are bytes.

mod hashes;
mod raw;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::digest::Digest;
use crate::error::Error;
use crate::header::MEMBER_LIMIT_BYTES;
use crate::index::{MAX_CHUNK_BYTES, RECORD_BYTES};
use crate::seal::{HASHES_BYTES, TAG_BYTES, Wrapped};

/// Upper bound of `manifest.toml` in bytes.
pub const MANIFEST_LIMIT_BYTES: usize = 1024 * 1024;
/// Most images in one bundle: each costs a device and buffers.
pub const IMAGES_LIMIT: usize = 64;
/// Most hardware names in one bundle.
const COMPATIBLE_LIMIT: usize = 256;
/// Longest name of a hardware, in bytes.
const NAME_LIMIT_BYTES: usize = 255;
/// Longest version text, in bytes.
const VERSION_LIMIT_BYTES: usize = 128;
/// Longest description, in bytes.
const DESCRIPTION_LIMIT_BYTES: usize = 16 * 1024;
/// Smallest chunk of any chunking: below this the index outgrows what it saves.
const CHUNK_FLOOR_BYTES: u32 = 2048;
/// Fixed chunks are multiples of this, so that they start at block boundaries of the device.
const FIXED_STEP_BYTES: u32 = 4096;

/// The one cipher there is.
pub(crate) const CIPHER: &str = "aes-256-gcm";
/// Length of encrypted hashes.
pub(crate) const SEALED_HASHES_BYTES: usize = HASHES_BYTES + TAG_BYTES as usize;

/// Features that this version understands when `update.critical` names them.
const KNOWN_FEATURES: &[&str] = &[ENCRYPTION];
/// The feature that every encrypted bundle names, so that a reader from before says what it lacks.
pub(crate) const ENCRYPTION: &str = "encryption";

/// A manifest that obeys every rule of the format.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What the release is.
    pub update: Update,
    /// Its images, in the order of the bundle; at least one, roles distinct.
    pub images: Vec<Image>,
    /// Where it is a way back from; `None` for every release that only leads forward.
    pub recovery: Option<Recovery>,
    /// Who can read it; `None` when everybody can.
    pub encryption: Option<Encryption>,
    /// Signed remarks for tools; a device ignores them.
    pub extra: toml::Table,
}

/// Who can read an encrypted bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// The content key, wrapped for each recipient; at least one, ids distinct.
    pub recipients: Vec<Wrapped>,
}

/// What a release says that leads devices back to a lower sequence; it counts only with signatures of the recovery role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// The highest sequence from which devices may go back to it: later ones have gone on, and it is nothing for them.
    pub from: u64,
}

/// What a release is and for which hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The version that people read.
    pub version: semver::Version,
    /// The release counter that the anti-rollback floor compares; at most 2^63-1.
    pub sequence: u64,
    /// The hardware it is for; at least one.
    pub compatible: Vec<String>,
    /// One or a few sentences for people; may be empty.
    pub description: String,
    /// Features that a reader must know to install this; unknown ones are refused.
    pub critical: Vec<String>,
}

/// One image of a release.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Image {
    /// Matches `images.<role>` of a slot; `[a-z0-9][a-z0-9-]{0,31}`.
    pub role: String,
    /// How it gets onto the device.
    pub kind: ImageKind,
    /// Length of the plain image, at least 1.
    pub size: u64,
    /// SHA-256 of the whole plain image; zeros while the bundle is encrypted and not unlocked.
    pub sha256: Digest,
    /// How it was cut.
    pub chunking: Chunking,
    /// The chunk index in the clear; its hash is zeros while the bundle is encrypted and not unlocked.
    pub index: IndexRef,
    /// Sum of all stored lengths; below 8 GiB.
    pub payload_size: u64,
    /// How it stands in an encrypted bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

/// What the manifest says of an image of an encrypted bundle in place of hashes that would give away what it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sealed {
    /// The index as it stands in the bundle: its length, and SHA-256 of the table at its front.
    pub index: IndexRef,
    /// SHA-256 of the whole payload as it stands in the bundle.
    pub payload_sha256: Digest,
    /// The hashes of the plain image and of the plain index, encrypted.
    pub hashes: SealedHashes,
}

/// Two hashes of 32 bytes, encrypted, and their tag; base64 in text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedHashes(pub(crate) [u8; SEALED_HASHES_BYTES]);

impl Image {
    /// Number of chunks.
    pub fn chunk_count(&self) -> u64 {
        self.index.size / RECORD_BYTES as u64
    }

    /// The index as it stands in the bundle.
    pub(crate) fn stored_index(&self) -> IndexRef {
        self.sealed.as_ref().map_or(self.index, |sealed| sealed.index)
    }

    /// What encryption adds to each chunk that is stored, in bytes.
    pub fn cover(&self) -> u32 {
        if self.sealed.is_some() { TAG_BYTES } else { 0 }
    }
}

/// How an image gets onto the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageKind {
    /// Byte for byte from the start of the slot's device.
    Raw,
}

impl ImageKind {
    /// The spelling in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            ImageKind::Raw => "raw",
        }
    }
}

/// Size and hash of a chunk index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IndexRef {
    /// Bytes; a multiple of 60.
    pub size: u64,
    /// SHA-256 of all records.
    pub sha256: Digest,
}

/// How an image was cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chunking {
    /// Content-defined (FastCDC 2020, normalisation level 1); lengths in bytes.
    FastCdc {
        /// Shortest chunk; only the last may be shorter.
        min: u32,
        /// Aimed length.
        average: u32,
        /// Longest chunk.
        max: u32,
    },
    /// Chunks of one length in bytes; only the last may be shorter.
    Fixed {
        /// The length, a multiple of 4096.
        size: u32,
    },
}

impl Chunking {
    /// The content-defined default, by measurement (`docs/bundle-format.md` has the figures): a device that holds the release
    /// before fetches 9 % less than with 64 KiB on average, a device that holds nothing 3 % more.
    pub const DEFAULT: Chunking = Chunking::FastCdc { min: 8192, average: 32768, max: 131_072 };
    /// The fixed default.
    pub const DEFAULT_FIXED: Chunking = Chunking::Fixed { size: 65536 };

    /// The longest chunk it makes, in bytes.
    pub const fn max(self) -> u32 {
        match self {
            Chunking::FastCdc { max, .. } => max,
            Chunking::Fixed { size } => size,
        }
    }

    /// The shortest chunk it makes before the last one, in bytes.
    pub const fn min(self) -> u32 {
        match self {
            Chunking::FastCdc { min, .. } => min,
            Chunking::Fixed { size } => size,
        }
    }

    /// Checks the bounds of the format.
    pub fn check(self) -> Result<(), String> {
        match self {
            Chunking::FastCdc { min, average, max } => {
                let ordered = CHUNK_FLOOR_BYTES <= min && min < average && average < max;
                // The algorithm steps two bytes at a time.
                let even = [min, average, max].iter().all(|length| length.is_multiple_of(2));
                if ordered && even && max <= MAX_CHUNK_BYTES {
                    return Ok(());
                }
                Err(format!(
                    "fastcdc needs even {CHUNK_FLOOR_BYTES} <= min < average < max <= {MAX_CHUNK_BYTES}, \
                     not {min}, {average}, {max}"
                ))
            }
            Chunking::Fixed { size } => {
                if (FIXED_STEP_BYTES..=MAX_CHUNK_BYTES).contains(&size)
                    && size.is_multiple_of(FIXED_STEP_BYTES)
                {
                    return Ok(());
                }
                Err(format!(
                    "fixed needs a multiple of {FIXED_STEP_BYTES} up to {MAX_CHUNK_BYTES}, not {size}"
                ))
            }
        }
    }
}

impl Manifest {
    /// Parses and checks `manifest.toml`.
    ///
    /// # Errors
    /// [`Error::Manifest`] with the key or line, or [`Error::CriticalFeature`].
    pub fn parse(bytes: &[u8]) -> Result<Manifest, Error> {
        let manifest = raw::read(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks every rule that the types do not enforce.
    pub fn check(&self) -> Result<(), Error> {
        self.update.check()?;
        if self.images.is_empty() || self.images.len() > IMAGES_LIMIT {
            return Err(wrong(
                "image",
                format!("{} images; a bundle has 1 to {IMAGES_LIMIT}", self.images.len()),
            ));
        }
        if let Some(Recovery { from }) = self.recovery
            && (from < self.update.sequence || i64::try_from(from).is_err())
        {
            let problem = format!("{from} is not between the sequence {} and 2^63-1", self.update.sequence);
            return Err(wrong("recovery.from", problem));
        }
        self.check_encryption()?;
        let mut roles = BTreeSet::new();
        for (number, image) in self.images.iter().enumerate() {
            let at = |key: &str| format!("image[{number}].{key}");
            image.check().map_err(|(key, problem)| wrong(&at(key), problem))?;
            if !roles.insert(image.role.as_str()) {
                return Err(wrong(&at("role"), format!("{:?} stands twice", image.role)));
            }
        }
        Ok(())
    }

    /// All of it is encrypted, and says so to readers who do not know that, or nothing of it.
    fn check_encryption(&self) -> Result<(), Error> {
        let named = self.update.critical.iter().any(|feature| feature == ENCRYPTION);
        let sealed = self.images.iter().filter(|image| image.sealed.is_some()).count();
        let Some(encryption) = &self.encryption else {
            return match (named, sealed) {
                (false, 0) => Ok(()),
                _ => Err(wrong("encryption", "is missing")),
            };
        };
        if !named || sealed != self.images.len() {
            return Err(wrong(
                "encryption",
                "needs all images encrypted, and \"encryption\" in update.critical",
            ));
        }
        let mut keys = BTreeSet::new();
        match encryption.recipients.iter().find(|wrapped| !keys.insert(wrapped.key)) {
            Some(twice) => Err(wrong("encryption.recipient", format!("{} stands there twice", twice.key))),
            None if keys.is_empty() => Err(wrong("encryption.recipient", "is missing")),
            None => Ok(()),
        }
    }

    /// Writes `manifest.toml`.
    pub fn to_toml(&self) -> String {
        let update = &self.update;
        let mut text = format!("[update]\nversion = {}\n", quoted(&update.version.to_string()));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "sequence = {}", update.sequence);
        let _ = writeln!(text, "compatible = {}", list(&update.compatible));
        let _ = writeln!(text, "description = {}", quoted(&update.description));
        if !update.critical.is_empty() {
            let _ = writeln!(text, "critical = {}", list(&update.critical));
        }
        if let Some(recovery) = &self.recovery {
            let _ = write!(text, "\n[recovery]\nfrom = {}\n", recovery.from);
        }
        if let Some(encryption) = &self.encryption {
            let _ = write!(text, "\n[encryption]\ncipher = \"{CIPHER}\"\n");
            encryption.recipients.iter().for_each(|wrapped| text.push_str(&wrapped.to_toml()));
        }
        for image in &self.images {
            text.push_str(&image.to_toml());
        }
        if !self.extra.is_empty() {
            let extra = toml::Table::from_iter([("extra".to_owned(), self.extra.clone().into())]);
            let _ = write!(text, "\n{extra}");
        }
        text
    }
}

impl Update {
    /// Checks the rules of the `[update]` table.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let version = self.version.to_string();
        if version.len() > VERSION_LIMIT_BYTES {
            return Err(wrong("update.version", format!("longer than {VERSION_LIMIT_BYTES} bytes")));
        }
        if i64::try_from(self.sequence).is_err() {
            return Err(wrong("update.sequence", format!("{} is larger than 2^63-1", self.sequence)));
        }
        if self.compatible.is_empty() || self.compatible.len() > COMPATIBLE_LIMIT {
            let problem = format!("{} names; needs 1 to {COMPATIBLE_LIMIT}", self.compatible.len());
            return Err(wrong("update.compatible", problem));
        }
        for name in self.compatible.iter().chain(&self.critical) {
            if name.is_empty() || name.len() > NAME_LIMIT_BYTES || name.chars().any(char::is_control) {
                let problem = format!("a name has 1 to {NAME_LIMIT_BYTES} bytes and no control characters");
                return Err(wrong("update.compatible", problem));
            }
        }
        let mut seen = BTreeSet::new();
        if let Some(name) = self.compatible.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(wrong("update.compatible", format!("{name:?} stands there twice")));
        }
        if self.description.len() > DESCRIPTION_LIMIT_BYTES {
            return Err(wrong("update.description", format!("longer than {DESCRIPTION_LIMIT_BYTES} bytes")));
        }
        // Descriptions end on terminals; an escape sequence there is an attack on the operator.
        if self.description.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            return Err(wrong("update.description", "holds control characters"));
        }
        match self.critical.iter().find(|feature| !KNOWN_FEATURES.contains(&feature.as_str())) {
            Some(feature) => Err(Error::CriticalFeature { feature: feature.clone() }),
            None => Ok(()),
        }
    }
}

impl Image {
    fn check(&self) -> Result<(), (&'static str, String)> {
        check_role(&self.role).map_err(|problem| ("role", problem))?;
        if self.size == 0 || i64::try_from(self.size).is_err() {
            return Err(("size", format!("{} is not in 1..2^63", self.size)));
        }
        self.chunking.check().map_err(|problem| ("chunking", problem))?;
        self.check_index().map_err(|problem| ("index.size", problem))?;
        if self.payload_size > MEMBER_LIMIT_BYTES {
            let problem =
                format!("{} bytes; the container holds at most {MEMBER_LIMIT_BYTES}", self.payload_size);
            return Err(("payload-size", problem));
        }
        let most = self.size.saturating_add(self.chunk_count().saturating_mul(u64::from(self.cover())));
        if self.payload_size > most {
            return Err((
                "payload-size",
                format!("{} is more than {most}, which all of the image takes", self.payload_size),
            ));
        }
        Ok(())
    }

    /// The index must have as many records as the chunking can make of the size, no more and no fewer.
    fn check_index(&self) -> Result<(), String> {
        let size = self.index.size;
        if !size.is_multiple_of(RECORD_BYTES as u64) {
            return Err(format!("{size} is not a multiple of {RECORD_BYTES}"));
        }
        let stored = self.stored_index().size;
        if stored > MEMBER_LIMIT_BYTES {
            return Err(format!("{stored} bytes; the container holds at most {MEMBER_LIMIT_BYTES}"));
        }
        let fewest = self.size.div_ceil(u64::from(self.chunking.max()));
        let most = self.size.div_ceil(u64::from(self.chunking.min()));
        let count = self.chunk_count();
        if count < fewest || count > most {
            return Err(format!(
                "{count} records, but {} bytes cut this way give {fewest} to {most}",
                self.size
            ));
        }
        Ok(())
    }

    fn to_toml(&self) -> String {
        let chunking = match self.chunking {
            Chunking::FastCdc { min, average, max } => {
                format!("{{ kind = \"fastcdc\", min = {min}, average = {average}, max = {max} }}")
            }
            Chunking::Fixed { size } => format!("{{ kind = \"fixed\", size = {size} }}"),
        };
        let hashes = match &self.sealed {
            None => format!("sha256 = \"{}\"", self.sha256),
            Some(sealed) => format!("hashes = \"{}\"", sealed.hashes),
        };
        let index = self.stored_index();
        let mut text = format!(
            "\n[[image]]\nrole = {}\nkind = \"{}\"\nsize = {}\n{hashes}\nchunking = {chunking}\n\
             index = {{ size = {}, sha256 = \"{}\" }}\npayload-size = {}\n",
            quoted(&self.role),
            self.kind.name(),
            self.size,
            index.size,
            index.sha256,
            self.payload_size
        );
        if let Some(sealed) = &self.sealed {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "payload-sha256 = \"{}\"", sealed.payload_sha256);
        }
        text
    }
}

/// Checks `[a-z0-9][a-z0-9-]{0,31}`: the role becomes part of member names.
pub(crate) fn check_role(role: &str) -> Result<(), String> {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first = role.bytes().next().is_some_and(sound);
    if first && role.len() <= 32 && role.bytes().all(|byte| sound(byte) || byte == b'-') {
        return Ok(());
    }
    let shown: String = role.chars().take(40).collect();
    Err(format!("{shown:?} is not a role: 1 to 32 of a-z, 0-9 and -, not starting with -"))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

fn wrong(at: &str, problem: impl Into<String>) -> Error {
    Error::Manifest { at: at.to_owned(), problem: problem.into() }
}
