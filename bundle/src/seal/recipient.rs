//! Who a bundle is encrypted for: public keys, what the manifest says for each of them, and what unwraps it on a device.
//!
//! | algorithm | `wrapped` |
//! |---|---|
//! | `hpke-x25519` | the 32 bytes `enc` and the 48 bytes of the ciphertext: RFC 9180, mode base, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, `info` the binding, no associated data |
//! | `rsa-oaep-sha256` | RFC 8017, RSAES-OAEP with SHA-256 for both, no label; as long as the modulus, which has at least 3072 bits |
//!
//! Key files are PEM as `openssl` writes them. There is no RSA in here: [`Recipient`] and [`DeviceKey`] are where a command
//! stands for it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_compact::x25519;

use super::hpke::{self, KEY_BYTES};
use super::{Binding, CONTENT_KEY_BYTES, ContentKey, TAG_BYTES, random};
use crate::error::Error;
use crate::key::{self, KeyId};

/// SubjectPublicKeyInfo of an X25519 key before its 32 bytes (RFC 8410).
const X25519_PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00];
/// PKCS#8 of an X25519 key before its 32 bytes (RFC 8410, version 1).
const X25519_PRIVATE: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20];
/// AlgorithmIdentifier of an RSA key (RFC 8017, appendix A.1).
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// Shortest modulus: what is recommended for beyond 2030.
const RSA_LEAST_BITS: usize = 3072;
/// Longest modulus: 16384 bits, the most that openssl takes.
const RSA_MOST_BITS: usize = 16384;
/// Bytes of `wrapped` for an X25519 key.
const HPKE_BYTES: usize = KEY_BYTES + CONTENT_KEY_BYTES + TAG_BYTES as usize;

/// How a content key is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrapAlgorithm {
    /// RFC 9180, base mode.
    HpkeX25519,
    /// RSAES-OAEP with SHA-256.
    RsaOaepSha256,
}

impl WrapAlgorithm {
    const ALL: [WrapAlgorithm; 2] = [WrapAlgorithm::HpkeX25519, WrapAlgorithm::RsaOaepSha256];

    /// The spelling in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            WrapAlgorithm::HpkeX25519 => "hpke-x25519",
            WrapAlgorithm::RsaOaepSha256 => "rsa-oaep-sha256",
        }
    }

    fn from_name(name: &str) -> Option<WrapAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn takes(self, length: usize) -> bool {
        match self {
            WrapAlgorithm::HpkeX25519 => length == HPKE_BYTES,
            WrapAlgorithm::RsaOaepSha256 => (RSA_LEAST_BITS / 8..=RSA_MOST_BITS / 8).contains(&length),
        }
    }
}

/// The content key as one recipient can unwrap it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// Id of the recipient's key.
    pub key: KeyId,
    /// How it is wrapped.
    pub algorithm: WrapAlgorithm,
    /// The wrapped key.
    pub bytes: Vec<u8>,
}

impl Wrapped {
    /// Reads an entry of the manifest.
    pub(crate) fn parse(key: &str, algorithm: &str, wrapped: &str) -> Result<Wrapped, String> {
        let key = key.parse().map_err(|error: Error| error.to_string())?;
        let shown: String = algorithm.chars().take(40).collect();
        let algorithm = WrapAlgorithm::from_name(algorithm)
            .ok_or_else(|| format!("the algorithm {shown:?} is not known"))?;
        let bytes = STANDARD.decode(wrapped).map_err(|_| "not base64".to_owned())?;
        if !algorithm.takes(bytes.len()) {
            return Err(format!("{} bytes are no key wrapped by {}", bytes.len(), algorithm.name()));
        }
        Ok(Wrapped { key, algorithm, bytes })
    }

    /// Writes it.
    pub(crate) fn to_toml(&self) -> String {
        let (key, algorithm, wrapped) = (self.key, self.algorithm.name(), STANDARD.encode(&self.bytes));
        format!(
            "\n[[encryption.recipient]]\nkey = \"{key}\"\nalgorithm = \"{algorithm}\"\nwrapped = \"{wrapped}\"\n"
        )
    }
}

/// Somebody a bundle is encrypted for.
pub trait Recipient {
    /// Wraps the content key of the release that `binding` stands for.
    ///
    /// # Errors
    /// The key is of no use, or what wraps failed.
    fn wrap(&self, content: &ContentKey, binding: &Binding) -> Result<Wrapped, Error>;
}

