//! Text and JSON for people and programs.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use bootenv::txn::{CopyState, Health};
use bootenv::{BootEnv, Environment, FileStore, Store};

use super::args::{Form, Print};

/// Writes to standard output.
pub(super) fn write_all(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error),
        Ok(()) => super::flush(&mut out),
    }
}

/// Prints all variables, or those asked for that are set.
pub(super) fn variables(environment: &Environment, print: &Print) -> io::Result<()> {
    let chosen: Vec<(&[u8], &[u8])> = if print.names.is_empty() {
        environment.iter().filter_map(|(name, value)| Some((name, value?))).collect()
    } else {
        let names = print.names.iter().map(|name| name.as_bytes());
        names.filter_map(|name| Some((name, environment.get(name)?))).collect()
    };
    let mut out = Vec::new();
    match print.form {
        Form::Json => json_object(&mut out, &chosen),
        Form::Values => {
            chosen.iter().for_each(|(_, value)| out.extend_from_slice(&[value, &b"\n"[..]].concat()))
        }
        Form::Lines => {
            chosen
                .iter()
                .for_each(|(name, value)| out.extend_from_slice(&[name, &b"="[..], value, b"\n"].concat()));
        }
    }
    write_all(&out)
}

fn json_object(out: &mut Vec<u8>, variables: &[(&[u8], &[u8])]) {
    let members: Vec<String> = variables
        .iter()
        .map(|(name, value)| format!("{}: {}", json_string(name), json_string(value)))
        .collect();
    let body = if members.is_empty() { String::new() } else { format!("\n  {}\n", members.join(",\n  ")) };
    out.extend_from_slice(format!("{{{body}}}\n").as_bytes());
}

/// A JSON string. Bytes that are not UTF-8 become U+FFFD: JSON cannot carry them.
fn json_string(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            control if u32::from(control) < 0x20 => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// One word for the whole.
fn verdict(health: &Health) -> &'static str {
    match health.current {
        None => "lost",
        Some(_) if health.is_degraded() => "degraded",
        Some(_) => "healthy",
    }
}

/// Prints which copies are valid, which is current and what is wrong.
pub(super) fn health(
    env: &BootEnv<FileStore>,
    health: &Health,
    environment: Option<&Environment>,
    json: bool,
) -> io::Result<()> {
    let text =
        if json { health_json(env, health, environment) } else { health_text(env, health, environment) };
    write_all(text.as_bytes())
}

fn health_text(env: &BootEnv<FileStore>, health: &Health, environment: Option<&Environment>) -> String {
    let mut lines = vec![verdict(health).to_owned()];
    for (copy, state) in health.copies() {
        let place = env.store().place(copy);
        let current = if health.current == Some(copy) { ", current" } else { "" };
        lines.push(match state {
            CopyState::Valid { flags } if health.second.is_some() => {
                format!("{copy} ({place}): valid, generation {flags}{current}")
            }
            CopyState::Valid { .. } => format!("{copy} ({place}): valid{current}"),
            CopyState::Bad(bad) => format!("{copy} ({place}): bad, {bad}"),
        });
    }
    if let Some(environment) = environment {
        let (used, capacity) = (environment.needed(), env.capacity());
        lines.push(format!("{} variables in {used} of {capacity} bytes", environment.len()));
    }
    match health.current {
        None => lines
            .push("next: check the configuration; `bootenv init FILE` writes a new environment".to_owned()),
        Some(_) if health.is_degraded() => lines.push("next: any change repairs the bad copy".to_owned()),
        Some(_) => {}
    }
    if health.second.is_none() && !env.store().replaces_atomically() {
        lines
            .push("note: a single copy on a device is not safe against power cuts; configure two".to_owned());
    }
    lines.join("\n") + "\n"
}

fn health_json(env: &BootEnv<FileStore>, health: &Health, environment: Option<&Environment>) -> String {
    let copies: Vec<String> = health
        .copies()
        .map(|(copy, state)| {
            let place = json_string(env.store().place(copy).as_bytes());
            let current = health.current == Some(copy);
            let (valid, flags, problem) = match state {
                CopyState::Valid { flags } => (true, flags.to_string(), "null".to_owned()),
                CopyState::Bad(bad) => (false, "null".to_owned(), json_string(bad.to_string().as_bytes())),
            };
            format!(
                "{{\"copy\": {}, \"place\": {place}, \"valid\": {valid}, \"current\": {current}, \"flags\": {flags}, \"problem\": {problem}}}",
                copy.index() + 1
            )
        })
        .collect();
    let used = environment.map_or("null".to_owned(), |environment| environment.needed().to_string());
    format!(
        "{{\"state\": \"{}\", \"used\": {used}, \"capacity\": {}, \"copies\": [\n  {}\n]}}\n",
        verdict(health),
        env.capacity(),
        copies.join(",\n  ")
    )
}
