//! Keys of the dictionaries (`a{sv}`) that cross the bus, and the words their values use.

/// Values of the manager property `State`.
pub mod state {
    /// The running slot is confirmed and nothing is under way.
    pub const IDLE: &str = "idle";
    /// The bundle is being verified and the target scanned; nothing changed on disk.
    pub const PRE_UPGRADE: &str = "pre-upgrade";
    /// The target is disarmed and being written.
    pub const UPGRADING: &str = "upgrading";
    /// Armed and waiting for the reboot, or on trial after it.
    pub const POST_UPGRADE: &str = "post-upgrade";
    /// The last update did not succeed; `LastResult` says why.
    pub const FAILED: &str = "failed";
}

/// Options of `Install` and `InstallFd`.
pub mod option {
    /// `b`: reboot as soon as the target is armed, whatever the configured policy.
    pub const REBOOT: &str = "reboot";
    /// `s`: URL of a delta from the release that runs to the wanted one (`Install` only); one that does not fit is left aside.
    pub const DELTA: &str = "delta";
}

/// Keys of the manager property `LastResult` and of the dictionary that `Inspect` returns.
pub mod result {
    /// `s`: one of the words in [`super::outcome`].
    pub const OUTCOME: &str = "outcome";
    /// `s`: a stable code, empty after a success.
    pub const CODE: &str = "code";
    /// `s`: one sentence for people.
    pub const MESSAGE: &str = "message";
    /// `s`: version of the release that the result is about.
    pub const VERSION: &str = "version";
    /// `t`: its sequence.
    pub const SEQUENCE: &str = "sequence";
    /// `s`: its digest, 64 hexadecimal digits: SHA-256 of the manifest.
    pub const RELEASE: &str = "release";
    /// `s`: the slot it was written to.
    pub const SLOT: &str = "slot";
    /// `s`: the phase in which it ended.
    pub const PHASE: &str = "phase";
    /// `t`: seconds since 1970 by the device's clock; 0 when unknown.
    pub const TIME: &str = "time";
    /// `s`: description from the manifest (`Inspect` only).
    pub const DESCRIPTION: &str = "description";
    /// `as`: the hardware it is for (`Inspect` only).
    pub const COMPATIBLE: &str = "compatible";
    /// `as`: ids of the keys whose signatures count (`Inspect` only).
    pub const SIGNED_BY: &str = "signed-by";
    /// `a{st}`: role to plain size in bytes (`Inspect` only).
    pub const IMAGES: &str = "images";
}

/// How an update ended.
pub mod outcome {
    /// The new slot is written, verified and armed; the trial starts with the next boot.
    pub const INSTALLED: &str = "installed";
    /// The new system runs and its health checks confirmed it.
    pub const COMMITTED: &str = "committed";
    /// The new system did not confirm itself and the old one runs again.
    pub const ROLLED_BACK: &str = "rolled-back";
    /// The update ended before it was armed.
    pub const FAILED: &str = "failed";
    /// A person or program cancelled it.
    pub const CANCELLED: &str = "cancelled";
}

/// Values of a slot's property `State`.
pub mod slot_state {
    /// Bootable and confirmed.
    pub const CONFIRMED: &str = "confirmed";
    /// Armed or running on trial.
    pub const TRIAL: &str = "trial";
    /// Not bootable: empty, half written, or rolled back.
    pub const DISARMED: &str = "disarmed";
    /// The environment cannot be read.
    pub const UNKNOWN: &str = "unknown";
}
