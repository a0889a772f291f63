//! `otactl trust`: making and showing `root.toml`, and turning `--root` and `--key` into a root.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use otad_bundle::{PublicKey, Root};
use otad_dbus::Code;
use serde_json::{Value, json};

use super::output;
use crate::args::{Globals, OptionalTrust, TrustCommand};
use crate::exit::Exit;
use crate::show;

pub(crate) fn run(command: TrustCommand, globals: &Globals) -> Result<(), Exit> {
    match command {
        TrustCommand::Create { keys, threshold, out } => create(&keys, threshold, &out, globals),
        TrustCommand::Show { root } => show_root(&Root::read(&root)?, globals),
    }
}

/// The root that the options name, or `None` when they name none.
pub(super) fn chosen(trust: &OptionalTrust) -> Result<Option<Root>, Exit> {
    match (&trust.root, trust.keys.as_slice()) {
        (Some(path), _) => Ok(Some(Root::read(path)?)),
        (None, []) => Ok(None),
        (None, paths) => Ok(Some(Root::with_release_keys(&read_keys(paths)?))),
    }
}

fn read_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, Exit> {
    Ok(paths.iter().map(|path| PublicKey::read(path)).collect::<Result<_, _>>()?)
}

fn create(paths: &[PathBuf], threshold: usize, out: &Path, globals: &Globals) -> Result<(), Exit> {
    let keys = read_keys(paths)?;
    let distinct: BTreeSet<_> = keys.iter().map(PublicKey::id).collect();
    if distinct.len() < keys.len() {
        return Err(Exit::usage("the same key is given twice"));
    }
    if threshold == 0 || threshold > keys.len() {
        return Err(Exit::usage(format!("--threshold {threshold} with {} keys", keys.len())));
    }
    let root = Root::with_release_keys(&keys).release_threshold(threshold)?;
    let text = root.to_toml();
    // Devices will read this file for years: never write one that this program does not read.
    Root::parse(text.as_bytes())?;
    let failed = |error| Exit::coded(Code::FileIo, format!("cannot create {}: {error}", out.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(out).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    let text = format!("{}: {threshold} of {} keys must sign a release\n", out.display(), keys.len());
    output::show(globals, &text, &describe(&root))
}

fn show_root(root: &Root, globals: &Globals) -> Result<(), Exit> {
    let mut text = format!("version  {}\n", root.version());
    if let Some(expires) = root.expires() {
        text.push_str(&format!("expires  {expires}\n"));
    }
    let mut rows = vec![["ROLE", "THRESHOLD", "KEYS"].map(str::to_owned).to_vec()];
    for (role, quorum) in root.roles() {
        let mut first =
            vec![role.name().to_owned(), format!("{} of {}", quorum.threshold, quorum.keys.len())];
        for key in &quorum.keys {
            first.push(key.to_string());
            rows.push(std::mem::replace(&mut first, vec![String::new(), String::new()]));
        }
    }
    text.push('\n');
    text.push_str(&show::table(&rows));
    output::answer(globals, &text, &describe(root))
}

fn describe(root: &Root) -> Value {
    let roles: serde_json::Map<String, Value> = root
        .roles()
        .map(|(role, quorum)| {
            let keys: Vec<_> = quorum.keys.iter().map(ToString::to_string).collect();
            (role.name().to_owned(), json!({"threshold": quorum.threshold, "keys": keys}))
        })
        .collect();
    json!({"version": root.version(), "expires": root.expires(), "roles": roles})
}
