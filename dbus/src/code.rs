//! Stable error codes: what a program matches on, and what a person searches the documentation for.
//!
//! A code, once published, never changes its spelling or its meaning. The table below is the single source for the
//! spelling (`SIG_INVALID`), the D-Bus error name (`org.otad1.Error.SigInvalid`) and the exit status of `otactl`.

use std::fmt;

#[cfg(test)]
use crate::ERROR_PREFIX;

/// What a caller does next, which is what decides the exit status of `otactl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The act was tried and did not succeed; it may be tried again. Exit status 1.
    Failed,
    /// The request itself was wrong: an unknown option, a bad argument. Exit status 2.
    Usage,
    /// The bundle is refused and will be refused again: signature, compatibility, version. Exit status 3.
    Rejected,
    /// Something else is under way. Exit status 4.
    Busy,
    /// The caller may not do this. Exit status 6.
    NotAuthorized,
}

impl Class {
    /// The exit status of `otactl` for this class.
    pub const fn exit_status(self) -> u8 {
        match self {
            Class::Failed => 1,
            Class::Usage => 2,
            Class::Rejected => 3,
            Class::Busy => 4,
            Class::NotAuthorized => 6,
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $class:ident;)*) => {
        /// A stable error code. Its D-Bus error name is [`crate::ERROR_PREFIX`] followed by the variant's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The spelling shown to people and written to records and reports.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// The D-Bus error name, for example `org.otad1.Error.SigInvalid`.
            pub const fn dbus_name(self) -> &'static str {
                match self { $(Code::$name => concat!("org.otad1.Error.", stringify!($name)),)* }
            }

            /// What the caller does next.
            pub const fn class(self) -> Class {
                match self { $(Code::$name => Class::$class,)* }
            }
        }
    };
}

