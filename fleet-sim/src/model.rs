//! The hardware that all devices of a fleet have in common, and the releases there are for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bootenv::model::BootLoader;
use bootenv::{ByteOrder, CopyId, Environment, Layout, Scheme, SchemeKind};
use otad::config::{self, Config};
use otad::testing::edges::{ENVIRONMENT, SECOND_COPY, copy_offset};
use otad::testing::medium::Medium;
use otad::testing::storage::{Names, Storage, View};
use otad_bundle::{Root, Signer as _, SigningKey};

use crate::image::{self, IMAGE_BYTES};

/// Size of a copy of the boot environment in bytes.
pub(crate) const ENV_BYTES: usize = 1024;
/// Boots on trial before the boot loader gives up.
pub(crate) const BOOT_LIMIT: u8 = 3;
const SLOTS: [&str; 2] = ["a", "b"];
/// Seed of the key that signs the releases of a model.
const RELEASE_KEY: u8 = 1;
/// Flags of the newer and the older copy of a redundant environment.
const FACTORY_FLAGS: [u8; 2] = [2, 1];

/// Something of a fleet could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {what}: {why}")]
pub struct ModelError {
    what: &'static str,
    why: String,
}

impl ModelError {
    pub(crate) fn new(what: &'static str, why: impl std::fmt::Display) -> ModelError {
        ModelError { what, why: why.to_string() }
    }
}

/// One kind of device, and the server it asks.
pub struct Model {
    pub(crate) scheme: Scheme,
    pub(crate) loader: BootLoader,
    pub(crate) config: Arc<Config>,
    pub(crate) root: Root,
    pub(crate) server: String,
    /// The images that a slot may hold.
    known: Mutex<Vec<Known>>,
    /// What both slots hold when a device comes from the factory, where it is not an image of the simulation.
    given: Option<Medium>,
}

/// An image of a release.
struct Known {
    /// Its `image.toml`.
    info: String,
    /// Hash of its front, which is all that a boot loader looks at.
    front: u64,
    /// Hash of all of it.
    whole: u64,
}

/// What a slot holds.
pub(crate) struct Holds {
    /// The `image.toml` of the release whose front it has.
    pub(crate) info: String,
    /// Whether the rest is of that release as well.
    pub(crate) whole: bool,
}

impl Model {
    /// Makes the hardware `compatible`, whose devices ask the server at the URL `server`.
    ///
    /// # Errors
    /// A name or URL that otad's configuration does not take.
    pub fn new(compatible: &str, server: &str) -> Result<Model, ModelError> {
        Model::with_root(compatible, server, root()?)
    }

    /// The same with images of somebody else: versions, sequences and all bytes, which fill a slot. The first one is what devices come
    /// with from the factory, in both slots; the text `root` is the trust root, which vouches for the bundles of the others.
    ///
    /// # Errors
    /// As [`Model::new`]; a trust root that is none.
    pub fn of_images(
        compatible: &str,
        server: &str,
        root: &str,
        images: &[(&str, u64, Vec<u8>)],
    ) -> Result<Model, ModelError> {
        let root = Root::parse(root.as_bytes()).map_err(|error| ModelError::new("a trust root", error))?;
        let mut model = Model::with_root(compatible, server, root)?;
        for (version, sequence, bytes) in images {
            let medium = Medium::new(bytes);
            model.know(version, *sequence, &medium);
            model.given.get_or_insert(medium);
        }
        Ok(model)
    }

    fn with_root(compatible: &str, server: &str, root: Root) -> Result<Model, ModelError> {
        let scheme = Scheme::new(SchemeKind::Bootcount, SLOTS, BOOT_LIMIT)
            .map_err(|error| ModelError::new("the boot scheme", error))?;
        let loader = BootLoader::new(scheme.clone(), Layout::Redundant, ByteOrder::NATIVE);
        let config = configuration(compatible, server)?;
        let (config, known) = (Arc::new(config), Mutex::default());
        Ok(Model { scheme, loader, config, root, server: server.to_owned(), known, given: None })
    }

    /// The trust root of all devices, as the server takes it.
    pub fn root(&self) -> String {
        self.root.to_toml()
    }

    /// A signed bundle of the release with this version and sequence, as `otactl` makes it.
    ///
    /// # Errors
    /// A version that is none, or no room for temporary files.
    pub fn bundle(&self, version: &str, sequence: u64) -> Result<Vec<u8>, ModelError> {
        let fail = |why: &dyn std::fmt::Display| ModelError::new("a bundle", why);
        let dir = tempfile::tempdir().map_err(|error| fail(&error))?;
        let path = dir.path().join("rootfs.img");
        std::fs::write(&path, self.image(version, sequence)).map_err(|error| fail(&error))?;
        let update = otad_bundle::Update {
            version: version.parse().map_err(|error| fail(&error))?,
            sequence,
            compatible: vec![self.config.compatible.clone()],
            description: String::new(),
            critical: Vec::new(),
        };
        let recipe =
            otad_bundle::Recipe::new(update, vec![otad_bundle::Source { role: "rootfs".into(), path }]);
        let output = dir.path().join("release.otab");
        otad_bundle::build(&recipe, &[&key()?], &output, &mut |_| {}).map_err(|error| fail(&error))?;
        std::fs::read(output).map_err(|error| fail(&error))
    }

    /// The image of a release, which is known from now on.
    fn image(&self, version: &str, sequence: u64) -> Vec<u8> {
        let bytes = image::bytes(version, sequence);
        self.know(version, sequence, &Medium::new(&bytes));
        bytes
    }

