//! Encryption of bundles: who can read what, and under which key, nonce and associated data.
//!
//! A bundle is encrypted under a random *content key*, which the signed manifest carries wrapped for each recipient
//! ([`Wrapped`]). Under it everything is AES-256-GCM; the tag of 16 bytes follows the bytes. No two things of a bundle have the
//! same nonce:
//!
//! | byte of the nonce | value |
//! |---|---|
//! | 0 | part: 0 chunk, 1 frame of an index, 2 hashes |
//! | 1 | number of the image in the manifest |
//! | 2, 3 | zero |
//! | 4 to 11 | number of the chunk or frame, little-endian; 0 for hashes |
//!
//! and the associated data, 73 bytes, says what it is and of which release, so that nothing can take another's place:
//!
//! | offset | bytes | value |
//! |---|---|---|
//! | 0 | 32 | the *binding*: SHA-256 of `PAE("otad-encryption-v1", "<sequence> <version>")` |
//! | 32 | 32 | role of the image, then zeros |
//! | 64 | 1 | part, as in the nonce |
//! | 65 | 8 | number, as in the nonce |
//!
//! Encryption keeps bundles from being read. It never says that something is genuine: the signature and the hashes of the
//! bytes as they are stored do that, and they are checked first.

pub(crate) mod hpke;
pub(crate) mod index;
mod recipient;

use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Manifest, Update};
use crate::signature::pae;

pub use recipient::{DeviceKey, Recipient, RecipientKey, WrapAlgorithm, Wrapped, X25519Key};

/// Length of a content key in bytes.
pub const CONTENT_KEY_BYTES: usize = 32;
/// What encryption adds to a chunk, in bytes.
pub const TAG_BYTES: u32 = 16;
/// Type of the binding in its pre-authentication encoding.
const BINDING_TYPE: &str = "otad-encryption-v1";
/// Hash of the plain image, hash of the plain index.
pub(crate) const HASHES_BYTES: usize = 64;

/// The key of one bundle's content; wiped when dropped.
pub struct ContentKey([u8; CONTENT_KEY_BYTES]);

impl ContentKey {
    /// Takes the raw bytes, as an external command unwraps them.
    pub fn new(bytes: [u8; CONTENT_KEY_BYTES]) -> ContentKey {
        ContentKey(bytes)
    }

    /// Makes a new key.
    pub(crate) fn generate() -> Result<ContentKey, Error> {
        random().map(ContentKey)
    }

    /// The raw bytes: whoever has them can read the bundle.
    pub fn as_bytes(&self) -> &[u8; CONTENT_KEY_BYTES] {
        &self.0
    }
}

impl Drop for ContentKey {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the compiler from leaving out what nobody reads any more.
        std::hint::black_box(&self.0);
    }
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Key("the system gives no random numbers".into()))?;
    Ok(bytes)
}

/// What encryption is bound to: the release, as far as it is known before its hashes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding([u8; 32]);

impl Binding {
    /// That of a release.
    pub fn of(update: &Update) -> Binding {
        let text = format!("{} {}", update.sequence, update.version);
        Binding(Digest::of(&pae(BINDING_TYPE, text.as_bytes())).0)
    }

    /// `info` of HPKE.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The stored bytes of a chunk.
    Chunk,
    /// A run of index records.
    Index,
    /// The hashes of the plain image and of its plain index.
    Hashes,
}

impl Part {
    const fn number(self) -> u8 {
        match self {
            Part::Chunk => 0,
            Part::Index => 1,
            Part::Hashes => 2,
        }
    }
}

/// Encrypts and decrypts one image of a bundle.
#[derive(Clone)]
pub struct ImageSeal {
    key: Arc<LessSafeKey>,
    binding: Binding,
    image: u8,
    role: [u8; 32],
}

