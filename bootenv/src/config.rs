//! `fw_env.config`: where the copies are.
//!
//! The form that U-Boot's and libubootenv's tools share, one line per copy:
//!
//! ```text
//! # device     offset    size      sector size   sectors
//! /dev/mmcblk0 0x100000  0x20000
//! /dev/mmcblk0 0x140000  0x20000
//! ```
//!
//! Fields are separated by blanks. The offset is decimal, hexadecimal with `0x` or octal with `0`, and may be negative:
//! then it counts from the end of a block device. **Sizes and the number of sectors are hexadecimal even without `0x`.**
//! One line is a single copy, two lines are redundant copies. A sixth field (`1`: do not lock the flash) is read and
//! kept. Where the other tools skip a line they cannot read, this parser refuses the file and names the line: an
//! environment at a place nobody meant is worse than none.
//!
//! ```
//! use bootenv::{Config, Layout};
//!
//! let config = Config::parse("/dev/mmcblk0 0x100000 20000\n/dev/mmcblk0 -0x40000 0x20000\n")?;
//! assert_eq!(config.layout(), Layout::Redundant);
//! assert_eq!((config.size(), config.first().offset), (0x20000, 0x100000));
//! # Ok::<(), bootenv::config::Error>(())
//! ```

use std::path::{Path, PathBuf};

use crate::format::{Layout, MIN_SIZE};

/// Where U-Boot's tools look for their configuration.
pub const DEFAULT_PATH: &str = "/etc/fw_env.config";

/// The largest environment this crate handles, in bytes; the largest in use is 0x40000, and the size decides how much
/// memory one read takes.
pub const MAX_SIZE: usize = 0x100_0000;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read {}: {source}; give the configuration with -c, or write one line `device offset size` per copy", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line cannot be read.
    #[error("line {line}: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong and what is expected.
        why: String,
    },
    /// The lines do not make an environment together.
    #[error("{0}")]
    Entries(String),
    /// One of the above, in a file.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<Error>,
    },
}

impl Error {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        "CONFIG"
    }
}

/// One line: where one copy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The device or file, with a UBI volume's `:name` if there is one.
    pub device: PathBuf,
    /// Offset in bytes; negative counts from the end of a block device.
    pub offset: i64,
    /// Size of the copy in bytes.
    pub size: usize,
    /// Size of a flash sector in bytes; `None` leaves it to the device.
    pub sector_size: Option<usize>,
    /// How many sectors may be used (bad ones are skipped); `None` means as many as the size needs.
    pub sectors: Option<usize>,
    /// Do not unlock and lock the flash around a write.
    pub disable_lock: bool,
}

/// A whole configuration: one copy or two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    first: Entry,
    second: Option<Entry>,
}

impl Config {
    /// Makes a configuration from entries, checking that they fit together.
    pub fn new(first: Entry, second: Option<Entry>) -> Result<Config, Error> {
        let config = Config { first, second };
        config.check()?;
        Ok(config)
    }

    /// Reads the text of a configuration. Opens nothing.
    pub fn parse(text: &str) -> Result<Config, Error> {
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if let Some(entry) = parse_line(line).map_err(|why| Error::Line { line: number + 1, why })? {
                entries.push(entry);
            }
        }
        let count = entries.len();
        let mut entries = entries.into_iter();
        match (entries.next(), entries.next(), entries.next()) {
            (Some(first), second, None) => Config::new(first, second),
            (None, ..) => {
                Err(Error::Entries("no entry; write one line `device offset size` per copy".to_owned()))
            }
            (Some(_), _, Some(_)) => {
                Err(Error::Entries(format!("{count} entries; an environment has one copy or two")))
            }
        }
    }

    /// Reads a configuration file.
    pub fn from_file(path: &Path) -> Result<Config, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Config::parse(&text)
            .map_err(|source| Error::InFile { path: path.to_owned(), source: Box::new(source) })
    }

    /// The first copy.
    pub fn first(&self) -> &Entry {
        &self.first
    }

    /// The second copy, if the environment is redundant.
    pub fn second(&self) -> Option<&Entry> {
        self.second.as_ref()
    }

    /// One copy or two.
    pub fn layout(&self) -> Layout {
        if self.second.is_some() { Layout::Redundant } else { Layout::Single }
    }

    /// Size of one copy in bytes.
    pub fn size(&self) -> usize {
        self.first.size
    }

    fn check(&self) -> Result<(), Error> {
        let size = self.first.size;
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(Error::Entries(format!(
                "size 0x{size:x} is not between 0x{MIN_SIZE:x} and 0x{MAX_SIZE:x}; sizes are hexadecimal, also without 0x"
            )));
        }
        let Some(second) = &self.second else { return Ok(()) };
        if second.size != size {
            return Err(Error::Entries(format!(
                "copy 1 has 0x{size:x} bytes, copy 2 has 0x{:x}; both need the size U-Boot was built with",
                second.size
            )));
        }
        let distance = self.first.offset.abs_diff(second.offset);
        let same_end = (self.first.offset < 0) == (second.offset < 0);
        // Volumes of UBI ignore the offset: there the names differ.
        if self.first.device == second.device && same_end && distance < size_as_u64(size) {
            return Err(Error::Entries(format!(
                "the copies overlap: both are in {}, 0x{distance:x} bytes apart, 0x{size:x} bytes long",
                second.device.display()
            )));
        }
        Ok(())
    }
}

