//! `otad.toml` into a validated [`Config`].
//!
//! Owns the grammar of the configuration and every rule that can be checked without a device: what parses is complete
//! and consistent. Errors name file, line and column, the value, and what would be right. It opens nothing: the caller
//! reads the file ([`load`] is the one exception, and looks at the file's permissions too).

mod decrypt;
mod raw;
mod server;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::failure::{Code, Failure};

pub use decrypt::Decrypt;
pub use server::{Identity, Server};

/// A slot's name, as in the configuration and in the boot environment.
pub type SlotName = String;

/// Everything otad was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Name of the hardware; a bundle must list it.
    pub compatible: String,
    /// Persistent directory outside both slots.
    pub data_dir: PathBuf,
    /// Volatile directory for the lock that keeps a second otad out.
    pub runtime_dir: PathBuf,
    /// The running image's account of itself.
    pub image_info: PathBuf,
    /// How the boot loader is told.
    pub boot: Boot,
    /// Exactly two slots.
    pub slots: [Slot; 2],
    /// The trust root as shipped with the image.
    pub trust_root: PathBuf,
    /// What encrypted bundles are read with, if any are taken.
    pub decrypt: Option<Decrypt>,
    /// When a trial counts as healthy.
    pub health: Health,
    /// The role of the image whose system has to pass its own self-test before it is armed, if that is wanted.
    pub pre_run: Option<String>,
    /// Where to ask for updates, if anywhere.
    pub server: Option<Server>,
    /// What happens once the target is armed.
    pub reboot: RebootPolicy,
}

/// How the boot loader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The real machine or the boot model.
    pub backend: Backend,
    /// Which variables.
    pub scheme: bootenv::SchemeKind,
    /// Where the environment lies.
    pub env_config: PathBuf,
    /// Boots on trial before the boot loader goes back.
    pub limit: u8,
    /// What a lost environment is rebuilt from.
    pub default_env: PathBuf,
    /// Where the command line is read.
    pub cmdline: PathBuf,
    /// Whether the device of `/` must agree with the command line.
    pub root_device_check: bool,
}

/// Which machine is underneath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A machine that U-Boot starts.
    Uboot,
    /// The boot model of the demo and the tests, which keeps its files in this directory.
    File(PathBuf),
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name; a single lower-case letter or word.
    pub name: SlotName,
    /// Role to device.
    pub images: BTreeMap<String, PathBuf>,
}

/// When a trial counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Directory of executables that must all exit 0.
    pub checks: Option<PathBuf>,
    /// systemd units that must be active.
    pub units: Vec<String>,
    /// How long all of it must hold.
    pub settle: Duration,
    /// When to give up and roll back.
    pub deadline: Duration,
}

/// What happens once the target is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RebootPolicy {
    /// Somebody says when.
    Manual,
    /// At once.
    Immediate,
}

impl Config {
    /// The slot of that name.
    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// The slot that is not the one of that name.
    pub fn other(&self, name: &str) -> Option<&Slot> {
        let [a, b] = &self.slots;
        match name {
            n if n == a.name => Some(b),
            n if n == b.name => Some(a),
            _ => None,
        }
    }
}

/// Reads and validates a configuration file, and checks that every slot device is there.
pub fn load(path: &Path) -> Result<Config, Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let fail = |what: String| Failure::new(Code::Config, format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(format!("cannot read: {error}")))?;
    let mode = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.permissions().mode();
    if mode & 0o002 != 0 {
        let mode = mode & 0o7777;
        return Err(fail(format!("mode {mode:04o} lets everybody write it; run chmod o-w on it")));
    }
    parse(&text, path, &|device| device.exists())
}

/// Parses and validates configuration text. `path` is for messages; `exists` tells whether a device is there.
pub fn parse(text: &str, path: &Path, exists: &dyn Fn(&Path) -> bool) -> Result<Config, Failure> {
    let place = Place { text, path };
    let raw: raw::File = toml::from_str(text)
        .map_err(|error| place.fail(error.span().unwrap_or(0..0), error.message().to_owned()))?;
    validate(raw, &place, exists)
}

/// Turns byte ranges of the text into `file:line:column: message`.
struct Place<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Place<'_> {
    fn fail(&self, span: Range<usize>, message: impl std::fmt::Display) -> Failure {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        Failure::new(Code::Config, format!("{}:{line}:{column}: {message}", self.path.display()))
    }
}

fn validate(raw: raw::File, place: &Place<'_>, exists: &dyn Fn(&Path) -> bool) -> Result<Config, Failure> {
    let compatible = raw.system.compatible;
    if compatible.get_ref().is_empty() {
        return Err(place.fail(compatible.span(), "`compatible` is empty; name the hardware as bundles do"));
    }
    let boot = validate_boot(raw.boot, place)?;
    let slots = validate_slots(raw.slot, place, exists)?;
    let server = raw.server.map(|server| server::validate(server, place)).transpose()?;
    let pre_run = raw.pre_run.map(|pre_run| validate_pre_run(pre_run, &slots, place)).transpose()?;
    Ok(Config {
        compatible: compatible.into_inner(),
        data_dir: absolute(raw.system.data_dir, place)?,
        runtime_dir: absolute(raw.system.runtime_dir, place)?,
        image_info: absolute(raw.system.image_info, place)?,
        boot,
        slots,
        trust_root: absolute(raw.trust.root, place)?,
        decrypt: raw.decrypt.map(|decrypt| decrypt::validate(decrypt, place)).transpose()?,
        health: validate_health(raw.health, place)?,
        pre_run,
        server,
        reboot: raw.reboot.policy,
    })
}

