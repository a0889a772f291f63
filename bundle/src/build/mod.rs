//! Making a bundle from images.
//!
//! Every image goes through one pipeline: a reader cuts it, workers hash and compress the chunks, a collector puts them in
//! order into a spool beside the output. Memory is bounded by the channels and [`MAX_CHUNK_BYTES`], never by the image; the
//! output appears by one rename when it is complete and flushed. The same images, options and keys give the same bytes,
//! whatever the number of threads; but for encrypted bundles, whose content key is a new one each time.

mod assemble;
mod cut;
mod encode;
mod pipeline;
mod sparse;

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

pub(crate) use assemble::{NewFile, NewFront};
pub use cut::Cutter;
pub(crate) use cut::is_zero;

use crate::chain::Chain;
use crate::digest::Digest;
use crate::error::Error;
#[cfg(doc)]
use crate::index::MAX_CHUNK_BYTES;
use crate::key::Signer;
use crate::manifest::{
    Chunking, ENCRYPTION, Encryption, IMAGES_LIMIT, Manifest, Recovery, Update, check_role,
};
use crate::seal::{Binding, ContentKey, ImageSeal, Recipient};
use crate::signature::Signatures;

/// How chunks are compressed; a chunk that does not shrink is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zstd, level 1 to 19.
    Zstd {
        /// The level.
        level: u8,
    },
    /// gzip, level 1 to 9.
    Gzip {
        /// The level.
        level: u8,
    },
    /// None.
    None,
}

impl Compression {
    /// zstd at the last level that is cheap: on 400 MB of Debian's `/usr`, level 3 gives 151.6 MB in 1.9 CPU seconds, 10
    /// gives 141.5 in 8.3, 12 gives 141.2 in 20, 15 gives 132.8 in 49.
    pub const DEFAULT: Compression = Compression::Zstd { level: 10 };

    fn check(self) -> Result<(), Error> {
        let (name, level, limit) = match self {
            Compression::Zstd { level } => ("zstd", level, 19),
            Compression::Gzip { level } => ("gzip", level, 9),
            Compression::None => return Ok(()),
        };
        if (1..=limit).contains(&level) {
            return Ok(());
        }
        Err(Error::Order(format!("{name} has levels 1 to {limit}, not {level}")))
    }
}

/// An image to put into a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its role.
    pub role: String,
    /// Where it is.
    pub path: PathBuf,
}

/// What to build.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What the release is.
    pub update: Update,
    /// Its images, in the order of the bundle.
    pub images: Vec<Source>,
    /// Remarks for tools, put into the manifest.
    pub extra: toml::Table,
    /// How images are cut.
    pub chunking: Chunking,
    /// How chunks are compressed.
    pub compression: Compression,
    /// Worker threads; all processors if `None`.
    pub threads: Option<NonZeroUsize>,
    /// Where the release is a way back from, if it is one; the recovery role has to sign it too.
    pub recovery: Option<Recovery>,
    /// The roots that lead devices to the one that the bundle is signed by.
    pub roots: Option<Chain>,
}

impl Recipe {
    /// A recipe with the default chunking and compression.
    pub fn new(update: Update, images: Vec<Source>) -> Recipe {
        Recipe {
            update,
            images,
            extra: toml::Table::new(),
            chunking: Chunking::DEFAULT,
            compression: Compression::DEFAULT,
            threads: None,
            recovery: None,
            roots: None,
        }
    }
}

/// How far a long act is; both numbers in bytes of plain images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Done so far.
    pub done: u64,
    /// All of it.
    pub total: u64,
}

/// What was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The manifest, as it was signed.
    pub manifest: Manifest,
    /// SHA-256 of its bytes.
    pub release: Digest,
    /// Length of the file in bytes.
    pub size: u64,
}

