//! The command line: one definition feeds the parser and the help.

use std::path::PathBuf;

use clap::Parser;
use log::LevelFilter;

use crate::Limits;
use crate::assign::Undeclared;
use crate::store::Location;
use crate::tls;
use crate::webhooks::{Client, ClientError, Plain};

/// What `--help` ends with.
const AFTER_HELP: &str = "\
Examples:
  Try it out (uploads are taken from this machine only):
    otaserver --data /srv/ota --listen 127.0.0.1:8080 --root root.toml
    curl --fail-with-body -T release.otab -X POST http://127.0.0.1:8080/api/v1/artifacts

  Serve a fleet, operators anywhere:
    (umask 077; openssl rand -base64 32 > /etc/otaserver/token)
    otaserver --data /var/lib/otaserver --listen [::]:443 --upload-token-file /etc/otaserver/token \\
      --tls-certificate /etc/otaserver/server.pem --tls-key /etc/otaserver/server.key
    curl --fail-with-body -T release.otab -X POST -H @header.txt https://updates.example.com/api/v1/artifacts
  where header.txt holds the line `Authorization: Bearer TOKEN`: arguments show in the process list

  Save devices bytes (upload the new bundle first):
    otactl bundle delta --from old.otab --to release.otab -o release.otad-delta
    curl --fail-with-body -T release.otad-delta -X POST http://127.0.0.1:8080/api/v1/deltas

  Give operators tokens of their own (viewer, operator, admin):
    otaserver admin --data /var/lib/otaserver add-token alice --role operator

  Keep the state in PostgreSQL (the password from ~/.pgpass or PGPASSWORD, so that no process list shows it):
    createdb --owner ota --encoding UTF8 --template template0 fleet
    otaserver --data /var/lib/otaserver --listen [::]:8080 --database postgres://ota@db.example.com/fleet

  See what the fleet says:
    curl http://127.0.0.1:8080/api/v1/devices
    curl 'http://127.0.0.1:8080/api/v1/reports?device=gw-0001'

The first line on standard output is `listening on http://ADDRESS:PORT` (https with TLS), with the real port
when PORT is 0.
Devices poll GET /device/v1/update; set `[server] url` in their otad.toml.";

/// Stores signed bundles, tells devices which one to take, and keeps their reports.
///
/// The server holds no key: a bundle is taken only if every byte of it is vouched for by the trust root, and devices
/// check it again.
#[derive(Debug, Parser)]
#[command(name = "otaserver", version, after_help = AFTER_HELP)]
pub struct Args {
    /// Directory of this server: its lock, uploads under way and, unless told otherwise, files and database; made if missing
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// PostgreSQL database that holds the state, postgres://USER@HOST/NAME; without this, SQLite in DIR
    #[arg(long, value_name = "URL")]
    pub database: Option<Location>,

    /// Directory in which artifacts and deltas are kept; that of --data if not given. Servers that share a database share this, too
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,

    /// Address and port to listen on.
    #[arg(
        long,
        value_name = "ADDR",
        help = "Address and port to listen on, for example 127.0.0.1:8080 or [::]:8080; port 0 takes a free one"
    )]
    pub listen: String,

    /// Trust root that uploads are checked against; root.toml in DIR if not given
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,

    /// File with the token of operators; without it, only this machine may upload, list and withdraw
    #[arg(long, value_name = "FILE")]
    pub upload_token_file: Option<PathBuf>,

    /// Certificate of the server (and those that lead to its authority), in PEM: TLS 1.3 instead of plain HTTP. Read again when it changes, and on SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,

    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,

    /// Authorities of devices, in PEM: every device must show a certificate of one of them, with the URI otad:device:ID
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub device_ca: Option<PathBuf>,

    /// Authorities, in PEM, that webhooks may have certificates of, beside those of the public web
    #[arg(long, value_name = "FILE")]
    pub webhook_ca: Option<PathBuf>,

    /// Let webhooks lead to http:// anywhere; without this, only to this machine
    #[arg(long)]
    pub webhook_http: bool,

    /// Largest artifact or delta that is accepted, in bytes or with K, M, G for powers of 1024
    #[arg(long, value_name = "SIZE", default_value = "8G", value_parser = parse_size)]
    pub max_artifact_bytes: u64,

    /// Room that uploads leave free on the disk of DIR
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    pub keep_free_bytes: u64,

    /// How often devices shall ask, in seconds; each is told a little more or less
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub heartbeat_seconds: u32,

    /// Connections at the same time; fewer if the limit of open files does not allow so many
    #[arg(long, value_name = "NUMBER", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// Devices that may be at an update at the same time, over all releases
    #[arg(long, value_name = "NUMBER", default_value_t = 5000)]
    pub max_updates: u32,

    /// Refuse devices that show no token; without this, only devices that have one must show it
    #[arg(long)]
    pub require_device_tokens: bool,

    /// Offer nothing but declared releases; without this, models without one get the newest artifact
    #[arg(long)]
    pub releases_only: bool,

    /// How long records, history and audit log are kept
    #[arg(long, value_name = "DAYS", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_records_days: u32,

    /// How much to log on standard error: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LevelFilter,
}

impl Args {
    /// The database that the command line leads to.
    pub fn location(&self) -> Location {
        Location::of(self.database.as_ref(), &self.data, self.limits().max_database_bytes)
    }

    /// The files of TLS, if there is to be any.
    pub fn tls(&self) -> Option<tls::Files> {
        let (certificate, key) = (self.tls_certificate.clone()?, self.tls_key.clone()?);
        Some(tls::Files { certificate, key, device_ca: self.device_ca.clone() })
    }

    /// How webhooks are reached.
    ///
    /// # Errors
    /// The file of authorities cannot be used.
    pub fn webhooks(&self) -> Result<Client, ClientError> {
        let plain = if self.webhook_http { Plain::Anywhere } else { Plain::Here };
        Client::new(self.webhook_ca.as_deref(), plain)
    }

    /// The limits that the command line leads to.
    pub fn limits(&self) -> Limits {
        Limits {
            max_artifact_bytes: self.max_artifact_bytes,
            keep_free_bytes: self.keep_free_bytes,
            heartbeat_seconds: self.heartbeat_seconds,
            max_connections: usize::try_from(self.max_connections).unwrap_or(usize::MAX),
            max_updates: self.max_updates,
            require_device_tokens: self.require_device_tokens,
            require_device_certificates: self.device_ca.is_some(),
            undeclared: if self.releases_only { Undeclared::Nothing } else { Undeclared::Newest },
            keep_records_days: self.keep_records_days,
            ..Limits::default()
        }
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text.strip_prefix(digits).unwrap_or_default() {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err("a size is a number of bytes, or a number with K, M, G or T".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "a size begins with a whole number".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than any file can hold".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("64M", Some(64 << 20)),
            ("8G", Some(8 << 30)),
            ("8GiB", Some(8 << 30)),
            ("1K", Some(1024)),
            ("", None),
            ("G", None),
            ("-1", None),
            ("1.5G", None),
            ("8g", None),
            ("8GB", None),
            ("99999999999999T", None),
        ] {
            assert_eq!(parse_size(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
