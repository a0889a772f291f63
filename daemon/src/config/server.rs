//! The section `[server]`: where to ask for updates, and how both sides prove who they are.

use std::path::PathBuf;
use std::time::Duration;

use otad_bundle::Digest;
use toml::Spanned;

use super::{Place, absolute, raw};
use crate::failure::Failure;

/// Where to ask for updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Base URL, without a slash at the end.
    pub url: String,
    /// Mean time between two questions.
    pub interval: Duration,
    /// PEM file of the authorities that may vouch for servers, instead of those of the public web.
    pub ca: Option<PathBuf>,
    /// SHA-256 of the public keys (SubjectPublicKeyInfo, DER) that this server may have; any that is certified when empty.
    pub pins: Vec<Digest>,
    /// What this device shows to this server when asked who it is.
    pub identity: Option<Identity>,
    /// The file with the token that this server gave this device; read for each question and report.
    pub token_file: Option<PathBuf>,
}

/// The files of a device's certificate. They are read at each connection, so that a renewed one is used at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// PEM file of the certificate and the chain to its authority.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

pub(super) fn validate(raw: raw::Server, place: &Place<'_>) -> Result<Server, Failure> {
    let url = raw.url.get_ref();
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(place.fail(raw.url.span(), format!("`{url}` is neither an http:// nor an https:// URL")));
    }
    let interval = *raw.interval_seconds.get_ref();
    if interval == 0 {
        return Err(
            place.fail(raw.interval_seconds.span(), "`interval-seconds` is 0; the shortest interval is 1")
        );
    }
    // Whoever wrote one of these believes the line to be encrypted.
    let ca = raw.ca.as_ref().map(Spanned::span);
    let pin = raw.pin.first().map(Spanned::span);
    let client = raw.client_certificate.as_ref().or(raw.client_key.as_ref()).map(Spanned::span);
    let token = raw.token_file.as_ref().map(Spanned::span);
    if let Some(span) = ca.or(pin).or(client).or(token)
        && !url.starts_with("https://")
    {
        return Err(place.fail(span, format!("this is for encrypted connections, and `{url}` is none")));
    }
    let identity = match (raw.client_certificate, raw.client_key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            Some(Identity { certificate: absolute(certificate, place)?, key: absolute(key, place)? })
        }
        (Some(alone), None) => {
            return Err(place.fail(alone.span(), "`client-certificate` needs `client-key`"));
        }
        (None, Some(alone)) => {
            return Err(place.fail(alone.span(), "`client-key` needs `client-certificate`"));
        }
    };
    Ok(Server {
        url: url.trim_end_matches('/').to_owned(),
        interval: Duration::from_secs(interval.into()),
        ca: raw.ca.map(|file| absolute(file, place)).transpose()?,
        pins: raw.pin.into_iter().map(|pin| validate_pin(&pin, place)).collect::<Result<_, _>>()?,
        identity,
        token_file: raw.token_file.map(|file| absolute(file, place)).transpose()?,
    })
}

fn validate_pin(pin: &Spanned<String>, place: &Place<'_>) -> Result<Digest, Failure> {
    pin.get_ref().parse().map_err(|_| {
        let what = format!("pin `{}` is not 64 hexadecimal digits", pin.get_ref());
        let next = "take the SHA-256 of the server's public key (docs/configuration.md says how)";
        place.fail(pin.span(), format!("{what}; {next}"))
    })
}
