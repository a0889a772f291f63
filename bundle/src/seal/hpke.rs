//! Hybrid public key encryption (RFC 9180): base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, one message.
//!
//! Owns the key schedule and nothing else. Every length that is expanded is at most one block of SHA-256, so HKDF (RFC 5869) is
//! one HMAC for each of its halves. Names are those of the RFC.

use ed25519_compact::x25519;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

/// Bytes of a raw X25519 key, public or private, and of what it encapsulates to.
pub(crate) const KEY_BYTES: usize = 32;
/// What every label begins with (section 4).
const VERSION: &[u8] = b"HPKE-v1";
/// `suite_id` of the KEM: DHKEM(X25519, HKDF-SHA256) (sections 4.1 and 7.1).
const KEM_SUITE: &[u8] = b"KEM\x00\x20";
/// `suite_id` of the whole: that KEM, HKDF-SHA256, AES-256-GCM (section 5.1).
const HPKE_SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x02";
/// Base mode: the sender is not authenticated; the signature over the manifest does that.
const MODE_BASE: u8 = 0;

/// Encrypts `plain` to `recipient` with the given ephemeral private key, which must never be used again; returns `enc`.
pub(crate) fn seal(
    recipient: &[u8; KEY_BYTES],
    ephemeral: [u8; KEY_BYTES],
    info: &[u8],
    aad: &[u8],
    plain: &mut Vec<u8>,
) -> Option<[u8; KEY_BYTES]> {
    let ephemeral = x25519::SecretKey::new(ephemeral);
    let enc = *ephemeral.recover_public_key().ok()?;
    // Points of small order, which would give everybody the same secret, are refused by the multiplication.
    let dh = x25519::PublicKey::new(*recipient).dh(&ephemeral).ok()?;
    let Context { key, nonce } = Context::of(&shared_secret(&*dh, &enc, recipient), info)?;
    key.seal_in_place_append_tag(nonce, Aad::from(aad), plain).ok()?;
    Some(enc)
}

/// Decrypts what [`seal`] made, in place.
pub(crate) fn open<'a>(
    private: &x25519::SecretKey,
    enc: &[u8; KEY_BYTES],
    info: &[u8],
    aad: &[u8],
    sealed: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    let public = private.recover_public_key().ok()?;
    let dh = x25519::PublicKey::new(*enc).dh(private).ok()?;
    let Context { key, nonce } = Context::of(&shared_secret(&*dh, enc, &public), info)?;
    key.open_in_place(nonce, Aad::from(aad), sealed).ok()
}

/// `ExtractAndExpand` (section 4.1).
fn shared_secret(dh: &[u8], enc: &[u8; KEY_BYTES], recipient: &[u8; KEY_BYTES]) -> [u8; 32] {
    let prk = labeled_extract(&[], KEM_SUITE, b"eae_prk", dh);
    labeled_expand(&prk, KEM_SUITE, b"shared_secret", &[*enc, *recipient].concat())
}

/// The first, and here only, message of a context.
struct Context {
    key: LessSafeKey,
    nonce: Nonce,
}

impl Context {
    /// `KeySchedule` (section 5.1).
    fn of(shared_secret: &[u8; 32], info: &[u8]) -> Option<Context> {
        let (key, nonce) = schedule(shared_secret, info);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?);
        Some(Context { key, nonce: Nonce::assume_unique_for_key(nonce) })
    }
}

fn schedule(shared_secret: &[u8; 32], info: &[u8]) -> ([u8; 32], [u8; NONCE_LEN]) {
    let psk_id_hash = labeled_extract(&[], HPKE_SUITE, b"psk_id_hash", &[]);
    let info_hash = labeled_extract(&[], HPKE_SUITE, b"info_hash", info);
    let context = [[MODE_BASE].as_slice(), &psk_id_hash, &info_hash].concat();
    let secret = labeled_extract(shared_secret, HPKE_SUITE, b"secret", &[]);
    (
        labeled_expand(&secret, HPKE_SUITE, b"key", &context),
        labeled_expand(&secret, HPKE_SUITE, b"base_nonce", &context),
    )
}

fn labeled_extract(salt: &[u8], suite: &[u8], label: &[u8], ikm: &[u8]) -> [u8; 32] {
    extract(salt, &[VERSION, suite, label, ikm].concat())
}

