//! The tree that every slot is made from: Debian, the kernel, otad from its package as a user would install it, and the
//! board's configuration.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use bootenv::scheme::SchemeKind;

use super::cache::{Cache, Inputs};
use super::environment::{default_env, name_of};
use super::error::Error;
use super::keys::Keys;
use super::step::{self, Links};
use super::system;

const MASKED_UNITS: &str = include_str!("../../masked-units");
const CONFIGURATION: &str = "etc/otad/otad.toml";

/// The units that the board adds to those that packages enable, and what starts them.
const WANTED: [(&str, &str); 4] = [
    ("board-network.service", "multi-user.target.wants"),
    ("board-ready.service", "multi-user.target.wants"),
    ("dropbear.service", "multi-user.target.wants"),
    ("serial-getty@ttyAMA0.service", "getty.target.wants"),
];

/// A board's id stays the same in both slots; with an empty file systemd would take every boot for the first one.
const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef\n";

/// What a base tree is made of.
pub(crate) struct Parts<'a> {
    /// Debian's packages.
    pub(crate) system: &'a Path,
    /// Kernel, initramfs, modules.
    pub(crate) kernel: &'a Path,
    /// otad's arm64 package.
    pub(crate) package: &'a Path,
    /// Where the board's own files are in the work tree.
    pub(crate) files: &'a Path,
    /// Who may log in, and whose releases are taken.
    pub(crate) keys: &'a Keys,
    /// Which variables otad uses.
    pub(crate) scheme: SchemeKind,
}

/// Returns the directory of a base; its tree is in `root`.
pub(crate) fn build(cache: &Cache, parts: &Parts) -> Result<PathBuf, Error> {
    let inputs = Inputs::of(include_str!("base.rs"))
        .text(parts.system.as_os_str().as_encoded_bytes())
        .text(parts.kernel.as_os_str().as_encoded_bytes())
        .file(parts.package)?
        .tree(parts.files)?
        .text(default_env(parts.scheme))
        .text(MASKED_UNITS)
        .text(format!("{WANTED:?} {MACHINE_ID}"))
        .tree(&parts.keys.directory)?;
    cache.part(&format!("base-{}", name_of(parts.scheme)), inputs, |directory| {
        let root = directory.join("root");
        step::copy_tree("base", parts.system, &root, Links::Copy)?;
        step::copy_tree("base", parts.kernel, &root, Links::Copy)?;
        configure(&root, parts)?;
        install_package(&root, parts.package)?;
        enable_units(&root)
    })
}

/// The board's files, as an integrator would put them there before otad is installed.
fn configure(root: &Path, parts: &Parts) -> Result<(), Error> {
    step::copy_tree("base", parts.files, root, Links::Copy)?;
    let configuration = root.join(CONFIGURATION);
    let text = fs::read_to_string(&configuration).map_err(Error::io("read", &configuration))?;
    write(root, CONFIGURATION, text.replace("@SCHEME@", name_of(parts.scheme)), 0o644)?;
    write(root, "usr/share/otad/default.env", default_env(parts.scheme), 0o644)?;
    write(root, "etc/machine-id", MACHINE_ID, 0o444)?;
    write(root, "etc/hostname", "board\n", 0o644)?;
    write(root, "etc/hosts", "127.0.0.1 localhost board\n", 0o644)?;
    let keys = parts.keys;
    for (from, to, mode) in [
        (keys.trust_root(), "etc/otad/root.toml", 0o644),
        (keys.ssh_public(), "root/.ssh/authorized_keys", 0o600),
        (keys.host(), "etc/dropbear/dropbear_ed25519_host_key", 0o600),
    ] {
        let bytes = fs::read(&from).map_err(Error::io("read", &from))?;
        write(root, to, bytes, mode)?;
    }
    for place in ["root/.ssh", "root"] {
        let place = root.join(place);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700))
            .map_err(Error::io("change", &place))?;
    }
    let mount_point = root.join("var/lib/otad");
    fs::create_dir_all(&mount_point).map_err(Error::io("create", &mount_point))
}

/// The package's own scripts run, as on a device.
fn install_package(root: &Path, package: &Path) -> Result<(), Error> {
    system::run_other_architectures()?;
    let inside = root.join("otad.deb");
    fs::copy(package, &inside).map_err(Error::io("copy", package))?;
    let words =
        [OsString::from(root), "dpkg".into(), "--force-confold".into(), "-i".into(), "/otad.deb".into()];
    let advice = "the package is made by scripts/deb; its dependencies are in src/build/system.rs";
    step::run("installing otad's package", &mut step::command("chroot", words), advice)?;
    fs::remove_file(&inside).map_err(Error::io("remove", &inside))
}

fn enable_units(root: &Path) -> Result<(), Error> {
    let units = root.join("etc/systemd/system");
    let link = |target: String, name: PathBuf| {
        let place = name.parent().unwrap_or(&name);
        fs::create_dir_all(place).map_err(Error::io("create", place))?;
        match fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &name)(error));
            }
            _ => {}
        }
        symlink(target, &name).map_err(Error::io("link", &name))
    };
    for unit in MASKED_UNITS.lines().filter(|line| !line.starts_with('#')) {
        link("/dev/null".to_owned(), units.join(unit))?;
    }
    for (unit, wants) in WANTED {
        let file = unit.split_once('@').map_or(unit.to_owned(), |(name, _)| format!("{name}@.service"));
        let place = if units.join(&file).exists() { "/etc/systemd/system" } else { "/lib/systemd/system" };
        link(format!("{place}/{file}"), units.join(wants).join(unit))?;
    }
    link("/lib/systemd/system/multi-user.target".to_owned(), units.join("default.target"))?;
    // Generators cost a process each at every boot; fstab's is the one that the board needs.
    let generators = root.join("usr/lib/systemd/system-generators");
    for generator in super::archive::entries(&generators)? {
        if generator.file_name().is_some_and(|name| name != "systemd-fstab-generator") {
            fs::remove_file(&generator).map_err(Error::io("remove", &generator))?;
        }
    }
    Ok(())
}

/// Writes a file as a new one, so that a hard link to the old content elsewhere keeps it.
pub(crate) fn write(root: &Path, path: &str, contents: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
    let path = root.join(path);
    let place = path.parent().unwrap_or(root);
    fs::create_dir_all(place).map_err(Error::io("create", place))?;
    let mut name = path.clone().into_os_string();
    name.push(".new");
    let new = PathBuf::from(name);
    fs::write(&new, contents).map_err(Error::io("write", &new))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).map_err(Error::io("change", &new))?;
    fs::rename(&new, &path).map_err(Error::io("rename", &new))
}
