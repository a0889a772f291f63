//! The earliest that it can be now, whatever the device's clock says.

/// When this program was built, in seconds since 1970; 0 where the build did not say so.
///
/// Yocto and Debian set `SOURCE_DATE_EPOCH` for every build. A device that runs this program lives after it.
pub fn built_at() -> u64 {
    option_env!("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok()).unwrap_or(0)
}
