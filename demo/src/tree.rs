//! The three releases of the demo: a small system with a userland, an application and some megabytes of other files.
//!
//! | release | is |
//! |---|---|
//! | 1 | what the factory ships |
//! | 2 | a good update: a new application, changed files, added files |
//! | 3 | a bad update: its application wants a table that the release forgot to convert |
//!
//! The application knows best whether it works: its self-test is part of the image, and the device's health check only
//! runs it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::programs::{run, tool};

/// Where other files come from: whatever of this the machine has, in this order.
const SOURCES: [&str; 4] =
    ["/usr/share/zoneinfo", "/usr/share/common-licenses", "/usr/share/perl5", "/usr/share/doc"];
/// How much of that goes into release 1, in bytes; later releases have more.
const CONTENT_BYTES: u64 = 5 << 20;
/// What each later release adds, in bytes.
const ADDED_BYTES: u64 = 1 << 20;
/// Larger files stay out: one would be all there is.
const LARGEST_FILE_BYTES: u64 = 512 << 10;
/// One file in so many changes with each release.
const CHANGED_EVERY: usize = 16;

/// A release of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// From the factory.
    One,
    /// A good update.
    Two,
    /// A bad one.
    Three,
}

impl Release {
    /// All of them, in order.
    pub const ALL: [Release; 3] = [Release::One, Release::Two, Release::Three];

    /// Its number, which is also its sequence.
    pub fn number(self) -> u32 {
        match self {
            Release::One => 1,
            Release::Two => 2,
            Release::Three => 3,
        }
    }

    /// Its version.
    pub fn version(self) -> String {
        format!("{}.0.0", self.number())
    }

    /// What is new in it.
    pub fn description(self) -> &'static str {
        match self {
            Release::One => "factory",
            Release::Two => "readings with units",
            Release::Three => "readings with tolerance",
        }
    }

    /// The columns that the application of this release wants in its table.
    fn columns(self) -> u32 {
        match self {
            Release::One | Release::Two => 3,
            Release::Three => 4,
        }
    }

    /// The program that turns a reading into text, for awk.
    fn formula(self) -> &'static str {
        match self {
            Release::One => "$2 * $3",
            Release::Two => "$2 * $3 \" mV\"",
            Release::Three => "$2 * $3 \" mV +-\" $4",
        }
    }
}

/// Makes the tree of a release in a new directory.
pub fn plant(release: Release, tree: &Path) -> Result<(), Error> {
    let dirs = [
        "bin",
        "dev",
        "etc",
        "proc",
        "run",
        "sys",
        "tmp",
        "usr/lib/app",
        "usr/lib/otad",
        "usr/share/app",
        "var",
    ];
    for name in dirs {
        let dir = tree.join(name);
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    }
    plant_userland(tree)?;
    plant_identity(release, tree)?;
    plant_application(release, tree)?;
    plant_content(release, tree)
}

fn plant_userland(tree: &Path) -> Result<(), Error> {
    let busybox = tool("busybox")?;
    let copy = tree.join("bin/busybox");
    fs::copy(&busybox, &copy).map_err(Error::io("copy", &busybox))?;
    set_mode(&copy, 0o755)?;
    let applets = run(Command::new(&busybox).arg("--list"))?;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|applet| *applet != "busybox") {
        let link = tree.join("bin").join(applet);
        symlink("busybox", &link).map_err(Error::io("link", &link))?;
    }
    Ok(())
}

fn plant_identity(release: Release, tree: &Path) -> Result<(), Error> {
    let (version, sequence) = (release.version(), release.number());
    let os = format!(
        "NAME=\"otad demo\"\nID=otad-demo\nVERSION_ID={version}\nPRETTY_NAME=\"otad demo {version}\"\n"
    );
    write(tree, "etc/os-release", &os, 0o644)?;
    let image = format!("version = \"{version}\"\nsequence = {sequence}\n");
    write(tree, "usr/lib/otad/image.toml", &image, 0o644)
}

