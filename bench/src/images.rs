//! The images that are measured: an old one, a new one, and one with a small change.
//!
//! The real ones are root file systems of Debian (`bench/images` makes them, which takes about ten minutes). The quick ones are
//! made on the spot, of this machine's programs: good for trying out the benchmark, not for figures.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::process::{command, run};

/// Which images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Root file systems of Debian.
    Debian,
    /// Small ones.
    Quick,
}

impl Kind {
    /// A word for file names and tables.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Debian => "debian",
            Kind::Quick => "quick",
        }
    }
}

/// Where they are.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    dir: PathBuf,
}

/// Size of a quick image.
const QUICK_MIB: u64 = 48;
/// Everything that must be there when `bench/images` has run to its end.
const NAMES: [&str; 3] = ["v1.ext4", "v2.ext4", "small.ext4"];

impl Images {
    /// Finds or makes them below `dir`.
    pub(crate) fn prepare(dir: &Path, kind: Kind) -> Result<Images, Error> {
        let dir = match kind {
            Kind::Debian => dir.join("images"),
            Kind::Quick => dir.join("images-quick"),
        };
        if NAMES.iter().all(|name| dir.join(name).is_file()) {
            return Ok(Images { dir });
        }
        // Under another name until they are complete.
        let part = dir.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part).map_err(Error::io("create", &part))?;
        match kind {
            Kind::Debian => {
                eprintln!("making the images, which takes a few minutes");
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("images");
                run(&mut command("sh", &[script.as_path(), &part]))?;
            }
            Kind::Quick => Images { dir: part.clone() }.make_quick()?,
        }
        let _ = fs::remove_dir_all(&dir);
        fs::rename(&part, &dir).map_err(Error::io("rename", &part))?;
        Ok(Images { dir })
    }

    /// What runs.
    pub(crate) fn old(&self) -> PathBuf {
        self.dir.join("v1.ext4")
    }

    /// The old one with updates and new packages.
    pub(crate) fn updated(&self) -> PathBuf {
        self.dir.join("v2.ext4")
    }

    /// The old one with one package replaced.
    pub(crate) fn small(&self) -> PathBuf {
        self.dir.join("small.ext4")
    }

    /// The file system of an ext4 image as a squashfs image, as small as it gets; made once.
    pub(crate) fn squashfs(&self, ext4: &Path) -> Result<PathBuf, Error> {
        let made = ext4.with_extension("sqfs");
        if made.is_file() {
            return Ok(made);
        }
        eprintln!("making {}", made.display());
        let (mounted, part) = (self.dir.join("mounted"), made.with_extension("part"));
        fs::create_dir_all(&mounted).map_err(Error::io("create", &mounted))?;
        let _ = fs::remove_file(&part);
        run(command("mount", &["-o", "ro,loop,noload"]).arg(ext4).arg(&mounted))?;
        let packed = run(command("mksquashfs", &[&mounted, &part]).args([
            "-comp",
            "zstd",
            "-Xcompression-level",
            "19",
            "-b",
            "128K",
            "-noappend",
            "-no-progress",
            "-quiet",
            "-mkfs-time",
            "0",
        ]));
        run(&mut command("umount", &[&mounted]))?;
        packed?;
        fs::rename(&part, &made).map_err(Error::io("rename", &part))?;
        Ok(made)
    }

    fn make_quick(&self) -> Result<(), Error> {
        let tree = self.dir.join("tree");
        let _ = fs::remove_dir_all(&tree);
        let bin = tree.join("bin");
        fs::create_dir_all(&bin).map_err(Error::io("create", &bin))?;
        // Enough programs for some variety, the largest left out.
        let mut programs: Vec<(PathBuf, u64)> = fs::read_dir("/usr/bin")
            .map_err(Error::io("list", "/usr/bin"))?
            .flatten()
            .filter_map(|entry| Some((entry.path(), fs::symlink_metadata(entry.path()).ok()?)))
            .filter(|(_, metadata)| metadata.is_file() && (10_000..1_500_000).contains(&metadata.len()))
            .map(|(path, metadata)| (path, metadata.len()))
            .collect();
        programs.sort();
        let mut room = (QUICK_MIB << 20) * 3 / 5;
        programs.retain(|(_, bytes)| {
            let fits = *bytes <= room;
            room -= if fits { *bytes } else { 0 };
            fits
        });
        let late = programs.split_off(programs.len() * 5 / 6);
        for (path, _) in &programs {
            copy_into(path, &bin)?;
        }
        self.quick_image(&tree, &self.old())?;
        let change = tree.join("bin/release");
        fs::write(&change, vec![b'2'; 50_000]).map_err(Error::io("write", &change))?;
        self.quick_image(&tree, &self.small())?;
        for (path, _) in &late {
            copy_into(path, &bin)?;
        }
        self.quick_image(&tree, &self.updated())?;
        fs::remove_dir_all(&tree).map_err(Error::io("remove", &tree))
    }

    fn quick_image(&self, tree: &Path, image: &Path) -> Result<(), Error> {
        let _ = fs::remove_file(image);
        let size = format!("{QUICK_MIB}M");
        let mut mkfs = command("mkfs.ext4", &["-q", "-U", "0d0d0d0d-0000-4000-8000-000000000001", "-d"]);
        run(mkfs.arg(tree).arg(image).arg(size)).map(drop)
    }
}

fn copy_into(file: &Path, dir: &Path) -> Result<(), Error> {
    let to = dir.join(file.file_name().unwrap_or_default());
    fs::copy(file, &to).map(drop).map_err(Error::io("copy", file))
}
