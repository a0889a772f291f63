//! `manifest.toml` as it is written: the serde shapes and their conversion.
//!
//! Unknown and duplicate keys, wrong types and documents over the limit are refused here; the TOML parser itself bounds
//! nesting (a test holds it to that). What a value may be is decided in the parent module.

use serde::Deserialize;

use super::{
    Chunking, Image, ImageKind, IndexRef, KNOWN_FEATURES, MANIFEST_LIMIT_BYTES, Manifest, Recovery, Update,
    wrong,
};
use crate::digest::Digest;
use crate::error::{Error, toml_problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    update: RawUpdate,
    recovery: Option<Recovery>,
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
    sha256: Digest,
    chunking: RawChunking,
    index: RawIndex,
    payload_size: u64,
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
        let images = self.image.into_iter().map(RawImage::convert).collect();
        Ok(Manifest { update, images, recovery: self.recovery, extra: self.extra })
    }
}

impl RawImage {
    fn convert(self) -> Image {
        Image {
            role: self.role,
            kind: match self.kind {
                RawKind::Raw => ImageKind::Raw,
            },
            size: self.size,
            sha256: self.sha256,
            chunking: match self.chunking {
                RawChunking::FastCdc { min, average, max } => Chunking::FastCdc { min, average, max },
                RawChunking::Fixed { size } => Chunking::Fixed { size },
            },
            index: IndexRef { size: self.index.size, sha256: self.index.sha256 },
            payload_size: self.payload_size,
        }
    }
}
