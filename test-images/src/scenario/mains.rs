//! What goes away in the middle: the power, the network, otad itself.

use std::time::Duration;

use bootenv::CopyId;
use bootenv::scheme::SchemeKind;
use otad_demo::Status;

use super::failure::Failure;
use super::releases::Release;
use super::stage::{BOOT, INSTALL, Stage};
use super::status::is_armed;
use super::{Group, Scenario};
use crate::build::Slot;
use crate::emulator::boots::BANNER;
use crate::emulator::machine::NETWORK;

/// Longer than a connection survives without a word, shorter than a person waits.
const UNPLUGGED: Duration = Duration::from_secs(45);
/// Longer than the board's hardware watchdog waits, and shorter than systemd waits for a sign of otad's life (`WatchdogSec=`, of which
/// half may have gone by).
const STOPPED: Duration = Duration::from_secs(25);
/// Until systemd has missed that sign, ended otad and started it again.
const MISSED: Duration = Duration::from_secs(180);
/// Power cycles of a quiet system.
const CYCLES: u64 = 30;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "flicker",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "thirty quick power cycles of a confirmed system",
        tell: flicker,
    },
    Scenario {
        name: "cut-while-writing",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "the power goes while slot b is written, and both copies of the environment with it",
        tell: cut_while_writing,
    },
    Scenario {
        name: "cable-pulled",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "the network goes for a while in the middle of an install, and comes back",
        tell: cable_pulled,
    },
    Scenario {
        name: "updater-stopped",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "otad stands still in the middle of an install: the board is not reset, and systemd starts otad again",
        tell: updater_stopped,
    },
];

fn flicker(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let old = Release::Good.slot("1.0.0", 1);
    stage.factory(&old, None)?;
    let before = stage.card.environment()?;
    for cycle in 0..CYCLES {
        stage.power_on()?;
        stage.power()?.console.wait_for(&[BANNER], BOOT)?;
        // From the boot loader's first words to the middle of userland.
        std::thread::sleep(Duration::from_millis(cycle * 300));
        stage.power_off();
    }
    Failure::unless(before == stage.card.environment()?, "the environment as before", "another")?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.wait_status("slot a is confirmed", BOOT, |status| status.rests_in("a"))?;
    stage.went("")?;
    stage.note(format!("up after {CYCLES} power cycles, nothing counted"));
    stage.environment_agrees()?;
    stage.untouched("a", &old)
}

fn cut_while_writing(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    let (mut install, writing) = install_half(stage, &old, &new)?;
    stage.power_off();
    // It ends because its connection is gone; what it says does not matter.
    let _ = install.wait();
    writing?;
    stage.card_says(&[("otad_slot", "a"), ("otad_b_ok", "0"), ("otad_trial", "")])?;
    Failure::unless(!stage.slot_holds("b", &new)?, "a half-written slot b", "a whole one")?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.wait_status("INTERRUPTED", BOOT, interrupted)?;
    stage.note("INTERRUPTED, slot a runs");
    stage.power_off();
    // Now the boot loader knows nothing: it must not be able to start slot b.
    stage.card.destroy(CopyId::First)?;
    stage.card.destroy(CopyId::Second)?;
    stage.power_on()?;
    let boot = stage.wait_ready("a", "1.0.0")?;
    Failure::unless(boot.default_environment, "U-Boot on its compiled-in environment", &boot)?;
    stage.wait_status("the environment is rebuilt", BOOT, |status| status.rests_in("a"))?;
    stage.went("")?;
    stage.install(&new, "b")?;
    stage.note("the next install keeps what is right");
    stage.environment_agrees()
}

fn cable_pulled(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    let (mut install, writing) = install_half(stage, &old, &new)?;
    writing?;
    stage.power()?.qmp.set_link(NETWORK, false)?;
    stage.step("the cable is pulled");
    std::thread::sleep(UNPLUGGED);
    stage.power()?.qmp.set_link(NETWORK, true)?;
    stage.step("the cable is back");
    stage.wait_status("slot b is armed", INSTALL, |status| is_armed(status, "b"))?;
    // The shell it was typed into may or may not have survived.
    let _ = install.wait();
    stage.note(format!("installed in spite of {} s without a network", UNPLUGGED.as_secs()));
    stage.reboot()?;
    stage.wait_ready("b", "2.0.0")?;
    stage.wait_committed("b")?;
    stage.went("b")?;
    stage.environment_agrees()?;
    stage.untouched("b", &new)
}

/// H5: the hardware watchdog is fed by systemd: an otad that stands still costs its own job and no reset.
fn updater_stopped(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    let (mut install, writing) = install_half(stage, &old, &new)?;
    writing?;
    let main = stage.guest()?.run("systemctl show --property MainPID --value otad")?;
    let main = main.trim().to_owned();
    stage.guest()?.run(&format!("kill -STOP {main}"))?;
    stage.step("otad is stopped");
    std::thread::sleep(STOPPED);
    let state = stage.guest()?.run(&format!("grep State: /proc/{main}/status"))?;
    Failure::unless(state.contains("stopped"), "the same otad, stopped, on a system that answers", &state)?;
    stage.went("")?;
    stage.note(format!("no reset in {} s without otad, by a watchdog of 15 s", STOPPED.as_secs()));
    stage.wait_status("systemd starts otad again, which says INTERRUPTED", MISSED, interrupted)?;
    let _ = install.wait();
    let restarts = stage.guest()?.run("systemctl show --property NRestarts --value otad")?;
    Failure::unless(restarts.trim() == "1", "one restart of otad", &restarts)?;
    stage.went("")?;
    stage.install(&new, "b")?;
    stage.environment_agrees()?;
    stage.untouched("a", &old)
}

/// Whether slot a runs, confirmed, and says that an update was interrupted.
fn interrupted(status: &Status) -> bool {
    status.rests_in("a") && status.last_result.as_ref().is_some_and(|last| last.code == "INTERRUPTED")
}

/// Starts a board with its factory's release in slot a, begins an install of another one, and says whether it came to be in the middle
/// of writing.
fn install_half(
    stage: &mut Stage<'_>,
    old: &Slot,
    new: &Slot,
) -> Result<(std::process::Child, Result<Status, Failure>), Failure> {
    stage.factory(old, None)?;
    stage.power_on()?;
    stage.wait_ready("a", &old.version)?;
    let artifact = stage.publish(new)?;
    let guest = stage.guest()?;
    let mut install = guest.command(&format!("otactl install {}", stage.url(&artifact)), INSTALL);
    install.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let install =
        install.spawn().map_err(|source| crate::emulator::Error::Start { program: "ssh", source })?;
    let writing = stage.wait_status("slot b is half written", INSTALL, |status| {
        status.job.as_ref().is_some_and(|job| job.phase == "writing" && job.progress >= 20)
    });
    Ok((install, writing))
}
