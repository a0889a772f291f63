//! Private keys under a passphrase: PKCS#8 with PBES2 (PBKDF2 with HMAC-SHA-256, AES-256-CBC; RFC 8018), as `openssl pkey
//! -aes256` writes and reads it.
//!
//! The passphrase comes from the file that `OTAD_PASSPHRASE_FILE` names, for machines, or from the terminal. It is never an
//! argument or a variable, which other users can read.

use std::io::Read as _;
use std::path::Path;

use otad_bundle::SigningKey;
use pkcs8::der::pem::PemLabel as _;
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument};

use super::signer::unusable;
use crate::exit::Exit;

/// Names the file with the passphrase; its first line counts.
const VARIABLE: &str = "OTAD_PASSPHRASE_FILE";
/// Rounds of PBKDF2: OWASP's figure for HMAC-SHA-256, about half a second of a guesser's processor.
const ITERATIONS: u32 = 600_000;

/// Puts a key under a new passphrase; the text of the file.
pub(super) fn lock(key: &SigningKey, path: &Path) -> Result<String, Exit> {
    let broken = |error: &dyn std::fmt::Display| unusable(path, &format!("cannot be encrypted: {error}"));
    let passphrase = ask(&format!("new passphrase for {}: ", path.display()), Times::Twice)?;
    let (_, plain) = SecretDocument::from_pem(&key.to_pem()).map_err(|error| broken(&error))?;
    let info = PrivateKeyInfo::try_from(plain.as_bytes()).map_err(|error| broken(&error))?;
    let (mut salt, mut vector) = ([0; 16], [0; 16]);
    let filled = std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut salt).and_then(|()| random.read_exact(&mut vector)));
    filled.map_err(|error| broken(&error))?;
    let parameters = pbes2::Parameters::pbkdf2_sha256_aes256cbc(ITERATIONS, &salt, &vector);
    let parameters = parameters.map_err(|error| broken(&error))?;
    let locked = info.encrypt_with_params(parameters, passphrase).map_err(|error| broken(&error))?;
    let text = locked.to_pem(EncryptedPrivateKeyInfo::PEM_LABEL, LineEnding::LF);
    Ok(text.map_err(|error| broken(&error))?.to_string())
}

/// Opens a key that is under a passphrase.
pub(super) fn unlock(path: &Path, text: &str) -> Result<SigningKey, Exit> {
    let (_, document) = SecretDocument::from_pem(text).map_err(|error| unusable(path, &error.to_string()))?;
    let locked = EncryptedPrivateKeyInfo::try_from(document.as_bytes())
        .map_err(|error| unusable(path, &error.to_string()))?;
    let passphrase = ask(&format!("passphrase for {}: ", path.display()), Times::Once)?;
    let plain = locked.decrypt(passphrase).map_err(|_| {
        unusable(path, "the passphrase is wrong, or the file is encrypted in a way that is not known here")
    })?;
    let plain = plain
        .to_pem(PrivateKeyInfo::PEM_LABEL, LineEnding::LF)
        .map_err(|error| unusable(path, &error.to_string()))?;
    SigningKey::from_pem(&plain).map_err(|error| unusable(path, &error.to_string()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    Twice,
}

fn ask(prompt: &str, times: Times) -> Result<String, Exit> {
    let passphrase = match std::env::var_os(VARIABLE) {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Exit::failed(format!("{VARIABLE}={}: {error}", path.display())))?;
            text.lines().next().unwrap_or_default().to_owned()
        }
        None => typed(prompt, times)?,
    };
    if passphrase.is_empty() {
        return Err(Exit::usage("the passphrase is empty"));
    }
    Ok(passphrase)
}

fn typed(prompt: &str, times: Times) -> Result<String, Exit> {
    let read = |prompt: &str| {
        rpassword::prompt_password(prompt).map_err(|error| {
            Exit::usage(format!(
                "no terminal to ask for the passphrase ({error}); name a file with it in {VARIABLE}"
            ))
        })
    };
    let passphrase = read(prompt)?;
    if times == Times::Twice && read("the same again: ")? != passphrase {
        return Err(Exit::usage("the two are not the same"));
    }
    Ok(passphrase)
}
