//! Releases that are bad, each in its own way: the board is back on the old one, and says why.

use bootenv::scheme::SchemeKind;

use super::failure::Failure;
use super::releases::{OTHER_KERNEL, Release, SENSOR};
use super::stage::{BOOT, Stage, TRIAL};
use super::{Group, Scenario};
use crate::emulator::Boot;

/// How a bad release has to end.
struct End {
    /// The slots of the boots behind the one that installed it.
    route: &'static str,
    /// The code of the reason.
    code: &'static str,
    /// What the reason says, among other things.
    says: &'static str,
}

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "bad-health",
        scheme: SchemeKind::Bootcount,
        group: Group::Smoke,
        story: "a health check fails until the deadline",
        tell: |stage| {
            // Its otad runs, and goes back by itself: one boot each.
            let report = goes_back(
                stage,
                Release::Unhealthy,
                &End { route: "ba", code: "HEALTH_FAILED", says: SENSOR },
            )?;
            Failure::unless(
                report.iter().any(|line| line.contains(SENSOR)),
                "the log of the failed boot in the report",
                &report,
            )
        },
    },
    Scenario {
        name: "panic",
        scheme: SchemeKind::Bootcount,
        group: Group::Core,
        story: "the kernel panics in every attempt",
        tell: |stage| {
            goes_back(stage, Release::Panics, &BY_COUNTER)?;
            let panics = stage.past().iter().filter(|boot| boot.panicked).count();
            Failure::unless(panics == 3, "three panics on the console", panics)
        },
    },
    Scenario {
        name: "hang",
        scheme: SchemeKind::Bootcount,
        group: Group::Core,
        story: "userland hangs; the hardware watchdog, fed by systemd until then, resets",
        tell: |stage| {
            goes_back(stage, Release::Hangs, &BY_COUNTER)?;
            // Nothing but the watchdog is left then: systemd is frozen, and the kernel is well and restarts nothing.
            let resets =
                stage.past().iter().filter(|boot| boot.froze && !boot.restarted && !boot.panicked).count();
            Failure::unless(resets == 3, "three frozen systems reset from outside", stage.past())
        },
    },
    Scenario {
        name: "no-updater",
        scheme: SchemeKind::Bootcount,
        group: Group::Core,
        story: "the new otad cannot start; the deadline that needs no otad reboots",
        tell: |stage| {
            goes_back(stage, Release::NoUpdater, &BY_COUNTER)?;
            let by_itself = |boot: &&Boot| boot.slot.as_deref() == Some("b") && boot.restarted;
            let restarts = stage.past().iter().filter(by_itself).count();
            Failure::unless(restarts == 3, "three restarts by the deadline", stage.past())
        },
    },
    Scenario {
        name: "no-environment",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "the new system cannot reach the boot environment, so it can neither commit nor roll back",
        tell: |stage| goes_back(stage, Release::NoEnvironment, &BY_COUNTER).map(drop),
    },
    Scenario {
        name: "bad-kernel",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "the kernel is no kernel: U-Boot loads it and cannot start it",
        // The boot loader goes on with the slot that is ok in the same boot, without a word to anybody.
        tell: |stage| {
            let end = End { route: "a", code: "BOOTLOADER_IGNORED_SWITCH", says: "" };
            goes_back(stage, Release::BadKernel, &end).map(drop)
        },
    },
    Scenario {
        name: "other-kernel",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "the kernel that runs is not the one that belongs to the new system (X4)",
        tell: |stage| {
            let end = End { route: "ba", code: "KERNEL_SLOT_MISMATCH", says: OTHER_KERNEL };
            goes_back(stage, Release::OtherKernel, &end).map(drop)
        },
    },
    Scenario {
        name: "bad-root",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "the C library is damaged: no program of the new system starts",
        tell: |stage| goes_back(stage, Release::BadRootFileSystem, &BY_COUNTER).map(drop),
    },
    Scenario {
        name: "init-exits",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "the first program exits",
        tell: |stage| goes_back(stage, Release::InitExits, &BY_COUNTER).map(drop),
    },
    Scenario {
        name: "health-hangs",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "a health check never ends",
        tell: |stage| {
            goes_back(stage, Release::HealthHangs, &End { route: "ba", code: "HEALTH_TIMEOUT", says: "" })
                .map(drop)
        },
    },
    Scenario {
        name: "health-flaps",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "a health check passes and fails in turn",
        tell: |stage| {
            let end = End { route: "ba", code: "HEALTH_FAILED", says: "never held for 4 s" };
            goes_back(stage, Release::HealthFlaps, &end).map(drop)
        },
    },
    Scenario {
        name: "no-network",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "the update breaks the network, so nobody could update again",
        tell: |stage| {
            let end = End { route: "ba", code: "HEALTH_FAILED", says: "no default route" };
            goes_back(stage, Release::NoNetwork, &end).map(drop)
        },
    },
];

/// Three attempts, and U-Boot's counter goes back.
const BY_COUNTER: End = End { route: "bbba", code: "ROLLED_BACK", says: "" };

/// Installs a bad release from slot a and waits until the board has given it up as it should. Returns the log of the
/// report to the server.
fn goes_back(stage: &mut Stage<'_>, bad: Release, end: &End) -> Result<Vec<String>, Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), bad.slot("2.0.0", 2));
    stage.factory(&old, Some(&old))?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.install(&new, "b")?;
    stage.reboot()?;
    stage.wait_ready_within("a", "1.0.0", TRIAL)?;
    let status = stage.wait_status("2.0.0 is given up", BOOT, |status| {
        status.rests_in("a") && status.last_outcome() != "installed"
    })?;
    let last = status.last_result.as_ref();
    let (code, message) = last.map(|last| (last.code.as_str(), last.message.as_str())).unwrap_or_default();
    let is_right = code == end.code && message.contains(end.says);
    Failure::unless(is_right, &format!("{} with `{}`", end.code, end.says), (code, message))?;
    stage.note(format!("{code}: {message}"));
    stage.went(end.route)?;
    let outcome = status.last_outcome().to_owned();
    let report = stage.wait_report(&outcome, "2.0.0")?;
    stage.environment_agrees()?;
    stage.card_says(&[
        ("otad_slot", "a"),
        ("otad_b_ok", "0"),
        ("otad_trial", ""),
        ("upgrade_available", "0"),
    ])?;
    stage.untouched("a", &old)?;
    Ok(report.log)
}
