//! Reads the dictionaries (`a{sv}`) that cross the bus into plain values.
//!
//! A key that must be there and is not, or a value of another type than the contract says, is an error that names the
//! key: two programs that do not understand each other must not look as if they did.

use std::collections::HashMap;

use zbus::{OwnedObjectPath, OwnedVariant, Variant};

/// Properties of an interface, or an entry of the history.
pub(super) type Dict = HashMap<String, OwnedVariant>;

/// A dictionary does not follow the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The key is not there.
    #[error("otad sent no `{0}`: otactl and otad are of versions that do not fit together")]
    Missing(&'static str),
    /// The value has another type.
    #[error(
        "otad sent `{0}` with an unexpected type: otactl and otad are of versions that do not fit together"
    )]
    Type(&'static str),
}

/// What to make of a key that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// An error: the interface promises the property.
    Malformed,
    /// The empty value: dictionaries grow, and an old entry does not have the new keys.
    Empty,
}

/// Typed access to one dictionary.
pub(super) struct Fields<'a> {
    dict: &'a Dict,
    absent: Absent,
}

impl<'a> Fields<'a> {
    pub(super) fn new(dict: &'a Dict, absent: Absent) -> Self {
        Fields { dict, absent }
    }

    pub(super) fn text(&self, key: &'static str) -> Result<String, Malformed> {
        self.get(
            key,
            |value| if let Variant::Str(text) = value { Some(text.as_str().to_owned()) } else { None },
        )
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<bool, Malformed> {
        self.get(key, |value| bool::try_from(value).ok())
    }

    pub(super) fn number(&self, key: &'static str) -> Result<u64, Malformed> {
        self.get(key, |value| u64::try_from(value).ok())
    }

    pub(super) fn small_number(&self, key: &'static str) -> Result<u32, Malformed> {
        self.get(key, |value| u32::try_from(value).ok())
    }

    pub(super) fn path(&self, key: &'static str) -> Result<String, Malformed> {
        self.get(key, |value| {
            if let Variant::ObjectPath(path) = value { Some(path.as_str().to_owned()) } else { None }
        })
    }

    pub(super) fn dict(&self, key: &'static str) -> Result<Dict, Malformed> {
        self.get(key, |value| Dict::try_from(value.try_clone().ok()?).ok())
    }

    /// Names to names, sorted, so that output is the same every time.
    pub(super) fn names(
        &self,
        key: &'static str,
    ) -> Result<std::collections::BTreeMap<String, String>, Malformed> {
        self.get(key, |value| value.try_clone().ok()?.try_into().ok())
    }

    fn get<T: Default>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Variant<'_>) -> Option<T>,
    ) -> Result<T, Malformed> {
        match (self.dict.get(key), self.absent) {
            (Some(value), _) => read(value).ok_or(Malformed::Type(key)),
            (None, Absent::Empty) => Ok(T::default()),
            (None, Absent::Malformed) => Err(Malformed::Missing(key)),
        }
    }
}

/// Whether a path names a job: `CurrentJob` holds [`otad_dbus::NO_JOB`] while there is none.
pub(super) fn job_path(path: &str) -> Option<OwnedObjectPath> {
    (path != otad_dbus::NO_JOB).then(|| OwnedObjectPath::try_from(path.to_owned()).ok()).flatten()
}