/// Builds the bundle at `output` for everybody to read; see [`build_for`].
///
/// # Errors
/// Those of [`build_for`].
pub fn build(
    recipe: &Recipe,
    signers: &[&dyn Signer],
    output: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, Error> {
    build_for(recipe, &[], signers, output, progress)
}

/// Who can read the new bundle, and the cipher of each image.
struct Cover {
    encryption: Encryption,
    seals: Vec<ImageSeal>,
}

impl Cover {
    /// Makes a content key and wraps it; it is forgotten afterwards.
    fn new(recipe: &Recipe, recipients: &[&dyn Recipient]) -> Result<Option<Cover>, Error> {
        if recipients.is_empty() {
            return Ok(None);
        }
        let (content, binding) = (ContentKey::generate()?, Binding::of(&recipe.update));
        let recipients = recipients.iter().map(|recipient| recipient.wrap(&content, &binding));
        let encryption = Encryption { recipients: recipients.collect::<Result<_, _>>()? };
        let roles = recipe.images.iter().map(|source| source.role.as_str());
        Ok(Some(Cover { encryption, seals: ImageSeal::all(&content, binding, roles)? }))
    }
}

/// Builds the bundle at `output`, replacing what is there in one step, signed by every one of `signers`, and where there are
/// `recipients`, encrypted for them and nobody else.
///
/// # Errors
/// Everything that is wrong with the recipe, the images, the keys or the output; nothing is left behind then.
pub fn build_for(
    recipe: &Recipe,
    recipients: &[&dyn Recipient],
    signers: &[&dyn Signer],
    output: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, Error> {
    check(recipe, signers)?;
    let cover = Cover::new(recipe, recipients)?;
    let mut inputs = Vec::new();
    let mut total = 0;
    for source in &recipe.images {
        let file = File::open(&source.path).map_err(Error::file("read", &source.path))?;
        total += file.metadata().map_err(Error::file("read", &source.path))?.len();
        inputs.push((source, file));
    }
    let workers = match recipe.threads {
        Some(count) => count,
        None => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let mut done = 0;
    let mut images = Vec::new();
    let mut spools = Vec::new();
    for (number, (source, file)) in inputs.into_iter().enumerate() {
        let seal = cover.as_ref().and_then(|cover| cover.seals.get(number));
        let (chunking, compression) = (recipe.chunking, recipe.compression);
        let job = pipeline::Job { source, chunking, compression, workers, seal };
        let mut spool = assemble::Spool::create(output)?;
        let mut image = pipeline::run(&job, file, &mut spool, &mut |bytes| {
            done += bytes;
            progress(Progress { done, total: total.max(done) });
        })?;
        if let Some(seal) = seal {
            spool.seal_index(seal, &mut image)?;
        }
        images.push(image);
        spools.push(spool);
    }
    let (mut update, extra) = (recipe.update.clone(), recipe.extra.clone());
    let encryption = cover.map(|cover| cover.encryption);
    if encryption.is_some() {
        update.critical.push(ENCRYPTION.to_owned());
    }
    let manifest = Manifest { update, images, recovery: recipe.recovery, encryption, extra };
    let text = manifest.to_toml();
    // What this program signs it must also read: the device's parser is the judge.
    let manifest = Manifest::parse(text.as_bytes())?;
    let mut signatures = Signatures::default();
    for signer in signers {
        signatures.add(text.as_bytes(), *signer)?;
    }
    let front = NewFront { manifest: text.as_bytes(), signatures: &signatures, roots: recipe.roots.as_ref() };
    let size = assemble::write(output, &manifest, &front, &mut spools)?;
    Ok(Built { manifest, release: Digest::of(text.as_bytes()), size })
}

/// Finds the mistakes that can be found before hours of compression.
fn check(recipe: &Recipe, signers: &[&dyn Signer]) -> Result<(), Error> {
    if signers.is_empty() {
        return Err(Error::Order("a bundle needs at least one signing key".into()));
    }
    if recipe.images.is_empty() || recipe.images.len() > IMAGES_LIMIT {
        let count = recipe.images.len();
        return Err(Error::Order(format!("{count} images; a bundle has 1 to {IMAGES_LIMIT}")));
    }
    for (number, source) in recipe.images.iter().enumerate() {
        check_role(&source.role).map_err(Error::Order)?;
        if recipe.images.iter().take(number).any(|other| other.role == source.role) {
            return Err(Error::Order(format!("image {:?} is given twice", source.role)));
        }
    }
    if let Some(roots) = &recipe.roots {
        roots.check_foreign()?;
    }
    recipe.update.check()?;
    recipe.chunking.check().map_err(Error::Order)?;
    recipe.compression.check()
}
