//! `otactl bundle`: inspect, verify, sign, extract. Making one is in [`super::create`], deltas are in [`super::delta`].

use std::fs::File;
use std::path::{Path, PathBuf};

use otad_bundle::{
    Bundle, FileInput, ImageSummary, Input, Manifest, Root, StreamInput, Summary, Unverified,
    add_signature_and_roots, extract, verify,
};
use otad_dbus::Code;
use serde_json::{Value, json};

use super::key::path_text;
use super::progress::Bar;
use super::{create, delta, output, recipient, signer, trust};
use crate::args::{BundleCommand, Globals, OptionalTrust, RequiredTrust, SignArgs};
use crate::exit::Exit;
use crate::show::{Style, Tone, human_bytes, printable, table};

pub(crate) fn run(command: BundleCommand, globals: &Globals) -> Result<(), Exit> {
    match command {
        BundleCommand::Create(args) => create::run(&args, globals),
        BundleCommand::Delta(args) => delta::run(&args, globals),
        BundleCommand::Inspect { bundle, .. } if delta::is_delta(&bundle) => delta::inspect(&bundle, globals),
        BundleCommand::Inspect { bundle, device_key, trust } => {
            inspect(&bundle, device_key.as_deref(), &trust, globals)
        }
        BundleCommand::Verify { bundle, device_key, trust } => {
            verify_all(&bundle, device_key.as_deref(), trust, globals)
        }
        BundleCommand::Sign { bundle, signing, with_root, out } => {
            sign(&bundle, &signing, &with_root, out.as_deref(), globals)
        }
        BundleCommand::Extract { bundle, device_key, trust, out, images } => {
            let key = device_key.as_deref();
            extract_images(&bundle, key, trust, (&out, &images), globals)
        }
    }
}