/// Something that unwraps content keys: a key file, or a command that knows a token.
pub trait DeviceKey {
    /// The id under which bundles name it.
    fn id(&self) -> KeyId;

    /// Unwraps the content key of the release that `binding` stands for.
    ///
    /// # Errors
    /// It was wrapped for somebody else or in another way, or what unwraps failed.
    fn unwrap(&self, wrapped: &Wrapped, binding: &Binding) -> Result<ContentKey, Error>;
}

/// A public key that bundles can be encrypted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientKey {
    /// X25519: the 32 raw bytes (RFC 7748).
    X25519([u8; KEY_BYTES]),
    /// RSA: the whole SubjectPublicKeyInfo in DER.
    Rsa(Vec<u8>),
}

impl RecipientKey {
    /// Reads a `PUBLIC KEY` PEM text.
    ///
    /// # Errors
    /// It is something else, of another kind, or too short.
    pub fn from_pem(text: &str) -> Result<RecipientKey, Error> {
        if text.contains("PRIVATE KEY-----") {
            return Err(Error::Key("this is a private key: give its public half, KEY.pub".into()));
        }
        let der = from_pem("PUBLIC KEY", text)
            .ok_or_else(|| Error::Key("not a public key in PEM form (`BEGIN PUBLIC KEY`)".into()))?;
        if let Some(raw) = der.strip_prefix(&X25519_PUBLIC) {
            let raw = raw.try_into().map_err(|_| Error::Key("not an X25519 key".into()))?;
            return Ok(RecipientKey::X25519(raw));
        }
        match rsa_bits(&der) {
            Some(bits) if (RSA_LEAST_BITS..=RSA_MOST_BITS).contains(&bits) => Ok(RecipientKey::Rsa(der)),
            Some(bits) => {
                let range = format!("an RSA key has {RSA_LEAST_BITS} to {RSA_MOST_BITS} bits");
                Err(Error::Key(format!("{bits} bits; {range}")))
            }
            None => Err(Error::Key(
                "neither X25519 (`otactl key generate --device`) nor RSA; a key that signs cannot be encrypted for".into(),
            )),
        }
    }

    /// Reads a public key file.
    ///
    /// # Errors
    /// As [`RecipientKey::from_pem`], or the file cannot be read.
    pub fn read(path: &Path) -> Result<RecipientKey, Error> {
        RecipientKey::from_pem(&key::read_text(path, key::KEY_LIMIT_BYTES)?)
            .map_err(|error| key::at(path, error))
    }

    /// Its id: the first 16 bytes of the SHA-256 of the raw key (X25519), or of the SubjectPublicKeyInfo (RSA).
    pub fn id(&self) -> KeyId {
        match self {
            RecipientKey::X25519(raw) => KeyId::of(raw),
            RecipientKey::Rsa(der) => KeyId::of(der),
        }
    }

    /// How content keys are wrapped for it.
    pub fn algorithm(&self) -> WrapAlgorithm {
        match self {
            RecipientKey::X25519(_) => WrapAlgorithm::HpkeX25519,
            RecipientKey::Rsa(_) => WrapAlgorithm::RsaOaepSha256,
        }
    }
}

impl Recipient for RecipientKey {
    fn wrap(&self, content: &ContentKey, binding: &Binding) -> Result<Wrapped, Error> {
        let RecipientKey::X25519(raw) = self else {
            return Err(Error::Caller("RSA keys are wrapped for by a command".into()));
        };
        let mut sealed = content.as_bytes().to_vec();
        let enc = hpke::seal(raw, random()?, binding.as_bytes(), &[], &mut sealed)
            .ok_or_else(|| Error::Key(format!("the X25519 key {} is weak (small order)", self.id())))?;
        let bytes = [enc.as_slice(), &sealed].concat();
        Ok(Wrapped { key: self.id(), algorithm: WrapAlgorithm::HpkeX25519, bytes })
    }
}

/// A private X25519 key held in memory, from a PKCS#8 PEM file; wiped when dropped.
pub struct X25519Key {
    private: x25519::SecretKey,
    public: [u8; KEY_BYTES],
}

impl X25519Key {
    /// Makes a new key from the system's random numbers.
    ///
    /// # Errors
    /// The system has none.
    pub fn generate() -> Result<X25519Key, Error> {
        X25519Key::from_bytes(random()?)
    }