impl ImageSeal {
    /// Those of all images of a bundle, in the order of the manifest.
    pub(crate) fn all<'a>(
        key: &ContentKey,
        binding: Binding,
        roles: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<ImageSeal>, Error> {
        let key = cipher(key.as_bytes())?;
        let seal = |(image, role): (u8, &str)| {
            let mut padded = [0; 32];
            padded.iter_mut().zip(role.bytes()).for_each(|(place, byte)| *place = byte);
            ImageSeal { key: key.clone(), binding, image, role: padded }
        };
        Ok((0..).zip(roles).map(seal).collect())
    }

    fn nonce(&self, part: Part, number: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let bytes = [part.number(), self.image, 0, 0].into_iter().chain(number.to_le_bytes());
        nonce.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
        Nonce::assume_unique_for_key(nonce)
    }

    fn aad(&self, part: Part, number: u64) -> Aad<[u8; 73]> {
        let mut aad = [0; 73];
        let bytes = self.binding.0.into_iter().chain(self.role).chain([part.number()]);
        aad.iter_mut().zip(bytes.chain(number.to_le_bytes())).for_each(|(place, byte)| *place = byte);
        Aad::from(aad)
    }

    /// Encrypts `bytes` and appends the tag. Each part and number once for a content key.
    pub(crate) fn seal(&self, part: Part, number: u64, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let (nonce, aad) = (self.nonce(part, number), self.aad(part, number));
        self.key
            .seal_in_place_append_tag(nonce, aad, bytes)
            .map_err(|_| Error::Caller("more bytes than one message may have".into()))
    }

    /// Decrypts in place; what it returns are the plain bytes, at the front of `bytes`.
    pub(crate) fn open<'a>(
        &self,
        part: Part,
        number: u64,
        bytes: &'a mut [u8],
    ) -> Result<&'a mut [u8], Error> {
        let (nonce, aad) = (self.nonce(part, number), self.aad(part, number));
        self.key.open_in_place(nonce, aad, bytes).map_err(|_| {
            let what = match part {
                Part::Chunk => format!("chunk {number}"),
                Part::Index => format!("part {number} of the index"),
                Part::Hashes => "the hashes in the manifest".to_owned(),
            };
            Error::Decrypt { what }
        })
    }
}

pub(crate) fn cipher(key: &[u8; 32]) -> Result<Arc<LessSafeKey>, Error> {
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Error::Key("not a key of AES-256".into()))?;
    Ok(Arc::new(LessSafeKey::new(key)))
}

/// Everything that an unlocked bundle can be read with.
pub(crate) struct Unlocked {
    pub(crate) content: ContentKey,
    pub(crate) seals: Vec<ImageSeal>,
}

impl Unlocked {
    /// Unwraps the content key and puts the hashes that it opens into the manifest; that is changed only as a whole.
    pub(crate) fn open(manifest: &mut Manifest, device: &dyn DeviceKey) -> Result<Option<Unlocked>, Error> {
        let Some(encryption) = &manifest.encryption else { return Ok(None) };
        let (id, binding) = (device.id(), Binding::of(&manifest.update));
        let Some(wrapped) = encryption.recipients.iter().find(|wrapped| wrapped.key == id) else {
            return Err(Error::NotRecipient { key: id.to_string(), count: encryption.recipients.len() });
        };
        let content = device.unwrap(wrapped, &binding)?;
        let roles = manifest.images.iter().map(|image| image.role.as_str());
        let seals = ImageSeal::all(&content, binding, roles)?;
        let mut images = manifest.images.clone();
        for (image, seal) in images.iter_mut().zip(&seals) {
            let Some(sealed) = &image.sealed else { continue };
            let mut hashes = sealed.hashes.0;
            let hashes = seal.open(Part::Hashes, 0, &mut hashes)?;
            let (sha256, index) = hashes.split_at(HASHES_BYTES / 2);
            image.sha256 = digest(sha256)?;
            image.index.sha256 = digest(index)?;
        }
        manifest.images = images;
        Ok(Some(Unlocked { content, seals }))
    }
}

fn digest(bytes: &[u8]) -> Result<Digest, Error> {
    bytes.try_into().map(Digest).map_err(|_| Error::Caller("half of 64 bytes".into()))
}
