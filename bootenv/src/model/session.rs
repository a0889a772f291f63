//! U-Boot's environment in memory during one power-on: import, lookup, save.

use std::collections::BTreeMap;

use super::{BootLoader, BootResult, Outcome, Save};
use crate::env::{Environment, decode_backslashes, encode_backslashes};
use crate::format::{self, ByteOrder, Copy, CopyId, FlagScheme, Layout};
use crate::scheme::ENV_MARK;

/// The state U-Boot has in memory.
pub(super) struct Session {
    /// Sorted by name, as U-Boot exports it.
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
    layout: Layout,
    order: ByteOrder,
    size: usize,
    /// The copy in use, and its flags; the next save goes to the other one.
    current: Option<CopyId>,
    flags: u8,
    copies: Vec<Vec<u8>>,
    saves: Vec<Save>,
    console: Vec<String>,
}

impl Session {
    /// Reads the stored environment, or takes the built-in one.
    pub(super) fn start(loader: &BootLoader, copies: &[Vec<u8>]) -> Session {
        let size = copies.first().map_or(0, Vec::len);
        let read = |id: CopyId| {
            let bytes = copies.get(id.index()).filter(|bytes| bytes.len() == size)?;
            Copy::decode(bytes, loader.layout, loader.order).ok()
        };
        let first = read(CopyId::First);
        let second = if loader.layout == Layout::Redundant { read(CopyId::Second) } else { None };
        let flags = |copy: &Option<Copy>| copy.as_ref().map(|copy| copy.flags);
        let current = format::choose(flags(&first), flags(&second), FlagScheme::Counter);
        let copy = match current {
            Some(CopyId::First) => first,
            Some(CopyId::Second) => second,
            None => None,
        };
        let mut session = Session {
            variables: BTreeMap::new(),
            layout: loader.layout,
            order: loader.order,
            size,
            current,
            flags: copy.as_ref().map_or(0, |copy| copy.flags),
            copies: copies.to_vec(),
            saves: Vec::new(),
            console: Vec::new(),
        };
        let imported = match copy {
            Some(copy) => Self::import(&Environment::parse(&copy.data)),
            None => Err("no copy has a good checksum"),
        };
        session.variables = imported.unwrap_or_else(|why| {
            session.print(format!("environment: {why}, using the built-in default"));
            // A built-in environment that cannot be imported leaves nothing, as in U-Boot.
            Self::import(&loader.default_environment).unwrap_or_default()
        });
        session
    }

    /// What U-Boot takes from stored strings. Leading blanks are skipped; a string that starts with `#` is a comment;
    /// `name` and `name=` delete; a value without a name stops the import as a whole; a backslash escapes the next byte;
    /// the last of repeated names counts.
    pub(super) fn import(stored: &Environment) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, &'static str> {
        let mut variables = BTreeMap::new();
        for (name, value) in stored.iter() {
            let blanks = name.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            let name = name.get(blanks..).unwrap_or_default();
            if name.starts_with(b"#") {
                continue;
            }
            match value.filter(|value| !value.is_empty()) {
                None => drop(variables.remove(name)),
                Some(_) if name.is_empty() => return Err("a value without a name"),
                Some(value) => drop(variables.insert(name.to_vec(), decode_backslashes(value))),
            }
        }
        Ok(variables)
    }

    /// A variable as text; empty when it is not set.
    pub(super) fn get(&self, name: &str) -> &str {
        self.variables
            .get(name.as_bytes())
            .and_then(|value| std::str::from_utf8(value).ok())
            .unwrap_or_default()
    }

    /// A variable as U-Boot's C code reads a decimal number: the leading digits, 0 without any. Like the C code it does not
    /// look for an overflow, which here ends at the largest number.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.get(name)
            .bytes()
            .take_while(u8::is_ascii_digit)
            .fold(0, |number: u64, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    }

    /// Sets a variable in memory; an empty value removes it.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        if value.is_empty() {
            self.variables.remove(name.as_bytes());
        } else {
            self.variables.insert(name.as_bytes().to_vec(), value.into_bytes());
        }
    }

    /// The variables as an [`Environment`], for the reading side of the schemes.
    pub(super) fn environment(&self) -> Environment {
        let mut data = Vec::new();
        for (name, value) in &self.variables {
            data.extend_from_slice(&[name, &b"="[..], value, b"\0"].concat());
        }
        Environment::parse(&data)
    }

    /// Saves the environment: sorted, backslashes doubled, zero-padded, to the copy that is not in use (the first one if
    /// none is), with the next counter. What does not fit is not saved, and the boot goes on.
    pub(super) fn save(&mut self) {
        let mut data = Vec::new();
        for (name, value) in &self.variables {
            data.extend_from_slice(name);
            data.push(b'=');
            data.extend_from_slice(&encode_backslashes(value));
            data.push(0);
        }
        data.push(0);
        let capacity = self.size.saturating_sub(self.layout.header_bytes());
        if data.len() > capacity {
            self.print(format!(
                "environment of {} bytes does not fit into {capacity}, not saved",
                data.len()
            ));
            return;
        }
        data.resize(capacity, 0);
        self.flags = self.flags.wrapping_add(1);
        let target = match (self.layout, self.current) {
            (Layout::Redundant, Some(CopyId::First)) => CopyId::Second,
            (Layout::Redundant | Layout::Single, _) => CopyId::First,
        };
        let bytes = Copy { flags: self.flags, data }.encode(self.layout, self.order);
        if let Some(copy) = self.copies.get_mut(target.index()) {
            copy.clone_from(&bytes);
        }
        self.current = Some(target);
        self.print(format!("environment saved to {target}"));
        self.saves.push(Save { copy: target, bytes });
    }

    /// A line on the console.
    pub(super) fn print(&mut self, line: impl Into<String>) {
        self.console.push(line.into());
    }

    /// Tells whether this boot runs on the built-in environment, or on one that was saved from it.
    pub(super) fn is_default(&self) -> bool {
        self.get(ENV_MARK) == "default"
    }

    /// Starts a kernel.
    pub(super) fn start_kernel(&mut self, slot: &str, boot_count: u64) -> Outcome {
        let mark = if self.is_default() { " otad.env=default" } else { "" };
        let command_line = format!("otad.slot={slot} otad.bootcount={boot_count}{mark}");
        self.print(format!("starting slot {slot}: {command_line}"));
        Outcome::Started { slot: slot.to_owned(), command_line }
    }

    /// Resets the machine.
    pub(super) fn reset(&mut self, reason: impl Into<String>) -> Outcome {
        let reason = reason.into();
        self.print(format!("{reason}, resetting"));
        Outcome::Reset { reason }
    }

    pub(super) fn finish(self, outcome: Outcome) -> BootResult {
        BootResult { outcome, copies: self.copies, saves: self.saves, console: self.console }
    }
}
