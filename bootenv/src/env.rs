//! The variables of an environment: the data area between the header and the padding.
//!
//! The area is `name=value\0name=value\0…\0` followed by padding of any value. Names and values are bytes; nothing here
//! assumes UTF-8. Everything that was stored and is not changed is kept byte for byte and in its order, also what
//! U-Boot itself would drop: strings without `=`, empty values, repeated names.
//!
//! Values are raw. U-Boot takes a backslash in a stored value as an escape (`\x` reads as `x`) and doubles it when it
//! saves; its own tools, and so [`Environment::get`] and [`Environment::set`], do not.
//! [`Environment::get_decoded`] and [`Environment::set_encoded`] do.
//!
//! ```
//! use bootenv::Environment;
//!
//! let mut env = Environment::parse(b"bootcmd=run x\0bootdelay=2\0\0\xff\xff");
//! assert_eq!(env.get(b"bootdelay"), Some(&b"2"[..]));
//! env.set(b"foo", b"bar")?;
//! assert_eq!(env.serialise(40, 0)?, b"bootcmd=run x\0bootdelay=2\0foo=bar\0\0\0\0\0\0\0");
//! # Ok::<(), bootenv::env::Error>(())
//! ```

use std::borrow::Cow;

/// Why a variable or a whole environment cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name would not survive U-Boot's import.
    #[error("variable name \"{name}\" {why}; choose another name")]
    InvalidName {
        /// The name, made printable.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The value holds a NUL, which ends a value in this format.
    #[error("value of \"{name}\" holds a NUL at byte {offset}; a value ends there")]
    InvalidValue {
        /// The name, made printable.
        name: String,
        /// Where the NUL stands, counted from 0.
        offset: usize,
    },
    /// The variables need more bytes than the data area has.
    #[error(
        "variables need {needed} bytes, the environment holds {capacity}; unset some, nothing was written"
    )]
    Full {
        /// Bytes needed, with the terminators.
        needed: usize,
        /// Bytes of the data area.
        capacity: usize,
    },
}

impl Error {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Error::InvalidName { .. } | Error::InvalidValue { .. } => "INVALID_OPTION",
            Error::Full { .. } => "ENV_FULL",
        }
    }
}

/// One stored string, without its terminator.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    raw: Vec<u8>,
}

impl Entry {
    fn new(name: &[u8], value: &[u8]) -> Self {
        let mut raw = Vec::with_capacity(name.len() + 1 + value.len());
        raw.extend_from_slice(name);
        raw.push(b'=');
        raw.extend_from_slice(value);
        Entry { raw }
    }

    /// Name and value; a string without `=` is a name without a value.
    fn split(&self) -> (&[u8], Option<&[u8]>) {
        split_at_equals(&self.raw)
    }

    fn name(&self) -> &[u8] {
        self.split().0
    }
}

/// Splits `name=value` at its first `=`.
pub(crate) fn split_at_equals(raw: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut halves = raw.splitn(2, |&byte| byte == b'=');
    let name = halves.next().unwrap_or_default();
    (name, halves.next())
}

/// The variables of one environment, in stored order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    entries: Vec<Entry>,
}

impl Environment {
    /// Makes an environment without variables.
    pub fn new() -> Self {
        Environment::default()
    }

    /// Reads a data area. Never fails: like U-Boot's import, it takes the strings up to the first empty one, and the
    /// end of the area also ends the last string.
    pub fn parse(data: &[u8]) -> Self {
        let entries = data
            .split(|&byte| byte == 0)
            .take_while(|string| !string.is_empty())
            .map(|string| Entry { raw: string.to_vec() })
            .collect();
        Environment { entries }
    }

    /// Writes the data area: `capacity` bytes, padded with `pad`. Fails with [`Error::Full`] and changes nothing when
    /// the variables and the terminators need more.
    pub fn serialise(&self, capacity: usize, pad: u8) -> Result<Vec<u8>, Error> {
        let needed = self.needed();
        if needed > capacity {
            return Err(Error::Full { needed, capacity });
        }
        let mut data = Vec::with_capacity(capacity);
        for entry in &self.entries {
            data.extend_from_slice(&entry.raw);
            data.push(0);
        }
        data.push(0);
        data.resize(capacity, pad);
        Ok(data)
    }

    /// Bytes the data area must have at least: every string with its NUL, and the NUL that ends the list.
    pub fn needed(&self) -> usize {
        self.entries.iter().map(|entry| entry.raw.len() + 1).sum::<usize>() + 1
    }

