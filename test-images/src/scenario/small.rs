//! A small board.

use bootenv::scheme::SchemeKind;

use super::failure::Failure;
use super::releases::Release;
use super::stage::Stage;
use super::{Group, Scenario};
use crate::build::SLOT_BYTES;

/// Memory of the small board, in MiB.
const LITTLE_MIB: u32 = 128;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "small-memory",
    scheme: SchemeKind::Bootcount,
    group: Group::All,
    story: "128 MiB of memory, and an image of 512 MiB",
    tell: small_memory,
}];

fn small_memory(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let old = Release::Good.slot("1.0.0", 1);
    let mut new = Release::Good.slot("2.0.0", 2);
    new.image_bytes = SLOT_BYTES;
    stage.machine.memory_mib = LITTLE_MIB;
    stage.factory(&old, None)?;
    stage.power_on()?;
    stage.wait_ready("a", "1.0.0")?;
    stage.install(&new, "b")?;
    stage.footprint_after_install()?;
    stage.reboot()?;
    stage.wait_ready("b", "2.0.0")?;
    stage.wait_committed("b")?;
    stage.went("b")?;
    stage.environment_agrees()?;
    stage.untouched("b", &new)
}
