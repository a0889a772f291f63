//! The encrypted bundle and a delta to it. They lie in the tree, since encrypting is random: each time it would be another bundle,
//! and a seed that found something would find nothing again.

use std::path::Path;
use std::sync::OnceLock;

use otad_bundle::delta::make_delta_with_key;
use otad_bundle::{Bundle, MANIFEST_TYPE, Signatures, StreamInput, X25519Key};

use crate::{fixture, members};

/// Release 2, encrypted for the device.
pub(crate) const BUNDLE: &[u8] = include_bytes!("../seeds/container/encrypted");
/// From release 1, which everybody can read, to it.
const DELTA: &[u8] = include_bytes!("../seeds/sealed_delta/genuine");
/// The private key of the device.
pub(crate) const DEVICE_KEY: [u8; 32] = [9; 32];

/// A bundle in memory, signed.
pub(crate) type Opened<'a> = Bundle<StreamInput<&'a [u8]>>;

pub(crate) fn device_key() -> &'static X25519Key {
    static KEY: OnceLock<X25519Key> = OnceLock::new();
    KEY.get_or_init(|| X25519Key::from_bytes(DEVICE_KEY).unwrap())
}

/// Makes both anew in a directory: for a change of the format, as seeds of `container` and `sealed_delta`.
pub fn make_anew(dir: &Path) {
    let (scratch, images) = (tempfile::tempdir().unwrap(), fixture::images());
    let mut older = images.clone();
    older[1][5000..9000].fill(7);
    let old = fixture::build_in(scratch.path(), 1, &older, &[]);
    let new = fixture::build_in(scratch.path(), 2, images, &[&device_key().public()]);
    let delta = dir.join("genuine");
    make_delta_with_key(&old, &new, &delta, None, Some(device_key()), &mut |_| ()).unwrap();
    std::fs::copy(new, dir.join("encrypted")).unwrap();
}

/// The encrypted bundle, opened with the device's key.
pub(crate) fn unlocked() -> Opened<'static> {
    let mut bundle = Bundle::open(StreamInput::new(BUNDLE), fixture::root()).unwrap();
    bundle.unlock(device_key()).unwrap();
    bundle
}

pub(crate) fn manifest() -> Vec<u8> {
    members::read(BUNDLE, "manifest.toml")
}

pub(crate) fn delta() -> Vec<u8> {
    DELTA.to_vec()
}

/// The encrypted bundle with another manifest, which the release key signed.
pub(crate) fn with_manifest(manifest: &[u8]) -> Vec<u8> {
    let mut signatures = Signatures::default();
    signatures.sign(MANIFEST_TYPE, manifest, fixture::release_key()).unwrap();
    let signature = signatures.to_toml();
    members::replace(BUNDLE, &[("manifest.toml", manifest), ("manifest.sig", signature.as_bytes())])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`with_manifest`] makes gets past the signature, and the target `encryption` behind it.
    #[test]
    fn the_genuine_manifest_makes_the_genuine_bundle() {
        assert_eq!(with_manifest(&manifest()), BUNDLE);
        assert!(!unlocked().is_locked());
    }
}