    /// Takes the 32 raw bytes.
    ///
    /// # Errors
    /// No public key belongs to it.
    pub fn from_bytes(raw: [u8; KEY_BYTES]) -> Result<X25519Key, Error> {
        let private = x25519::SecretKey::new(raw);
        let public = private.recover_public_key().map_err(|_| Error::Key("not an X25519 key".into()))?;
        Ok(X25519Key { private, public: *public })
    }

    /// Reads a `PRIVATE KEY` PEM text, as `openssl genpkey -algorithm x25519` writes it.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_pem(text: &str) -> Result<X25519Key, Error> {
        let der = from_pem("PRIVATE KEY", text);
        let raw = der.as_ref().and_then(|der| der.strip_prefix(&X25519_PRIVATE)?.try_into().ok());
        X25519Key::from_bytes(raw.ok_or_else(|| {
            let wanted = "not an unencrypted X25519 private key in PEM form";
            Error::Key(format!("{wanted}; `otactl key generate --device` makes one"))
        })?)
    }

    /// Reads a private key file.
    ///
    /// # Errors
    /// As [`X25519Key::from_pem`], or the file cannot be read.
    pub fn read(path: &Path) -> Result<X25519Key, Error> {
        X25519Key::from_pem(&key::read_text(path, key::KEY_LIMIT_BYTES)?)
            .map_err(|error| key::at(path, error))
    }

    /// The public half.
    pub fn public(&self) -> RecipientKey {
        RecipientKey::X25519(self.public)
    }

    /// Writes the private key to `path` (mode 0600) and the public key to `path` with `.pub` appended; returns the
    /// latter's path. Never replaces a file.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn write_new(&self, path: &Path) -> Result<PathBuf, Error> {
        let private = to_pem("PRIVATE KEY", &[X25519_PRIVATE.as_slice(), &*self.private].concat());
        let public = to_pem("PUBLIC KEY", &[X25519_PUBLIC.as_slice(), &self.public].concat());
        key::write_pair(path, &private, &public)
    }
}

impl DeviceKey for X25519Key {
    fn id(&self) -> KeyId {
        KeyId::of(&self.public)
    }

    fn unwrap(&self, wrapped: &Wrapped, binding: &Binding) -> Result<ContentKey, Error> {
        let failed =
            || Error::Decrypt { what: format!("the content key that was wrapped for {}", self.id()) };
        if wrapped.algorithm != WrapAlgorithm::HpkeX25519 {
            return Err(failed());
        }
        let (enc, sealed) = wrapped.bytes.split_first_chunk().ok_or_else(failed)?;
        let mut sealed = sealed.to_vec();
        let plain = hpke::open(&self.private, enc, binding.as_bytes(), &[], &mut sealed);
        let content = plain.and_then(|plain| Some(ContentKey::new((&*plain).try_into().ok()?)));
        sealed.fill(0);
        content.ok_or_else(failed)
    }
}

/// The bytes of a PEM text of exactly one part with that label.
fn from_pem(label: &str, text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix(&format!("-----BEGIN {label}-----"))?;
    let body = body.strip_suffix(&format!("-----END {label}-----"))?;
    STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()
}

/// A PEM text, in lines of 64 characters.
fn to_pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = String::new();
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at.is_multiple_of(64) {
            lines.push('\n');
        }
        lines.push(character);
    }
    format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
}

/// Length of the modulus of an RSA key, if that is what it is.
fn rsa_bits(der: &[u8]) -> Option<usize> {
    let (info, after) = element(0x30, der)?;
    let (bits, rest) = element(0x03, info.strip_prefix(&RSA_ALGORITHM)?)?;
    let (key, rest_of_bits) = element(0x30, bits.strip_prefix(&[0])?)?;
    let (modulus, exponent) = element(0x02, key)?;
    let (_, behind) = element(0x02, exponent)?;
    if ![after, rest, rest_of_bits, behind].iter().all(|bytes| bytes.is_empty()) {
        return None;
    }
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let first = modulus.first().filter(|&&byte| byte != 0)?;
    Some(modulus.len() * 8 - usize::try_from(first.leading_zeros()).ok()?)
}

/// Content of the element of that tag at the front, and what follows it (DER, X.690).
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
        0x82 => {
            rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?
        }
        _ => return None,
    };
    if *found == tag { rest.split_at_checked(length) } else { None }
}