    /// The raw value of a variable. When a name is stored more than once the last one counts, as in U-Boot.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.entries.iter().rev().find(|entry| entry.name() == name).and_then(|entry| entry.split().1)
    }

    /// The value of a variable as text; `None` also when it is not UTF-8 or empty, which U-Boot takes as not set.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name.as_bytes())
            .and_then(|value| std::str::from_utf8(value).ok())
            .filter(|value| !value.is_empty())
    }

    /// The value as U-Boot sees it: a backslash stands for the byte that follows it.
    pub fn get_decoded(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.get(name).map(decode_backslashes)
    }

    /// Sets a variable to raw bytes. An empty value removes it, because U-Boot drops empty values when it reads them.
    ///
    /// A changed variable keeps its place. A new one goes before the first name that sorts after it, so a list that
    /// U-Boot saved (sorted bytewise) stays in U-Boot's order.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        check_variable(name, value)?;
        if value.is_empty() {
            self.unset(name);
            return Ok(());
        }
        let entry = Entry::new(name, value);
        let Some(last) = self.entries.iter().rposition(|old| old.name() == name) else {
            let place = self.entries.iter().position(|old| old.name() > name).unwrap_or(self.entries.len());
            self.entries.insert(place, entry);
            return Ok(());
        };
        let mut index = 0;
        self.entries.retain_mut(|old| {
            let keep = index == last || old.name() != name;
            if index == last {
                old.clone_from(&entry);
            }
            index += 1;
            keep
        });
        Ok(())
    }

    /// Adds a variable at the end; for text that gives the order itself. The name is not stored yet.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        check_variable(name, value)?;
        if !value.is_empty() {
            self.entries.push(Entry::new(name, value));
        }
        Ok(())
    }

    /// Sets a variable so that U-Boot reads exactly these bytes: backslashes are doubled.
    pub fn set_encoded(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        self.set(name, &encode_backslashes(value))
    }

    /// Removes a variable, every time it is stored. Removing what is not there changes nothing.
    pub fn unset(&mut self, name: &[u8]) {
        self.entries.retain(|entry| entry.name() != name);
    }

    /// Applies changes in their order. On an error nothing is changed.
    pub fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        let mut next = self.clone();
        for (name, value) in &changes.list {
            match value {
                Some(value) => next.set(name, value)?,
                None => next.unset(name),
            }
        }
        *self = next;
        Ok(())
    }

    /// Name and value of every stored string in stored order; a string without `=` has no value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.entries.iter().map(Entry::split)
    }

    /// Every stored string as it is stored.
    pub fn raw_strings(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| entry.raw.as_slice())
    }

    /// How many strings are stored.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether no string is stored.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What one transaction does to the variables, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    list: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Changes {
    /// Makes an empty list.
    pub fn new() -> Self {
        Changes::default()
    }

    /// Adds: set `name` to `value` (raw bytes; an empty value removes the variable).
    #[must_use]
    pub fn set(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.list.push((name.into(), Some(value.into())));
        self
    }

    /// Adds: remove `name`.
    #[must_use]
    pub fn unset(mut self, name: impl Into<Vec<u8>>) -> Self {
        self.list.push((name.into(), None));
        self
    }

    /// The changes in order: name, and the value or `None` for a removal.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.list.iter().map(|(name, value)| (name.as_slice(), value.as_deref()))
    }

    /// Tells whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Checks that U-Boot would import a variable of this name as it is.
pub fn check_name(name: &[u8]) -> Result<(), Error> {
    let why = match name.first() {
        None => "is empty",
        Some(b'#') => "starts with '#', which U-Boot takes as a comment",
        Some(b' ' | b'\t') => "starts with a blank, which U-Boot drops",
        Some(_) if name.contains(&b'=') => "contains '='",
        Some(_) if name.contains(&0) => "contains a NUL",
        Some(_) => return Ok(()),
    };
    Err(Error::InvalidName { name: printable(name).into_owned(), why })
}

/// Checks that a name and a value can be stored.
pub(crate) fn check_variable(name: &[u8], value: &[u8]) -> Result<(), Error> {
    check_name(name)?;
    match value.iter().position(|&byte| byte == 0) {
        Some(offset) => Err(Error::InvalidValue { name: printable(name).into_owned(), offset }),
        None => Ok(()),
    }
}

