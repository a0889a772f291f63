//! Makes everything the board starts from, out of Debian packages and this project, and caches it by content.
//!
//! [`Board::build`] makes the parts that are slow and seldom change: U-Boot, the kernel, Debian for arm64, otad's package,
//! and the base tree made of them. From then on a release is a [`Slot`], an image of one takes seconds, and a new disk and a
//! new card for a run less than a second.
//!
//! Everything is below `target/board`. Root is needed: files of the trees belong to root, and packages run their scripts.

mod archive;
mod base;
mod cache;
mod disk;
mod environment;
mod error;
mod guide;
mod kernel;
mod keys;
mod programs;
mod slot;
mod step;
mod system;
mod uboot;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bootenv::scheme::SchemeKind;

use archive::Archive;
use cache::{Cache, Inputs, THIS_AND_THE_LAST};
use keys::Keys;

pub use disk::{DATA_BYTES, PARTITION_OFFSETS_BYTES, SLOT_BYTES};
pub use environment::{
    BOOT_LIMIT, ENVIRONMENT_BYTES, ENVIRONMENT_OFFSETS_BYTES, compiled_in, default_env, name_of,
};
pub use error::Error;
pub use guide::Followed;
pub use slot::{Edit, Slot};
pub(crate) use slot::{IMAGE_INFO, image_info};

/// The hardware that bundles of the board name.
pub const COMPATIBLE: &str = "otad-board";

/// Everything that runs of one scheme start from.
#[derive(Debug)]
pub struct Board {
    /// Which variables boot loader and otad use.
    pub scheme: SchemeKind,
    /// The boot loader, for `qemu-system-aarch64 -bios`.
    pub uboot: PathBuf,
    /// The private key that logs in as root.
    pub ssh_key: PathBuf,
    /// What the board trusts.
    pub trust_root: PathBuf,
    /// The directory of `otactl`, `otaserver` and `bootenv` for this machine.
    pub host_programs: PathBuf,
    /// otad's package as it is installed in every slot.
    pub package: PathBuf,
    base: PathBuf,
    keys: Keys,
}

impl Board {
    /// Makes what is missing; `root` is the directory of the workspace.
    pub fn build(root: &Path, scheme: SchemeKind) -> Result<Board, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::Unexpected(
                "the board's file systems are made as root; run this as root".to_owned(),
            ));
        }
        let cache = Cache::new(root.join("target/board"), THIS_AND_THE_LAST)?;
        let _lock = cache.lock()?;
        let archive = Archive::open(root.join("target/board/apt"))?;
        let host_programs = programs::build_host(root)?;
        let package = programs::build_package(root)?;
        let uboot = uboot::build(&cache, &archive, scheme)?;
        let kernel = kernel::build(&cache, &archive)?;
        let system = system::build(&cache, &archive)?;
        let keys = Keys::obtain(root.join("target/board/keys"), &host_programs.join("otactl"))?;
        let files = root.join("test-images/rootfs");
        let parts = base::Parts {
            system: &system,
            kernel: &kernel,
            package: &package,
            files: &files,
            keys: &keys,
            scheme,
        };
        let base = base::build(&cache, &parts)?;
        Ok(Board {
            scheme,
            uboot,
            ssh_key: keys.ssh(),
            trust_root: keys.trust_root(),
            host_programs,
            package,
            base,
            keys,
        })
    }

    /// A U-Boot of scheme `boot-order` that takes nothing but the variables of the scheme from the stored environment, made if it is
    /// missing; `root` is the directory of the workspace.
    pub fn closed_uboot(&self, root: &Path) -> Result<PathBuf, Error> {
        let cache = Cache::new(root.join("target/board"), THIS_AND_THE_LAST)?;
        let _lock = cache.lock()?;
        uboot::build_closed(&cache, &Archive::open(root.join("target/board/apt"))?)
    }

    /// The tree that slots are made from, for reading: a scenario may want the original of what it changes.
    pub fn base_tree(&self) -> PathBuf {
        self.base.join("root")
    }

    /// Returns the ext4 image of a release, made if it is missing.
    pub fn image(&self, slot: &Slot) -> Result<PathBuf, Error> {
        slot::image(&self.base, slot)
    }

    /// Returns the signed bundle of a release, made if it is missing.
    pub fn bundle(&self, slot: &Slot) -> Result<PathBuf, Error> {
        let image = self.image(slot)?;
        let otactl = self.host_programs.join("otactl");
        let inputs = Inputs::default().text(image.as_os_str().as_encoded_bytes()).file(&otactl)?;
        let name = format!("bundle-{}", slot.version);
        let cache = slot::cache(&self.base)?;
        let _lock = cache.lock()?;
        let part = cache.part(&name, inputs, |directory| {
            let mut role = OsString::from("rootfs=");
            role.push(&image);
            let mut create =
                step::command(&otactl.display().to_string(), ["bundle", "create", "--quiet", "--level", "3"]);
            create.args([
                "--version",
                &slot.version,
                "--sequence",
                &slot.sequence.to_string(),
                "--compatible",
                COMPATIBLE,
            ]);
            create.arg("--image").arg(role).arg("--key").arg(self.keys.release());
            create.arg("--out").arg(directory.join("release.otab"));
            step::run(&name, &mut create, "is the version a semantic one?").map(drop)
        })?;
        Ok(part.join("release.otab"))
    }

    /// Makes a device in a directory by the commands of `docs/porting-a-board.md` alone; `root` is the directory of the
    /// workspace. They are for scheme `boot-order`.
    pub fn follow_guide(&self, root: &Path, directory: &Path) -> Result<Followed, Error> {
        guide::follow(root, self, directory)
    }

    /// Makes `disk.img` in a directory: slot a holds an image, slot b another one or nothing, data is empty.
    pub fn new_disk(&self, directory: &Path, a: &Path, b: Option<&Path>) -> Result<PathBuf, Error> {
        disk::new_disk(directory, a, b)
    }

    /// Makes `card.img` in a directory, with the environment of a new device.
    pub fn new_card(&self, directory: &Path) -> Result<PathBuf, Error> {
        disk::new_card(directory, self.scheme)
    }
}
