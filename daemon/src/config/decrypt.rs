//! The section `[decrypt]`: what this device reads encrypted bundles with.

use std::path::PathBuf;

use toml::Spanned;

use super::{Place, absolute, raw};
use crate::failure::Failure;

/// What this device reads encrypted bundles with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decrypt {
    /// A private X25519 key in a file.
    Key(PathBuf),
    /// A command that unwraps content keys by a key that it never shows.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// PEM file of the public half, by which the device finds itself among the recipients.
        public: PathBuf,
    },
}

pub(super) fn validate(raw: raw::Decrypt, place: &Place<'_>) -> Result<Decrypt, Failure> {
    match (raw.key, raw.command, raw.public) {
        (Some(key), None, None) => Ok(Decrypt::Key(absolute(key, place)?)),
        (None, Some(command), Some(public)) => {
            let span = command.span();
            match command.get_ref().first() {
                Some(program) if program.starts_with('/') => {}
                Some(program) => {
                    return Err(place.fail(span, format!("`{program}` is not an absolute path")));
                }
                None => return Err(place.fail(span, "`command` is empty; name a program and its arguments")),
            }
            Ok(Decrypt::Command { command: command.into_inner(), public: absolute(public, place)? })
        }
        (None, Some(command), None) => {
            let what = "`command` needs `public`, the public half of the key that it knows";
            Err(place.fail(command.span(), what))
        }
        (None, None, public) => {
            let span = public.as_ref().map_or(0..0, Spanned::span);
            Err(place.fail(span, "[decrypt] needs `key`, or `command` and `public`"))
        }
        (Some(key), _, _) => {
            Err(place.fail(key.span(), "`key` is all there is then: no `command`, no `public`"))
        }
    }
}
