//! What a device, a report, a model or a version may be called.
//!
//! Names arrive from strangers, are stored, logged and shown: each has a length and, where we make
//! the rule, a small alphabet; none is ever used as a file name.

/// Longest name of a device or a report, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Longest name of a model, in bytes: that of the bundle format.
pub const MAX_MODEL_BYTES: usize = 255;
/// The server's own name in the audit log.
pub const SERVER: &str = "otaserver";
/// Longest version, in bytes: that of the bundle format.
pub const MAX_VERSION_BYTES: usize = 128;

/// A name that was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Empty or too long.
    #[error("`{field}` has {got} bytes; allowed are 1 to {max}")]
    Length {
        /// The field of the request.
        field: &'static str,
        /// Its length in bytes.
        got: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A character outside the alphabet. The name itself is not repeated: it comes from a stranger.
    #[error(
        "`{field}` has a character that is not allowed at byte {at}; allowed are {allowed} (write `+` as %2B in a query)"
    )]
    Character {
        /// The field of the request.
        field: &'static str,
        /// Offset of the first refused byte.
        at: usize,
        /// The alphabet, for people.
        allowed: &'static str,
    },
    /// The name that the server itself has in the audit log.
    #[error("`{field}` cannot be {SERVER}: that is the server's own name in the audit log")]
    Reserved {
        /// The field of the request.
        field: &'static str,
    },
}

/// Checks the name of a model by the rule of the bundle format: any text without control characters.
pub fn check_model(field: &'static str, value: &str) -> Result<(), NameError> {
    if value.is_empty() || value.len() > MAX_MODEL_BYTES {
        return Err(NameError::Length { field, got: value.len(), max: MAX_MODEL_BYTES });
    }
    match value.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(NameError::Character { field, at, allowed: "all but control characters" }),
        None => Ok(()),
    }
}

/// Checks the name of a device or a report: letters, digits and `. _ : , + -`, not starting with a dot or hyphen.
pub fn check_name(field: &'static str, value: &str) -> Result<(), NameError> {
    check(field, value, MAX_NAME_BYTES, b"._:,+-", "letters, digits and . _ : , + -")
}

/// Checks the name of a new operator: that of a device, but not the server's own, in whatever case.
pub fn check_operator(field: &'static str, value: &str) -> Result<(), NameError> {
    check_name(field, value)?;
    if value.eq_ignore_ascii_case(SERVER) { Err(NameError::Reserved { field }) } else { Ok(()) }
}

/// Checks a version: letters, digits and `. + - ~ _`, not starting with a dot or hyphen.
pub fn check_version(field: &'static str, value: &str) -> Result<(), NameError> {
    check(field, value, MAX_VERSION_BYTES, b".+-~_", "letters, digits and . + - ~ _")
}

fn check(
    field: &'static str,
    value: &str,
    max: usize,
    extra: &[u8],
    allowed: &'static str,
) -> Result<(), NameError> {
    if value.is_empty() || value.len() > max {
        return Err(NameError::Length { field, got: value.len(), max });
    }
    let bad = |(at, byte): (usize, u8)| {
        let first_special = at == 0 && matches!(byte, b'.' | b'-');
        (first_special || !(byte.is_ascii_alphanumeric() || extra.contains(&byte))).then_some(at)
    };
    match value.bytes().enumerate().find_map(bad) {
        Some(at) => Err(NameError::Character { field, at, allowed }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operator_is_called_like_the_server() {
        for name in ["otaserver", "OtaServer"] {
            assert_eq!(check_operator("name", name), Err(NameError::Reserved { field: "name" }));
        }
        assert_eq!(check_operator("name", "otaserver-2"), Ok(()));
        assert!(check_operator("name", "../x").is_err());
    }

    /// W5: names that mean something to a file system, a shell or a terminal are refused.
    #[test]
    fn w5_hostile_names_are_refused() {
        let long = "a".repeat(4096);
        let edge = "a".repeat(MAX_NAME_BYTES + 1);
        for name in [
            "",
            ".",
            "..",
            "../../x",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "a\0b",
            "a b",
            "a\nb",
            "-rf",
            ".hidden",
            "ä",
            "\u{202e}x",
            "<script>",
            "a'b",
            "a\"b",
            "a;b",
            "a%2e",
            &long,
            &edge,
        ] {
            assert!(check_name("device", name).is_err(), "{name:?} was taken");
            assert!(check_version("version", name).is_err(), "{name:?} was taken as a version");
        }
    }

    #[test]
    fn usual_names_are_taken() {
        let edge = "a".repeat(MAX_NAME_BYTES);
        for name in ["gw-0001", "52:54:00:12:34:56", "acme,gateway", "acme-gateway", "A", "1.2_3", &edge] {
            assert_eq!(check_name("device", name), Ok(()));
        }
        for model in ["acme-gateway", "acme,gateway", "Gerät 3 (rev. B)"] {
            assert_eq!(check_model("compatible", model), Ok(()));
        }
        for model in ["", "a\nb", "a\u{1b}[2J", "a\0", &"m".repeat(MAX_MODEL_BYTES + 1)] {
            assert!(check_model("compatible", model).is_err(), "{model:?}");
        }
        for version in ["1.0.0", "2.1.0-rc.1+build.7", "0", "1.0~rc1"] {
            assert_eq!(check_version("version", version), Ok(()));
        }
    }

    #[test]
    fn the_message_never_repeats_the_name() {
        let error = check_name("device", "<script>alert(1)</script>").unwrap_err().to_string();
        assert!(!error.contains("script"), "{error}");
    }
}
