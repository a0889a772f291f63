//! Damage to the boot environment.

use bootenv::CopyId;
use bootenv::scheme::SchemeKind;

use super::failure::Failure;
use super::releases::Release;
use super::stage::{BOOT, Stage, TRIAL};
use super::{Group, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "one-copy-lost",
        scheme: SchemeKind::Bootcount,
        group: Group::Core,
        story: "either copy of the environment is destroyed: the board boots, and the next change repairs it",
        tell: one_copy_lost,
    },
    Scenario {
        name: "both-copies-lost",
        scheme: SchemeKind::Bootcount,
        group: Group::Core,
        story: "both copies are destroyed while slot b runs; otad rebuilds them once the system is healthy",
        tell: both_copies_lost,
    },
    Scenario {
        name: "wrong-size",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "fw_env.config has the wrong size: nothing is installed, nothing is changed",
        tell: wrong_size,
    },
    Scenario {
        name: "ignored-switch",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "the boot loader starts the old slot whatever is armed: noticed once, no reboots without end",
        tell: ignored_switch,
    },
    Scenario {
        name: "tampered",
        scheme: SchemeKind::BootOrder,
        group: Group::All,
        story: "E8: somebody stores boot commands of their own; a boot loader with a list of variables takes none",
        tell: tampered,
    },
];

/// What somebody with write access to the environment adds to the kernel's command line.
const TAKEN_OVER: &str = "taken-over=yes";

fn one_copy_lost(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    stage.factory(&old, Some(&old))?;
    stage.card.destroy(CopyId::First)?;
    let health = stage.card.health()?;
    Failure::unless(health.is_degraded(), "one bad copy", health.to_string())?;
    stage.power_on()?;
    let boot = stage.wait_ready("a", "1.0.0")?;
    Failure::unless(!boot.default_environment, "the other copy in use", &boot)?;
    let check = stage.guest()?.try_run("bootenv check")?;
    Failure::unless(check.status.code() == Some(2), "`bootenv check` to say degraded", &check)?;
    stage.install(&new, "b")?;
    // The first change of the update wrote the bad copy anew; now the other one goes, with the power off.
    stage.power_off();
    let health = stage.card.health()?;
    Failure::unless(health.is_healthy(), "both copies valid", health.to_string())?;
    let Some(current) = health.current else {
        return Failure::unless(false, "a current copy", health.to_string());
    };
    let other = if current == CopyId::First { CopyId::Second } else { CopyId::First };
    stage.card.destroy(other)?;
    stage.power_on()?;
    stage.wait_ready("b", "2.0.0")?;
    stage.wait_committed("b")?;
    stage.note("repaired by the next change, twice");
    stage.environment_agrees()?;
    stage.untouched("b", &new)
}

fn both_copies_lost(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let old = Release::Good.slot("1.0.0", 1);
    stage.factory(&old, None)?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.wait_status("slot a is confirmed", BOOT, |status| status.rests_in("a"))?;
    stage.power_off();
    lose_both_copies(stage)?;
    stage.went("")?;
    stage.environment_agrees()?;
    stage.card_says(&[
        ("otad_slot", "a"),
        ("otad_a_ok", "1"),
        ("otad_env", ""),
        ("upgrade_available", "0"),
    ])?;
    stage.power_on()?;
    let boot = stage.wait_ready("a", "1.0.0")?;
    Failure::unless(!boot.default_environment, "the rebuilt environment in use", &boot)?;
    stage.power_off();
    stage.note("rebuilt in one boot");
    stage.untouched("a", &old)
}

/// Destroys both copies while the power is off: the board comes up in slot a on what U-Boot has compiled in, and otad rebuilds them.
fn lose_both_copies(stage: &mut Stage<'_>) -> Result<(), Failure> {
    stage.card.destroy(CopyId::First)?;
    stage.card.destroy(CopyId::Second)?;
    stage.power_on()?;
    let boot = stage.wait_ready("a", "1.0.0")?;
    Failure::unless(boot.default_environment, "U-Boot on its compiled-in environment", &boot)?;
    stage.wait_status("the environment is rebuilt", TRIAL, |status| status.rests_in("a")).map(drop)
}