codes! {
    // The bundle.
    /// The input does not start like an `.otab` file; over HTTP often a captive portal's page.
    NotABundle = "NOT_A_BUNDLE", Rejected;
    /// A member, a header or the padding is not what the format allows at this place.
    BundleFormat = "BUNDLE_FORMAT", Rejected;
    /// The input ends before the bundle does.
    BundleTruncated = "BUNDLE_TRUNCATED", Rejected;
    /// No signature, or fewer valid signatures of distinct keys than the threshold asks for.
    SigMissing = "SIG_MISSING", Rejected;
    /// A signature by a trusted key does not verify, or the signature file is not canonical.
    SigInvalid = "SIG_INVALID", Rejected;
    /// Signed, but by no key that the trust root lists for this role.
    SigUntrusted = "SIG_UNTRUSTED", Rejected;
    /// The signed manifest breaks a rule of the format.
    ManifestInvalid = "MANIFEST_INVALID", Rejected;
    /// The chunk index breaks a rule of the format.
    IndexInvalid = "INDEX_INVALID", Rejected;
    /// Bytes do not have the hash that the signature vouches for.
    HashMismatch = "HASH_MISMATCH", Rejected;
    /// More data arrived, or would be decoded, than the signed size allows.
    SizeExceeded = "SIZE_EXCEEDED", Rejected;
    /// The bundle's file or pipe cannot be read.
    BundleRead = "BUNDLE_READ", Failed;
    /// A key file is no Ed25519 key, or a key is weak.
    KeyInvalid = "KEY_INVALID", Failed;
    /// A file named by the caller (image, key, output) cannot be read or written.
    FileIo = "FILE_IO", Failed;
    /// The trust root cannot be read or breaks a rule of its format.
    TrustInvalid = "TRUST_INVALID", Failed;
    /// A root of the chain is missing between the device's root and the one that is offered.
    KeysGap = "KEYS_GAP", Rejected;
    /// The root is one that the device has left behind, or another one than it knows by this version.
    KeysReplay = "KEYS_REPLAY", Rejected;
    /// The root of trust has expired, by every clock that can be trusted, and the bundle brings no newer one.
    KeysExpired = "KEYS_EXPIRED", Rejected;
    /// The bundle is encrypted, and for no key that is here.
    DecryptNoKey = "DECRYPT_NO_KEY", Rejected;
    /// A content key cannot be unwrapped, or something does not open with it.
    DecryptFailed = "DECRYPT_FAILED", Failed;
    /// The channel document breaks a rule of its format.
    MetadataInvalid = "METADATA_INVALID", Rejected;
    /// Nothing says that what the server shows is fresh: the channel document has ended, is missing, or is not followed.
    MetadataStale = "METADATA_STALE", Failed;
    /// The channel document is older than one that was seen before, or another one of the same number.
    MetadataReplay = "METADATA_REPLAY", Rejected;
    /// The channel document is for another model, or the server offers another release than it assigns.
    MetadataMismatch = "METADATA_MISMATCH", Rejected;
    /// The number of the channel document leads farther ahead than is believed.
    MetadataJump = "METADATA_JUMP", Rejected;
    // Preflight.
    /// The bundle is for other hardware.
    Incompatible = "INCOMPATIBLE", Rejected;
    /// The bundle's sequence is lower than that of the running system or than one committed before, and it is no way back.
    Downgrade = "DOWNGRADE", Rejected;
    /// The bundle's sequence leads farther ahead than one release may.
    VersionJump = "VERSION_JUMP", Rejected;
    /// The running slot holds exactly this release; nothing was written, and `otactl install` ends with 0.
    AlreadyInstalled = "ALREADY_INSTALLED", Rejected;
    /// An image is larger than the slot's device.
    ImageTooLarge = "IMAGE_TOO_LARGE", Rejected;
    /// This release was rolled back on this device before and is not taken again without an order.
    ReleaseFailedBefore = "RELEASE_FAILED_BEFORE", Rejected;
    // Slots and storage.
    /// Command line and root device do not agree on the running slot, or do not tell it; no slot is written.
    BootedSlotAmbiguous = "BOOTED_SLOT_AMBIGUOUS", Failed;
    /// The target is the device the system runs from.
    SlotIsRunning = "SLOT_IS_RUNNING", Failed;
    /// The target is mounted or held by another process.
    SlotBusy = "SLOT_BUSY", Failed;
    /// The target is missing, or is neither a block device nor a regular file.
    SlotInvalid = "SLOT_INVALID", Failed;
    /// A slot's partition is not where it was, or shares sectors with another.
    LayoutChanged = "LAYOUT_CHANGED", Failed;
    /// The target cannot be written.
    SlotReadonly = "SLOT_READONLY", Failed;
    /// The data directory or the slot has no room.
    NoSpace = "NO_SPACE", Failed;
    /// A write to the target failed.
    IoWrite = "IO_WRITE", Failed;
    /// A flush of the target failed; what was written is not trusted any more.
    IoSync = "IO_SYNC", Failed;
    /// A read of the target failed.
    IoRead = "IO_READ", Failed;
    /// The target returned other bytes than were written, or runs the release from before.
    VerifyFailed = "VERIFY_FAILED", Failed;
    /// The system on trial runs on another kernel than its image was built with.
    KernelSlotMismatch = "KERNEL_SLOT_MISMATCH", Failed;
    /// The target disappeared.
    DeviceGone = "DEVICE_GONE", Failed;
    /// The data directory cannot be read or written.
    StateIo = "STATE_IO", Failed;
    // Boot.
    /// The new system's own self-test failed before it was armed: it could not update itself again.
    PreRunFailed = "PRE_RUN_FAILED", Failed;
    /// Neither copy of the boot environment is valid.
    EnvLost = "ENV_LOST", Failed;
    /// The environment's place or size does not fit what the boot loader uses.
    EnvConfigMismatch = "ENV_CONFIG_MISMATCH", Failed;
    /// The variables do not fit into the environment.
    EnvFull = "ENV_FULL", Failed;
    /// The environment cannot be read, written or verified.
    EnvIo = "ENV_IO", Failed;
    /// Another program holds the lock of the environment.
    EnvLocked = "ENV_LOCKED", Busy;
    /// The boot loader started another slot than the one that was armed.
    BootloaderIgnoredSwitch = "BOOTLOADER_IGNORED_SWITCH", Failed;
    // Trial.
    /// The new system did not confirm itself; the old one runs again.
    RolledBack = "ROLLED_BACK", Failed;
    /// A health check failed.
    HealthFailed = "HEALTH_FAILED", Failed;
    /// Health checks did not hold before the deadline.
    HealthTimeout = "HEALTH_TIMEOUT", Failed;
    // Lifecycle.
    /// Another job is under way.
    Busy = "BUSY", Busy;
    /// A person or program cancelled the job.
    Cancelled = "CANCELLED", Failed;
    /// The daemon or the device stopped in the middle of a job.
    Interrupted = "INTERRUPTED", Failed;
    /// The act makes no sense in this state.
    WrongState = "WRONG_STATE", Failed;
    /// There is no verified other slot to go back to.
    NoFallback = "NO_FALLBACK", Failed;
    // Network.
    /// The connection failed or broke off.
    NetFailed = "NET_FAILED", Failed;
    /// No bytes arrived for too long.
    NetStalled = "NET_STALLED", Failed;
    /// The server answered with a status that is not of use.
    NetStatus = "NET_STATUS", Failed;
    /// The length the server gave is not the length it sent.
    NetLength = "NET_LENGTH", Failed;
    /// The server answered a range request with another range.
    NetRange = "NET_RANGE", Failed;
    /// Too many redirects, or one to a less safe place.
    NetRedirect = "NET_REDIRECT", Failed;
    /// The server's certificate is expired, for another name or by an unknown authority, or it speaks no TLS of today.
    NetTls = "NET_TLS", Failed;
    /// The server's certificate is not valid yet by this device's clock, which is behind.
    NetClock = "NET_CLOCK", Failed;
    /// The file changed on the server while it was fetched.
    SourceChanged = "SOURCE_CHANGED", Failed;
    // Requests and the daemon.
    /// The configuration has an error.
    Config = "CONFIG", Failed;
    /// Another otad runs on this device.
    AlreadyRunning = "ALREADY_RUNNING", Busy;
    /// The source is not a URL otad can fetch, or not a file or pipe.
    InvalidSource = "INVALID_SOURCE", Usage;
    /// An option is unknown or has the wrong type.
    InvalidOption = "INVALID_OPTION", Usage;
    /// The caller is neither root nor in the group `otad`, and polkit does not allow it.
    NotAuthorized = "NOT_AUTHORIZED", NotAuthorized;
    /// A caller has too many calls open, or all callers together have.
    LimitsExceeded = "LIMITS_EXCEEDED", Busy;
    /// Memory, threads or file descriptors ran out.
    Resource = "RESOURCE", Failed;
    /// A process of otad's own that fetches or decompresses has ended or does not keep to its protocol.
    RoleFailed = "ROLE_FAILED", Failed;
    /// A defect of otad itself.
    Internal = "INTERNAL", Failed;
}

