//! Dictionaries (`a{sv}`) that cross the bus.

use std::collections::HashMap;

use otad_bundle::{Bundle, Input};
use otad_dbus::value::{option, result};
use zbus::Variant;

use crate::failure::{Code, Failure};
use crate::lifecycle::record::Ended;

/// A dictionary as it is sent.
pub(super) type Dictionary = HashMap<&'static str, Variant<'static>>;

/// One line of the history.
pub(super) fn ended(ended: &Ended) -> Dictionary {
    let reason = ended.reason.clone();
    let (code, message) = reason.map(|reason| (reason.code, reason.message)).unwrap_or_default();
    HashMap::from([
        (result::OUTCOME, text(&ended.outcome)),
        (result::CODE, text(code)),
        (result::MESSAGE, text(message)),
        (result::VERSION, text(&ended.version)),
        (result::SEQUENCE, Variant::from(ended.sequence)),
        (result::RELEASE, text(ended.release.map(|release| release.to_string()).unwrap_or_default())),
        (result::SLOT, text(&ended.slot)),
        (result::PHASE, text(&ended.phase)),
        (result::TIME, Variant::from(ended.time)),
    ])
}

/// What a verified bundle says of itself.
pub(super) fn bundle<I: Input>(bundle: &Bundle<I>) -> Dictionary {
    let manifest = bundle.manifest();
    let signers: Vec<String> = bundle.signed_by().iter().map(ToString::to_string).collect();
    let images: HashMap<String, u64> =
        manifest.images.iter().map(|image| (image.role.clone(), image.size)).collect();
    HashMap::from([
        (result::VERSION, text(manifest.update.version.to_string())),
        (result::SEQUENCE, Variant::from(manifest.update.sequence)),
        (result::RELEASE, text(bundle.release().to_string())),
        (result::DESCRIPTION, text(&manifest.update.description)),
        (result::COMPATIBLE, Variant::from(manifest.update.compatible.clone())),
        (result::SIGNED_BY, Variant::from(signers)),
        (result::IMAGES, Variant::from(images)),
    ])
}

fn text(text: impl Into<String>) -> Variant<'static> {
    Variant::from(text.into())
}

/// Options of an install.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Reboot as soon as the target is armed.
    pub reboot: bool,
    /// URL of a delta to the release.
    pub delta: Option<String>,
}

/// Reads options strictly: an option that is not understood may be one that matters.
pub(super) fn options(given: &HashMap<String, Variant<'_>>) -> Result<Options, Failure> {
    let mut options = Options::default();
    for (key, value) in given {
        let wrong = |what: &str| Failure::new(Code::InvalidOption, format!("option `{key}` must be {what}"));
        match key.as_str() {
            option::REBOOT => options.reboot = bool::try_from(value).map_err(|_| wrong("a boolean"))?,
            option::DELTA => {
                let url = <&str>::try_from(value).map_err(|_| wrong("a text"))?;
                options.delta = Some(url.to_owned());
            }
            _ => {
                let known = format!("known are `{}` and `{}`", option::REBOOT, option::DELTA);
                return Err(Failure::new(Code::InvalidOption, format!("unknown option `{key}`; {known}")));
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_mistyped_options_are_refused() {
        let given = |key: &str, value: Variant<'static>| HashMap::from([(key.to_owned(), value)]);
        assert_eq!(options(&HashMap::new()), Ok(Options::default()));
        assert_eq!(options(&given("reboot", Variant::from(true))), Ok(Options { reboot: true, delta: None }));
        for bad in [given("reboot", Variant::from("yes")), given("rebot", Variant::from(true))] {
            assert_eq!(options(&bad).unwrap_err().code, Code::InvalidOption);
        }
    }
}
