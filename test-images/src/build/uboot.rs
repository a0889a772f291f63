//! U-Boot for the board, from Debian's source package with the board's and the scheme's configuration.

use std::fs;
use std::path::{Path, PathBuf};

use bootenv::scheme::SchemeKind;

use super::archive::Archive;
use super::cache::{Cache, Inputs};
use super::environment::{compiled_in, name_of};
use super::error::Error;
use super::step;

const BOARD: &str = include_str!("../../uboot/board.config");
const BOOTCOUNT: &str = include_str!("../../uboot/bootcount.config");
const BOOT_ORDER: &str = include_str!("../../uboot/boot-order.config");

/// The environment is read before PCI is looked through otherwise, and the card is behind PCI.
const FLAGS: &str = "KCPPFLAGS=-DCONFIG_SYS_EARLY_PCI_INIT=1";

const ADVICE: &str = "scripts/need-board installs the compiler and what U-Boot's build uses";

/// Returns the path of `u-boot.bin` for a scheme.
pub(crate) fn build(cache: &Cache, archive: &Archive, scheme: SchemeKind) -> Result<PathBuf, Error> {
    let fragment = fragment(scheme);
    let environment = compiled_in(scheme);
    let inputs = Inputs::of(include_str!("uboot.rs"))
        .text(archive.source_files("u-boot")?)
        .text(&fragment)
        .text(&environment)
        .text(FLAGS);
    let name = format!("u-boot-{}", name_of(scheme));
    let part = cache.part(&name, inputs, |directory| {
        let source = archive.unpack_source("u-boot", directory)?;
        compile(directory, &source, &fragment, &environment)?;
        fs::remove_dir_all(&source).map_err(Error::io("remove", &source))
    })?;
    Ok(part.join("u-boot.bin"))
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