impl Code {
    /// Finds a code by its spelling.
    pub fn from_text(text: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == text)
    }

    /// Finds a code by its D-Bus error name.
    pub fn from_dbus_name(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.dbus_name() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as it crosses the bus: a stable code and one sentence with the numbers and the next step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What programs match on.
    pub code: Code,
    /// What people read: lower case, with the numbers.
    pub message: String,
}

impl Failure {
    /// Makes a failure from its code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure { code, message: message.into() }
    }
}

impl zbus::DBusError for Failure {
    fn create_reply(&self, call: &zbus::message::Header<'_>) -> zbus::Result<zbus::Message> {
        zbus::Message::error(call, self.name()).build(&(self.message.as_str(),))
    }

    fn name(&self) -> zbus::names::ErrorName<'_> {
        zbus::names::ErrorName::from_static_str_unchecked(self.code.dbus_name())
    }

    fn description(&self) -> Option<&str> {
        Some(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn spellings_and_names_are_unique_and_agree() {
        let mut seen = HashSet::new();
        for &code in Code::ALL {
            assert!(seen.insert(code.as_str()));
            let squeezed: String = code.as_str().replace('_', "");
            let short = code.dbus_name().strip_prefix(ERROR_PREFIX).unwrap();
            assert_eq!(squeezed, short.to_uppercase(), "the two spellings differ only in form");
            assert_eq!(Code::from_text(code.as_str()), Some(code));
            assert_eq!(Code::from_dbus_name(code.dbus_name()), Some(code));
        }
        assert_eq!(Code::from_dbus_name("org.freedesktop.DBus.Error.Failed"), None);
    }

    #[test]
    fn the_documentation_lists_every_code_and_no_other() {
        let page = include_str!("../../docs/errors.md");
        let mut listed: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")).collect();
        listed.iter_mut().for_each(|line| *line = line.split(" | ").next().unwrap_or_default());
        let known: Vec<String> = Code::ALL.iter().map(|code| format!("{}`", code.as_str())).collect();
        assert_eq!(listed, known);
        for &code in Code::ALL {
            let row = format!("| `{code}` | {} | ", code.class().exit_status());
            assert!(page.contains(&row), "{row}");
        }
    }
}