fn wrong_size(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let old = Release::WrongEnvironmentSize.slot("1.0.0", 1);
    let new = Release::Good.slot("2.0.0", 2);
    stage.factory(&old, None)?;
    let before = stage.card.environment()?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    let artifact = stage.publish(&new)?;
    let line = format!("otactl install {}", stage.url(&artifact));
    let guest = stage.guest()?;
    let answer = guest.try_run(&line)?;
    let refused = !answer.status.success() && answer.error.contains("ENV_CONFIG_MISMATCH");
    Failure::unless(refused, "the install refused with ENV_CONFIG_MISMATCH", &answer)?;
    stage.note("refused with ENV_CONFIG_MISMATCH");
    // Longer than the settle time: otad must not take the environment for lost and write another one.
    std::thread::sleep(std::time::Duration::from_secs(60));
    stage.power_off();
    let after = stage.card.environment()?;
    Failure::unless(before == after, "the environment as before", &after)?;
    stage.untouched("a", &old)
}

fn ignored_switch(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    stage.factory(&old, Some(&old))?;
    // Firmware that knows one slot only.
    stage.card.change(&bootenv::Changes::new().set("otad_boot", "run otad_try_a; reset"))?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.install(&new, "b")?;
    stage.reboot()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.wait_status("the switch was ignored", BOOT, |status| {
        status.rests_in("a")
            && status.last_result.as_ref().is_some_and(|last| last.code == "BOOTLOADER_IGNORED_SWITCH")
    })?;
    // Would otad try again by itself, it would do it within this time.
    std::thread::sleep(std::time::Duration::from_secs(60));
    stage.went("a")?;
    stage.environment_agrees()?;
    stage.card_says(&[("otad_slot", "a"), ("otad_trial", ""), ("upgrade_available", "0")])
}

fn tampered(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    stage.factory(&old, Some(&old))?;
    let stored = stage.card.environment()?;
    let arguments = format!("{} {TAKEN_OVER}", stored.get_str("otad_args_a").unwrap_or_default());
    stage.card.change(&bootenv::Changes::new().set("otad_args_a", arguments))?;
    // Without the list it works: that is what the list is for.
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    let line = stage.guest()?.run("cat /proc/cmdline")?;
    Failure::unless(line.contains(TAKEN_OVER), "a boot loader that believes what is stored", &line)?;
    stage.power_off();

    stage.close_environment()?;
    let worse = [("bootcmd", "echo taken over; reset"), ("bootargs", TAKEN_OVER), ("otad_boot", "reset")];
    let worse = worse.into_iter().fold(bootenv::Changes::new(), |all, (name, value)| all.set(name, value));
    stage.card.change(&worse)?;
    stage.power_on()?;
    let boot = stage.wait_ready("a", "1.0.0")?;
    Failure::unless(!boot.default_environment, "the stored order of slots in use", &boot)?;
    let line = stage.guest()?.run("cat /proc/cmdline")?;
    Failure::unless(!line.contains(TAKEN_OVER), "nothing of what was stored", &line)?;
    stage.note("taken without the list, not with it");

    // What is listed still does what it is there for.
    stage.install(&new, "b")?;
    stage.reboot()?;
    stage.wait_ready("b", "2.0.0")?;
    stage.wait_committed("b")?;
    stage.went("b")?;
    stage.power_off();
    let stored = stage.card.environment()?;
    let command = stored.get_str("bootcmd").unwrap_or_default();
    Failure::unless(command.contains("run otad_boot"), "U-Boot's own command, as it saved it", command)?;

    // And with both copies lost it says so, until otad has rebuilt them.
    lose_both_copies(stage)?;
    stage.power_off();
    stage.power_on()?;
    let boot = stage.wait_ready("a", "1.0.0")?;
    Failure::unless(!boot.default_environment, "the rebuilt environment in use", &boot)?;
    stage.note("rebuilt after the loss of both copies");
    Ok(())
}