fn validate_boot(raw: raw::Boot, place: &Place<'_>) -> Result<Boot, Failure> {
    let limit = *raw.boot_limit.get_ref();
    let Ok(limit @ 1..=9) = u8::try_from(limit) else {
        let why = "boot scripts read the counter as hexadecimal or as decimal, which agree from 1 to 9";
        return Err(place.fail(raw.boot_limit.span(), format!("`boot-limit` is {limit}; {why}")));
    };
    let backend = match (raw.backend.get_ref(), raw.model_dir) {
        (raw::Backend::Uboot, None) => Backend::Uboot,
        (raw::Backend::Uboot, Some(dir)) => {
            return Err(place.fail(dir.span(), "`model-dir` belongs to backend = \"file\" only"));
        }
        (raw::Backend::File, Some(dir)) => Backend::File(absolute(dir, place)?),
        (raw::Backend::File, None) => {
            return Err(place.fail(
                raw.backend.span(),
                "backend = \"file\" needs `model-dir`, where the boot model lives",
            ));
        }
    };
    let scheme = match raw.scheme {
        raw::Scheme::Bootcount => bootenv::SchemeKind::Bootcount,
        raw::Scheme::BootOrder => bootenv::SchemeKind::BootOrder,
    };
    Ok(Boot {
        backend,
        scheme,
        env_config: absolute(raw.env_config, place)?,
        limit,
        default_env: absolute(raw.default_env, place)?,
        cmdline: absolute(raw.cmdline, place)?,
        root_device_check: raw.root_device_check,
    })
}

fn validate_slots(
    raw: Spanned<Vec<raw::Slot>>,
    place: &Place<'_>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<[Slot; 2], Failure> {
    let span = raw.span();
    let mut slots = Vec::new();
    for slot in raw.into_inner() {
        let name = slot.name.get_ref();
        let valid = !name.is_empty()
            && name.len() <= 16
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !valid {
            let rule =
                "use 1 to 16 lower-case letters and digits: it becomes part of environment variable names";
            return Err(place.fail(slot.name.span(), format!("slot name `{name}` is not usable; {rule}")));
        }
        if slots.iter().any(|known: &Slot| known.name == *name) {
            return Err(place.fail(slot.name.span(), format!("slot `{name}` is there twice")));
        }
        let mut images = BTreeMap::new();
        for (role, device) in slot.images {
            let span = device.span();
            let device = absolute(device, place)?;
            if !exists(&device) {
                return Err(place.fail(span, format!("slot {name}: {} does not exist", device.display())));
            }
            images.insert(role, device);
        }
        if images.is_empty() {
            return Err(place.fail(
                slot.name.span(),
                format!("slot {name} has no image; add images.rootfs = \"/dev/…\""),
            ));
        }
        slots.push(Slot { name: name.clone(), images });
    }
    let count = slots.len();
    let Ok([a, b]) = <[Slot; 2]>::try_from(slots) else {
        return Err(place.fail(span, format!("{count} [[slot]] sections; otad needs exactly two")));
    };
    if !a.images.keys().eq(b.images.keys()) {
        let (roles_a, roles_b) = (roles(&a), roles(&b));
        return Err(place.fail(
            span,
            format!("slots {} ({roles_a}) and {} ({roles_b}) differ in image roles", a.name, b.name),
        ));
    }
    if let Some((role, device)) =
        a.images.iter().find(|(_, device)| b.images.values().any(|other| other == *device))
    {
        return Err(place.fail(
            span,
            format!("{} is {role} of slot {} and an image of slot {} too", device.display(), a.name, b.name),
        ));
    }
    Ok([a, b])
}

fn roles(slot: &Slot) -> String {
    slot.images.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn validate_health(raw: raw::Health, place: &Place<'_>) -> Result<Health, Failure> {
    let (settle, deadline) = (raw.settle_seconds, *raw.deadline_seconds.get_ref());
    if deadline <= settle {
        let message = format!(
            "`deadline-seconds` is {deadline}, but the checks must hold for {settle} seconds before it"
        );
        return Err(place.fail(raw.deadline_seconds.span(), message));
    }
    Ok(Health {
        checks: raw.checks.map(|dir| absolute(dir, place)).transpose()?,
        units: raw.units,
        settle: Duration::from_secs(settle.into()),
        deadline: Duration::from_secs(deadline.into()),
    })
}

fn validate_pre_run(raw: raw::PreRun, slots: &[Slot; 2], place: &Place<'_>) -> Result<String, Failure> {
    let role = raw.image.get_ref();
    let [slot, _] = slots;
    if !slot.images.contains_key(role) {
        let message = format!("slots have no image `{role}`, they have {}", roles(slot));
        return Err(place.fail(raw.image.span(), message));
    }
    Ok(raw.image.into_inner())
}

fn absolute(path: Spanned<PathBuf>, place: &Place<'_>) -> Result<PathBuf, Failure> {
    if path.get_ref().is_absolute() {
        return Ok(path.into_inner());
    }
    Err(place.fail(path.span(), format!("`{}` is not an absolute path", path.get_ref().display())))
}

#[cfg(test)]
mod tests;
