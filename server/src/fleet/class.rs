//! What kind of trouble an error code means: what a release is judged by, and whether trying again makes sense.

use serde::{Deserialize, Serialize};

/// The kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The line between device and server.
    Network,
    /// The release is not what this device accepts.
    Verification,
    /// The device's storage.
    Write,
    /// The new system did not come up.
    Boot,
    /// The new system came up and found itself unfit.
    Health,
    /// A person or a program wanted it so.
    Operator,
    /// Whatever this version has no word for.
    Other,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 7] = [
        Class::Network,
        Class::Verification,
        Class::Write,
        Class::Boot,
        Class::Health,
        Class::Operator,
        Class::Other,
    ];

    /// The kind of an error code of otad, or of the server's own (`*_TIMEOUT`, `SILENT`).
    pub fn of_code(code: &str) -> Class {
        match code {
            "OFFER_TIMEOUT" | "DOWNLOAD_TIMEOUT" => Class::Network,
            "INSTALL_TIMEOUT" | "NO_SPACE" | "STATE_IO" | "DEVICE_GONE" | "VERIFY_FAILED"
            | "IMAGE_TOO_LARGE" | "LAYOUT_CHANGED" => Class::Write,
            "SILENT"
            | "ROLLED_BACK"
            | "BOOTLOADER_IGNORED_SWITCH"
            | "KERNEL_SLOT_MISMATCH"
            | "PRE_RUN_FAILED" => Class::Boot,
            "HEALTH_FAILED" | "HEALTH_TIMEOUT" => Class::Health,
            "CANCELLED" | "SUPERSEDED" | "BUSY" | "WRONG_STATE" | "RELEASE_FAILED_BEFORE" => Class::Operator,
            "SOURCE_CHANGED" | "BUNDLE_READ" | "INTERRUPTED" => Class::Network,
            "NOT_A_BUNDLE" | "HASH_MISMATCH" | "SIZE_EXCEEDED" | "INCOMPATIBLE" | "DOWNGRADE"
            | "VERSION_JUMP" | "BUNDLE_FORMAT" | "BUNDLE_TRUNCATED" | "MANIFEST_INVALID"
            | "INDEX_INVALID" | "TRUST_INVALID" => Class::Verification,
            _ => Class::of_prefix(code),
        }
    }

    fn of_prefix(code: &str) -> Class {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| code.starts_with(prefix));
        if begins(&["NET_"]) {
            Class::Network
        } else if begins(&["SIG_", "KEYS_", "METADATA_", "KEY_"]) {
            Class::Verification
        } else if begins(&["IO_", "SLOT_"]) {
            Class::Write
        } else if begins(&["ENV_", "BOOT"]) {
            Class::Boot
        } else {
            Class::Other
        }
    }

    /// Whether a failure of this kind says something of the release. A bad line or a person's wish does not.
    pub const fn blames_the_release(self) -> bool {
        match self {
            Class::Network | Class::Operator => false,
            Class::Verification | Class::Write | Class::Boot | Class::Health | Class::Other => true,
        }
    }

    /// The spelling in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Network => "network",
            Class::Verification => "verification",
            Class::Write => "write",
            Class::Boot => "boot",
            Class::Health => "health",
            Class::Operator => "operator",
            Class::Other => "other",
        }
    }

    /// Reads the spelling of the database.
    pub fn parse(text: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (code, class) in [
            ("NET_STALLED", Class::Network),
            ("SIG_INVALID", Class::Verification),
            ("HASH_MISMATCH", Class::Verification),
            ("IO_SYNC", Class::Write),
            ("SLOT_BUSY", Class::Write),
            ("LAYOUT_CHANGED", Class::Write),
            ("ENV_LOST", Class::Boot),
            ("KERNEL_SLOT_MISMATCH", Class::Boot),
            ("ROLLED_BACK", Class::Boot),
            ("SILENT", Class::Boot),
            ("HEALTH_FAILED", Class::Health),
            ("CANCELLED", Class::Operator),
            ("INTERNAL", Class::Other),
            ("", Class::Other),
            ("<script>", Class::Other),
        ] {
            assert_eq!(Class::of_code(code), class, "{code}");
        }
        for class in Class::ALL {
            assert_eq!(Class::parse(class.as_str()), Some(class));
        }
    }
}
