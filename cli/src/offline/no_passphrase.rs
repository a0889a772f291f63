//! What stands for keys under a passphrase where the feature `passphrase` is off: in the otactl of a device, where no key that
//! signs belongs, and where what opens them would only take up flash.

use std::path::Path;

use otad_bundle::SigningKey;

use super::signer::unusable;
use crate::exit::Exit;

/// Refuses to put a key under a passphrase.
pub(super) fn lock(_: &SigningKey, path: &Path) -> Result<String, Exit> {
    Err(absent(path))
}

/// Refuses to open a key that is under a passphrase.
pub(super) fn unlock(path: &Path, _: &str) -> Result<SigningKey, Exit> {
    Err(absent(path))
}

fn absent(path: &Path) -> Exit {
    unusable(
        path,
        "the otactl of a device takes no keys under a passphrase; make keys and sign on a build machine",
    )
}
