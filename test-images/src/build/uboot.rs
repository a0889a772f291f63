//! U-Boot for the board, from Debian's source package with the board's and the scheme's configuration.

use std::fs;
use std::path::{Path, PathBuf};

use bootenv::scheme::SchemeKind;

use super::archive::Archive;
use super::cache::{Cache, Inputs};
use super::environment::{compiled_in, compiled_in_closed, name_of};
use super::error::Error;
use super::step;

const BOARD: &str = include_str!("../../uboot/board.config");
const BOOTCOUNT: &str = include_str!("../../uboot/bootcount.config");
const BOOT_ORDER: &str = include_str!("../../uboot/boot-order.config");
const CLOSED: &str = include_str!("../../uboot/closed.config");
/// What the closed one has more: behind the board's source, and behind its configuration.
const CLOSED_SOURCES: [(&str, &str); 2] = [
    ("board/emulation/qemu-arm/qemu-arm.c", include_str!("../../uboot/closed.c")),
    ("include/configs/qemu-arm.h", include_str!("../../uboot/closed.h")),
];

/// The environment is read before PCI is looked through otherwise, and the card is behind PCI.
const FLAGS: &str = "KCPPFLAGS=-DCONFIG_SYS_EARLY_PCI_INIT=1";

const ADVICE: &str = "scripts/need-board installs the compiler and what U-Boot's build uses";

/// Returns the path of `u-boot.bin` for a scheme.
pub(crate) fn build(cache: &Cache, archive: &Archive, scheme: SchemeKind) -> Result<PathBuf, Error> {
    let recipe = Recipe {
        name: format!("u-boot-{}", name_of(scheme)),
        fragment: fragment(scheme),
        environment: compiled_in(scheme),
        sources: &[],
    };
    recipe.build(cache, archive)
}

/// The same for `boot-order`, and one that takes from the stored environment nothing but the variables of the scheme.
pub(crate) fn build_closed(cache: &Cache, archive: &Archive) -> Result<PathBuf, Error> {
    let scheme = SchemeKind::BootOrder;
    let recipe = Recipe {
        name: format!("u-boot-{}-closed", name_of(scheme)),
        fragment: fragment(scheme) + CLOSED,
        environment: compiled_in_closed(scheme),
        sources: &CLOSED_SOURCES,
    };
    recipe.build(cache, archive)
}

/// What one U-Boot differs in from another.
struct Recipe {
    name: String,
    fragment: String,
    environment: String,
    /// Files of the source, and what is put behind their ends.
    sources: &'static [(&'static str, &'static str)],
}

impl Recipe {
    fn build(self, cache: &Cache, archive: &Archive) -> Result<PathBuf, Error> {
        let inputs = Inputs::of(include_str!("uboot.rs"))
            .text(archive.source_files("u-boot")?)
            .text(&self.fragment)
            .text(&self.environment)
            .text(FLAGS);
        let inputs = self.sources.iter().fold(inputs, |inputs, (_, text)| inputs.text(text));
        let part = cache.part(&self.name, inputs, |directory| {
            let source = archive.unpack_source("u-boot", directory)?;
            for (file, more) in self.sources {
                let path = source.join(file);
                let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
                fs::write(&path, text + more).map_err(Error::io("write", &path))?;
            }
            compile(directory, &source, &self.fragment, &self.environment)?;
            fs::remove_dir_all(&source).map_err(Error::io("remove", &source))
        })?;
        Ok(part.join("u-boot.bin"))
    }
}

fn fragment(scheme: SchemeKind) -> String {
    let scheme = match scheme {
        SchemeKind::Bootcount => BOOTCOUNT,
        SchemeKind::BootOrder => BOOT_ORDER,
    };
    format!("{BOARD}{scheme}")
}

fn compile(directory: &Path, source: &Path, fragment: &str, environment: &str) -> Result<(), Error> {
    let text = source.join("board/otad.env");
    fs::write(&text, environment).map_err(Error::io("write", &text))?;
    let output = source.join("build");
    let make = |words: &[&str]| {
        let mut make = step::command("make", ["-s", "O=build", "CROSS_COMPILE=aarch64-linux-gnu-", FLAGS]);
        make.args(words).current_dir(source);
        step::run("U-Boot", &mut make, ADVICE)
    };
    make(&["qemu_arm64_defconfig"])?;
    let config = output.join(".config");
    let base = fs::read_to_string(&config).map_err(Error::io("read", &config))?;
    let fragment = fragment.replace("@ENVIRONMENT@", "board/otad.env");
    // Of two lines about one option, the last one holds.
    fs::write(&config, base + &fragment).map_err(Error::io("write", &config))?;
    make(&["olddefconfig"])?;
    let made = fs::read_to_string(&config).map_err(Error::io("read", &config))?;
    refuse_dropped(&made, &fragment)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    make(&["-j", &processors, "u-boot.bin"])?;
    for name in ["u-boot.bin", ".config"] {
        let (from, to) = (output.join(name), directory.join(name.trim_start_matches('.')));
        fs::copy(&from, &to).map_err(Error::io("copy", &from))?;
    }
    Ok(())
}

/// Kconfig drops silently what it does not know or what depends on something that is off.
fn refuse_dropped(made: &str, wanted: &str) -> Result<(), Error> {
    let dropped: Vec<&str> = wanted
        .lines()
        .filter(|line| line.starts_with("CONFIG_") && !made.lines().any(|there| there == *line))
        .collect();
    if dropped.is_empty() {
        return Ok(());
    }
    Err(Error::Unexpected(format!(
        "U-Boot's configuration does not take {}: see test-images/uboot/*.config",
        dropped.join(", ")
    )))
}
