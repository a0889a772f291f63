//! The root file system before anything of otad is in it: Debian's packages, configured, as a directory.

use std::fs;
use std::path::{Path, PathBuf};

use super::archive::{Archive, SUITE};
use super::cache::{Cache, Inputs};
use super::error::Error;
use super::step;

/// systemd, D-Bus and udev as on a product; SSH; and the other side's tools to compare with ours. `usr-is-merged`, with the
/// hook that merges before anything is unpacked, stands for `usrmerge`, which would bring all of Perl.
const PACKAGES: [&str; 11] = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "iproute2",
    "e2fsprogs",
    "dropbear-bin",
    "libubootenv-tool",
    "procps",
    "usr-is-merged",
];

/// What a device does not read.
const LEFT_OUT: [&str; 7] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/i18n/*",
    "/usr/lib/aarch64-linux-gnu/gconv/*",
    "/usr/lib/udev/hwdb.d/*",
];

/// Where the kernel lists what runs programs of other architectures.
const FORMATS: &str = "/proc/sys/fs/binfmt_misc";

/// Returns the directory of the installed packages.
pub(crate) fn build(cache: &Cache, archive: &Archive) -> Result<PathBuf, Error> {
    let inputs =
        Inputs::of(include_str!("system.rs")).text(archive.resolve(&PACKAGES)?).text(format!("{LEFT_OUT:?}"));
    let part = cache.part("system", inputs, |directory| {
        run_other_architectures()?;
        let sources = directory.join("sources.list");
        fs::write(&sources, archive.sources()).map_err(Error::io("write", &sources))?;
        let mut bootstrap = step::command("mmdebstrap", ["--architectures=arm64", "--variant=essential", "--mode=root"]);
        bootstrap
            .args(["--quiet", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"])
            .arg(format!("--include={}", PACKAGES.join(",")))
            .args(LEFT_OUT.map(|pattern| format!("--dpkgopt=path-exclude={pattern}")))
            .arg("--aptopt=APT::Install-Recommends \"0\"")
            .arg(SUITE)
            .args([&directory.join("root"), &sources]);
        let advice = "arm64 programs run through qemu-user-static and binfmt_misc: does /proc/sys/fs/binfmt_misc/qemu-aarch64 exist?";
        step::run("Debian for arm64", &mut bootstrap, advice).map(drop)
    })?;
    Ok(part.join("root"))
}

/// Makes this machine run arm64 programs. A container often lacks both the mount and the registration.
pub(crate) fn run_other_architectures() -> Result<(), Error> {
    let formats = Path::new(FORMATS);
    if !formats.join("register").exists() {
        let mut mount = step::command("mount", ["-t", "binfmt_misc", "binfmt_misc", FORMATS]);
        step::run(
            "binfmt_misc",
            &mut mount,
            "the kernel needs binfmt_misc, and this program needs to be root",
        )?;
    }
    if !formats.join("qemu-aarch64").exists() {
        let mut register = step::command("/usr/lib/systemd/systemd-binfmt", [""; 0]);
        step::run("binfmt_misc", &mut register, "scripts/need-board installs qemu-user-static and systemd")?;
    }
    Ok(())
}
