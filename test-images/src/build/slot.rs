//! Slot images: the base tree with a version and with the changes that make it a particular release.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::base::write;
use super::cache::{Cache, Inputs};
use super::error::Error;
use super::step::{self, Links};

/// What an image is filled up to: the base and room for what a release adds.
const DEFAULT_IMAGE_BYTES: u64 = 192 * 1024 * 1024;

/// Where an image says which release it is.
pub(crate) const IMAGE_INFO: &str = "usr/lib/otad/image.toml";

/// A release of the board's system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its semantic version.
    pub version: String,
    /// Its place in the order of releases.
    pub sequence: u64,
    /// How it differs from the base, in this order.
    pub edits: Vec<Edit>,
    /// Size of the image in bytes, a multiple of 1 MiB, at most [`super::SLOT_BYTES`].
    pub image_bytes: u64,
}

impl Slot {
    /// A release that differs from the base only by its version.
    pub fn new(version: &str, sequence: u64) -> Slot {
        Slot { version: version.to_owned(), sequence, edits: Vec::new(), image_bytes: DEFAULT_IMAGE_BYTES }
    }

    /// Adds a change.
    #[must_use]
    pub fn edit(mut self, edit: Edit) -> Slot {
        self.edits.push(edit);
        self
    }
}

/// One change to the base tree. Paths are inside the slot, without a leading slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Makes or replaces a file.
    Write {
        /// Where.
        path: String,
        /// Its permissions, for example `0o755`.
        mode: u32,
        /// What is in it.
        contents: Vec<u8>,
    },
    /// Adds text to a file, which must exist.
    Append {
        /// Where.
        path: String,
        /// The text.
        text: String,
    },
    /// Removes a file or a link, which must exist.
    Remove {
        /// Where.
        path: String,
    },
    /// Makes a symbolic link, or replaces what is there by one.
    Link {
        /// Where.
        path: String,
        /// What it points to.
        target: String,
    },
}

impl Edit {
    /// [`Edit::Write`] of text, with permissions such as `0o755`.
    pub fn write(path: &str, mode: u32, text: impl Into<Vec<u8>>) -> Edit {
        Edit::Write { path: path.to_owned(), mode, contents: text.into() }
    }

    fn apply(&self, root: &Path) -> Result<(), Error> {
        match self {
            Edit::Write { path, mode, contents } => write(root, path, contents, *mode),
            Edit::Append { path, text } => {
                use std::os::unix::fs::PermissionsExt as _;
                let file = root.join(path);
                let old = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
                let mode = fs::metadata(&file).map_err(Error::io("look at", &file))?.permissions().mode();
                write(root, path, old + text, mode & 0o7777)
            }
            Edit::Remove { path } => {
                let file = root.join(path);
                fs::remove_file(&file).map_err(Error::io("remove", &file))
            }
            Edit::Link { path, target } => {
                let link = root.join(path);
                if link.symlink_metadata().is_ok() {
                    fs::remove_file(&link).map_err(Error::io("remove", &link))?;
                }
                let place = link.parent().unwrap_or(root);
                fs::create_dir_all(place).map_err(Error::io("create", place))?;
                symlink(target, &link).map_err(Error::io("link", &link))
            }
        }
    }
}

/// Images and bundles of a base: all of them, until the base itself is forgotten.
pub(crate) fn cache(base: &Path) -> Result<Cache, Error> {
    Cache::new(base.join("slots"), usize::MAX)
}

/// Returns the path of a release's ext4 image; the same release of the same base gives the same file.
pub(crate) fn image(base: &Path, slot: &Slot) -> Result<PathBuf, Error> {
    let about = image_info(&slot.version, slot.sequence, &kernel_release(&base.join("root"))?);
    let inputs = Inputs::of(include_str!("slot.rs"))
        .text(&about)
        .text(format!("{:?} {}", slot.edits, slot.image_bytes));
    let name = format!("slot-{}", slot.version);
    let cache = cache(base)?;
    let _lock = cache.lock()?;
    let part = cache.part(&name, inputs, |directory| {
        let tree = directory.join("tree");
        step::copy_tree(&name, &base.join("root"), &tree, Links::Hard)?;
        write(&tree, IMAGE_INFO, &about, 0o644)?;
        slot.edits.iter().try_for_each(|edit| edit.apply(&tree))?;
        make_file_system(&tree, &directory.join("rootfs.ext4"), slot.image_bytes, &name)?;
        fs::remove_dir_all(&tree).map_err(Error::io("remove", &tree))
    })?;
    Ok(part.join("rootfs.ext4"))
}

/// What an image says of itself.
pub(crate) fn image_info(version: &str, sequence: u64, kernel: &str) -> String {
    format!("version = \"{version}\"\nsequence = {sequence}\nkernel = \"{kernel}\"\n")
}

/// The release of the one kernel that a tree has modules for.
fn kernel_release(root: &Path) -> Result<String, Error> {
    let place = root.join("lib/modules");
    let entries = fs::read_dir(&place).map_err(Error::io("read", &place))?;
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match &names[..] {
        [name] => Ok(name.clone()),
        _ => Err(Error::Unexpected(format!(
            "{}: modules of one kernel expected, found {names:?}",
            place.display()
        ))),
    }
}

/// Makes an ext4 image from a tree, without mounting it.
pub(crate) fn make_file_system(tree: &Path, image: &Path, bytes: u64, name: &str) -> Result<(), Error> {
    let file = File::create(image).map_err(Error::io("create", image))?;
    file.set_len(bytes).map_err(Error::io("size", image))?;
    // The features are those that the boot loader reads too. Fixed ids: the same tree gives the same image.
    let id = "5a8c7b52-6f0e-4a53-9f29-0d1c8f3d1a01";
    let mut words: Vec<OsString> =
        ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^metadata_csum,^64bit,^orphan_file"]
            .map(OsString::from)
            .to_vec();
    words.extend(["-U", id, "-E"].map(OsString::from));
    words.push(format!("hash_seed={id},lazy_itable_init=0,root_owner=0:0").into());
    words.extend([OsString::from("-d"), tree.into(), image.into()]);
    let mut make = step::command("mke2fs", words);
    make.env("E2FSPROGS_FAKE_TIME", "1700000000");
    step::run(name, &mut make, "is the tree larger than the image? Slot::image_bytes says how large that is")
        .map(drop)
}
