//! Everything that can be known before the target is touched, in the order in which it gets known.
//!
//! The signature comes before the manifest is parsed, the manifest before the index is read, and all of it before the
//! target is disarmed. What is refused here leaves the other slot as bootable as it was.

use otad_bundle::{Bundle, Image, Input, Manifest, Root};

use sha2::{Digest as _, Sha256};

use super::progress::{Phase, Progress};
use super::readback::SyncedSlot;
use super::sources::alive::Alive;
use super::sources::bundle::BundleSource;
use super::sources::target;
use super::{Held, Target, index_name};
use crate::config::{Config, Slot};
use crate::failure::{self, Code, Failure, from_bundle};
use crate::lifecycle::event::Release;
use crate::ports::{Fetch, Machine, SlotDevices, StateFs, Stop};
use crate::slots;

/// Where an index is while it is being fetched; no index has this name, they are named by their hash.
const NEW_INDEX: &str = "index/new";
/// Left free in the data directory for the record and the log of a trial.
const SPARE_BYTES: u64 = 256 * 1024;

/// What preparation and writing need of the world.
pub struct Context<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The data directory.
    pub fs: &'a dyn StateFs,
    /// Slot devices.
    pub devices: &'a dyn SlotDevices,
    /// The machine.
    pub machine: &'a dyn Machine,
    /// The running slot.
    pub running: &'a Slot,
    /// The slot to be written.
    pub target: &'a Slot,
    /// What the running system is.
    pub current: &'a Current,
    /// How far it is.
    pub progress: &'a Progress,
    /// Whether somebody asked to stop.
    pub stop: &'a Stop,
}

/// What the running system is, for the anti-rollback rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Current {
    /// Version; empty when unknown.
    pub version: String,
    /// Sequence; 0 when unknown.
    pub sequence: u64,
    /// The release, when otad installed it.
    pub release: Option<otad_bundle::Digest>,
    /// The highest sequence that was ever committed on this device.
    pub floor: u64,
}

/// Where the bytes come from.
pub enum Source {
    /// An open file or pipe.
    Open(Box<dyn Input + Send>),
    /// A URL to fetch.
    Url(String),
}

/// What preparation found.
pub enum Prepared {
    /// The running slot holds this release; there is nothing to do.
    AlreadyInstalled,
    /// The target holds every byte of it; without a release when it is the factory's slot.
    AlreadyHeld(Option<Release>, SyncedSlot),
    /// It has to be written.
    ToWrite(Box<Plan>),
}

/// A verified bundle and the claimed target, ready to be written.
pub struct Plan {
    /// The release.
    pub release: Release,
    /// The bundle as a source.
    pub source: BundleSource,
    /// The images of the target, in the order of the manifest.
    pub targets: Vec<Target>,
}

/// Opens, verifies, checks and scans; changes nothing but the kept indexes in the data directory.
pub fn prepare(
    context: &Context<'_>,
    source: Source,
    root: &Root,
    fetch: &dyn Fetch,
) -> Result<Prepared, Failure> {
    context.progress.begin(Phase::Verifying, 0);
    let input = match source {
        Source::Open(input) => input,
        Source::Url(url) => fetch.open(&url, context.stop)?,
    };
    let input: Box<dyn Input + Send> = Box::new(Alive::new(input, context.progress.clone()));
    let bundle = Bundle::open(input, root).map_err(|error| from_bundle(&error))?;
    check_length(bundle.input_length(), bundle.total_size())?;
    let release = release(bundle.manifest(), bundle.release());
    context.progress.version(&release.version);
    if context.current.release == Some(release.digest) {
        return Ok(Prepared::AlreadyInstalled);
    }
    check_update(context, bundle.manifest())?;
    let mut targets = claim(context, &release)?;
    check_space(context, &release)?;
    let mut source = BundleSource::new(bundle)?;
    keep_indexes(context, &release, &mut source)?;
    scan(context, &mut source, &mut targets)?;
    context.progress.fetched(super::sources::ChunkSource::fetched(&source));
    match SyncedSlot::held(&context.target.name, &targets) {
        Some(synced) => Ok(Prepared::AlreadyHeld(Some(release), synced)),
        None => Ok(Prepared::ToWrite(Box::new(Plan { release, source, targets }))),
    }
}

