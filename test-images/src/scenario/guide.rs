//! A board that somebody made by following docs/porting-a-board.md word for word.

use std::fs::File;
use std::path::Path;

use bootenv::scheme::SchemeKind;

use super::failure::Failure;
use super::stage::{BOOT, INSTALL, Stage, TRIAL};
use super::status::{ended, is_armed};
use super::{Group, Scenario};
use crate::emulator::Error;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "porting-guide",
    scheme: SchemeKind::BootOrder,
    group: Group::All,
    story: "the commands of docs/porting-a-board.md make a device; it takes the good release and leaves the bad one",
    tell: porting_guide,
}];

fn porting_guide(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let work = stage.factory_of_guide()?;
    stage.step("the guide was followed");
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.wait_status("slot a is confirmed", BOOT, |status| status.rests_in("a"))?;
    install_file(stage, &work.join("1.1.0.otab"), "b")?;
    stage.reboot()?;
    stage.wait_ready("b", "1.1.0")?;
    stage.wait_committed("b")?;
    stage.environment_agrees()?;
    stage.card_says(&[("BOOT_ORDER", "B A"), ("BOOT_B_LEFT", "3")])?;
    stage.power_on()?;
    stage.wait_ready("b", "1.1.0")?;
    install_file(stage, &work.join("1.2.0.otab"), "a")?;
    stage.reboot()?;
    stage.wait_ready_within("b", "1.1.0", TRIAL)?;
    stage.wait_status("1.2.0 is rolled back", BOOT, |status| {
        ended(status, "b", "rolled-back", "ROLLED_BACK")
    })?;
    stage.went("aaab")?;
    stage.wait_variable("BOOT_B_LEFT", "3")?;
    stage.environment_agrees()?;
    stage.card_says(&[("BOOT_ORDER", "B"), ("BOOT_A_LEFT", "0"), ("BOOT_B_LEFT", "3")])
}

/// Sends a bundle over SSH, as somebody without a server would.
fn install_file(stage: &mut Stage<'_>, bundle: &Path, slot: &str) -> Result<(), Failure> {
    let guest = stage.guest()?;
    let mut command = guest.command("otactl install -", INSTALL);
    command.stdin(File::open(bundle).map_err(Error::io("open", bundle))?);
    let answer = guest.answer(command)?;
    Failure::unless(answer.status.success(), "`otactl install -` to succeed", &answer)?;
    let status = guest.status()?;
    Failure::unless(is_armed(&status, slot), &format!("slot {slot} armed"), &status)?;
    stage.step(&format!("installed into {slot} over SSH"));
    Ok(())
}
