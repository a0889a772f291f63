//! The kept indexes: what a slot holds, chunk by chunk, in the data directory under the hash of the index.
//!
//! An index appears under its name only when it is verified and durable: the other slot may have the same one and need it, and
//! going back to a slot much later verifies it by its index.
//!
//! That of an encrypted bundle is kept in the clear: it says no more than the slots do, which hold the images themselves, and it is
//! needed when no bundle and no key is at hand.

use std::io::Write;

use otad_bundle::{Hasher, Image};

use super::index_name;
use super::sources::bundle::BundleSource;
use super::sources::delta::DeltaSource;
use crate::failure::{self, Code, Failure, from_bundle};
use crate::lifecycle::event::Release;
use crate::ports::StateFs;

/// Where an index is while it is being fetched; no index has this name, they are named by their hash.
const NEW: &str = "index/new";

/// Copies an index out of a bundle.
pub fn read(
    fs: &dyn StateFs,
    number: usize,
    image: &Image,
    source: &mut BundleSource,
) -> Result<(), Failure> {
    keep(fs, image, |sink| {
        source.bundle().read_index(number, sink).map(|()| true).map_err(|error| from_bundle(&error))
    })
    .map(drop)
}

/// Makes an index of the one of the release that runs; whether that went well.
pub fn make(
    fs: &dyn StateFs,
    image: &Image,
    old: &Release,
    delta: &mut DeltaSource,
) -> Result<bool, Failure> {
    keep(fs, image, |sink| match delta.index(image, old, fs, sink) {
        Ok(made) => Ok(made),
        Err(failure) => {
            log::warn!("the index of {} comes from the bundle: {failure}", image.role);
            Ok(false)
        }
    })
}

/// Keeps what `fill` writes and vouches for as the index of an image, unless it says that it has none.
fn keep(
    fs: &dyn StateFs,
    image: &Image,
    fill: impl FnOnce(&mut dyn Write) -> Result<bool, Failure>,
) -> Result<bool, Failure> {
    let name = index_name(image);
    let at = |act: &'static str| {
        let name = name.clone();
        move |error: std::io::Error| failure::from_state(act, name.as_ref(), &error)
    };
    let mut sink = fs.create(NEW).map_err(at("write"))?;
    if !fill(&mut *sink)? {
        return Ok(false);
    }
    drop(sink);
    fs.sync(NEW).map_err(at("flush"))?;
    fs.rename(NEW, &name).map_err(at("rename"))?;
    fs.sync_directory().map_err(at("flush the directory of"))?;
    Ok(true)
}

/// Whether a kept index is still what was kept: it is trusted without its signature.
pub fn check(fs: &dyn StateFs, image: &Image) -> Result<(), Failure> {
    let name = index_name(image);
    let unreadable = |error: std::io::Error| failure::from_state("read", name.as_ref(), &error);
    let mut file = fs.open(&name).map_err(unreadable)?;
    let mut sum = Sum(Hasher::new());
    std::io::copy(&mut file, &mut sum).map_err(unreadable)?;
    if sum.0.finish() == image.index.sha256 {
        return Ok(());
    }
    Err(Failure::new(Code::NoFallback, format!("the kept index {name} is damaged; install a bundle instead")))
}

/// Whether an index is there already and is what it should be.
pub fn is_whole(fs: &dyn StateFs, image: &Image) -> bool {
    check(fs, image).is_ok()
}

/// A hash as something to copy into.
struct Sum(Hasher);

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
