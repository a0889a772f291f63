//! `otactl channel`: saying which release is the latest, and until when.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use otad_bundle::{Bundle, Channel, FileInput, NamedRelease, Root, SignedChannel};
use otad_dbus::Code;
use serde_json::{Value, json};

use super::key::path_text;
use super::{output, signer};
use crate::args::{ChannelArgs, ChannelCommand, Globals};
use crate::exit::Exit;

const HOUR_SECONDS: u64 = 3600;

pub(crate) fn run(command: ChannelCommand, globals: &Globals) -> Result<(), Exit> {
    match command {
        ChannelCommand::Create(args) => create(&args, globals),
        ChannelCommand::Show { channel, root } => show(&channel, root.as_deref(), globals),
    }
}

fn create(args: &ChannelArgs, globals: &Globals) -> Result<(), Exit> {
    let root = Root::read(&args.root)?;
    // Only what devices would take is worth pointing at.
    let open = |path: &Path| Bundle::open(FileInput::open(path)?, &root);
    let bundle = open(&args.bundle)?;
    let mut also = Vec::new();
    for path in &args.also {
        let older = open(path)?;
        also.push(NamedRelease { release: older.release(), sequence: older.manifest().update.sequence });
    }
    also.sort_by_key(|named| std::cmp::Reverse(named.sequence));
    let issued = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let channel = Channel {
        compatible: model(args, &bundle.manifest().update.compatible)?,
        counter: args.counter,
        issued,
        expires: issued.saturating_add(args.hours.saturating_mul(HOUR_SECONDS)),
        release: bundle.release(),
        sequence: bundle.manifest().update.sequence,
        also,
    };
    let mut signed = SignedChannel::draft(&channel)?;
    for signer in signer::all(&args.signing)? {
        signed.sign(&*signer)?;
    }
    let failed = |error| Exit::coded(Code::FileIo, format!("cannot write {}: {error}", args.out.display()));
    fs::write(&args.out, signed.to_text()).map_err(failed)?;
    let text = format!(
        "{}: {} {} is the latest for {} hours\n",
        args.out.display(),
        channel.compatible,
        bundle.manifest().update.version,
        args.hours
    );
    let mut value = describe(&channel);
    if let Value::Object(map) = &mut value {
        map.insert("channel".to_owned(), path_text(&args.out).into());
    }
    output::show(globals, &text, &value)
}

fn model(args: &ChannelArgs, compatible: &[String]) -> Result<String, Exit> {
    match (&args.compatible, compatible) {
        (Some(name), known) if known.contains(name) => Ok(name.clone()),
        (None, [only]) => Ok(only.clone()),
        (Some(_) | None, known) => {
            Err(Exit::usage(format!("the bundle is for {}; name one with --compatible", known.join(", "))))
        }
    }
}

fn show(path: &Path, root: Option<&Path>, globals: &Globals) -> Result<(), Exit> {
    let signed = SignedChannel::read(path)?;
    let (channel, standing) = match root {
        Some(root) => (signed.verify(&Root::read(root)?)?, "verified"),
        None => (signed.unverified(), "signature NOT checked (give --root)"),
    };
    let text = format!("trust  {standing}\n{}", channel.to_toml());
    let mut value = describe(channel);
    if let Value::Object(map) = &mut value {
        map.insert("signature_verified".to_owned(), root.is_some().into());
    }
    output::answer(globals, &text, &value)
}

fn also(named: &NamedRelease) -> Value {
    json!({ "release": named.release.to_string(), "sequence": named.sequence })
}

fn describe(channel: &Channel) -> Value {
    json!({
        "compatible": channel.compatible,
        "counter": channel.counter,
        "issued": channel.issued,
        "expires": channel.expires,
        "release": channel.release.to_string(),
        "sequence": channel.sequence,
        "also": channel.also.iter().map(also).collect::<Value>(),
    })
}