/// The application converts readings with a calibration table; `selftest` tries it on readings with known results.
fn plant_application(release: Release, tree: &Path) -> Result<(), Error> {
    let (version, columns, formula) = (release.version(), release.columns(), release.formula());
    let app = format!(
        r#"#!/bin/sh
# Converts readings ("channel value" per line) with the calibration table. Version {version}.
here=${{0%/*}}
exec "$here/../../../bin/busybox" awk -v table="$here/../../share/app/calibration.tsv" '
    BEGIN {{
        while ((getline line < table) > 0) {{
            if (split(line, field, "\t") != {columns}) {{
                gsub("\t", " ", line)
                print "calibration.tsv: {columns} columns wanted, found: " line
                exit 1
            }}
            factor[field[1]] = field[2]; offset[field[1]] = field[3]; tolerance[field[1]] = field[4]
        }}
    }}
    {{ $3 = factor[$1]; $4 = tolerance[$1]; print $1, {formula} }}
'
"#
    );
    write(tree, "usr/lib/app/app", &app, 0o755)?;
    let expected = match release {
        Release::One => "supply 5000",
        Release::Two | Release::Three => "supply 5000 mV",
    };
    let selftest = format!(
        r#"#!/bin/sh
# Whether the application of this image works; says why not.
here=${{0%/*}}
box=$here/../../../bin/busybox
found=$(echo "supply 500" | "$box" sh "$here/app") || {{
    echo "self-test of app {version}: $found"
    exit 1
}}
[ "$found" = "{expected}" ] || {{
    echo "self-test of app {version}: expected '{expected}', got '$found'"
    exit 1
}}
echo "self-test of app {version}: passed"
"#
    );
    write(tree, "usr/lib/app/selftest", &selftest, 0o755)?;
    // The bug of release 3: nobody added the fourth column.
    write(tree, "usr/share/app/calibration.tsv", "supply\t10\t0\nbattery\t4\t12\n", 0o644)
}

/// Files of this machine, so that the image has something to be cut into chunks. Some change with each release.
fn plant_content(release: Release, tree: &Path) -> Result<(), Error> {
    let steps = u64::from(release.number() - 1);
    let mut left = CONTENT_BYTES + steps * ADDED_BYTES;
    let mut count = 0;
    for source in SOURCES {
        for path in files_below(Path::new(source)) {
            let bytes = fs::metadata(&path).map_or(u64::MAX, |metadata| metadata.len());
            if bytes > LARGEST_FILE_BYTES || !is_plain(&path) {
                continue;
            }
            // What does not fit is the end: with smaller ones in its place a later release could have fewer files.
            if bytes > left {
                return Ok(());
            }
            let relative = path.strip_prefix("/").unwrap_or(&path);
            let mut content = fs::read(&path).map_err(Error::io("read", &path))?;
            if release != Release::One && count % CHANGED_EVERY == 0 {
                content.extend_from_slice(format!("\nrevised in {}\n", release.version()).as_bytes());
            }
            let copy = tree.join(relative);
            let dir = copy.parent().unwrap_or(tree);
            fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
            fs::write(&copy, content).map_err(Error::io("write", &copy))?;
            set_mode(&copy, 0o644)?;
            count += 1;
            left -= bytes;
        }
    }
    Ok(())
}

/// Names that need no quoting anywhere.
fn is_plain(path: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    path.to_str().is_some_and(|text| text.chars().all(plain))
}

/// Regular files below a directory, sorted; links are not followed, what cannot be listed has none.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => files.extend(files_below(&path)),
            Ok(metadata) if metadata.is_file() => files.push(path),
            _ => {}
        }
    }
    files
}

fn write(tree: &Path, name: &str, text: &str, mode: u32) -> Result<(), Error> {
    let path = tree.join(name);
    fs::write(&path, text).map_err(Error::io("write", &path))?;
    set_mode(&path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    let result: io::Result<()> = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    result.map_err(Error::io("chmod", path))
}
