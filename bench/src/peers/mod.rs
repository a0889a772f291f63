//! Who installs the new image into a slot: otad, and the others, each set up as its documentation advises.

pub(crate) mod otad;
pub(crate) mod rauc;
pub(crate) mod swupdate;
pub(crate) mod tools;

use std::path::{Path, PathBuf};

use otad_demo::Binaries;

use crate::error::Error;
use crate::goods::Goods;
use crate::images::Images;
use crate::process::{command, find, run};
use crate::slot::Slot;

/// One way to bring an image into a slot, or a part of the work that every way has to do.
pub(crate) trait Peer {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// Gets ready; not measured.
    fn prepare(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Process ids of its daemons, once it is ready.
    fn daemons(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Does it; measured.
    fn install(&mut self) -> Result<(), Error>;

    /// Puts away what `prepare` made; not measured.
    fn finish(&mut self) {}

    /// Whether the slot holds the new image afterwards.
    fn fills_slot(&self) -> bool {
        true
    }
}

/// What peers are made of.
pub(crate) struct Scene<'a> {
    /// The images.
    pub(crate) images: &'a Images,
    /// Bundles, made once.
    pub(crate) goods: &'a Goods,
    /// Programs of this project.
    pub(crate) binaries: &'a Binaries,
    /// An empty directory on the disk for files that are not measured.
    pub(crate) room: PathBuf,
    /// The slot that counts as running.
    pub(crate) running: &'a Slot,
    /// The slot that is written.
    pub(crate) target: &'a Slot,
}

/// Says which of these programs is not installed.
pub(crate) fn missing(programs: &[&str]) -> Option<String> {
    let missing: Vec<&str> = programs.iter().copied().filter(|name| find(name).is_none()).collect();
    (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
}

/// A self-signed certificate for the peers that want X.509: key and certificate, made once.
fn certificate(goods: &Goods) -> Result<(PathBuf, PathBuf), Error> {
    let (key, certificate) = (goods.other("peer.key.pem"), goods.other("peer.cert.pem"));
    if !certificate.is_file() {
        let mut make =
            command("openssl", &["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"]);
        make.args(["-subj", "/CN=bench", "-addext", "extendedKeyUsage=emailProtection"]);
        make.args(["-addext", "keyUsage=critical,digitalSignature"]);
        run(make.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?;
    }
    Ok((key, certificate))
}

/// The new image compressed as a whole with zstd 10, the level of all that is compared.
pub(crate) fn compressed(images: &Images, goods: &Goods) -> Result<PathBuf, Error> {
    let packed = goods.other("v2.ext4.zst");
    if !packed.is_file() {
        eprintln!("making {}", packed.display());
        let part = packed.with_extension("part");
        run(command("zstd", &["-q", "-10", "-f", "-T0"]).arg(images.updated()).arg("-o").arg(&part))?;
        std::fs::rename(&part, &packed).map_err(Error::io("rename", &part))?;
    }
    Ok(packed)
}

/// Writes a small file.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::io("write", path))
}
