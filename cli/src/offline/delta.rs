//! `otactl bundle delta`: making a delta, and showing one.

use std::num::NonZeroUsize;
use std::path::Path;

use otad_bundle::delta::{Announced, Delta, Header, make_delta_with_key};
use otad_bundle::{DeviceKey, FileInput, X25519Key};
use serde_json::{Value, json};

use super::key::path_text;
use super::output;
use super::progress::Bar;
use crate::args::{DeltaArgs, Globals};
use crate::exit::Exit;
use crate::show::{human_bytes, table};

pub(super) fn run(args: &DeltaArgs, globals: &Globals) -> Result<(), Exit> {
    let threads = match args.threads {
        None => None,
        Some(count) => {
            Some(NonZeroUsize::new(count).ok_or_else(|| Exit::usage("--threads must be at least 1"))?)
        }
    };
    let key = args.device_key.as_deref().map(X25519Key::read).transpose()?;
    let key = key.as_ref().map(|key| key as &dyn DeviceKey);
    let bar = Bar::new(globals, "comparing");
    let made = make_delta_with_key(&args.from, &args.to, &args.out, threads, key, &mut |progress| {
        bar.set(progress);
    })?;
    drop(bar);
    let mut text = format!(
        "{}: {}, the bundle has {}\n",
        args.out.display(),
        human_bytes(made.size),
        human_bytes(made.bundle_size)
    );
    if !made.left_out.is_empty() {
        text.push_str(&format!("not in it, because the old bundle has none: {}\n", made.left_out.join(", ")));
    }
    text.push_str(&describe(&made.header));
    let mut value = describe_json(&made.header);
    if let Value::Object(fields) = &mut value {
        fields.insert("delta".into(), path_text(&args.out).into());
        fields.insert("bundle_size".into(), made.bundle_size.into());
        fields.insert("left_out".into(), made.left_out.into());
    }
    output::show(globals, &text, &value)
}

/// Shows header and directory; of an encrypted delta only what it says to everybody.
pub(super) fn inspect(path: &Path, globals: &Globals) -> Result<(), Exit> {
    let announced = Announced::read(FileInput::open(path)?).map_err(otad_bundle::Error::from)?;
    if announced.encrypted {
        let (from, to, size) = (announced.old_release, announced.new_release, announced.total_size);
        let text = format!(
            "from release  {from}\nto release    {to}\nsize          {} ({size} bytes)\nencrypted     its parts show to recipients of the new bundle only\n",
            human_bytes(size)
        );
        let (from, to) = (from.to_string(), to.to_string());
        let value = json!({"size": size, "old_release": from, "new_release": to, "encrypted": true});
        return output::answer(globals, &text, &value);
    }
    let delta = Delta::open(FileInput::open(path)?).map_err(otad_bundle::Error::from)?;
    output::answer(globals, &describe(delta.header()), &describe_json(delta.header()))
}

/// Whether a file is meant to be a delta, by its name: its content is not read twice.
pub(super) fn is_delta(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "otad-delta")
}

fn describe(header: &Header) -> String {
    let head = ["SECTION", "FROM", "TO", "DELTA", "OLD SHA-256", "NEW SHA-256"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for section in &header.sections {
        rows.push(vec![
            section.to_string(),
            human_bytes(section.old.size),
            human_bytes(section.new.size),
            human_bytes(section.stored()),
            section.old.sha256.short(),
            section.new.sha256.short(),
        ]);
    }
    let releases = format!("from release  {}\nto release    {}\n", header.old_release, header.new_release);
    format!("{releases}\n{}", table(&rows))
}

fn describe_json(header: &Header) -> Value {
    let sections = header.sections.iter().map(|section| {
        json!({
            "role": section.role,
            "part": section.part.name(),
            "old_size": section.old.size,
            "old_sha256": section.old.sha256.to_string(),
            "new_size": section.new.size,
            "new_sha256": section.new.sha256.to_string(),
            "stored": section.stored(),
        })
    });
    json!({
        "size": header.total_size,
        "old_release": header.old_release.to_string(),
        "new_release": header.new_release.to_string(),
        "sections": sections.collect::<Vec<_>>(),
    })
}
