//! Ed25519 keys: files, identities, signing.
//!
//! Owns the two key files (PKCS#8 and SubjectPublicKeyInfo PEM, as `openssl pkey` reads and writes them), the key id and
//! the [`Signer`] trait behind which a smart card or an external command can stand. A [`PublicKey`] that exists is a
//! canonical point of large order: weak keys cannot be loaded. It decides nothing about trust (see [`crate::trust`]).

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ed25519_compact as ed25519;

use crate::digest::{Digest, from_hex, to_hex};
use crate::error::Error;

/// Length of an Ed25519 signature in bytes (RFC 8032).
pub const SIGNATURE_BYTES: usize = 64;

/// Upper bound of a key file in bytes; a PEM file has a few hundred.
pub(crate) const KEY_LIMIT_BYTES: usize = 64 * 1024;

/// The name of a key: the first 16 bytes of the SHA-256 of the 32-byte raw public key, as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// That of a key with these bytes.
    pub(crate) fn of(key: &[u8]) -> KeyId {
        KeyId(Digest::of(key).truncated())
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        from_hex(text)
            .map(KeyId)
            .ok_or_else(|| Error::Key("an id is 32 lower-case hexadecimal digits".into()))
    }
}

/// A public Ed25519 key that can be trusted: canonical encoding, not of small order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(ed25519::PublicKey);

impl PublicKey {
    /// Takes the 32 raw bytes (RFC 8032).
    ///
    /// # Errors
    /// Refuses encodings that are not canonical, are no point of the curve, or have a small order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<PublicKey, Error> {
        let key = ed25519::PublicKey::new(bytes);
        key.validate().map_err(|error| {
            let weak = error == ed25519::Error::WeakPublicKey;
            let problem = if weak { "is weak (small order)" } else { "is not a canonical Ed25519 point" };
            Error::Key(format!("the public key {problem}"))
        })?;
        Ok(PublicKey(key))
    }

    /// The 32 raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id under which signatures and roots name this key.
    pub fn id(&self) -> KeyId {
        KeyId::of(self.as_bytes())
    }

    /// Reads a `PUBLIC KEY` PEM text.
    pub fn from_pem(text: &str) -> Result<PublicKey, Error> {
        if text.contains("PRIVATE KEY-----") {
            return Err(Error::Key("this is a private key: give its public half, KEY.pub".into()));
        }
        let key = ed25519::PublicKey::from_pem(text)
            .map_err(|_| Error::Key("not an Ed25519 public key in PEM form (`BEGIN PUBLIC KEY`)".into()))?;
        PublicKey::from_bytes(*key)
    }

    /// The `PUBLIC KEY` PEM text, as `openssl pkey -pubin` reads it.
    pub fn to_pem(&self) -> String {
        self.0.to_pem()
    }

    /// Reads a public key file.
    pub fn read(path: &Path) -> Result<PublicKey, Error> {
        PublicKey::from_pem(&read_text(path, KEY_LIMIT_BYTES)?).map_err(|error| at(path, error))
    }

    /// Whether `signature` is this key's strict Ed25519 signature of `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.0.verify(message, &ed25519::Signature::new(*signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// Something that signs: a key file now; a token or an external command behind the same trait.
pub trait Signer {
    /// The public half, so that what comes back can be checked before it is written anywhere.
    fn public_key(&self) -> PublicKey;

    /// Signs `message` (already in its pre-authentication encoding).
    fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], Error>;

    /// The id of the key.
    fn key_id(&self) -> KeyId {
        self.public_key().id()
    }
}

/// A private key held in memory, from a PKCS#8 PEM file; wiped when dropped.
pub struct SigningKey(ed25519::KeyPair);

impl SigningKey {
    /// Makes a new key from the system's random numbers.
    pub fn generate() -> SigningKey {
        SigningKey(ed25519::KeyPair::generate())
    }

    /// Makes the key of a 32-byte seed; for tests and for keys that are derived elsewhere.
    pub fn from_seed(seed: [u8; 32]) -> Result<SigningKey, Error> {
        ed25519::KeyPair::try_from_seed(ed25519::Seed::new(seed))
            .map(SigningKey)
            .map_err(|_| Error::Key("the seed of a key must not be all zeros".into()))
    }

    /// Reads a `PRIVATE KEY` PEM text (PKCS#8 version 1, as `openssl genpkey -algorithm ed25519` writes it).
    pub fn from_pem(text: &str) -> Result<SigningKey, Error> {
        ed25519::KeyPair::from_pem(text).map(SigningKey).map_err(|_| {
            Error::Key("not an unencrypted Ed25519 private key in PEM form (`BEGIN PRIVATE KEY`)".into())
        })
    }

    /// Reads a private key file.
    pub fn read(path: &Path) -> Result<SigningKey, Error> {
        SigningKey::from_pem(&read_text(path, KEY_LIMIT_BYTES)?).map_err(|error| at(path, error))
    }

    /// The `PRIVATE KEY` PEM text: whoever has it can sign.
    pub fn to_pem(&self) -> String {
        self.0.sk.to_pem()
    }

    /// Writes the private key to `path` (mode 0600) and the public key to `path` with `.pub` appended; returns the
    /// latter's path. Never replaces a file: a lost key cannot be made again.
    pub fn write_new(&self, path: &Path) -> Result<PathBuf, Error> {
        self.write_new_as(path, &self.to_pem())
    }

    /// The same with the private half in another form, such as encrypted.
    pub fn write_new_as(&self, path: &Path, private: &str) -> Result<PathBuf, Error> {
        write_pair(path, private, &self.public_key().to_pem())
    }
}

/// Writes both halves of a new key; returns the path of the public one.
pub(crate) fn write_pair(path: &Path, private: &str, public: &str) -> Result<PathBuf, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    let name = PathBuf::from(name);
    create(path, 0o600, private)?;
    if let Err(error) = create(&name, 0o644, public) {
        // Only what this call made: half a pair helps nobody.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(name)
}

impl Signer for SigningKey {
    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.pk)
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], Error> {
        // Without noise: the same input gives the same bundle, byte for byte.
        Ok(*self.0.sk.sign(message, None))
    }
}

fn create(path: &Path, mode: u32, text: &str) -> Result<(), Error> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(Error::file("create", path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::file("write", path))
}

/// Reads a small text file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: usize) -> Result<String, Error> {
    let file = std::fs::File::open(path).map_err(Error::file("read", path))?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, limit as u64 + 1), &mut text)
        .map_err(Error::file("read", path))?;
    if text.len() > limit {
        let problem = format!("longer than {limit} bytes");
        return Err(Error::file("read", path)(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            problem,
        )));
    }
    Ok(text)
}

/// Puts the file's path before what is wrong with the key in it.
pub(crate) fn at(path: &Path, error: Error) -> Error {
    if let Error::Key(problem) = &error {
        Error::Key(format!("{}: {problem}", path.display()))
    } else {
        error
    }
}
