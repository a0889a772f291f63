//! What is made once and kept: keys, bundles and deltas of otad, and what making the expensive ones cost.
//!
//! They are kept in a directory that is named after the images and after `otactl`, which makes them: another `otactl` makes
//! new ones, and the old ones are removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use otad_demo::Binaries;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::images::{Images, Kind};
use crate::meter::{Meter, Peak, memory};
use crate::process::{command, run};

/// The hardware that bundles are for.
pub(crate) const COMPATIBLE: &str = "bench-board";
/// How often the memory of an encoder is looked at: it lives for minutes, and the kernel remembers its largest size.
const LOOK: Duration = Duration::from_secs(1);

/// A release of otad's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// Of the old image.
    Old,
    /// Of the new image.
    New,
    /// Of the old image with a small change.
    Small,
}

/// The kept things.
#[derive(Debug)]
pub(crate) struct Goods {
    dir: PathBuf,
    /// Where what other programs make is kept: it does not depend on `otactl`.
    others: PathBuf,
    images: Images,
    otactl: PathBuf,
}

/// What making something once cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Bytes that travel.
    pub(crate) bytes: u64,
    /// Seconds from start to end.
    pub(crate) wall_s: f64,
    /// Processor seconds.
    pub(crate) cpu_s: f64,
    /// Memory.
    pub(crate) peak: Peak,
}

impl Goods {
    /// Makes key and trust root, if they are not there.
    pub(crate) fn prepare(
        dir: &Path,
        kind: Kind,
        images: &Images,
        binaries: &Binaries,
    ) -> Result<Goods, Error> {
        let otactl = binaries.path("otactl");
        let content = fs::read(&otactl).map_err(Error::io("read", &otactl))?;
        let digest: String =
            Sha256::digest(&content).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let prefix = format!("otactl-{}-", kind.word());
        let own = dir.join(format!("{prefix}{digest}"));
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let old = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix));
            if old && entry.path() != own {
                fs::remove_dir_all(entry.path()).map_err(Error::io("remove", entry.path()))?;
            }
        }
        let others = dir.join(format!("others-{}", kind.word()));
        for dir in [&own, &others] {
            fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        }
        let goods = Goods { dir: own, others, images: images.clone(), otactl };
        if !goods.root().is_file() {
            let key = goods.key();
            run(command("rm", &["-f"]).arg(&key).arg(key.with_extension("key.pub")))?;
            run(goods.otactl(&["key", "generate", "--out"]).arg(&key))?;
            let mut create = goods.otactl(&["trust", "create", "--key"]);
            run(create.arg(key.with_extension("key.pub")).arg("--out").arg(goods.root()))?;
        }
        Ok(goods)
    }

    fn otactl(&self, arguments: &[&str]) -> std::process::Command {
        command(&self.otactl.to_string_lossy(), arguments)
    }

    fn key(&self) -> PathBuf {
        self.dir.join("release.key")
    }

    /// The trust root.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root.toml")
    }

    /// The signed bundle of a release, as `otactl` makes it by default.
    pub(crate) fn bundle(&self, release: Release) -> Result<PathBuf, Error> {
        let (image, version, sequence) = match release {
            Release::Old => (self.images.old(), "1.0.0", 1),
            Release::Small => (self.images.small(), "1.1.0", 2),
            Release::New => (self.images.updated(), "2.0.0", 2),
        };
        self.bundle_of(&image, version, sequence)
    }

    /// The signed bundle of any image; the file is named after the image.
    pub(crate) fn bundle_of(&self, image: &Path, version: &str, sequence: u32) -> Result<PathBuf, Error> {
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let bundle = self.dir.join(format!("{name}.otab"));
        if !bundle.is_file() {
            eprintln!("making {}", bundle.display());
            let mut create = self.otactl(&["--quiet", "bundle", "create", "--version", version]);
            create.args(["--sequence", &sequence.to_string(), "--compatible", COMPATIBLE, "--key"]);
            create.arg(self.key()).arg("--image").arg(format!("rootfs={}", image.display()));
            run(create.arg("-o").arg(&bundle))?;
        }
        Ok(bundle)
    }

    /// The delta from the old release to another, and what making it cost.
    pub(crate) fn delta(&self, to: Release) -> Result<(PathBuf, Made), Error> {
        let (old, new) = (self.bundle(Release::Old)?, self.bundle(to)?);
        let delta = new.with_extension("otad-delta");
        let made = once(&delta, || {
            let mut make = self.otactl(&["--quiet", "bundle", "delta", "--from"]);
            run(make.arg(&old).arg("--to").arg(&new).arg("-o").arg(&delta)).map(drop)
        })?;
        Ok((delta, made))
    }

    /// Where something that another program makes of the images is kept.
    pub(crate) fn other(&self, name: &str) -> PathBuf {
        self.others.join(name)
    }
}

/// Makes a file or directory once, by an act that must leave it complete, and keeps what that cost beside it.
pub(crate) fn once(result: &Path, act: impl FnOnce() -> Result<(), Error>) -> Result<Made, Error> {
    let name = result.file_name().unwrap_or_default().to_string_lossy();
    let kept = result.with_file_name(format!("{name}.cost.json"));
    if let Some(made) = fs::read(&kept).ok().and_then(|text| serde_json::from_slice(&text).ok())
        && result.exists()
    {
        return Ok(made);
    }
    eprintln!("making {}", result.display());
    let _ = fs::remove_file(result);
    let _ = fs::remove_dir_all(result);
    let mut peak = Peak::default();
    let cost = Meter::default().measure(|| {
        peak = memory(&[], LOOK, act)?;
        Ok(())
    })?;
    let made = Made { bytes: size(result)?, wall_s: cost.wall_s, cpu_s: cost.cpu_s, peak };
    let text = serde_json::to_vec(&made).map_err(|error| Error::Setup(error.to_string()))?;
    fs::write(&kept, text).map_err(Error::io("write", &kept))?;
    Ok(made)
}

/// Bytes of a file, or of all files below a directory.
pub(crate) fn size(path: &Path) -> Result<u64, Error> {
    let metadata = fs::metadata(path).map_err(Error::io("look at", path))?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let entries = fs::read_dir(path).map_err(Error::io("list", path))?;
    entries.flatten().map(|entry| size(&entry.path())).sum()
}
