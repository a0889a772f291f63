//! Proof that the device holds what was signed, read from the device and not from memory.

use super::Target;
use super::check::{Check, Extent, Found};
use crate::config::SlotName;
use crate::failure::{Act, Code, Failure, from_slot};

/// A slot whose every byte was read back from the device and found right, or that ran and was confirmed before.
///
/// Only such a slot can be armed. It is made here and nowhere else.
#[derive(Debug)]
pub struct SyncedSlot {
    name: SlotName,
}

impl SyncedSlot {
    /// The slot's name.
    pub fn name(&self) -> &SlotName {
        &self.name
    }

    /// After the scan found every chunk of every image on the device.
    pub fn held(name: &SlotName, targets: &[Target]) -> Option<Self> {
        let all = !targets.is_empty() && targets.iter().all(|target| target.held.all());
        all.then(|| SyncedSlot { name: name.clone() })
    }

    /// A slot that ran, was confirmed by its health checks and has not been disarmed since, but whose hashes are not
    /// known because otad did not write it: the factory's slot.
    pub fn confirmed_before(name: &SlotName, standing: crate::lifecycle::recover::Standing) -> Option<Self> {
        use crate::lifecycle::recover::Standing;
        match standing {
            Standing::Confirmed | Standing::Bootable => Some(SyncedSlot { name: name.clone() }),
            Standing::Armed | Standing::Disarmed | Standing::GivenUp => None,
        }
    }
}

/// Compares the whole body of a target with the signed hashes; `head` stands in for what is not written yet.
pub fn bodies(check: Check<'_>, target: &mut Target, head: &[u8]) -> Result<(), Failure> {
    target.device.drop_caches().map_err(|error| from_slot(Act::Read, &target.place, &error))?;
    check.run(target, head, Extent::All, &|found| {
        if found.is_right() { Ok(()) } else { Err(differs(target, found)) }
    })
}

/// Compares the heads, after they were written and flushed, and thereby proves the slot synced.
pub fn heads(name: &SlotName, targets: &mut [Target], heads: &[Vec<u8>]) -> Result<SyncedSlot, Failure> {
    for (target, head) in targets.iter_mut().zip(heads) {
        let read = |error: std::io::Error, target: &Target| from_slot(Act::Read, &target.place, &error);
        target.device.drop_caches().map_err(|error| read(error, target))?;
        let mut found = vec![0; head.len()];
        let mut reader = target.device.reader().map_err(|error| read(error, target))?;
        reader.read_at(0, &mut found).map_err(|error| read(error, target))?;
        if found != *head {
            let at = found.iter().zip(head).position(|(found, wanted)| found != wanted).unwrap_or(0);
            let what = format!("{} returned another byte at offset {at} than was written", target.place);
            return Err(Failure::new(Code::VerifyFailed, format!("{what}; the device may be failing")));
        }
    }
    Ok(SyncedSlot { name: name.clone() })
}

fn differs(target: &Target, found: &Found<'_>) -> Failure {
    let (wanted, at) = (found.placed.chunk.sha256, found.placed.plain);
    let what = format!("{} at offset {at}: expected {wanted}, read back {}", target.place, found.sha256);
    Failure::new(Code::VerifyFailed, format!("{what}; the device may be failing"))
}
