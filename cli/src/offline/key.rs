//! `otactl key`: making keys and naming them.

use std::path::Path;

use otad_bundle::{PublicKey, RecipientKey, Signer as _, SigningKey, X25519Key};
use serde_json::json;

use super::{output, passphrase, signer};
use crate::args::{Globals, KeyCommand};
use crate::exit::Exit;

pub(crate) fn run(command: KeyCommand, globals: &Globals) -> Result<(), Exit> {
    match command {
        KeyCommand::Generate { out, device: true, .. } => generate_device(&out, globals),
        KeyCommand::Generate { out, encrypt, device: false } => generate(&out, encrypt, globals),
        KeyCommand::Id { key } => id(&key, globals),
    }
}

fn generate(out: &Path, encrypt: bool, globals: &Globals) -> Result<(), Exit> {
    let key = SigningKey::generate();
    let public = if encrypt {
        let locked = passphrase::lock(&key, out)?;
        key.write_new_as(out, &locked)?
    } else {
        key.write_new(out)?
    };
    let id = key.key_id();
    let text = format!(
        "private key  {}   (mode 0600; keep it offline, with a copy)\npublic key   {}\nkey id       {id}\n",
        out.display(),
        public.display()
    );
    let value = json!({"private": path_text(out), "public": path_text(&public), "id": id.to_string()});
    output::show(globals, &text, &value)
}

/// Makes a key that bundles can be encrypted for.
fn generate_device(out: &Path, globals: &Globals) -> Result<(), Exit> {
    let key = X25519Key::generate()?;
    let (public, id) = (key.write_new(out)?, key.public().id().to_string());
    let text = format!(
        "private key  {}   (mode 0600; for the device and nobody else)\npublic key   {}\nkey id       {id}\n",
        out.display(),
        public.display()
    );
    let value = json!({"private": path_text(out), "public": path_text(&public), "id": id});
    output::show(globals, &text, &value)
}

fn id(path: &Path, globals: &Globals) -> Result<(), Exit> {
    // Either half names the key. A file that is neither is reported as what people usually give: the public one.
    let id = match PublicKey::read(path) {
        Ok(public) => public.id(),
        Err(problem) => match (RecipientKey::read(path), X25519Key::read(path)) {
            (Ok(public), _) => public.id(),
            (_, Ok(device)) => device.public().id(),
            _ => signer::read(path).map_err(|_| problem)?.key_id(),
        },
    };
    let id = id.to_string();
    output::answer(globals, &format!("{id}\n"), &json!({"id": id}))
}

/// A path for JSON, which knows no other bytes than UTF-8.
pub(super) fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
