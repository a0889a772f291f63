//! Everything that can be known before the target is touched, in the order in which it gets known.
//!
//! The signature comes before the manifest is parsed, the manifest before the index is read, and all of it before the
//! target is disarmed. What is refused here leaves the other slot as bootable as it was.

use otad_bundle::{Bundle, Image, Input, Manifest};

use super::check::Check;
use super::progress::{Phase, Progress};
use super::readback::SyncedSlot;
use super::sources::alive::Alive;
use super::sources::bundle::BundleSource;
use super::sources::delta::{self, DeltaSource, Opening};
use super::sources::running::Finder;
use super::sources::target::{self, Depth};
use super::sources::{ChunkSource, Price, Sources};
use super::{Held, Target, kept};
use crate::config::{Config, Slot};
use crate::failure::{self, Code, Failure, from_bundle};
use crate::layout::Layout;
use crate::lifecycle::event::Release;
use crate::ports::{Decoders, Fetch, Machine, SlotDevices, StateFs, Stop};
use crate::slots;
use crate::trust::Keeper;
use crate::trust::sequence::{self, Permit, Recoverer, Way};

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
    /// Where chunks are decompressed.
    pub decoders: &'a dyn Decoders,
    /// The running slot.
    pub running: &'a Slot,
    /// The slot to be written.
    pub target: &'a Slot,
    /// What the running system is.
    pub current: &'a Current,
    /// What the running slot holds, where otad installed it.
    pub held: Option<&'a Release>,
    /// How far it is.
    pub progress: &'a Progress,
    /// Whether somebody asked to stop.
    pub stop: &'a Stop,
    /// Threads that a stage may use; 0 stands for its own alone.
    pub lanes: usize,
}

impl<'a> Context<'a> {
    /// What comparing a device with an index needs.
    pub fn check(&self) -> Check<'a> {
        Check { fs: self.fs, lanes: self.lanes, progress: self.progress, stop: self.stop }
    }
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
    /// A bundle to fetch.
    Url {
        /// Where it is.
        url: String,
        /// Where a delta to it is, which is tried first.
        delta: Option<String>,
    },
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
    /// Where its chunks come from.
    pub sources: Sources,
    /// The images of the target, in the order of the manifest.
    pub targets: Vec<Target>,
}

/// Opens, verifies, checks and scans; changes nothing but the kept indexes in the data directory.
pub fn prepare(
    context: &Context<'_>,
    source: Source,
    permit: Permit,
    trust: &Keeper,
    fetch: &dyn Fetch,
) -> Result<Prepared, Failure> {
    context.progress.begin(Phase::Verifying, 0);
    let (input, link) = match source {
        Source::Open(input) => (input, Link::Local),
        Source::Url { url, delta } => (fetch.open(&url, context.stop)?, Link::Network { delta }),
    };
    let input: Box<dyn Input + Send> = Box::new(Alive::new(input, context.progress.clone()));
    let mut bundle = Bundle::open(input, &trust.root()).map_err(|error| from_bundle(&error))?;
    trust.accept(bundle.new_roots())?;
    trust.refuse_expired(trust.earliest())?;
    check_length(bundle.input_length(), bundle.total_size())?;
    let mut release = release(bundle.manifest(), bundle.release());
    context.progress.version(&release.version);
    if context.current.release == Some(release.digest) {
        return Ok(Prepared::AlreadyInstalled);
    }
    check_update(context, bundle.manifest())?;
    release.lowers_floor = permit.admit(check_sequence(context, &bundle)?)? == Way::Back;
    unlock(context, &mut bundle, &mut release)?;
    let mut layout = Layout::load(context.fs)?;
    let mut targets = claim(context, &release, Some(&mut layout))?;
    layout.save(context.fs)?;
    check_space(context, &release)?;
    let mut source = BundleSource::new(bundle);
    let mut delta = match &link {
        Link::Network { delta: Some(url) } => open_delta(context, &release, url, fetch, &mut source)?,
        Link::Network { delta: None } | Link::Local => None,
    };
    keep_indexes(context, &release, &mut source, delta.as_mut())?;
    scan(context, &mut source, &mut targets)?;
    context.progress.fetched(source.fetched() + delta.as_ref().map_or(0, ChunkSource::fetched));
    match SyncedSlot::held(&context.target.name, &targets) {
        Some(synced) => Ok(Prepared::AlreadyHeld(Some(release), synced)),
        None => {
            let (cheaper, price) = match link {
                Link::Local => (Vec::new(), Price::Free),
                Link::Network { .. } => (cheaper(context, &release, delta)?, Price::Paid),
            };
            let sources = Sources::new(cheaper, source, price);
            Ok(Prepared::ToWrite(Box::new(Plan { release, sources, targets })))
        }
    }
}

/// How the bundle gets here.
enum Link {
    /// It is here, or comes through a pipe whether it is wanted or not.
    Local,
    /// Every byte of it that is wanted has to be fetched.
    Network {
        /// Where a delta is.
        delta: Option<String>,
    },
}

