//! `otactl bundle create`: from options and the template to a recipe.
//!
//! Owns the template's schema and which flag overrides which key; the library does the work.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use otad_bundle::{Chunking, Compression, Recipe, Recipient, Recovery, Signer, Source, Update, build_for};
use otad_dbus::Code;
use serde::Deserialize;
use serde_json::json;

use super::key::path_text;
use super::progress::Bar;
use super::{output, recipient, signer, trust};
use crate::args::{ChunkingKind, Compress, CreateArgs, Globals};
use crate::exit::Exit;
use crate::show::human_bytes;

/// `M.toml`: what a person or a build system knows about a release.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    #[serde(default)]
    update: UpdateTemplate,
    /// Remarks for tools, signed and otherwise ignored.
    #[serde(default)]
    extra: toml::Table,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateTemplate {
    version: Option<String>,
    sequence: Option<u64>,
    compatible: Option<Vec<String>>,
    description: Option<String>,
}

pub(super) fn run(args: &CreateArgs, globals: &Globals) -> Result<(), Exit> {
    let recipe = recipe(args)?;
    let keys = signer::all(&args.signing)?;
    let signers: Vec<&dyn Signer> = keys.iter().map(|key| &**key).collect();
    let recipients = recipient::all(&args.recipients)?;
    let recipients: Vec<&dyn Recipient> = recipients.iter().map(|recipient| &**recipient).collect();
    let bar = Bar::new(globals, "building");
    let built = build_for(&recipe, &recipients, &signers, &args.out, &mut |progress| bar.set(progress))?;
    drop(bar);
    let plain: u64 = built.manifest.images.iter().map(|image| image.size).sum();
    let ids: Vec<_> = signers.iter().map(|signer| signer.key_id().to_string()).collect();
    let readers = super::bundle::readers(&built.manifest);
    let mut text = format!(
        "{}: {} (sequence {}), {} of images in {}\nrelease    {}\nsigned by  {}\n",
        args.out.display(),
        built.manifest.update.version,
        built.manifest.update.sequence,
        human_bytes(plain),
        human_bytes(built.size),
        built.release,
        ids.join(", ")
    );
    if !readers.is_empty() {
        text.push_str(&format!("readable by {}\n", readers.join(", ")));
    }
    let value = json!({
        "bundle": path_text(&args.out),
        "version": built.manifest.update.version.to_string(),
        "sequence": built.manifest.update.sequence,
        "release": built.release.to_string(),
        "size": built.size,
        "image_bytes": plain,
        "signed_by": ids,
        "recipients": readers,
    });
    output::show(globals, &text, &value)
}

fn recipe(args: &CreateArgs) -> Result<Recipe, Exit> {
    let template = match &args.manifest {
        Some(path) => read_template(path)?,
        None => Template::default(),
    };
    let given = template.update;
    let missing = |key: &str| {
        Exit::usage(format!("the release has no {key}: put it under [update] in --manifest, or give --{key}"))
    };
    let version = match (&args.version, &given.version) {
        (Some(version), _) => version.clone(),
        (None, Some(text)) => semver::Version::parse(text)
            .map_err(|error| Exit::usage(format!("version {text:?} is not a semantic version: {error}")))?,
        (None, None) => return Err(missing("version")),
    };
    let compatible =
        if args.compatible.is_empty() { given.compatible } else { Some(args.compatible.clone()) };
    let update = Update {
        version,
        sequence: args.sequence.or(given.sequence).ok_or_else(|| missing("sequence"))?,
        compatible: compatible.ok_or_else(|| missing("compatible"))?,
        description: args.description.clone().or(given.description).unwrap_or_default(),
        critical: Vec::new(),
    };
    let images = args.images.iter().map(|text| source(text)).collect::<Result<_, _>>()?;
    let mut recipe = Recipe::new(update, images);
    recipe.extra = template.extra;
    recipe.chunking = chunking(args)?;
    recipe.recovery = args.recovery_from.map(|from| Recovery { from });
    recipe.roots = trust::roots(&args.with_root)?;
    recipe.compression = match args.compress {
        Compress::Zstd => args.level.map_or(Compression::DEFAULT, |level| Compression::Zstd { level }),
        Compress::Gzip => Compression::Gzip { level: args.level.unwrap_or(6) },
        Compress::None if args.level.is_some() => return Err(Exit::usage("--level needs a compression")),
        Compress::None => Compression::None,
    };
    recipe.threads = match args.threads {
        None => None,
        Some(count) => {
            Some(NonZeroUsize::new(count).ok_or_else(|| Exit::usage("--threads must be at least 1"))?)
        }
    };
    Ok(recipe)
}

fn chunking(args: &CreateArgs) -> Result<Chunking, Exit> {
    match (args.chunking, args.chunk_size) {
        (ChunkingKind::Fastcdc, None) => Ok(Chunking::DEFAULT),
        // A quarter and four times the average, as the default has it.
        (ChunkingKind::Fastcdc, Some(average)) => {
            Ok(Chunking::FastCdc { min: average / 4, average, max: average.saturating_mul(4) })
        }
        (ChunkingKind::Fixed, None) => Ok(Chunking::DEFAULT_FIXED),
        (ChunkingKind::Fixed, Some(size)) => Ok(Chunking::Fixed { size }),
    }
}

fn source(text: &str) -> Result<Source, Exit> {
    match text.split_once('=') {
        Some((role, path)) if !role.is_empty() && !path.is_empty() => {
            Ok(Source { role: role.to_owned(), path: path.into() })
        }
        _ => Err(Exit::usage(format!("--image {text}: write it as ROLE=FILE, like rootfs=rootfs.ext4"))),
    }
}

fn read_template(path: &Path) -> Result<Template, Exit> {
    let text = fs::read_to_string(path)
        .map_err(|error| Exit::coded(Code::FileIo, format!("cannot read {}: {error}", path.display())))?;
    // The parser's message shows the line and points at the column.
    toml::from_str(&text)
        .map_err(|error| Exit::usage(format!("{}: {}", path.display(), error.to_string().trim())))
}
