//! RAUC: its service on a bus of its own, a plain bundle with a zstd squashfs, a custom boot loader that is a script.
//!
//! Plain, because a verity bundle needs device-mapper in the kernel; the service runs already when the clock starts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::{Peer, Scene, certificate, missing, write};
use crate::board::start_bus;
use crate::error::Error;
use crate::goods::COMPATIBLE;
use crate::process::{Daemon, command, run};

/// A device with a bundle.
pub(crate) struct Rauc {
    service: Option<Daemon>,
    _bus: Daemon,
    room: PathBuf,
    bundle: PathBuf,
}

const BOOT_LOADER: &str = "#!/bin/sh\ncase $1 in get-primary) echo a ;; get-state) echo good ;; esac\n";

impl Rauc {
    pub(crate) fn new(scene: &Scene<'_>) -> Result<Rauc, Error> {
        if let Some(missing) = missing(&["rauc", "mksquashfs", "openssl"]) {
            return Err(Error::Setup(missing));
        }
        let (key, certificate) = certificate(scene.goods)?;
        let bundle = scene.goods.other("v2.raucb");
        if !bundle.is_file() {
            eprintln!("making {}", bundle.display());
            let content = scene.room.join("content");
            fs::create_dir_all(&content).map_err(Error::io("create", &content))?;
            run(command("cp", &["--sparse=always"])
                .arg(scene.images.updated())
                .arg(content.join("rootfs.img")))?;
            let manifest = format!(
                "[update]\ncompatible={COMPATIBLE}\nversion=2.0.0\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=rootfs.img\n"
            );
            write(&content.join("manifest.raucm"), &manifest)?;
            let mut make = command("rauc", &["--mksquashfs-args=-comp zstd -Xcompression-level 10"]);
            make.arg("--cert").arg(&certificate).arg("--key").arg(&key);
            let part = bundle.with_extension("part");
            let _ = fs::remove_file(&part);
            run(make.arg("bundle").arg(&content).arg(&part))?;
            fs::rename(&part, &bundle).map_err(Error::io("rename", &part))?;
            fs::remove_dir_all(&content).map_err(Error::io("remove", &content))?;
        }
        let script = scene.room.join("boot-loader");
        write(&script, BOOT_LOADER)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("chmod", &script))?;
        let mounts = scene.room.join("mounts");
        fs::create_dir_all(&mounts).map_err(Error::io("create", &mounts))?;
        let slot = |number: u8, device: &std::path::Path, name: &str| {
            format!("[slot.rootfs.{number}]\ndevice={}\ntype=raw\nbootname={name}\n", device.display())
        };
        let configuration = format!(
            "[system]\ncompatible={COMPATIBLE}\nbootloader=custom\nmountprefix={}\nstatusfile={}\n\
             [handlers]\nbootloader-custom-backend={}\n[keyring]\npath={}\n{}{}",
            mounts.display(),
            scene.room.join("status").display(),
            script.display(),
            certificate.display(),
            slot(0, scene.running.device(), "a"),
            slot(1, scene.target.device(), "b"),
        );
        write(&scene.room.join("system.conf"), &configuration)?;
        let bus = start_bus(&scene.room.join("bus"))?;
        Ok(Rauc { service: None, _bus: bus, room: scene.room.clone(), bundle })
    }

    fn rauc(&self, arguments: &[&str]) -> std::process::Command {
        let mut rauc = command("rauc", &["-c"]);
        rauc.arg(self.room.join("system.conf")).args(arguments);
        let bus = format!("unix:path={}", self.room.join("bus").display());
        rauc.env("DBUS_SESSION_BUS_ADDRESS", bus).env("DBUS_STARTER_BUS_TYPE", "session");
        rauc
    }
}

impl Peer for Rauc {
    fn name(&self) -> &'static str {
        "RAUC, plain bundle, zstd squashfs"
    }

    fn prepare(&mut self) -> Result<(), Error> {
        let log = self.room.join("service.log");
        self.service = Some(Daemon::start(&mut self.rauc(&["--override-boot-slot=a", "service"]), &log)?);
        // It is there when it answers.
        let answers = || run(&mut self.rauc(&["status"])).is_ok();
        (0..100)
            .any(|_| {
                answers() || {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    false
                }
            })
            .then_some(())
            .ok_or_else(|| Error::Setup(crate::process::tail(&fs::read(&log).unwrap_or_default())))
    }

    fn daemons(&self) -> Vec<u32> {
        self.service.iter().map(Daemon::id).collect()
    }

    fn install(&mut self) -> Result<(), Error> {
        run(self.rauc(&["install"]).arg(&self.bundle)).map(drop)
    }

    fn finish(&mut self) {
        self.service = None;
    }
}
