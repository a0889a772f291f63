//! The boot loader's environment: the text that is compiled into U-Boot, and what a new card and a rebuilt environment hold.
//!
//! One text per scheme, made of the board's block and the scheme's; the scheme's is the one `docs/boot-integration.md` shows.

use bootenv::env::{Changes, Environment};
use bootenv::format::{ByteOrder, Copy, Layout};
use bootenv::scheme::{ENV_MARK, Scheme, SchemeKind};
use bootenv::script::parse_environment;

use super::error::Error;

const BOARD: &str = include_str!("../../uboot/board.env");
const BOOTCOUNT: &str = include_str!("../../uboot/bootcount.env");
const BOOT_ORDER: &str = include_str!("../../uboot/boot-order.env");

/// The boot limit of `rootfs/etc/otad/otad.toml` and of the texts.
pub const BOOT_LIMIT: u8 = 3;

/// Size of each copy of the environment; the same number stands in `uboot/board.config` and `rootfs/etc/fw_env.config`.
pub const ENVIRONMENT_BYTES: u32 = 0x20000;

/// Where the copies begin on the card, as in those two files.
pub const ENVIRONMENT_OFFSETS_BYTES: [u32; 2] = [0x10_0000, 0x14_0000];

/// What otad and file names call a scheme.
pub fn name_of(scheme: SchemeKind) -> &'static str {
    match scheme {
        SchemeKind::Bootcount => "bootcount",
        SchemeKind::BootOrder => "boot-order",
    }
}

/// The text that is compiled into U-Boot, as its build joins the lines: what it starts from when both copies are lost.
pub fn compiled_in(scheme: SchemeKind) -> String {
    let text = match scheme {
        SchemeKind::Bootcount => BOOTCOUNT,
        SchemeKind::BootOrder => BOOT_ORDER,
    };
    let mut joined = String::new();
    let mut open = false;
    for line in BOARD.lines().chain(text.lines()).filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let line = if open { line.trim_start() } else { line };
        open = line.ends_with('\\');
        joined += line.strip_suffix('\\').unwrap_or(line);
        if !open {
            joined.push('\n');
        }
    }
    joined
}

/// The text for a U-Boot that loads it first, always: a mark of being that is only true when nothing of the scheme `boot-order` is stored.
pub(crate) fn compiled_in_closed(scheme: SchemeKind) -> String {
    let mark = format!(
        "bootcmd=if test -z \"${{BOOT_ORDER}}\"; then setenv {ENV_MARK} default; fi; run otad_boot\n"
    );
    default_env(scheme).replace("bootcmd=run otad_boot\n", &mark)
}

/// What an environment is rebuilt from in Linux: the compiled-in text without the mark of being that.
pub fn default_env(scheme: SchemeKind) -> String {
    let mark = format!("{ENV_MARK}=");
    let text = compiled_in(scheme);
    text.lines().filter(|line| !line.starts_with(&mark)).flat_map(|line| [line, "\n"]).collect()
}

/// One copy of the environment of a device that leaves the factory with slot a.
pub(crate) fn factory_copy(scheme: SchemeKind) -> Result<Vec<u8>, Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::Unexpected(format!("factory environment: {error}"));
    let mut environment: Environment =
        parse_environment(default_env(scheme).as_bytes()).map_err(|error| wrong(&error))?;
    let factory: Changes = Scheme::new(scheme, ["a", "b"], BOOT_LIMIT)
        .and_then(|scheme| scheme.factory("a"))
        .map_err(|error| wrong(&error))?;
    environment.apply(&factory).map_err(|error| wrong(&error))?;
    let capacity = ENVIRONMENT_BYTES as usize - Layout::Redundant.header_bytes();
    let data = environment.serialise(capacity, 0).map_err(|error| wrong(&error))?;
    Ok(Copy { flags: 1, data }.encode(Layout::Redundant, ByteOrder::Little))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUIDE: &str = include_str!("../../../docs/boot-integration.md");

    #[test]
    fn the_guide_shows_the_schemes_that_are_tested_here() {
        for text in [BOOTCOUNT, BOOT_ORDER] {
            assert!(text.starts_with("# The scheme") && text.len() > 1000);
            assert!(
                GUIDE.contains(&format!("\n\n{text}```\n")),
                "docs/boot-integration.md shows another text than\n{text}"
            );
        }
    }

    #[test]
    fn the_three_places_of_offsets_agree() {
        let config = include_str!("../../uboot/board.config");
        let [first, second] = ENVIRONMENT_OFFSETS_BYTES;
        for line in [
            format!("CONFIG_ENV_SIZE={ENVIRONMENT_BYTES:#x}\n"),
            format!("CONFIG_ENV_OFFSET={first:#x}\n"),
            format!("CONFIG_ENV_OFFSET_REDUND={second:#x}\n"),
        ] {
            assert!(config.contains(&line), "{line}");
        }
        let device = include_str!("../../rootfs/etc/fw_env.config");
        for offset in ENVIRONMENT_OFFSETS_BYTES {
            assert!(device.contains(&format!("/dev/mmcblk0  {offset:#x}  {ENVIRONMENT_BYTES:#x}\n")));
        }
        assert!(
            include_str!("../../rootfs/etc/otad/otad.toml").contains(&format!("boot-limit = {BOOT_LIMIT}\n"))
        );
    }

    #[test]
    fn lines_are_joined_as_u_boot_joins_them() {
        let text = compiled_in(SchemeKind::Bootcount);
        assert!(
            text.contains("otad_boot=if test \"${otad_slot}\" = b; then run otad_try_b; if run otad_may_a;"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.contains('=')), "{text}");
        assert!(
            text.contains("\notad_env=default\n")
                && !default_env(SchemeKind::Bootcount).contains("otad_env=d")
        );
    }

    #[test]
    fn a_text_that_is_always_loaded_is_marked_only_when_nothing_is_stored() {
        let text = compiled_in_closed(SchemeKind::BootOrder);
        assert!(!text.contains("\notad_env=") && text.contains("\nbootcmd=if test -z "), "{text}");
        let listed = include_str!("../../uboot/closed.h");
        let scheme = Scheme::new(SchemeKind::BootOrder, ["a", "b"], BOOT_LIMIT).unwrap();
        let set = scheme.factory("a").unwrap();
        let names = set.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        for name in names.chain(["otad_trial".to_owned(), ENV_MARK.to_owned()]) {
            assert!(listed.contains(&format!("{name}:sw")), "{name}");
        }
    }

    #[test]
    fn a_new_card_is_a_factory_device() {
        for scheme in [SchemeKind::Bootcount, SchemeKind::BootOrder] {
            let bytes = factory_copy(scheme).unwrap();
            assert_eq!(bytes.len(), ENVIRONMENT_BYTES as usize);
            let copy = Copy::decode(&bytes, Layout::Redundant, ByteOrder::Little).unwrap();
            let environment = Environment::parse(&copy.data);
            let rules = Scheme::new(scheme, ["a", "b"], BOOT_LIMIT).unwrap();
            assert_eq!(rules.primary(&environment), Some("a"));
            assert!(!rules.slot_ok(&environment, "b").unwrap());
            assert!(environment.get_str("otad_start").unwrap().starts_with("booti "));
        }
    }
}
