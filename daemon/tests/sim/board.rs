//! The device that is simulated: its slots, its boot loader, and the releases there are for it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bootenv::model::BootLoader;
use bootenv::{ByteOrder, CopyId, Environment, Layout, Scheme, SchemeKind};
use otad::config::{self, Config};
use otad::testing::edges::{ENVIRONMENT, SECOND_COPY};
use otad::testing::medium::{Medium, mix};
use otad::testing::storage::{Names, Storage, View};
use otad_bundle::{Chain, Digest, Root, SignedRoot, Signer, SigningKey};

/// Size of a copy of the environment; small, because every cut computes its checksum several times.
pub(crate) const ENV_BYTES: usize = 1024;
/// Boots on trial.
pub(crate) const LIMIT: u8 = 3;
/// Chunks of an image.
const CHUNK: usize = 8192;
/// An image is its head and a few chunks behind it.
const IMAGE_BYTES: usize = 128 * 1024 + 4 * CHUNK;
/// What U-Boot and the kernel look at before they take an image: its first page, with a checksum.
const FRONT_BYTES: usize = 4096;

/// One release.
pub(crate) struct Release {
    pub(crate) version: String,
    pub(crate) sequence: u64,
    pub(crate) digest: Digest,
    pub(crate) healthy: bool,
    pub(crate) bundle: Arc<[u8]>,
    /// Role by role, the content of a device that holds it.
    pub(crate) media: Vec<Medium>,
}

/// A kind of device.
pub(crate) struct Board {
    pub(crate) roles: Vec<&'static str>,
    pub(crate) scheme: Scheme,
    pub(crate) loader: BootLoader,
    pub(crate) config: Arc<Config>,
    /// The roots of trust: 1, which the factory's images hold, and what follows it.
    roots: Vec<SignedRoot>,
    pub(crate) releases: Vec<Release>,
    /// Content of all devices of a slot to the release that it is.
    known: HashMap<u64, usize>,
}

pub(crate) const SLOTS: [&str; 2] = ["a", "b"];
/// Releases by what they are for.
pub(crate) const FACTORY: usize = 0;
pub(crate) const OLD: usize = 1;
pub(crate) const GOOD: usize = 2;
pub(crate) const BAD: usize = 3;
pub(crate) const NEXT: usize = 4;
pub(crate) const LATER: usize = 5;
/// Signed by the key of root 3, with roots 2 and 3 in the bundle; a healthy one and a bad one.
pub(crate) const ROTATED: usize = 6;
pub(crate) const BAD_ROTATED: usize = 7;
/// A way back from release GOOD, with a lower sequence, signed by the recovery role too.
pub(crate) const WAY_BACK: usize = 9;
/// Signed by the keys of roots 1 and 2; its image holds root 2.
pub(crate) const BRINGING: usize = 8;

