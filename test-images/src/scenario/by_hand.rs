//! What a person decides.

use bootenv::scheme::SchemeKind;

use super::failure::Failure;
use super::releases::Release;
use super::stage::{BOOT, Stage, TRIAL};
use super::{Group, Scenario};
use crate::build::Edit;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "manual-rollback",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "a committed release is left again with otactl rollback; the old one is tried and committed",
        tell: manual_rollback,
    },
    Scenario {
        name: "downgrade",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "an older release is refused and nothing is changed",
        tell: downgrade,
    },
    Scenario {
        name: "pre-run",
        scheme: SchemeKind::Bootcount,
        group: Group::All,
        story: "with [pre-run], a release whose otad does not work is refused before any reboot",
        tell: pre_run,
    },
];

fn manual_rollback(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, new) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    stage.factory(&old, Some(&old))?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.install(&new, "b")?;
    stage.reboot()?;
    stage.wait_ready("b", "2.0.0")?;
    stage.wait_committed("b")?;
    stage.guest()?.run("otactl rollback")?;
    stage.step("otactl rollback");
    // Slot a is verified and armed; going back is a trial like any other, which somebody has to start.
    let armed = |status: &otad_demo::Status| status.state == "post-upgrade" && status.primary_slot == "a";
    stage.wait_status("slot a is armed", TRIAL, armed)?;
    stage.reboot()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.wait_status("1.0.0 is confirmed again", TRIAL, |status| status.rests_in("a"))?;
    stage.went("ba")?;
    stage.environment_agrees()?;
    stage.card_says(&[("otad_slot", "a"), ("otad_a_ok", "1"), ("otad_b_ok", "1")])?;
    stage.untouched("a", &old)?;
    stage.untouched("b", &new)
}

fn downgrade(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let (old, running) = (Release::Good.slot("1.0.0", 1), Release::Good.slot("2.0.0", 2));
    stage.factory(&running, None)?;
    let before = stage.card.environment()?;
    stage.power_on()?;
    stage.wait_ready("a", "2.0.0")?;
    let artifact = stage.publish(&old)?;
    let line = format!("otactl install {}", stage.url(&artifact));
    let answer = stage.guest()?.try_run(&line)?;
    let refused = answer.status.code() == Some(3) && answer.error.contains("code DOWNGRADE");
    Failure::unless(refused, "exit status 3 and DOWNGRADE", &answer)?;
    stage.note("refused with DOWNGRADE");
    stage.power_off();
    Failure::unless(before == stage.card.environment()?, "the environment as before", "another")?;
    stage.untouched("a", &running)
}

fn pre_run(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let configured = Edit::Append {
        path: "etc/otad/otad.toml".to_owned(),
        text: "\n[pre-run]\nimage = \"rootfs\"\n".to_owned(),
    };
    let old = Release::Good.slot("1.0.0", 1).edit(configured.clone());
    stage.factory(&old, Some(&old))?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    let bad = Release::NoUpdater.slot("2.0.0", 2);
    let artifact = stage.publish(&bad)?;
    let line = format!("otactl install {}", stage.url(&artifact));
    let guest = stage.guest()?;
    let answer = guest.answer(guest.command(&line, super::stage::INSTALL))?;
    let refused = !answer.status.success() && answer.error.contains("PRE_RUN_FAILED");
    Failure::unless(refused, "PRE_RUN_FAILED", &answer)?;
    stage.note("refused with PRE_RUN_FAILED");
    stage.wait_status("slot a still runs and is confirmed", BOOT, |status| status.rests_in("a"))?;
    let good = Release::Good.slot("3.0.0", 3).edit(configured);
    stage.install(&good, "b")?;
    stage.reboot()?;
    stage.wait_ready("b", "3.0.0")?;
    stage.wait_committed("b")?;
    stage.went("b")?;
    stage.environment_agrees()
}