/// Opens a file, a pipe or, for `-`, standard input.
fn open(path: &Path) -> Result<Box<dyn Input>, Exit> {
    if path == Path::new("-") {
        return Ok(Box::new(StreamInput::new(std::io::stdin().lock())));
    }
    let failed = |error| Exit::coded(Code::FileIo, format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let again = file.try_clone().map_err(failed)?;
    match FileInput::new(file) {
        Ok(input) => Ok(Box::new(input)),
        // A named pipe or /dev/fd/N: it only goes forward.
        Err(_) => Ok(Box::new(StreamInput::new(again))),
    }
}

fn open_verified(
    path: &Path,
    key: Option<&Path>,
    trust: RequiredTrust,
) -> Result<Bundle<Box<dyn Input>>, Exit> {
    let root: Root = trust::chosen(&trust.into())?.ok_or_else(|| Exit::usage("give --root or --key"))?;
    let mut bundle = Bundle::open(open(path)?, &root)?;
    recipient::unlock(&mut bundle, key)?;
    Ok(bundle)
}

fn verify_all(path: &Path, key: Option<&Path>, trust: RequiredTrust, globals: &Globals) -> Result<(), Exit> {
    let mut bundle = open_verified(path, key, trust)?;
    let bar = Bar::new(globals, "verifying");
    verify(&mut bundle, &mut |progress| bar.set(progress))?;
    drop(bar);
    let signers: Vec<_> = bundle.signed_by().iter().map(ToString::to_string).collect();
    let update = &bundle.manifest().update;
    let text = format!(
        "ok: every byte of {} holds{}\nversion    {} (sequence {})\nrelease    {}\nsigned by  {}\n",
        path.display(),
        if bundle.is_locked() {
            ", as it is stored (give --device-key to check what is encrypted)"
        } else {
            ""
        },
        update.version,
        update.sequence,
        bundle.release(),
        signers.join(", ")
    );
    let value = json!({
        "verified": true,
        "decrypted": !bundle.is_locked(),
        "version": update.version.to_string(),
        "sequence": update.sequence,
        "release": bundle.release().to_string(),
        "size": bundle.total_size(),
        "signed_by": signers,
    });
    output::show(globals, &text, &value)
}

fn sign(
    path: &Path,
    signing: &SignArgs,
    with_root: &[PathBuf],
    out: Option<&Path>,
    globals: &Globals,
) -> Result<(), Exit> {
    let [key] = signer::all(signing)?.try_into().map_err(|_| Exit::usage("one --key at a time"))?;
    let roots = trust::roots(with_root)?;
    let out = out.unwrap_or(path);
    let bar = Bar::new(globals, "verifying");
    add_signature_and_roots(path, &*key, roots.as_ref(), out, &mut |progress| bar.set(progress))?;
    drop(bar);
    let id = key.key_id().to_string();
    let value = json!({"bundle": path_text(out), "signed_by": id});
    output::show(globals, &format!("{}: signed by {id}\n", out.display()), &value)
}

fn extract_images(
    path: &Path,
    key: Option<&Path>,
    trust: RequiredTrust,
    (out, roles): (&Path, &[String]),
    globals: &Globals,
) -> Result<(), Exit> {
    let mut bundle = open_verified(path, key, trust)?;
    let bar = Bar::new(globals, "extracting");
    let files: Vec<PathBuf> = extract(&mut bundle, out, roles, &mut |progress| bar.set(progress))?;
    drop(bar);
    let text: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    let value = json!({"files": files.iter().map(|file| path_text(file)).collect::<Vec<_>>()});
    output::show(globals, &text, &value)
}

/// Who is behind what `inspect` shows.
enum Standing {
    /// The trust root accepted these keys.
    Verified(Vec<String>),
    /// Nobody was asked; these keys are named in the file.
    Unchecked(Vec<String>),
}

/// Ids of the keys that can read a bundle; none where everybody can.
pub(super) fn readers(manifest: &Manifest) -> Vec<String> {
    let recipients = manifest.encryption.iter().flat_map(|encryption| &encryption.recipients);
    recipients.map(|wrapped| format!("{} ({})", wrapped.key, wrapped.algorithm.name())).collect()
}

fn inspect(path: &Path, key: Option<&Path>, trust: &OptionalTrust, globals: &Globals) -> Result<(), Exit> {
    let input = open(path)?;
    let (summary, standing) = match trust::chosen(trust)? {
        Some(root) => {
            let mut bundle = Bundle::open(input, &root)?;
            recipient::unlock(&mut bundle, key)?;
            let signers = bundle.signed_by().iter().map(ToString::to_string).collect();
            (bundle.summarise()?, Standing::Verified(signers))
        }
        None if key.is_some() => return Err(Exit::usage("--device-key needs --root or --key")),
        None => {
            let unverified = Unverified::open(input)?;
            let named = unverified.signatures()?.iter().map(|entry| entry.key.to_string()).collect();
            (unverified.summarise_unverified()?, Standing::Unchecked(named))
        }
    };
    output::answer(
        globals,
        &describe(&summary, &standing, Style::of_stdout()),
        &describe_json(&summary, &standing),
    )
}

fn describe(summary: &Summary, standing: &Standing, style: Style) -> String {
    let update = &summary.manifest.update;
    let (verdict, keys) = match standing {
        Standing::Verified(keys) => (style.paint(Tone::Good, "verified"), ("signed by", keys)),
        Standing::Unchecked(keys) => {
            let loud = "signature NOT checked: anybody can have made this (give --root or --key)";
            (style.paint(Tone::Bad, loud), ("claims to be by", keys))
        }
    };
    let recovery = summary.manifest.recovery;
    let recovery = recovery.map(|recovery| format!("a way back from sequences up to {}", recovery.from));
    let mut rows: Vec<Vec<String>> = [
        ("trust", verdict),
        (keys.0, keys.1.join(", ")),
        ("version", update.version.to_string()),
        ("sequence", update.sequence.to_string()),
        ("recovery", recovery.unwrap_or_default()),
        ("compatible", printable(&update.compatible.join(", "))),
        ("description", printable(&update.description)),
        ("release", summary.release.to_string()),
        ("readable by", readers(&summary.manifest).join(", ")),
        ("size", format!("{} ({} bytes)", human_bytes(summary.total_size), summary.total_size)),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect();
    rows.retain(|row| row.iter().all(|cell| !cell.is_empty()));
    format!("{}\n{}", table(&rows), images_table(summary))
}

fn images_table(summary: &Summary) -> String {
    let head = ["IMAGE", "KIND", "SIZE", "STORED", "RATIO", "CHUNKS", "OF WHICH", "SHA-256"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (number, image) in summary.manifest.images.iter().enumerate() {
        let counts = summary.images.get(number);
        rows.push(vec![
            image.role.clone(),
            image.kind.name().to_owned(),
            human_bytes(image.size),
            human_bytes(image.payload_size),
            percent(image.payload_size, image.size),
            image.chunk_count().to_string(),
            counts.map_or_else(hidden, kinds),
            counts.map_or_else(hidden, |_| image.sha256.short()),
        ]);
    }
    table(&rows)
}

/// What stands for what is encrypted.
fn hidden() -> String {
    "encrypted".to_owned()
}

fn kinds(counts: &ImageSummary) -> String {
    let present = counts.kinds.iter().filter(|(_, count)| count.chunks > 0);
    present.map(|(kind, count)| format!("{} {}", count.chunks, kind.name())).collect::<Vec<_>>().join(", ")
}

/// One decimal of a percentage, exact in integers.
fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn describe_json(summary: &Summary, standing: &Standing) -> Value {
    let update = &summary.manifest.update;
    let (verified, keys) = match standing {
        Standing::Verified(keys) => (true, keys),
        Standing::Unchecked(keys) => (false, keys),
    };
    let images: Vec<Value> = summary
        .manifest
        .images
        .iter()
        .enumerate()
        .map(|(number, image)| {
            let counts = summary.images.get(number);
            let kinds: serde_json::Map<String, Value> = counts
                .iter()
                .flat_map(|counts| &counts.kinds)
                .map(|(kind, count)| {
                    let count = json!({"chunks": count.chunks, "plain": count.plain, "stored": count.stored});
                    (kind.name().to_owned(), count)
                })
                .collect();
            json!({
                "role": image.role,
                "kind": image.kind.name(),
                "size": image.size,
                "sha256": counts.map(|_| image.sha256.to_string()),
                "payload_size": image.payload_size,
                "chunks": image.chunk_count(),
                "kinds": kinds,
            })
        })
        .collect();
    json!({
        "signature_verified": verified,
        "signed_by": keys,
        "version": update.version.to_string(),
        "sequence": update.sequence,
        "recovery_from": summary.manifest.recovery.map(|recovery| recovery.from),
        "compatible": update.compatible,
        "description": update.description,
        "release": summary.release.to_string(),
        "recipients": readers(&summary.manifest),
        "size": summary.total_size,
        "images": images,
    })
}
