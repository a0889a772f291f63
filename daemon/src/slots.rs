//! Which slot runs, and which one may be written.
//!
//! The running slot is what two independent witnesses agree on: the boot loader (`otad.slot=` on the command line) and
//! the kernel (the device of `/`). When they do not agree nothing is written, ever: a wrong guess overwrites the system
//! that runs.

use crate::config::{Config, Slot, SlotName};
use crate::failure::{Code, Failure};
use crate::ports::{DeviceId, Machine, SlotDevices};

/// The role whose device `/` is on.
const ROOT_ROLE: &str = "rootfs";

/// Tells the running slot, or why it is not known.
///
/// # Errors
/// [`Code::BootedSlotAmbiguous`] with all the evidence.
pub fn booted(
    config: &Config,
    machine: &dyn Machine,
    devices: &dyn SlotDevices,
) -> Result<SlotName, Failure> {
    let ambiguous =
        |what: String| Failure::new(Code::BootedSlotAmbiguous, format!("{what}; no slot is written"));
    let line = machine.command_line().map_err(|error| {
        ambiguous(format!("cannot read the command line from {}: {error}", config.boot.cmdline.display()))
    })?;
    let named = named_slot(&line).map_err(ambiguous)?;
    let Some(slot) = config.slot(named) else {
        let [a, b] = &config.slots;
        return Err(ambiguous(format!(
            "the command line says otad.slot={named}, the slots are {} and {}",
            a.name, b.name
        )));
    };
    if config.boot.root_device_check {
        check_root(config, slot, machine, devices).map_err(ambiguous)?;
    }
    Ok(slot.name.clone())
}

/// The value of `otad.slot=`; exactly one is needed.
fn named_slot(command_line: &str) -> Result<&str, String> {
    let mut named = command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("otad.slot="));
    match (named.next(), named.next()) {
        (Some(name), None) => Ok(name),
        (None, _) => Err("the command line has no otad.slot=; the boot script must pass it".to_owned()),
        (Some(first), Some(second)) => Err(format!("the command line names two slots, {first} and {second}")),
    }
}

fn check_root(
    config: &Config,
    slot: &Slot,
    machine: &dyn Machine,
    devices: &dyn SlotDevices,
) -> Result<(), String> {
    let name = &slot.name;
    let root = machine.root_device().map_err(|error| format!("the device of / cannot be told: {error}"))?;
    let below = devices.identify_stack(root);
    let holds = |slot: &Slot| {
        slot.images
            .get(ROOT_ROLE)
            .and_then(|path| devices.identify(path).ok())
            .is_some_and(|id| below.contains(&id))
    };
    if holds(slot) {
        return Ok(());
    }
    let really = match config.other(name) {
        Some(other) if holds(other) => format!("the {ROOT_ROLE} of slot {}", other.name),
        Some(_) | None => format!("{}, which belongs to no slot", describe(root)),
    };
    Err(format!("the command line says otad.slot={name}, but / is on {really}"))
}

fn describe(id: DeviceId) -> String {
    match id {
        DeviceId::Block(number) => {
            format!("block device {}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number))
        }
        DeviceId::File { device, inode } => format!("file {inode} of file system {device}"),
    }
}

/// Refuses a target that is, or lies below or beside, the device the system runs from (X2).
pub fn refuse_running(
    config: &Config,
    running: &Slot,
    target: DeviceId,
    machine: &dyn Machine,
    devices: &dyn SlotDevices,
) -> Result<(), Failure> {
    let mut in_use = Vec::new();
    if config.boot.root_device_check {
        in_use.extend(machine.root_device().map(|root| devices.identify_stack(root)).unwrap_or_default());
    }
    in_use.extend(running.images.values().filter_map(|path| devices.identify(path).ok()));
    let stack = devices.identify_stack(target);
    if stack.iter().any(|id| in_use.contains(id)) {
        let what =
            format!("the target is {}, which the running slot {} uses", describe(target), running.name);
        return Err(Failure::new(Code::SlotIsRunning, format!("{what}; check images.* in otad.toml")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_must_name_exactly_one_slot() {
        assert_eq!(named_slot("quiet otad.slot=b panic=1\n"), Ok("b"));
        assert!(named_slot("root=/dev/mmcblk0p2 myotad.slot=a").is_err());
        assert!(named_slot("otad.slot=a otad.slot=b").is_err());
    }
}
