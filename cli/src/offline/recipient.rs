//! Who a bundle is encrypted for, and what it is read with.
//!
//! X25519 keys are the library's business. For RSA keys `openssl` wraps the content key: there is no RSA in this program.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use otad_bundle::{
    Binding, Bundle, ContentKey, Error, Input, Recipient, RecipientKey, WrapAlgorithm, Wrapped, X25519Key,
};

use crate::exit::Exit;

/// Everybody whom the options name, in their order.
pub(super) fn all(paths: &[PathBuf]) -> Result<Vec<Box<dyn Recipient>>, Exit> {
    paths.iter().map(|path| one(path)).collect()
}

fn one(path: &Path) -> Result<Box<dyn Recipient>, Exit> {
    let key = RecipientKey::read(path)?;
    Ok(match key {
        RecipientKey::X25519(_) => Box::new(key),
        RecipientKey::Rsa(_) => Box::new(Rsa { key, path: path.to_owned() }),
    })
}

/// Unlocks a bundle with the private key that was given, if one was.
pub(super) fn unlock<I: Input>(bundle: &mut Bundle<I>, key: Option<&Path>) -> Result<(), Exit> {
    match key {
        Some(path) => Ok(bundle.unlock(&X25519Key::read(path)?)?),
        None => Ok(()),
    }
}

/// An RSA key that `openssl` wraps for.
struct Rsa {
    key: RecipientKey,
    path: PathBuf,
}

impl Recipient for Rsa {
    fn wrap(&self, content: &ContentKey, _: &Binding) -> Result<Wrapped, Error> {
        let failed = |what: &str| Error::Key(format!("{}: openssl {what}", self.path.display()));
        let oaep = ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"];
        let mut child = Command::new("openssl")
            .args(["pkeyutl", "-encrypt", "-pubin", "-inkey"])
            .arg(&self.path)
            .args(oaep.iter().flat_map(|option| ["-pkeyopt", option]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&format!("is needed for RSA keys, and cannot be started: {error}")))?;
        if let Some(mut input) = child.stdin.take() {
            // One that does not read all of it tells so by its status.
            let _ = input.write_all(content.as_bytes());
        }
        let output = child.wait_with_output().map_err(|error| failed(&error.to_string()))?;
        if !output.status.success() {
            return Err(failed(&format!("ended with {}", output.status)));
        }
        Ok(Wrapped { key: self.key.id(), algorithm: WrapAlgorithm::RsaOaepSha256, bytes: output.stdout })
    }
}