/// What is worth asking before a byte of the bundle is fetched.
fn cheaper(
    context: &Context<'_>,
    release: &Release,
    delta: Option<DeltaSource>,
) -> Result<Vec<Box<dyn ChunkSource>>, Failure> {
    let Context { running, fs, devices, stop, .. } = *context;
    let finder = Finder { slot: running, release: context.held, devices, fs, stop };
    let running: Box<dyn ChunkSource> = Box::new(finder.find(&release.images)?);
    let delta = delta.map(|delta| Box::new(delta) as Box<dyn ChunkSource>);
    Ok(std::iter::once(running).chain(delta).collect())
}

/// Opens a delta from the release that runs; without it, the install only fetches more.
fn open_delta(
    context: &Context<'_>,
    release: &Release,
    url: &str,
    fetch: &dyn Fetch,
    bundle: &mut BundleSource,
) -> Result<Option<DeltaSource>, Failure> {
    let Some(old) = context.held else {
        log::info!("no delta: otad did not install what runs");
        return Ok(None);
    };
    let opened = fetch.open(url, context.stop).and_then(|input| {
        let input: Box<dyn Input + Send> = Box::new(Alive::new(input, context.progress.clone()));
        let input = bundle.bundle().delta_input(input).map_err(delta::from_delta)?;
        let open = Opening { new: release, running: (context.running, old), devices: context.devices };
        DeltaSource::open(input, context.decoders.start()?, &open)
    });
    match opened {
        Ok(delta) => Ok(Some(delta)),
        Err(failure) if failure.code == Code::Cancelled => Err(failure),
        Err(failure) => {
            log::warn!("no delta: {}: {failure}", failure.code);
            Ok(None)
        }
    }
}

/// Verifies that a slot still holds the release that the record says, for going back to it.
pub fn verify_slot(context: &Context<'_>, release: Release) -> Result<Prepared, Failure> {
    // Nothing is written, and every byte is compared: wherever it lies now, it is that.
    let mut targets = claim(context, &release, None)?;
    context.progress.version(&release.version);
    context.progress.begin(Phase::Scanning, total(&release));
    for target in &mut targets {
        kept::check(context.fs, &target.image)?;
        target::scan(context.check(), target, Depth::Whole)?;
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
        lowers_floor: false,
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

/// Unwraps the content key of an encrypted bundle: the first that anything secret is asked for, and before anything is written. The
/// images are known only then.
fn unlock<I: Input>(
    context: &Context<'_>,
    bundle: &mut Bundle<I>,
    release: &mut Release,
) -> Result<(), Failure> {
    let Some(encryption) = &bundle.manifest().encryption else { return Ok(()) };
    let Some(key) = context.machine.device_key()? else {
        return Err(from_bundle(&otad_bundle::Error::Locked { count: encryption.recipients.len() }));
    };
    bundle.unlock(&*key).map_err(|error| from_bundle(&error))?;
    release.images.clone_from(&bundle.manifest().images);
    Ok(())
}

fn check_sequence<I: Input>(context: &Context<'_>, bundle: &Bundle<I>) -> Result<Way, Failure> {
    let manifest = bundle.manifest();
    let recoverer = if bundle.recoverers().is_empty() { Recoverer::Absent } else { Recoverer::Signed };
    let update = (manifest.update.sequence, manifest.update.version.to_string());
    sequence::judge((update.0, &update.1), manifest.recovery, recoverer, context.current)
}

/// Opens every device of the target exclusively and checks that the images fit, and before writing that it lies where it should.
fn claim(
    context: &Context<'_>,
    release: &Release,
    mut layout: Option<&mut Layout>,
) -> Result<Vec<Target>, Failure> {
    release.images.iter().map(|image| claim_one(context, image, layout.as_deref_mut())).collect()
}

fn claim_one(context: &Context<'_>, image: &Image, layout: Option<&mut Layout>) -> Result<Target, Failure> {
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
    // While it is claimed the kernel neither moves the partition nor takes it away.
    if let Some(layout) = layout {
        layout.meet(slot, &image.role, path, context.devices.partition(id))?;
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

/// Gets as many indexes as the input allows in advance: all of them with random access, the first one of a pipe.
fn keep_indexes(
    context: &Context<'_>,
    release: &Release,
    source: &mut BundleSource,
    mut delta: Option<&mut DeltaSource>,
) -> Result<(), Failure> {
    let random_access = source.bundle().random_access();
    let count = if random_access { release.images.len() } else { 1 };
    for (number, image) in release.images.iter().enumerate().take(count) {
        // An interrupted install has left it, or another slot holds the same image. From a pipe it comes all the same.
        if random_access && kept::is_whole(context.fs, image) {
            continue;
        }
        let made = match (&mut delta, context.held) {
            (Some(delta), Some(old)) => kept::make(context.fs, image, old, delta)?,
            _ => false,
        };
        if !made {
            kept::read(context.fs, number, image, source)?;
        }
    }
    Ok(())
}

fn scan(context: &Context<'_>, source: &mut BundleSource, targets: &mut [Target]) -> Result<(), Failure> {
    let total = targets.iter().map(|target| target.image.size).sum();
    context.progress.begin(Phase::Scanning, total);
    let known = if source.bundle().random_access() { targets.len() } else { 1 };
    for target in targets.iter_mut().take(known) {
        target::scan(context.check(), target, Depth::Probe)?;
    }
    Ok(())
}

fn total(release: &Release) -> u64 {
    release.images.iter().map(|image| image.size).sum()
}