impl Board {
    pub(crate) fn new(kind: SchemeKind, roles: &[&'static str]) -> Arc<Board> {
        let scheme = Scheme::new(kind, SLOTS, LIMIT).unwrap();
        let loader = BootLoader::new(scheme.clone(), Layout::Redundant, ByteOrder::NATIVE);
        let roots = roots();
        let dir = tempfile::tempdir().unwrap();
        // Sequence 1 for both that a device may come with: either may be replaced by any of the others.
        let releases: Vec<Release> = [
            ("1.0.0", 1, true),
            ("0.9.0", 1, true),
            ("2.0.0", 2, true),
            ("3.0.0", 3, false),
            ("4.0.0", 4, true),
            ("5.0.0", 5, true),
            ("6.0.0", 6, true),
            ("7.0.0", 7, false),
            ("8.0.0", 8, true),
            ("0.8.0", 1, true),
        ]
        .into_iter()
        .enumerate()
        .map(|(number, (version, sequence, healthy))| {
            release(dir.path(), &roots, roles, Order { number, version, sequence, healthy })
        })
        .collect();
        let known = releases.iter().enumerate().map(|(n, release)| (combined(&release.media), n)).collect();
        let config = Arc::new(configuration(kind, roles));
        Arc::new(Board { roles: roles.to_vec(), scheme, loader, config, roots, releases, known })
    }

    /// The root that the factory's images hold.
    pub(crate) fn first_root(&self) -> &Root {
        self.roots[0].root()
    }

    /// The roots that the image of a release holds.
    pub(crate) fn image_roots(&self, release: Option<usize>) -> Chain {
        let count = if release == Some(BRINGING) { 2 } else { 1 };
        Chain::of(self.roots[..count].to_vec()).unwrap()
    }

    /// Number of a device.
    pub(crate) fn medium(&self, slot: &str, role: usize) -> usize {
        let slot = SLOTS.iter().position(|name| *name == slot).unwrap();
        1 + slot * self.roles.len() + role
    }

    /// Paths of all devices, by number.
    pub(crate) fn paths(&self) -> Vec<Option<PathBuf>> {
        let mut paths = vec![None];
        for slot in SLOTS {
            paths.extend(self.roles.iter().map(|role| Some(path(slot, role))));
        }
        paths
    }

    /// A device that runs `running` in `slot`, with `other` in the other one, which is not to be booted.
    pub(crate) fn factory(&self, slot: &str, running: usize, other: Option<usize>, names: Names) -> Storage {
        let mut environment = Environment::new();
        environment.set(b"bootdelay", b"2").unwrap();
        environment.apply(&self.scheme.factory(slot).unwrap()).unwrap();
        let data = environment.serialise(ENV_BYTES - Layout::Redundant.header_bytes(), 0).unwrap();
        let mut bytes = vec![0; 2 * SECOND_COPY as usize];
        for (at, flags) in [(0, 2), (SECOND_COPY as usize, 1)] {
            let copy = bootenv::format::Copy { flags, data: data.clone() }
                .encode(Layout::Redundant, ByteOrder::NATIVE);
            bytes[at..at + ENV_BYTES].copy_from_slice(&copy);
        }
        let mut media = vec![Medium::new(&bytes)];
        for name in SLOTS {
            for role in 0..self.roles.len() {
                let content = if name == slot { Some(running) } else { other };
                let blank = || Medium::new(&vec![0xff; IMAGE_BYTES]);
                media.push(content.map_or_else(blank, |n| self.releases[n].media[role].clone()));
            }
        }
        Storage::new(media, names)
    }

    /// The release that a slot holds, whole.
    pub(crate) fn holds(&self, view: &View, slot: &str) -> Option<usize> {
        let hash = (0..self.roles.len())
            .fold(0, |hash, role| mix(hash, view.medium(self.medium(slot, role)).hash()));
        self.known.get(&hash).copied()
    }

    /// Whether the boot loader can load something from a slot.
    pub(crate) fn loadable(&self, view: &View, slot: &str) -> bool {
        let role = self.roles.iter().position(|role| *role == "kernel").unwrap_or(0);
        let mut front = [0; FRONT_BYTES];
        view.medium(self.medium(slot, role)).read(0, &mut front);
        front[..8] == *b"SIMIMAGE" && front[8..12] == crc32fast::hash(&front[12..]).to_le_bytes()
    }

    /// Both copies of the environment, as stored.
    pub(crate) fn copies(view: &View) -> Vec<Vec<u8>> {
        let medium = view.medium(ENVIRONMENT);
        [CopyId::First, CopyId::Second]
            .into_iter()
            .map(|copy| {
                let mut bytes = vec![0; ENV_BYTES];
                medium.read(otad::testing::edges::copy_offset(copy), &mut bytes);
                bytes
            })
            .collect()
    }
}

/// The release key of a root.
fn key(version: u8) -> SigningKey {
    SigningKey::from_seed([6 + version; 32]).unwrap()
}

fn recovery_key() -> SigningKey {
    SigningKey::from_seed([20; 32]).unwrap()
}

/// Three roots, each with a release key of its own, which also signs the next root.
fn roots() -> Vec<SignedRoot> {
    let root = |version: u8| {
        let text = Root::with_release_keys(&[key(version).public_key()]).to_toml();
        let text = text.replacen("version = 1", &format!("version = {version}"), 1);
        let root = Root::parse(text.as_bytes()).unwrap();
        let root = root.with_key(otad_bundle::Role::Recovery, recovery_key().public_key());
        let mut root = SignedRoot::draft(&root).unwrap();
        // The first one is what `otactl trust init` makes: vouched for by the image that it lies in.
        let signers = if version > 1 { vec![version - 1, version] } else { Vec::new() };
        signers.into_iter().for_each(|by| root.sign(&key(by)).unwrap());
        root
    };
    (1..=3).map(root).collect()
}

fn combined(media: &[Medium]) -> u64 {
    media.iter().fold(0, |hash, medium| mix(hash, medium.hash()))
}

fn path(slot: &str, role: &str) -> PathBuf {
    PathBuf::from(format!("/dev/{role}-{slot}"))
}

struct Order {
    number: usize,
    version: &'static str,
    sequence: u64,
    healthy: bool,
}

fn release(dir: &Path, roots: &[SignedRoot], roles: &[&'static str], order: Order) -> Release {
    let update = otad_bundle::Update {
        version: order.version.parse().unwrap(),
        sequence: order.sequence,
        compatible: vec!["simulated".to_owned()],
        description: String::new(),
        critical: Vec::new(),
    };
    let mut media = Vec::new();
    let mut sources = Vec::new();
    for role in roles {
        let content = image(order.number, role);
        media.push(Medium::new(&content));
        let path = dir.join(format!("{role}-{}", order.number));
        std::fs::write(&path, content).unwrap();
        sources.push(otad_bundle::Source { role: (*role).to_owned(), path });
    }
    let mut recipe = otad_bundle::Recipe::new(update, sources);
    recipe.chunking = otad_bundle::Chunking::Fixed { size: CHUNK as u32 };
    recipe.compression = otad_bundle::Compression::None;
    let output = dir.join(format!("{}.otab", order.number));
    let rotated = [ROTATED, BAD_ROTATED].contains(&order.number);
    recipe.roots = rotated.then(|| Chain::of(roots[1..].to_vec()).unwrap());
    let back = order.number == WAY_BACK;
    recipe.recovery = back.then_some(otad_bundle::Recovery { from: 2 });
    let (key, recovery) = (key(if rotated { 3 } else { 1 }), recovery_key());
    let next = self::key(2);
    let signers: &[&dyn Signer] = match order.number {
        WAY_BACK => &[&key, &recovery],
        // Its image brings a root that does not list the key of root 1 any more: it is signed by both.
        BRINGING => &[&key, &next],
        _ => &[&key],
    };
    let built = otad_bundle::build(&recipe, signers, &output, &mut |_| {}).unwrap();
    Release {
        version: order.version.to_owned(),
        sequence: order.sequence,
        digest: built.release,
        healthy: order.healthy,
        bundle: std::fs::read(output).unwrap().into(),
        media,
    }
}

/// Content that differs everywhere, but for one chunk of zeros and one chunk that all releases have in common.
fn image(number: usize, role: &str) -> Vec<u8> {
    let seed = mix(number as u64, role.len() as u64);
    let mut bytes: Vec<u8> = (0..IMAGE_BYTES / 8).flat_map(|at| mix(seed, at as u64).to_le_bytes()).collect();
    let body = IMAGE_BYTES - 4 * CHUNK;
    bytes[body + CHUNK..body + 2 * CHUNK].fill(0);
    bytes[body + 2 * CHUNK..body + 3 * CHUNK].fill(0x42);
    bytes[..8].copy_from_slice(b"SIMIMAGE");
    let crc = crc32fast::hash(&bytes[12..FRONT_BYTES]).to_le_bytes();
    bytes[8..12].copy_from_slice(&crc);
    bytes
}

fn configuration(kind: SchemeKind, roles: &[&str]) -> Config {
    let scheme = match kind {
        SchemeKind::Bootcount => "bootcount",
        SchemeKind::BootOrder => "boot-order",
    };
    let mut text = format!(
        "[system]\ncompatible = \"simulated\"\ndata-dir = \"/data\"\n\
         [boot]\nbackend = \"uboot\"\nscheme = \"{scheme}\"\nenv-config = \"/env\"\nboot-limit = {LIMIT}\n\
         default-env = \"/default\"\n"
    );
    for slot in SLOTS {
        text += &format!("[[slot]]\nname = \"{slot}\"\n");
        for role in roles {
            text += &format!("images.{role} = \"{}\"\n", path(slot, role).display());
        }
    }
    text += "[trust]\nroot = \"/root.toml\"\n[health]\nsettle-seconds = 1\ndeadline-seconds = 3\n";
    config::parse(&text, Path::new("otad.toml"), &|_| true).unwrap()
}
