//! `manifest.toml` as it is written: the serde shapes and their conversion.
//!
//! Unknown and duplicate keys, wrong types and documents over the limit are refused here; the TOML parser itself bounds
//! nesting (a test holds it to that). What a value may be is decided in the parent module.

use serde::Deserialize;

use super::{
    CIPHER, Chunking, Encryption, Image, ImageKind, IndexRef, KNOWN_FEATURES, MANIFEST_LIMIT_BYTES, Manifest,
    Recovery, Sealed, SealedHashes, Update, wrong,
};
use crate::digest::Digest;
use crate::error::{Error, toml_problem};
use crate::index::RECORD_BYTES;
use crate::seal::{self, Wrapped};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    update: RawUpdate,
    recovery: Option<Recovery>,
    encryption: Option<RawEncryption>,
    #[serde(default)]
    image: Vec<RawImage>,
    #[serde(default)]
    extra: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUpdate {
    version: String,
    sequence: u64,
    compatible: Vec<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    critical: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawImage {
    role: String,
    kind: RawKind,
    size: u64,
    sha256: Option<Digest>,
    hashes: Option<SealedHashes>,
    chunking: RawChunking,
    index: RawIndex,
    payload_size: u64,
    payload_sha256: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEncryption {
    cipher: String,
    #[serde(default)]
    recipient: Vec<RawRecipient>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecipient {
    key: String,
    algorithm: String,
    wrapped: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Raw,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum RawChunking {
    FastCdc { min: u32, average: u32, max: u32 },
    Fixed { size: u32 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIndex {
    size: u64,
    sha256: Digest,
}

/// Only what must be known before the rest can be judged.
#[derive(Deserialize)]
struct Preview {
    update: PreviewUpdate,
}

#[derive(Deserialize)]
struct PreviewUpdate {
    #[serde(default)]
    critical: Vec<String>,
}

pub(super) fn read(bytes: &[u8]) -> Result<Manifest, Error> {
    if bytes.len() > MANIFEST_LIMIT_BYTES {
        return Err(wrong("document", format!("{} bytes, the limit is {MANIFEST_LIMIT_BYTES}", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("document", "not UTF-8"))?;
    let problem = |error| {
        let (at, problem) = toml_problem(text, &error);
        Error::Manifest { at, problem }
    };
    // A feature of the future may bring keys of the future: name the feature rather than the unknown key.
    let preview: Preview = toml::from_str(text).map_err(problem)?;
    if let Some(feature) =
        preview.update.critical.iter().find(|name| !KNOWN_FEATURES.contains(&name.as_str()))
    {
        return Err(Error::CriticalFeature { feature: feature.chars().take(80).collect() });
    }
    let raw: RawManifest = toml::from_str(text).map_err(problem)?;
    raw.convert()
}

impl RawManifest {
    fn convert(self) -> Result<Manifest, Error> {
        let version = semver::Version::parse(&self.update.version)
            .map_err(|error| wrong("update.version", format!("not a semantic version: {error}")))?;
        let update = Update {
            version,
            sequence: self.update.sequence,
            compatible: self.update.compatible,
            description: self.update.description,
            critical: self.update.critical,
        };
        let image = |(number, image): (usize, RawImage)| {
            let at = |(key, problem): (&str, &str)| wrong(&format!("image[{number}].{key}"), problem);
            image.convert().map_err(at)
        };
        let images = self.image.into_iter().enumerate().map(image).collect::<Result<_, _>>()?;
        let encryption = self.encryption.map(RawEncryption::convert).transpose()?;
        Ok(Manifest { update, images, recovery: self.recovery, encryption, extra: self.extra })
    }
}

impl RawEncryption {
    fn convert(self) -> Result<Encryption, Error> {
        if self.cipher != CIPHER {
            let shown: String = self.cipher.chars().take(40).collect();
            return Err(wrong("encryption.cipher", format!("{shown:?} is not known, only {CIPHER}")));
        }
        let recipient = |(number, raw): (usize, RawRecipient)| {
            Wrapped::parse(&raw.key, &raw.algorithm, &raw.wrapped)
                .map_err(|problem| wrong(&format!("encryption.recipient[{number}]"), problem))
        };
        let recipients = self.recipient.into_iter().enumerate().map(recipient).collect::<Result<_, _>>()?;
        Ok(Encryption { recipients })
    }
}

impl RawImage {
    fn convert(self) -> Result<Image, (&'static str, &'static str)> {
        let stored = IndexRef { size: self.index.size, sha256: self.index.sha256 };
        let (sha256, index, sealed) = match (self.sha256, self.hashes, self.payload_sha256) {
            (Some(sha256), None, None) => (sha256, stored, None),
            (None, Some(hashes), Some(payload_sha256)) => {
                let records = seal::index::records(stored.size)
                    .ok_or(("index.size", "no number of records makes an encrypted index of this length"))?;
                let plain = IndexRef { size: records * RECORD_BYTES as u64, sha256: Digest::UNKNOWN };
                (Digest::UNKNOWN, plain, Some(Sealed { index: stored, payload_sha256, hashes }))
            }
            (None, None, None) => return Err(("sha256", "missing field `sha256`")),
            _ => return Err(("sha256", "either sha256, or hashes and payload-sha256")),
        };
        Ok(Image {
            role: self.role,
            kind: match self.kind {
                RawKind::Raw => ImageKind::Raw,
            },
            size: self.size,
            sha256,
            chunking: match self.chunking {
                RawChunking::FastCdc { min, average, max } => Chunking::FastCdc { min, average, max },
                RawChunking::Fixed { size } => Chunking::Fixed { size },
            },
            index,
            payload_size: self.payload_size,
            sealed,
        })
    }
}
