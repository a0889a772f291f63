//! Which sequence may come after which: never back but by the recovery role, never forward by more than a bound.
//!
//! The floor is the highest sequence that was ever committed here. A release below it, or below what runs, is refused (V1),
//! unless its manifest names the floors from which it is a way back and the recovery role signed it too. The bound keeps one mistyped
//! or stolen release from using up the numbers for ever (V5): whoever takes a device to a sequence that no honest release will
//! ever reach has locked it.

use otad_bundle::Recovery;

use crate::failure::{Code, Failure};
use crate::install::prepare::Current;

/// Farthest that one release may lead ahead. Counters, dates (20261122, 202611222359) and seconds since 1970 all fit in from zero;
/// to use up all 2^63 numbers takes nine million releases, each of which boots, proves healthy and is committed.
pub const STEP_LIMIT: u64 = 1_000_000_000_000;

/// Where a release leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the same sequence or a higher one.
    Forward,
    /// Below the floor, which falls when the release is committed.
    Back,
}

/// Whether whoever asked may take the device back, where the bundle itself may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// They may; what the owner's own server offers counts as well.
    Granted,
    /// They may install what leads forward only.
    Denied,
}

impl Permit {
    /// Refuses a way back to those who may not go it.
    ///
    /// # Errors
    /// [`Code::NotAuthorized`].
    pub fn admit(self, way: Way) -> Result<Way, Failure> {
        match (self, way) {
            (Permit::Granted, _) | (Permit::Denied, Way::Forward) => Ok(way),
            (Permit::Denied, Way::Back) => {
                let what = "this bundle leads back below the floor, which whoever asked may not do";
                let next = "install it as root, or have polkit allow org.otad1.downgrade";
                Err(Failure::new(Code::NotAuthorized, format!("{what}; {next}")))
            }
        }
    }
}

/// Whether the recovery role stands behind a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recoverer {
    /// Enough of its keys signed.
    Signed,
    /// They did not.
    Absent,
}

/// Judges the sequence of a release by what runs and what was committed.
///
/// # Errors
/// [`Code::Downgrade`] or [`Code::VersionJump`], with the numbers.
pub fn judge(
    (sequence, version): (u64, &str),
    recovery: Option<Recovery>,
    recoverer: Recoverer,
    current: &Current,
) -> Result<Way, Failure> {
    let (runs, floor) = (current.sequence, current.floor);
    let needed = runs.max(floor);
    if sequence < needed {
        return match (recovery, recoverer) {
            (Some(recovery), Recoverer::Signed) if needed <= recovery.from => Ok(Way::Back),
            (Some(recovery), Recoverer::Signed) => {
                let what = format!("it is a way back from sequences up to {}", recovery.from);
                Err(too_low(sequence, version, current, &what))
            }
            (Some(_), Recoverer::Absent) => Err(too_low(
                sequence,
                version,
                current,
                "it says that it is a way back, and the recovery role did not sign it",
            )),
            (None, _) => {
                Err(too_low(sequence, version, current, "build the older content with a higher sequence"))
            }
        };
    }
    if sequence - needed > STEP_LIMIT {
        let what =
            format!("sequence {sequence} (version {version}) is {} ahead of {needed}", sequence - needed);
        let next = format!("one release may lead {STEP_LIMIT} ahead; is the number mistyped?");
        return Err(Failure::new(Code::VersionJump, format!("{what}; {next}")));
    }
    Ok(Way::Forward)
}

fn too_low(sequence: u64, version: &str, current: &Current, next: &str) -> Failure {
    let Current { version: from, sequence: runs, floor, .. } = current;
    let what = format!(
        "sequence {sequence} (version {version}) is too low: {runs} runs (version {from}), {floor} was committed here before"
    );
    Failure::new(Code::Downgrade, format!("{what}; {next}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(sequence: u64, from: Option<u64>, by: Recoverer, runs: u64, floor: u64) -> Result<Way, Code> {
        let current = Current { sequence: runs, floor, ..Current::default() };
        let recovery = from.map(|from| Recovery { from });
        judge((sequence, "1.0.0"), recovery, by, &current).map_err(|failure| failure.code)
    }

    /// V1: a recovery bundle alone takes nobody back who may only install.
    #[test]
    fn a_way_back_needs_a_permit() {
        assert_eq!(Permit::Granted.admit(Way::Back), Ok(Way::Back));
        assert_eq!(Permit::Denied.admit(Way::Forward), Ok(Way::Forward));
        assert_eq!(Permit::Denied.admit(Way::Back).unwrap_err().code, Code::NotAuthorized);
    }

    /// V1, V5: what leads where.
    #[test]
    fn sequences_go_forward_within_bounds_and_back_only_by_recovery() {
        use Recoverer::{Absent, Signed};
        let (low, high) = (Err(Code::Downgrade), Err(Code::VersionJump));
        for (what, found, expected) in [
            ("one on", judged(11, None, Absent, 10, 10), Ok(Way::Forward)),
            ("the same again", judged(10, None, Absent, 10, 10), Ok(Way::Forward)),
            ("below what runs", judged(9, None, Absent, 10, 0), low),
            ("below the floor", judged(9, None, Absent, 2, 10), low),
            ("a downgrade that only says so", judged(9, Some(10), Absent, 10, 10), low),
            ("a recovery key and no word of it", judged(9, None, Signed, 10, 10), low),
            ("a way back", judged(9, Some(10), Signed, 10, 10), Ok(Way::Back)),
            ("the same one replayed on a later device", judged(9, Some(10), Signed, 11, 11), low),
            ("what runs counts as well", judged(9, Some(10), Signed, 11, 0), low),
            ("a recovery that is none", judged(11, Some(10), Signed, 10, 10), Ok(Way::Forward)),
            ("dates from zero", judged(202_611_222_359, None, Absent, 0, 0), Ok(Way::Forward)),
            ("the bound", judged(10 + STEP_LIMIT, None, Absent, 10, 3), Ok(Way::Forward)),
            ("beyond it", judged(11 + STEP_LIMIT, None, Absent, 10, 3), high),
            ("fast-forward", judged(i64::MAX as u64, None, Absent, 10, 10), high),
            (
                "fast-forward by recovery",
                judged(i64::MAX as u64, Some(i64::MAX as u64), Signed, 10, 10),
                high,
            ),
            (
                "out of a poisoned floor",
                judged(11, Some(i64::MAX as u64), Signed, 10, i64::MAX as u64),
                Ok(Way::Back),
            ),
        ] {
            assert_eq!(found, expected, "{what}");
        }
    }
}
