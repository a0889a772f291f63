//! SWUpdate: one signed image, compressed with zstd, streamed to the device (`installed-directly`).

use std::fs;
use std::path::PathBuf;

use super::{Peer, Scene, certificate, compressed, missing, write};
use crate::error::Error;
use crate::goods::COMPATIBLE;
use crate::process::{command, run};

/// A bundle for one target.
pub(crate) struct SwUpdate {
    bundle: PathBuf,
    certificate: PathBuf,
    room: PathBuf,
}

impl SwUpdate {
    pub(crate) fn new(scene: &Scene<'_>) -> Result<SwUpdate, Error> {
        if let Some(missing) = missing(&["swupdate", "cpio", "openssl", "zstd"]) {
            return Err(Error::Setup(missing));
        }
        let (key, certificate) = certificate(scene.goods)?;
        let packed = compressed(scene.images, scene.goods)?;
        // The device stands in the signed description, and is another one in every run: so the bundle is made anew.
        let content = scene.room.join("content");
        fs::create_dir_all(&content).map_err(Error::io("create", &content))?;
        let image = content.join("rootfs.zst");
        fs::copy(&packed, &image).map_err(Error::io("copy", &packed))?;
        let said = run(&mut command("sha256sum", &[&image]))?;
        let said = String::from_utf8_lossy(&said);
        let digest = said.split_whitespace().next().unwrap_or_default();
        let description = format!(
            "software = {{\n  version = \"2.0.0\";\n  hardware-compatibility: [ \"1.0\" ];\n  images: ( {{\n    \
             filename = \"rootfs.zst\"; device = \"{}\"; type = \"raw\"; compressed = \"zstd\";\n    \
             installed-directly = true; sha256 = \"{digest}\"; }} );\n}}\n",
            scene.target.device().display()
        );
        write(&content.join("sw-description"), &description)?;
        let mut sign = command("openssl", &["cms", "-sign", "-nosmimecap", "-binary", "-outform", "DER"]);
        sign.args(["-in", "sw-description", "-out", "sw-description.sig"]).arg("-signer").arg(&certificate);
        run(sign.arg("-inkey").arg(&key).current_dir(&content))?;
        let pack = "printf '%s\\n' sw-description sw-description.sig rootfs.zst | cpio --quiet -o -H crc >../bundle.swu";
        run(command("sh", &["-c", pack]).current_dir(&content))?;
        fs::remove_dir_all(&content).map_err(Error::io("remove", &content))?;
        Ok(SwUpdate { bundle: scene.room.join("bundle.swu"), certificate, room: scene.room.clone() })
    }
}

impl Peer for SwUpdate {
    fn name(&self) -> &'static str {
        "SWUpdate, signed, zstd"
    }

    fn install(&mut self) -> Result<(), Error> {
        let mut install = command("swupdate", &["-l", "2", "-M", "-m", "-H", &format!("{COMPATIBLE}:1.0")]);
        install.env("TMPDIR", &self.room).arg("-k").arg(&self.certificate).arg("-i").arg(&self.bundle);
        run(&mut install).map(drop)
    }
}
