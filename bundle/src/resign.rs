//! Adding a signature to a bundle that exists.
//!
//! Whoever signs vouches for every byte, so the new file is verified as a whole, under the new key alone, before it takes
//! its name. Signatures of other keys are carried over as they are.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use crate::build::{NewFile, Progress, write_front};
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
    let mut file = File::open(input).map_err(Error::file("read", input))?;
    let copy = file.try_clone().map_err(Error::file("read", input))?;
    let front = Unverified::open(FileInput::new(copy).map_err(Error::file("read", input))?)?;
    let mut signatures = front.signatures()?;
    signatures.add(front.manifest_bytes(), signer)?;

    let mut out = NewFile::create(output)?;
    write_front(&mut out, front.manifest_bytes(), &signatures)?;
    file.seek(SeekFrom::Start(front.body_offset())).map_err(Error::file("read", input))?;
    out.copy_from(&mut file)?;

    let root = Root::with_release_keys(&[signer.public_key()]);
    verify(&mut Bundle::open(FileInput::open(&out.temporary)?, &root)?, progress)?;
    out.publish()
}
