//! The two text forms of an environment.
//!
//! - [`parse_script`]: changes, as `fw_setenv -s` takes them. One variable per line, `name value` or `name=value`; a name
//!   alone, or with nothing after the separator, deletes. Blanks before the value are skipped, as U-Boot's own tool does.
//!   `name = value` is refused: U-Boot's tool would store `= value`, libubootenv's would set a name with a blank.
//! - [`parse_environment`]: a whole environment, as `mkenvimage` takes it. One `name=value` per line; a backslash at the
//!   end of a line makes the line break part of the value.
//!
//! In both, empty lines and lines that start with `#` are skipped, `\r\n` ends a line too in a script, and anything else
//! is an error with its line: a script that changes half of what it says is how devices end up unbootable.

use crate::env::{self, Changes, Environment, check_name, check_variable, printable, split_at_equals};

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line is not of the form.
    #[error("line {line}: \"{text}\" is not {expected}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The line.
        text: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The name or value cannot be stored.
    #[error("line {line}: {source}")]
    Variable {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: env::Error,
    },
    /// A whole environment names a variable twice.
    #[error("line {line}: \"{name}\" is set in line {earlier} already")]
    Repeated {
        /// Counted from 1.
        line: usize,
        /// The name.
        name: String,
        /// Where it was first.
        earlier: usize,
    },
}

impl Error {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        "INVALID_OPTION"
    }
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Reads a script of changes.
pub fn parse_script(text: &[u8]) -> Result<Changes, Error> {
    let mut changes = Changes::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line_number = index + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let start = line.iter().position(|&byte| !is_blank(byte)).unwrap_or(line.len());
        let line = line.get(start..).unwrap_or_default();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let end = line.iter().position(|&byte| is_blank(byte) || byte == b'=').unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        if name.is_empty() {
            return Err(Error::Line {
                line: line_number,
                text: printable(line).into_owned(),
                expected: "`name value`, `name=value` or `name`",
            });
        }
        let blanks = |bytes: &[u8]| bytes.iter().take_while(|&&byte| is_blank(byte)).count();
        let value = match rest.split_first() {
            Some((b'=', after)) => after.get(blanks(after)..).unwrap_or_default(),
            _ => rest.get(blanks(rest)..).unwrap_or_default(),
        };
        if name.is_empty() || rest.first() != Some(&b'=') && value.starts_with(b"=") {
            return Err(Error::Line {
                line: line_number,
                text: printable(line).into_owned(),
                expected: "`name value`, `name=value` or `name`",
            });
        }
        check_variable(name, value).map_err(|source| Error::Variable { line: line_number, source })?;
        changes = if value.is_empty() { changes.unset(name) } else { changes.set(name, value) };
    }
    Ok(changes)
}

/// Reads a whole environment, keeping the order of the lines.
pub fn parse_environment(text: &[u8]) -> Result<Environment, Error> {
    let mut environment = Environment::new();
    let mut seen = std::collections::HashMap::new();
    for (line_number, line) in logical_lines(text) {
        let invalid = |source| Error::Variable { line: line_number, source };
        let (name, Some(value)) = split_at_equals(&line) else {
            return Err(Error::Line {
                line: line_number,
                text: printable(&line).into_owned(),
                expected: "`name=value`",
            });
        };
        check_name(name).map_err(invalid)?;
        if let Some(earlier) = seen.insert(name.to_vec(), line_number) {
            return Err(Error::Repeated { line: line_number, name: printable(name).into_owned(), earlier });
        }
        environment.push(name, value).map_err(invalid)?;
    }
    Ok(environment)
}

/// Lines with continuations joined, without comments and empty lines, each with the number of its first line.
fn logical_lines(text: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut lines: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut open = false;
    for (index, raw) in text.split(|&byte| byte == b'\n').enumerate() {
        let continued = raw.last() == Some(&b'\\');
        let (content, end) =
            if continued { (raw.strip_suffix(b"\\").unwrap_or(raw), true) } else { (raw, false) };
        match lines.last_mut() {
            Some((_, line)) if open => {
                line.push(b'\n');
                line.extend_from_slice(content);
            }
            _ if raw.is_empty() || raw.starts_with(b"#") => continue,
            _ => lines.push((index + 1, content.to_vec())),
        }
        open = end;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(changes: &Changes) -> Vec<(String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        changes.iter().map(|(name, value)| (text(name), value.map(text))).collect()
    }

    #[test]
    fn scripts_take_both_forms() {
        let script = b"# comment\n\na 1\nb=2\n  c  3 4 \r\nd\ne=\nf \n  # indented\ng==h=i\nlast no newline";
        let set = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        let gone = |name: &str| (name.to_owned(), None);
        assert_eq!(
            shown(&parse_script(script).unwrap()),
            [
                set("a", "1"),
                set("b", "2"),
                set("c", "3 4 "),
                gone("d"),
                gone("e"),
                gone("f"),
                set("g", "=h=i"),
                set("last", "no newline")
            ]
        );
    }

    #[test]
    fn other_lines_are_errors_with_their_number() {
        for (script, line) in [(&b"a 1\n=2\n"[..], 2), (b"\n\n\t = x", 3), (b"a b\0c", 1), (b"a = b", 1)] {
            let error = parse_script(script).unwrap_err();
            assert!(error.to_string().starts_with(&format!("line {line}: ")), "{error}");
        }
    }

    #[test]
    fn environments_keep_order_and_line_breaks() {
        let env = parse_environment(b"# x\nb=1\n\na=x=y\nc=one\\\ntwo\n").unwrap();
        let strings: Vec<_> = env.raw_strings().collect();
        assert_eq!(strings, [&b"b=1"[..], b"a=x=y", b"c=one\ntwo"]);
        for (text, message) in [
            (&b"a=1\nb\n"[..], "line 2: \"b\" is not `name=value`"),
            (b"a=1\n\na=2\n", "line 3: \"a\" is set in line 1 already"),
            (b" a=1", "line 1: variable name \" a\" starts with a blank"),
        ] {
            let error = parse_environment(text).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }
}
