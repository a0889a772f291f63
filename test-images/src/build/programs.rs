//! otad's programs for this machine and for the board, and the packages made of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::step;

/// The packages of this workspace that a device or an operator runs.
const PROGRAMS: [&str; 4] = ["bootenv", "otactl", "otad", "otaserver"];

/// The architecture of the board, as Debian calls it.
const BOARD: &str = "arm64";

/// With the value `as-built`, programs and packages are taken as the last build left them: for work on scenarios while the
/// programs are being changed, and for a package that came from elsewhere.
const CHOICE: &str = "OTAD_BOARD_PROGRAMS";

fn as_built() -> bool {
    std::env::var_os(CHOICE).is_some_and(|value| value == "as-built")
}

/// The programs of this machine, release build: the host's side of every scenario.
pub(crate) fn build_host(root: &Path) -> Result<PathBuf, Error> {
    let programs = root.join("target/release");
    if as_built() && PROGRAMS.iter().all(|name| programs.join(name).exists()) {
        return Ok(programs);
    }
    let mut words: Vec<OsString> = ["build", "--release", "--locked", "--quiet"].map(OsString::from).to_vec();
    words.extend(PROGRAMS.iter().flat_map(|name| ["--package", name]).map(OsString::from));
    let mut build = step::command("cargo", words);
    build.current_dir(root);
    step::timed("programs for this machine", || {
        step::run("programs", &mut build, "does `cargo build --release` work?")
    })?;
    Ok(programs)
}

/// otad's package for the board, made by `scripts/deb`, which also cross-compiles.
pub(crate) fn build_package(root: &Path) -> Result<PathBuf, Error> {
    if as_built()
        && let Some(package) = newest_package(root)?
    {
        return Ok(package);
    }
    let mut deb = step::command(&root.join("scripts/deb").display().to_string(), [BOARD]);
    deb.current_dir(root);
    let advice = "scripts/need-board installs the cross compiler and Debian's Rust for it";
    let said = step::timed("package of otad for the board", || step::run("package", &mut deb, advice))?;
    let path = said.lines().map(Path::new).find(|path| is_otads(path));
    path.map(|path| root.join(path))
        .ok_or_else(|| Error::Unexpected(format!("scripts/deb {BOARD} named no package of otad: {said}")))
}

fn newest_package(root: &Path) -> Result<Option<PathBuf>, Error> {
    let place = root.join("target/deb");
    if !place.is_dir() {
        return Ok(None);
    }
    let mut packages = super::archive::entries(&place)?;
    packages.retain(|path| is_otads(path) && path.to_string_lossy().ends_with("_arm64.deb"));
    packages.sort_by_key(|path| path.metadata().and_then(|about| about.modified()).ok());
    Ok(packages.pop())
}

fn is_otads(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("otad_"))
}
