//! Updates that go well.

use std::time::Duration;

use bootenv::scheme::SchemeKind;
use otad_demo::server::Report;

use super::failure::Failure;
use super::releases::Release;
use super::stage::{BOOT, INSTALL, Stage, TRIAL};
use super::status::{ended, is_armed};
use super::{Group, Scenario};

/// A report follows its event within a poll of otad's reporter.
const REPORT: Duration = Duration::from_secs(120);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "good-update",
        scheme: SchemeKind::Bootcount,
        group: Group::Smoke,
        story: "a release over HTTP by otactl over SSH; trial, boot-complete.target, commit, report",
        tell: good_update,
    },
    Scenario {
        name: "server-release",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "the server offers a release; otad finds, installs, tries and commits it",
        tell: server_release,
    },
    Scenario {
        name: "boot-order",
        scheme: SchemeKind::BootOrder,
        group: Group::All,
        story: "the other boot scheme: a good release, then one that panics",
        tell: boot_order,
    },
    Scenario {
        name: "three-turns",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "both slots are updated in turn, three times each; the copies of the environment too",
        tell: three_turns,
    },
];

fn good_update(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    stage.factory(&old, None)?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.wait_status("slot a is confirmed", BOOT, |status| status.rests_in("a"))?;
    stage.install(&new, "b")?;
    let early = stage.reports()?.into_iter().find(|report| report.outcome == "committed");
    Failure::unless(early.is_none(), "no report of success before the reboot", early)?;
    stage.footprint_after_install()?;
    stage.reboot()?;
    stage.wait_ready("b", "2.0.0")?;
    stage.wait_committed("b")?;
    let complete = stage.guest()?.run("systemctl is-active boot-complete.target")?;
    Failure::unless(complete.trim() == "active", "boot-complete.target to be active", &complete)?;
    stage.footprint_of_boot()?;
    stage.went("b")?;
    stage.wait_report("committed", "2.0.0")?;
    stage.environment_agrees()?;
    stage.card_says(&[
        ("otad_slot", "b"),
        ("otad_b_ok", "1"),
        ("otad_trial", ""),
        ("upgrade_available", "0"),
    ])?;
    stage.untouched("a", &old)?;
    stage.untouched("b", &new)
}

fn server_release(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    stage.factory(&old, Some(&old))?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.publish(&new)?;
    stage.guest()?.run("otactl check")?;
    stage.wait_status("2.0.0 is armed", INSTALL, |status| is_armed(status, "b"))?;
    stage.reboot()?;
    stage.wait_ready("b", "2.0.0")?;
    stage.wait_committed("b")?;
    stage.wait_report("committed", "2.0.0")?;
    stage.went("b")?;
    stage.environment_agrees()
}

fn boot_order(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    stage.factory(&old, Some(&old))?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.install(&new, "b")?;
    stage.reboot()?;
    stage.wait_ready("b", "2.0.0")?;
    stage.wait_committed("b")?;
    stage.environment_agrees()?;
    stage.card_says(&[("BOOT_ORDER", "B A"), ("BOOT_B_LEFT", "3")])?;
    stage.power_on()?;
    stage.wait_ready("b", "2.0.0")?;
    let bad = Release::Panics.slot("3.0.0", 3);
    stage.install(&bad, "a")?;
    stage.reboot()?;
    stage.wait_ready_within("b", "2.0.0", TRIAL)?;
    stage.wait_status("3.0.0 is rolled back", BOOT, |status| {
        ended(status, "b", "rolled-back", "ROLLED_BACK")
    })?;
    stage.went("aaab")?;
    // This boot cost an attempt too; it is filled up once the system has been healthy for a while.
    stage.wait_variable("BOOT_B_LEFT", "3")?;
    stage.environment_agrees()?;
    stage.card_says(&[("BOOT_ORDER", "B"), ("BOOT_A_LEFT", "0"), ("BOOT_B_LEFT", "3")])?;
    stage.untouched("b", &new)
}

fn three_turns(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let old = Release::Good.slot("1.0.0", 1);
    stage.factory(&old, Some(&old))?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    let mut slots = ["b", "a"].into_iter().cycle();
    for (sequence, slot) in (2..8).zip(&mut slots) {
        let version = format!("{sequence}.0.0");
        stage.install(&Release::Good.slot(&version, sequence), slot)?;
        stage.reboot()?;
        stage.wait_ready(slot, &version)?;
        stage.wait_committed(slot)?;
    }
    stage.environment_agrees()?;
    let flags: Vec<Option<u8>> = stage.card.health()?.copies().map(|(_, state)| state.flags()).collect();
    // New copies carry 1, and six updates save four times each: disarm, arm, commit, and U-Boot its count. Only the first
    // one finds slot b disarmed.
    let newest = flags.iter().copied().flatten().max().unwrap_or_default();
    Failure::unless(newest >= 1 + 6 * 4 - 1, "24 in the newer copy", &flags)?;
    stage.note(format!("counters of the copies {flags:?}"));
    stage.untouched("b", &Release::Good.slot("6.0.0", 6))?;
    stage.untouched("a", &Release::Good.slot("7.0.0", 7))
}

impl Stage<'_> {
    /// What the server was told by this board, the newest first.
    pub(super) fn reports(&self) -> Result<Vec<Report>, Failure> {
        let Some(device) = self.device_name()? else { return Ok(Vec::new()) };
        Ok(self.server().reports(&device)?)
    }

    /// Waits until the server has been told of this.
    pub(super) fn wait_report(&mut self, outcome: &str, version: &str) -> Result<Report, Failure> {
        let started = std::time::Instant::now();
        loop {
            let reports = self.reports()?;
            let found = reports
                .iter()
                .find(|report| report.outcome == outcome && report.version.as_deref() == Some(version));
            if let Some(report) = found {
                self.step(&format!("the server was told: {version} {outcome}"));
                return Ok(report.clone());
            }
            let expected = format!("a report that {version} was {outcome}");
            Failure::unless(started.elapsed() < REPORT, &expected, &reports)?;
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}