/// A size as the type of offsets.
pub(crate) fn size_as_u64(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// One line; nothing for a comment or an empty line.
fn parse_line(line: &str) -> Result<Option<Entry>, String> {
    let fields: Vec<&str> = line.split_whitespace().take_while(|field| !field.starts_with('#')).collect();
    let mut fields = fields.into_iter();
    let Some(device) = fields.next() else { return Ok(None) };
    let (Some(offset), Some(size)) = (fields.next(), fields.next()) else {
        let yaml = if device.ends_with(':') { " (libubootenv's YAML form is not read)" } else { "" };
        return Err(format!("\"{line}\" is not `device offset size [sector-size [sectors]]`{yaml}"));
    };
    let entry = Entry {
        device: PathBuf::from(device),
        offset: parse_offset(offset)?,
        size: parse_hex(size, "size")?,
        sector_size: fields.next().map(|field| parse_hex(field, "sector size")).transpose()?,
        sectors: fields.next().map(|field| parse_hex(field, "number of sectors")).transpose()?,
        disable_lock: match fields.next() {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => return Err(format!("lock field \"{other}\" is neither 0 nor 1")),
        },
    };
    match fields.next() {
        None => Ok(Some(entry)),
        Some(extra) => Err(format!("\"{extra}\" is a seventh field; there are at most six")),
    }
}

/// A number whose base is told by its prefix, with a sign: `strtoll` with base 0.
fn parse_offset(field: &str) -> Result<i64, String> {
    let wrong = || format!("offset \"{field}\" is not a number (decimal, 0x hexadecimal or 0 octal)");
    let (negative, digits) = match field.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, field.strip_prefix('+').unwrap_or(field)),
    };
    let (digits, base) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
        None => (digits, 10),
    };
    if digits.starts_with(['+', '-']) {
        return Err(wrong());
    }
    let value = i64::from_str_radix(digits, base).map_err(|_| wrong())?;
    Ok(if negative { -value } else { value })
}

fn parse_hex(field: &str, what: &str) -> Result<usize, String> {
    let digits = field.strip_prefix("0x").or_else(|| field.strip_prefix("0X")).unwrap_or(field);
    if digits.starts_with(['+', '-']) {
        return Err(format!("{what} \"{field}\" is not a hexadecimal number"));
    }
    usize::from_str_radix(digits, 16).map_err(|_| format!("{what} \"{field}\" is not a hexadecimal number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_bases_of_the_other_tools() {
        for (line, offset, size) in [
            ("/f 0 4000", 0, 0x4000),
            ("/f 16 16384", 16, 0x16384),
            ("/f 010 0x4000", 8, 0x4000),
            ("/f -0x8000 0X4000 200 20", -0x8000, 0x4000),
            ("  /f\t+1  1000 1000 1 1  # boot", 1, 0x1000),
        ] {
            let config = Config::parse(line).unwrap();
            assert_eq!((config.first().offset, config.size()), (offset, size), "{line}");
        }
        let config = Config::parse("/f 0 4000 200 20 1").unwrap();
        assert_eq!(config.first().sector_size, Some(0x200));
        assert_eq!((config.first().sectors, config.first().disable_lock), (Some(0x20), true));
    }

    #[test]
    fn comments_and_blank_lines_are_skipped() {
        let config =
            Config::parse("# one\n\n   \n  # two\n/dev/ubi0:env 0 0x4000\r\n/dev/ubi0:env2 0 0x4000\n\n")
                .unwrap();
        assert_eq!(config.layout(), Layout::Redundant);
        assert_eq!(config.second().unwrap().device, Path::new("/dev/ubi0:env2"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        for (text, message) in [
            ("", "no entry"),
            ("\n/f 0x0\n", "line 2: \"/f 0x0\" is not `device"),
            ("uboot:\n  size: 0x4000\n", "YAML form"),
            ("/f x 4000", "offset \"x\""),
            ("/f 0x 4000", "offset \"0x\""),
            ("/f --1 4000", "offset \"--1\""),
            ("/f 08 4000", "offset \"08\""),
            ("/f 9223372036854775808 4000", "offset"),
            ("/f 0 size", "size \"size\" is not"),
            ("/f 0 -4000", "size \"-4000\""),
            ("/f 0 0", "size 0x0 is not between"),
            ("/f 0 ffffffff", "is not between"),
            ("/f 0 4000 200 20 2", "lock field"),
            ("/f 0 4000 200 20 1 x", "seventh field"),
            ("/f 0 4000\n/f 0x4000 8000\n", "copy 1 has 0x4000 bytes, copy 2 has 0x8000"),
            ("/f 0 4000\n/f 0x2000 4000\n", "overlap"),
            ("/f 0 4000\n/f 0x4000 4000\n/f 0x8000 4000", "3 entries"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.to_string().contains(message), "{text:?}: {error}");
            assert_eq!(error.code(), "CONFIG");
        }
        assert!(Config::parse("/dev/mmcblk0boot0 0 4000\n/dev/mmcblk0boot1 0 4000").is_ok());
        assert!(Config::parse("/f 0 4000\n/f -0x4000 4000").is_ok());
    }
}