fn labeled_expand<const N: usize>(prk: &[u8; 32], suite: &[u8], label: &[u8], info: &[u8]) -> [u8; N] {
    const { assert!(N <= 32) };
    let length = [0, N.to_le_bytes()[0]];
    expand(prk, &[&length, VERSION, suite, label, info].concat())
}

/// HKDF-Extract with SHA-256.
pub(crate) fn extract(salt: &[u8], ikm: &[u8]) -> [u8; 32] {
    authenticate(salt, &[ikm])
}

/// HKDF-Expand with SHA-256 of at most one block.
pub(crate) fn expand<const N: usize>(prk: &[u8; 32], info: &[u8]) -> [u8; N] {
    const { assert!(N <= 32) };
    let block = authenticate(prk, &[info, &[1]]);
    let mut out = [0; N];
    out.iter_mut().zip(block).for_each(|(place, byte)| *place = byte);
    out
}

fn authenticate(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.iter_mut().zip(context.sign().as_ref()).for_each(|(place, byte)| *place = *byte);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
        std::array::from_fn(byte)
    }

    const INFO: &[u8] = b"Ode on a Grecian Urn";
    const PLAIN: &[u8] = b"Beauty is truth, truth beauty";

    /// The vector of this suite, mode base, first message, in the test vectors that RFC 9180 (appendix A) points at.
    #[test]
    fn agrees_with_the_vectors_of_the_rfc() {
        let private = hex("497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d");
        let public: [u8; 32] = hex("430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c");
        let ephemeral = hex("179d4b53b6365c45b600c4163b61d95cbc2f4d9e36f1695558dce265ab8bab11");
        let enc: [u8; 32] = hex("6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256");
        let sealed: [u8; 45] = hex(concat!(
            "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be99319",
            "80a41de125a925cdad859d5b7a"
        ));
        let private = x25519::SecretKey::new(private);
        assert_eq!(*private.recover_public_key().unwrap(), public);
        let dh = x25519::PublicKey::new(enc).dh(&private).unwrap();
        let secret = shared_secret(&*dh, &enc, &public);
        assert_eq!(secret, hex("3101c54c3a4f87439eaac080699ed9bbcc726ffe44e860c0424ccb7e3e2ead7b"));
        let (key, nonce) = schedule(&secret, INFO);
        assert_eq!(key, hex("f50b0609186798729ed0564b36ef2ef8044f1f9d05636874d1f46c819c7a669f"));
        assert_eq!(nonce, hex("151d9929e2449747889bc923"));

        let mut made = PLAIN.to_vec();
        assert_eq!(seal(&public, ephemeral, INFO, b"Count-0", &mut made), Some(enc));
        assert_eq!(made, sealed);
        assert_eq!(open(&private, &enc, INFO, b"Count-0", &mut made).as_deref(), Some(PLAIN));
    }

    /// RFC 9180, A.1.1: the same KEM with another cipher behind it.
    #[test]
    fn the_kem_agrees_with_another_suite() {
        let private = hex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8");
        let enc = hex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431");
        let public = hex("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d");
        let dh = x25519::PublicKey::new(enc).dh(&x25519::SecretKey::new(private)).unwrap();
        assert_eq!(
            shared_secret(&*dh, &enc, &public),
            hex("fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc")
        );
    }

    #[test]
    fn anything_else_does_not_open() {
        let private = x25519::SecretKey::new([7; 32]);
        let public = *private.recover_public_key().unwrap();
        let mut sealed = PLAIN.to_vec();
        let enc = seal(&public, [9; 32], INFO, b"aad", &mut sealed).unwrap();
        let opens = |private: &x25519::SecretKey, enc: &[u8; 32], info: &[u8], aad: &[u8], sealed: &[u8]| {
            open(private, enc, info, aad, &mut sealed.to_vec()).is_some()
        };
        assert!(opens(&private, &enc, INFO, b"aad", &sealed));
        assert!(!opens(&x25519::SecretKey::new([8; 32]), &enc, INFO, b"aad", &sealed));
        assert!(!opens(&private, &enc, b"Ode", b"aad", &sealed));
        assert!(!opens(&private, &enc, INFO, b"other", &sealed));
        for bit in 0..sealed.len() * 8 {
            let mut wrong = sealed.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&private, &enc, INFO, b"aad", &wrong), "{bit}");
        }
        for bit in 0..255 {
            let mut wrong = enc;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&private, &wrong, INFO, b"aad", &sealed), "{bit}");
        }
        assert!(seal(&[0; 32], [9; 32], INFO, b"", &mut Vec::new()).is_none(), "a point of small order");
    }
}
