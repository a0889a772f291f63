//! Adding a signature to a bundle that exists.
//!
//! Whoever signs vouches for every byte, so the new file is verified as a whole, under the new key alone, before it takes
//! its name. Signatures of other keys are carried over as they are.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use crate::build::{NewFile, NewFront, Progress};
use crate::chain::Chain;
use crate::error::Error;
use crate::input::FileInput;
use crate::key::Signer;
use crate::reader::{Bundle, Unverified};
use crate::trust::Root;
use crate::walk::verify;

/// Adds the signature of `signer` to the bundle `input` and puts the result at `output`, which may be the same path.
///
/// # Errors
/// The bundle is damaged, the key has signed already, or files cannot be used; `output` is then as before.
pub fn add_signature(
    input: &Path,
    signer: &dyn Signer,
    output: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    add_signature_and_roots(input, signer, None, output, progress)
}

/// The same; the roots that the bundle brings are replaced by `roots` if there are some, and otherwise carried over.
///
/// # Errors
/// As [`add_signature`].
pub fn add_signature_and_roots(
    input: &Path,
    signer: &dyn Signer,
    roots: Option<&Chain>,
    output: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    let mut file = File::open(input).map_err(Error::file("read", input))?;
    let copy = file.try_clone().map_err(Error::file("read", input))?;
    let front = Unverified::open(FileInput::new(copy).map_err(Error::file("read", input))?)?;
    let mut signatures = front.signatures()?;
    signatures.add(front.manifest_bytes(), signer)?;
    let carried = front.roots()?;
    let roots = roots.or(carried.as_ref());

    let mut out = NewFile::create(output)?;
    NewFront { manifest: front.manifest_bytes(), signatures: &signatures, roots }.write(&mut out)?;
    file.seek(SeekFrom::Start(front.body_offset())).map_err(Error::file("read", input))?;
    out.copy_from(&mut file)?;

    let root = Root::with_release_keys(&[signer.public_key()]);
    verify(&mut Bundle::open(FileInput::open(&out.temporary)?, &root)?, progress)?;
    out.publish()
}
