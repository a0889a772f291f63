//! Who signs: a key file, a key file under a passphrase, or a command of the caller's that never shows the key.
//!
//! A command gets the message on standard input and writes the signature to standard output, as 64 raw bytes or in base64. That
//! is enough for a token, an HSM or a signing service; what comes back is verified before it is written anywhere.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use otad_bundle::{Error, PublicKey, SIGNATURE_BYTES, Signer, SigningKey};
use otad_dbus::Code;

use super::passphrase;
use crate::args::SignArgs;
use crate::exit::Exit;

/// Longest answer of a signing command that is looked at, in bytes: base64 of a signature takes 88.
const ANSWER_LIMIT_BYTES: usize = 256;

/// All signers that the options name, in their order.
pub(super) fn all(args: &SignArgs) -> Result<Vec<Box<dyn Signer>>, Exit> {
    args.keys.iter().map(|path| one(path, args.sign_command.as_deref())).collect()
}

fn one(path: &Path, command: Option<&str>) -> Result<Box<dyn Signer>, Exit> {
    Ok(match command {
        None => Box::new(read(path)?),
        Some(command) => {
            let public = PublicKey::read(path)?;
            Box::new(External { public, path: path.to_owned(), command: command.to_owned() })
        }
    })
}

/// Reads a private key, asking for its passphrase when it has one.
pub(super) fn read(path: &Path) -> Result<SigningKey, Exit> {
    let text = std::fs::read_to_string(path);
    let encrypted = text.as_ref().is_ok_and(|text| text.contains("BEGIN ENCRYPTED PRIVATE KEY"));
    match text {
        Ok(text) if encrypted => passphrase::unlock(path, &text),
        _ => Ok(SigningKey::read(path)?),
    }
}

struct External {
    public: PublicKey,
    path: PathBuf,
    command: String,
}

impl Signer for External {
    fn public_key(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], Error> {
        let failed = |what: String| Error::Key(format!("`{}` {what}", self.command));
        let mut child = Command::new("sh")
            .args(["-c", &self.command])
            .env("OTAD_KEY_ID", self.key_id().to_string())
            .env("OTAD_PUBLIC_KEY", &self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("cannot be started: {error}")))?;
        if let Some(mut input) = child.stdin.take() {
            // One that does not read all of it tells so by its answer.
            let _ = input.write_all(message);
        }
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(format!("ended with {}", output.status)));
        }
        signature(&output.stdout)
            .ok_or_else(|| failed(format!("wrote {} bytes, which are no signature", output.stdout.len())))
    }
}

/// 64 raw bytes, or base64 of them on one line or several.
fn signature(answer: &[u8]) -> Option<[u8; SIGNATURE_BYTES]> {
    if let Ok(raw) = answer.try_into() {
        return Some(raw);
    }
    let text = std::str::from_utf8(answer.get(..answer.len().min(ANSWER_LIMIT_BYTES))?).ok()?;
    let text: String = text.split_whitespace().collect();
    otad_bundle::signature_from_base64(&text)
}

/// The failure of a key that cannot be used.
pub(super) fn unusable(path: &Path, problem: &str) -> Exit {
    Exit::coded(Code::KeyInvalid, format!("{}: {problem}", path.display()))
}
