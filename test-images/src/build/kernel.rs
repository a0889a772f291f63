//! Debian's arm64 kernel: its image, the modules the board needs, and an initramfs that finds the slot.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::archive::{Archive, entries};
use super::cache::{Cache, Inputs};
use super::error::Error;
use super::step;

/// What finds and mounts the root file system, the watchdog, and where another first program can be asked for.
const INITRAMFS_MODULES: [&str; 6] =
    ["virtio_mmio", "virtio_pci", "virtio_blk", "ext4", "i6300esb", "qemu_fw_cfg"];

/// What udev loads later: network, card, entropy; and what tests of images mount.
const ROOT_MODULES: [&str; 10] = [
    "virtio_net",
    "virtio-rng",
    "sdhci-pci",
    "mmc_block",
    "loop",
    "squashfs",
    "overlay",
    "vfat",
    "nls_ascii",
    "dm-verity",
];

/// Applets of the initramfs. busybox runs them by its own name too, but a script is easier to read with links.
const APPLETS: [&str; 12] = [
    "cat",
    "grep",
    "insmod",
    "mount",
    "reboot",
    "sed",
    "sh",
    "sleep",
    "switch_root",
    "umount",
    "usleep",
    "echo",
];

const INIT: &str = include_str!("../../initramfs/init");

const ADVICE: &str = "scripts/need-board installs kmod, cpio, gzip and the arm64 binutils";

/// Makes a directory with `boot/Image`, `boot/initrd` and `usr/lib/modules`, to be laid over a root file system.
pub(crate) fn build(cache: &Cache, archive: &Archive) -> Result<PathBuf, Error> {
    let packages = archive.resolve(&["linux-image-arm64", "busybox-static"])?;
    let package = packages
        .lines()
        .filter_map(|line| line.split(' ').next())
        .find(|name| name.starts_with("linux-image-") && *name != "linux-image-arm64")
        .ok_or_else(|| Error::Unexpected("linux-image-arm64 depends on no kernel".to_owned()))?
        .to_owned();
    let versions: Vec<&str> = packages
        .lines()
        .filter(|line| line.starts_with("linux-image-") || line.starts_with("busybox-static "))
        .collect();
    let lists = format!("{INITRAMFS_MODULES:?} {ROOT_MODULES:?} {APPLETS:?}");
    let inputs = Inputs::of(include_str!("kernel.rs")).text(versions.join("\n")).text(INIT).text(lists);
    cache.part("kernel", inputs, |directory| {
        let unpacked = directory.join("unpacked");
        archive.unpack(&package, &unpacked)?;
        archive.unpack("busybox-static", &unpacked)?;
        let modules = Modules::of(&unpacked)?;
        let boot = directory.join("boot");
        fs::create_dir_all(&boot).map_err(Error::io("create", &boot))?;
        let image = unpacked.join(format!("boot/vmlinuz-{}", modules.release));
        fs::copy(&image, boot.join("Image")).map_err(Error::io("copy", &image))?;
        modules.install(directory)?;
        // Debian's /lib is a link to /usr/lib.
        let (made, place) = (directory.join("lib"), directory.join("usr/lib"));
        fs::create_dir_all(directory.join("usr")).map_err(Error::io("create", directory))?;
        fs::rename(&made, &place).map_err(Error::io("rename", &made))?;
        initramfs(directory, &unpacked, &modules)?;
        fs::remove_dir_all(&unpacked).map_err(Error::io("remove", &unpacked))
    })
}

/// The modules of one kernel.
struct Modules {
    root: PathBuf,
    release: String,
}

impl Modules {
    fn of(root: &Path) -> Result<Modules, Error> {
        let all = entries(&root.join("lib/modules"))?;
        let [one] = all.as_slice() else {
            return Err(Error::Unexpected(format!("{} holds not one kernel's modules", root.display())));
        };
        let release = one.file_name().unwrap_or_default().to_string_lossy().into_owned();
        depmod(root, &release)?;
        Ok(Modules { root: root.to_owned(), release })
    }

    /// The files of modules and of what they need, in the order in which they can be loaded.
    fn files(&self, names: &[&str]) -> Result<Vec<PathBuf>, Error> {
        let mut files = Vec::new();
        for name in names {
            let root = self.root.display().to_string();
            let words = ["-d", &root, "-S", &self.release, "--show-depends", name];
            let said = step::run("kernel modules", &mut step::command("modprobe", words), ADVICE)?;
            for file in said.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = PathBuf::from(file.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }

    fn install(&self, directory: &Path) -> Result<(), Error> {
        let names: Vec<&str> = INITRAMFS_MODULES.iter().chain(&ROOT_MODULES).copied().collect();
        for file in self.files(&names)? {
            let inside = file.strip_prefix(&self.root).unwrap_or(&file);
            strip(&file, &directory.join(inside))?;
        }
        let place = PathBuf::from("lib/modules").join(&self.release);
        for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            let from = self.root.join(&place).join(list);
            fs::copy(&from, directory.join(&place).join(list)).map_err(Error::io("copy", &from))?;
        }
        depmod(directory, &self.release)
    }
}

fn depmod(root: &Path, release: &str) -> Result<(), Error> {
    let words = [OsString::from("-b"), root.into(), release.into()];
    step::run("kernel modules", &mut step::command("depmod", words), ADVICE).map(drop)
}

/// Debug information is most of a module, and the board loads them over an emulated disk.
fn strip(from: &Path, to: &Path) -> Result<(), Error> {
    let place = to.parent().unwrap_or(to);
    fs::create_dir_all(place).map_err(Error::io("create", place))?;
    let words = [OsString::from("--strip-debug"), "-o".into(), to.into(), from.into()];
    step::run("kernel modules", &mut step::command("aarch64-linux-gnu-strip", words), ADVICE).map(drop)
}

fn initramfs(directory: &Path, unpacked: &Path, modules: &Modules) -> Result<(), Error> {
    let tree = directory.join("initramfs");
    for place in ["bin", "dev", "proc", "sys", "newroot", "modules"] {
        let place = tree.join(place);
        fs::create_dir_all(&place).map_err(Error::io("create", &place))?;
    }
    let busybox = tree.join("bin/busybox");
    fs::copy(unpacked.join("bin/busybox"), &busybox).map_err(Error::io("copy", &busybox))?;
    for applet in APPLETS {
        symlink("busybox", tree.join("bin").join(applet)).map_err(Error::io("link", applet))?;
    }
    let mut order = String::new();
    for file in modules.files(&INITRAMFS_MODULES)? {
        let name = file.file_name().unwrap_or_default();
        strip(&file, &tree.join("modules").join(name))?;
        order += &format!("{}\n", name.to_string_lossy());
    }
    let list = tree.join("modules/order");
    fs::write(&list, order).map_err(Error::io("write", &list))?;
    let init = tree.join("init");
    fs::write(&init, INIT).map_err(Error::io("write", &init))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).map_err(Error::io("change", &init))?;
    let pack =
        "set -e; cd \"$1\"; find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -9n >\"$2\"";
    let words = [
        OsString::from("-c"),
        pack.into(),
        "sh".into(),
        tree.clone().into(),
        directory.join("boot/initrd").into(),
    ];
    step::run("initramfs", &mut step::command("sh", words), ADVICE)?;
    fs::remove_dir_all(&tree).map_err(Error::io("remove", &tree))
}