/// Bytes for a message: UTF-8 where it is, replacement characters where it is not.
pub(crate) fn printable(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Drops the escaping that U-Boot's import drops. A backslash at the end has nothing to escape and is kept.
pub(crate) fn decode_backslashes(raw: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    decoded
}

/// Doubles backslashes, as U-Boot's export does.
pub(crate) fn encode_backslashes(value: &[u8]) -> Vec<u8> {
    value.iter().flat_map(|&byte| std::iter::repeat_n(byte, if byte == b'\\' { 2 } else { 1 })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(env: &Environment) -> String {
        env.raw_strings().map(|raw| printable(raw).into_owned()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn setting_keeps_places_and_u_boots_order() {
        let mut env = Environment::parse(b"b=1\0d=2\0\0");
        env.set(b"c", b"x").unwrap();
        env.set(b"a", b"y").unwrap();
        env.set(b"e", b"z").unwrap();
        env.set(b"b", b"9").unwrap();
        assert_eq!(text(&env), "a=y|b=9|c=x|d=2|e=z");
        env.set(b"c", b"").unwrap();
        env.unset(b"nothing");
        assert_eq!(text(&env), "a=y|b=9|d=2|e=z");
    }

    #[test]
    fn the_last_of_repeated_names_counts_and_a_change_leaves_one() {
        let mut env = Environment::parse(b"a=1\0b=2\0a=3\0\0");
        assert_eq!(env.get(b"a"), Some(&b"3"[..]));
        env.set(b"a", b"4").unwrap();
        assert_eq!(text(&env), "b=2|a=4");
        let mut env = Environment::parse(b"a=1\0b=2\0a=3\0\0");
        env.unset(b"a");
        assert_eq!(text(&env), "b=2");
    }

    /// E6: what is strange but stored survives an unrelated change, byte for byte.
    #[test]
    fn strange_strings_are_kept() {
        let mut env = Environment::parse(b"noequals\0empty=\0=novalue\0  blank=1\0#c=2\0x=\xff\xfe\0\0");
        env.set(b"zz", b"1").unwrap();
        let data = env.serialise(64, 0).unwrap();
        assert!(data.starts_with(b"noequals\0empty=\0=novalue\0  blank=1\0#c=2\0x=\xff\xfe\0zz=1\0\0"));
        assert_eq!(env.get(b"noequals"), None);
        assert_eq!(env.get(b"empty"), Some(&b""[..]));
        assert_eq!(env.get_str("empty"), None);
        assert_eq!(env.get_str("x"), None);
    }

    /// E6: an area without terminators is read to its end, and writing it back needs room for them.
    #[test]
    fn an_unterminated_area_is_read_but_not_squeezed() {
        for (data, strings) in
            [(&b"a=1\0b=2"[..], 2), (b"a=1\0b=2\0", 2), (b"a=1", 1), (b"", 0), (b"\0\xff", 0)]
        {
            let env = Environment::parse(data);
            assert_eq!(env.len(), strings);
        }
        let env = Environment::parse(b"a=1\0b=2");
        assert_eq!(env.serialise(7, 0), Err(Error::Full { needed: 9, capacity: 7 }));
        assert!(env.serialise(9, 0).is_ok());
    }

    #[test]
    fn names_and_values_that_u_boot_would_change_are_refused() {
        let mut env = Environment::new();
        for name in [&b""[..], b"#x", b" x", b"\tx", b"a=b", b"a\0b"] {
            assert_eq!(env.set(name, b"1").unwrap_err().code(), "INVALID_OPTION", "{name:?}");
        }
        let error = env.set(b"a", b"12\0").unwrap_err();
        assert_eq!(error.to_string(), "value of \"a\" holds a NUL at byte 2; a value ends there");
        assert!(env.is_empty());
    }

    #[test]
    fn failed_changes_change_nothing() {
        let mut env = Environment::parse(b"a=1\0\0");
        let before = env.clone();
        assert!(env.apply(&Changes::new().set("b", "2").unset("a").set("#", "x")).is_err());
        assert_eq!(env, before);
    }

    #[test]
    fn backslashes_round_trip_through_u_boots_escaping() {
        let mut env = Environment::new();
        env.set_encoded(b"p", br"a\b\\c").unwrap();
        assert_eq!(env.get(b"p"), Some(&br"a\\b\\\\c"[..]));
        assert_eq!(env.get_decoded(b"p").unwrap(), br"a\b\\c");
        env.set(b"q", br"a\b").unwrap();
        assert_eq!(env.get_decoded(b"q").unwrap(), b"ab");
        assert_eq!(decode_backslashes(b"x\\"), b"x\\");
    }
}