    fn know(&self, version: &str, sequence: u64, medium: &Medium) {
        let info = image::info(version, sequence);
        let new = Known { info, front: image::front(medium), whole: medium.hash() };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.iter().all(|known| known.whole != new.whole) {
            known.push(new);
        }
    }

    /// What a slot holds; `None` for one that no boot loader would start.
    pub(crate) fn holds(&self, medium: &Medium) -> Option<Holds> {
        let (front, whole) = (image::front(medium), medium.hash());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Releases may share a front: it is the whole that tells them apart.
        let found = known.iter().find(|known| known.whole == whole);
        let found = found.or_else(|| known.iter().find(|known| known.front == front));
        found.map(|found| Holds { info: found.info.clone(), whole: found.whole == whole })
    }

    /// The storage of a device that comes from the factory with a release in its first slot.
    pub(crate) fn factory(&self, version: &str, sequence: u64) -> Result<Storage, ModelError> {
        let fail = |why: &dyn std::fmt::Display| ModelError::new("a boot environment", why);
        let [first, _] = SLOTS;
        let mut environment = Environment::new();
        let changes = self.scheme.factory(first).map_err(|error| fail(&error))?;
        environment.apply(&changes).map_err(|error| fail(&error))?;
        let data = environment
            .serialise(ENV_BYTES - Layout::Redundant.header_bytes(), 0)
            .map_err(|error| fail(&error))?;
        let mut bytes = vec![0; 2 * usize::try_from(SECOND_COPY).unwrap_or(ENV_BYTES)];
        for (copy, flags) in [CopyId::First, CopyId::Second].into_iter().zip(FACTORY_FLAGS) {
            let at = usize::try_from(copy_offset(copy)).unwrap_or_default();
            let copy = bootenv::format::Copy { flags, data: data.clone() }
                .encode(Layout::Redundant, ByteOrder::NATIVE);
            bytes.iter_mut().skip(at).zip(copy).for_each(|(to, from)| *to = from);
        }
        let (factory, other) = match &self.given {
            Some(medium) => (medium.clone(), medium.clone()),
            None => {
                let blank = Medium::new(&vec![0xff; IMAGE_BYTES]);
                (Medium::new(&self.image(version, sequence)), blank)
            }
        };
        Ok(Storage::new(vec![Medium::new(&bytes), factory, other], Names::Ordered))
    }
}

/// Paths of the devices of a device, by number.
pub(crate) fn paths() -> Vec<Option<PathBuf>> {
    std::iter::once(None).chain(SLOTS.map(|slot| Some(path(slot)))).collect()
}

/// Number of the medium of a slot.
pub(crate) fn medium(slot: &str) -> usize {
    1 + SLOTS.iter().position(|name| *name == slot).unwrap_or_default()
}

/// Both copies of the boot environment, as stored.
pub(crate) fn copies(view: &View) -> Vec<Vec<u8>> {
    let read = |copy| {
        let mut bytes = vec![0; ENV_BYTES];
        view.medium(ENVIRONMENT).read(copy_offset(copy), &mut bytes);
        bytes
    };
    [CopyId::First, CopyId::Second].map(read).to_vec()
}

fn path(slot: &str) -> PathBuf {
    PathBuf::from(format!("/dev/rootfs-{slot}"))
}

/// The key that signs the releases of every model.
pub(crate) fn key() -> Result<SigningKey, ModelError> {
    SigningKey::from_seed([RELEASE_KEY; 32]).map_err(|error| ModelError::new("a key", error))
}

fn root() -> Result<Root, ModelError> {
    Ok(Root::with_release_keys(&[key()?.public_key()]))
}

fn configuration(compatible: &str, server: &str) -> Result<Config, ModelError> {
    let slots = SLOTS
        .map(|slot| format!("[[slot]]\nname = \"{slot}\"\nimages.rootfs = \"{}\"\n", path(slot).display()));
    let text = format!(
        "[system]\ncompatible = \"{compatible}\"\ndata-dir = \"/data\"\n\
         [boot]\nbackend = \"uboot\"\nscheme = \"bootcount\"\nenv-config = \"/env\"\nboot-limit = {BOOT_LIMIT}\n\
         default-env = \"/default\"\n{}\
         [trust]\nroot = \"/root.toml\"\n[health]\nsettle-seconds = 1\ndeadline-seconds = 3\n\
         [server]\nurl = \"{server}\"\n[reboot]\npolicy = \"immediate\"\n",
        slots.concat()
    );
    config::parse(&text, Path::new("otad.toml"), &|_| true)
        .map_err(|error| ModelError::new("a configuration", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot loader starts what has the front of a release; whether the rest is there, it cannot know.
    #[test]
    fn a_slot_holds_a_release_or_its_front_or_nothing() {
        let model = Model::new("acme", "http://127.0.0.1:1").unwrap();
        let bytes = model.image("2.0.0", 2);
        let holds = |at: Option<usize>| {
            let mut bytes = bytes.clone();
            at.into_iter().for_each(|at| bytes[at] ^= 1);
            model.holds(&Medium::new(&bytes)).map(|holds| (holds.info, holds.whole))
        };
        let info = image::info("2.0.0", 2);
        assert_eq!(holds(None), Some((info.clone(), true)));
        assert_eq!(holds(Some(IMAGE_BYTES - 1)), Some((info, false)));
        assert_eq!(holds(Some(100)), None);
    }
}
