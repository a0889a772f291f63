//! What becomes of a new release on a device, drawn from the device's number so that every run has the same fleet.

/// What a device makes of a new release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// It boots and is healthy.
    Good,
    /// As long as the fleet is weak its health check fails, and otad rolls back. otad never takes such a release again.
    Unhealthy,
    /// As long as the fleet is weak every boot of the new system dies, until the boot counter brings the old one back. otad takes
    /// such a release again, a few times.
    Crashes,
    /// The power goes in the middle of the first install, and comes back later.
    DropsOff,
    /// It reboots into the new system and is never heard of again.
    NeverReturns,
}

/// One in so many devices crashes; of a fleet that counts from 0 these are 1, 5, 9, …
const CRASHES_ONE_IN: usize = 4;
/// One in so many is unhealthy: 2, 12, 22, …
const UNHEALTHY_ONE_IN: usize = 10;
/// One in so many drops off: 3, 11, 19, …
const DROPS_OFF_ONE_IN: usize = 8;
/// One in so many never returns: 100, 300, …
const LOST_ONE_IN: usize = 200;

impl Nature {
    /// The nature of the device with a number.
    pub fn of(number: usize) -> Nature {
        if number % LOST_ONE_IN == LOST_ONE_IN / 2 {
            Nature::NeverReturns
        } else if number % CRASHES_ONE_IN == 1 {
            Nature::Crashes
        } else if number % UNHEALTHY_ONE_IN == 2 {
            Nature::Unhealthy
        } else if number % DROPS_OFF_ONE_IN == 3 {
            Nature::DropsOff
        } else {
            Nature::Good
        }
    }
}
