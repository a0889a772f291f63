//! Debian's archive, as this machine reaches it: sources and arm64 packages, without touching the machine's own apt state.
//!
//! The mirror is taken from apt's own sources; this module has lists and a cache of its own. Lists are refreshed when they
//! are older than [`LISTS_LAST`]: a build in between needs no network.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::error::Error;
use super::step;

/// What the board runs; the packages that it is built with are of the same release.
pub(crate) const SUITE: &str = "bookworm";

/// Security updates reach the board within this time.
const LISTS_LAST: Duration = Duration::from_secs(7 * 24 * 3600);

const ADVICE: &str =
    "does apt-get update work on this machine, and does its mirror have bookworm for arm64 and its sources?";

/// An apt of its own for arm64.
#[derive(Debug)]
pub(crate) struct Archive {
    directory: PathBuf,
    sources: String,
}

impl Archive {
    /// Opens the archive, with lists that are not too old.
    pub(crate) fn open(directory: PathBuf) -> Result<Archive, Error> {
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        let archive = Archive { sources: mirrors()?, directory };
        let list = archive.directory.join("sources.list");
        fs::write(&list, archive.sources.replace("deb ", "deb-src ") + &archive.sources)
            .map_err(Error::io("write", &list))?;
        let empty = archive.directory.join("status");
        fs::write(&empty, "").map_err(Error::io("write", &empty))?;
        let stamp = archive.directory.join("refreshed");
        let age =
            fs::metadata(&stamp).and_then(|about| about.modified()).ok().and_then(|when| when.elapsed().ok());
        if age.is_none_or(|age| age > LISTS_LAST) {
            step::timed("package lists", || {
                step::run("package lists", archive.apt("apt-get").args(["update", "-qq"]), ADVICE)
            })?;
            fs::write(&stamp, "").map_err(Error::io("write", &stamp))?;
        }
        Ok(archive)
    }

    /// The lines of sources.list, binary packages only.
    pub(crate) fn sources(&self) -> &str {
        &self.sources
    }

    /// Names the files of a source package in its newest version, with their hashes.
    pub(crate) fn source_files(&self, package: &str) -> Result<String, Error> {
        let mut ask = self.apt("apt-get");
        step::run(package, ask.args(["source", "-qq", "--print-uris", package]), ADVICE)
    }

    /// Unpacks a source package in its newest version into `directory/source`.
    pub(crate) fn unpack_source(&self, package: &str, directory: &Path) -> Result<PathBuf, Error> {
        let mut fetch = self.apt("apt-get");
        fetch.args(["source", "-qq", "--download-only", package]).current_dir(directory);
        step::run(package, &mut fetch, ADVICE)?;
        let description = entries(directory)?
            .into_iter()
            .find(|path| path.extension().is_some_and(|ending| ending == "dsc"))
            .ok_or_else(|| Error::Unexpected(format!("apt-get source {package} brought no .dsc file")))?;
        let tree = directory.join("source");
        let words = [OsString::from("--no-check"), "-x".into(), description.into(), tree.clone().into()];
        step::run(package, &mut step::command("dpkg-source", words), ADVICE)?;
        Ok(tree)
    }

    /// Says what installing packages into nothing would install: one `NAME VERSION` line per package.
    pub(crate) fn resolve(&self, packages: &[&str]) -> Result<String, Error> {
        let mut simulate = self.apt("apt-get");
        simulate.args(["install", "-qq", "-s", "--no-install-recommends"]).args(packages);
        let said = step::run("package versions", &mut simulate, ADVICE)?;
        let mut lines: Vec<String> = said
            .lines()
            .filter_map(|line| line.strip_prefix("Inst "))
            .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ").replace('(', ""))
            .collect();
        lines.sort();
        Ok(lines.join("\n"))
    }

    /// Fetches a package and unpacks its files, without running its scripts.
    pub(crate) fn unpack(&self, package: &str, directory: &Path) -> Result<(), Error> {
        let place = directory.join("package");
        fs::create_dir_all(&place).map_err(Error::io("create", &place))?;
        step::run(
            package,
            self.apt("apt-get").args(["download", "-qq", package]).current_dir(&place),
            ADVICE,
        )?;
        for file in entries(&place)? {
            let words = [OsString::from("-x"), file.into(), directory.into()];
            step::run(package, &mut step::command("dpkg-deb", words), ADVICE)?;
        }
        fs::remove_dir_all(&place).map_err(Error::io("remove", &place))
    }

    fn apt(&self, program: &str) -> Command {
        let place = |part: &str| self.directory.join(part).display().to_string();
        let settings = [
            format!("Dir::Etc::sourcelist={}", place("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", place("lists")),
            format!("Dir::State::status={}", place("status")),
            format!("Dir::Cache={}", place("cache")),
            "APT::Architecture=arm64".to_owned(),
            "APT::Architectures=arm64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "APT::Install-Recommends=no".to_owned(),
        ];
        step::command(program, settings.iter().flat_map(|setting| ["-o", setting]))
    }
}

/// The suites of this machine's apt that belong to the release.
fn mirrors() -> Result<String, Error> {
    let mut sources = String::new();
    for suite in [SUITE.to_owned(), format!("{SUITE}-updates"), format!("{SUITE}-security")] {
        let words = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"]
            .map(str::to_owned);
        let mut ask = step::command("apt-get", words.into_iter().chain([format!("Codename: {suite}")]));
        if let Some(uri) = step::run("mirror", &mut ask, ADVICE)?.lines().next() {
            sources += &format!("deb {uri} {suite} main\n");
        }
    }
    if sources.is_empty() {
        return Err(Error::Unexpected(format!(
            "apt knows no mirror of {SUITE}: run apt-get update, or add it to apt's sources"
        )));
    }
    Ok(sources)
}

/// The paths of what is in a directory.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = fs::read_dir(directory).map_err(Error::io("list", directory))?;
    list.map(|entry| entry.map(|entry| entry.path()).map_err(Error::io("list", directory))).collect()
}