/// Verifies that a slot still holds the release that the record says, for going back to it.
pub fn verify_slot(context: &Context<'_>, release: Release) -> Result<Prepared, Failure> {
    let mut targets = claim(context, &release)?;
    context.progress.version(&release.version);
    context.progress.begin(Phase::Scanning, total(&release));
    for target in &mut targets {
        check_index(context.fs, &target.image)?;
        target::scan(context.fs, target, context.progress, context.stop)?;
    }
    SyncedSlot::held(&context.target.name, &targets)
        .map(|synced| Prepared::AlreadyHeld(Some(release), synced))
        .ok_or_else(|| {
            let name = &context.target.name;
            Failure::new(
                Code::NoFallback,
                format!("slot {name} no longer holds what was installed there; install a bundle instead"),
            )
        })
}

fn release(manifest: &Manifest, digest: otad_bundle::Digest) -> Release {
    Release {
        digest,
        version: manifest.update.version.to_string(),
        sequence: manifest.update.sequence,
        images: manifest.images.clone(),
    }
}

/// What is too short or too long is refused before anything is touched, where its length is known.
fn check_length(found: Option<u64>, signed: u64) -> Result<(), Failure> {
    match found {
        Some(found) if found < signed => {
            let what =
                format!("the source has {found} bytes, the signed bundle {signed}; fetch or copy it again");
            Err(Failure::new(Code::BundleTruncated, what))
        }
        Some(found) if found > signed => {
            let what =
                format!("the source has {found} bytes, the signed bundle {signed}; something follows it");
            Err(Failure::new(Code::BundleFormat, what))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_update(context: &Context<'_>, manifest: &Manifest) -> Result<(), Failure> {
    let (device, update) = (&context.config.compatible, &manifest.update);
    if !update.compatible.iter().any(|name| name == device) {
        let wanted = update.compatible.join(", ");
        return Err(Failure::new(
            Code::Incompatible,
            format!("the bundle is for {wanted}; this device is {device}"),
        ));
    }
    let (new, current, floor) = (update.sequence, context.current.sequence, context.current.floor);
    if new < current.max(floor) {
        let (from, to) = (&context.current.version, &update.version);
        let what = format!(
            "sequence {new} (version {to}) is too low: {current} runs (version {from}), {floor} was committed here before"
        );
        return Err(Failure::new(
            Code::Downgrade,
            format!("{what}; build the older content with a higher sequence"),
        ));
    }
    let missing =
        context.target.images.keys().find(|role| !manifest.images.iter().any(|image| image.role == **role));
    if let Some(role) = missing {
        let what =
            format!("slot {} has an image {role}, which the bundle does not bring", context.target.name);
        return Err(Failure::new(
            Code::ManifestInvalid,
            format!("{what}; a slot is always updated as a whole"),
        ));
    }
    Ok(())
}

/// Opens every device of the target exclusively and checks that the images fit.
fn claim(context: &Context<'_>, release: &Release) -> Result<Vec<Target>, Failure> {
    release.images.iter().map(|image| claim_one(context, image)).collect()
}

fn claim_one(context: &Context<'_>, image: &Image) -> Result<Target, Failure> {
    let slot = context.target;
    let Some(path) = slot.images.get(&image.role) else {
        let known = slot.images.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let what = format!("the bundle has an image {}, slot {} has {known}", image.role, slot.name);
        return Err(Failure::new(
            Code::ManifestInvalid,
            format!("{what}; add images.{} to the slots", image.role),
        ));
    };
    let place = format!("{} of slot {} ({})", image.role, slot.name, path.display());
    let id = context
        .devices
        .identify(path)
        .map_err(|error| failure::from_slot(failure::Act::Open, &place, &error))?;
    slots::refuse_running(context.config, context.running, id, context.machine, context.devices)?;
    let device = context.devices.open_target(path)?;
    if device.id() != id {
        let what = format!("{place} changed to another device while it was being opened");
        return Err(Failure::new(Code::SlotInvalid, format!("{what}; try again")));
    }
    let (need, have) = (image.size, device.size());
    if need > have {
        let what = format!("image {} is {need} bytes, {place} holds {have}", image.role);
        return Err(Failure::new(Code::ImageTooLarge, format!("{what}; build a smaller image")));
    }
    Ok(Target { image: image.clone(), device, place, held: Held::default() })
}

fn check_space(context: &Context<'_>, release: &Release) -> Result<(), Failure> {
    let dir = &context.config.data_dir;
    let free = context.fs.free().map_err(|error| failure::from_state("look at", dir, &error))?;
    let need = release.images.iter().map(|image| image.index.size).sum::<u64>().saturating_add(SPARE_BYTES);
    if free < need {
        let what = format!("{} has {free} bytes free, {need} are needed", dir.display());
        return Err(Failure::new(Code::NoSpace, format!("{what}; make room there")));
    }
    Ok(())
}

/// Reads as many indexes as the input allows in advance: all of them with random access, the first one of a pipe.
fn keep_indexes(context: &Context<'_>, release: &Release, source: &mut BundleSource) -> Result<(), Failure> {
    let count = if source.bundle().random_access() { release.images.len() } else { 1 };
    for (number, image) in release.images.iter().enumerate().take(count) {
        keep_index(context.fs, number, image, source)?;
    }
    Ok(())
}

/// Copies one index into the data directory, verified on the way.
pub fn keep_index(
    fs: &dyn StateFs,
    number: usize,
    image: &Image,
    source: &mut BundleSource,
) -> Result<(), Failure> {
    let name = index_name(image);
    let at = |act: &'static str| {
        let name = name.clone();
        move |error: std::io::Error| failure::from_state(act, name.as_ref(), &error)
    };
    // Under its own name only once it is verified: the other slot may have the same index and need it.
    let mut sink = fs.create(NEW_INDEX).map_err(at("write"))?;
    source.bundle().read_index(number, &mut sink).map_err(|error| from_bundle(&error))?;
    drop(sink);
    // Durable, because going back to this slot much later verifies it by this index.
    fs.sync(NEW_INDEX).map_err(at("flush"))?;
    fs.rename(NEW_INDEX, &name).map_err(at("rename"))?;
    fs.sync_directory().map_err(at("flush the directory of"))
}

/// Whether a kept index is still what was kept: it is trusted without its signature.
fn check_index(fs: &dyn StateFs, image: &Image) -> Result<(), Failure> {
    let name = index_name(image);
    let mut file = fs.open(&name).map_err(|error| failure::from_state("read", name.as_ref(), &error))?;
    let mut hasher = Hasher(Sha256::new());
    std::io::copy(&mut file, &mut hasher)
        .map_err(|error| failure::from_state("read", name.as_ref(), &error))?;
    if hasher.0.finalize()[..] == image.index.sha256.0 {
        return Ok(());
    }
    Err(Failure::new(Code::NoFallback, format!("the kept index {name} is damaged; install a bundle instead")))
}

/// A hash as something to copy into.
struct Hasher(Sha256);

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn scan(context: &Context<'_>, source: &mut BundleSource, targets: &mut [Target]) -> Result<(), Failure> {
    let total = targets.iter().map(|target| target.image.size).sum();
    context.progress.begin(Phase::Scanning, total);
    let known = if source.bundle().random_access() { targets.len() } else { 1 };
    for target in targets.iter_mut().take(known) {
        target::scan(context.fs, target, context.progress, context.stop)?;
    }
    Ok(())
}

fn total(release: &Release) -> u64 {
    release.images.iter().map(|image| image.size).sum()
}
