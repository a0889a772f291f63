//! Steps before the first update: images, keys, bundles, server, device.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use otad_demo::device::check_directory;
use otad_demo::image::{self, IMAGE_BYTES, Release};
use otad_demo::{Device, Error, Server, slots};

use super::{Stage, Story, Trouble, Volume};

/// The hardware of the story.
const COMPATIBLE: &str = "demo-board";
/// The device asks the server only when the story says so.
const POLL_SECONDS: u32 = 3600;
/// A boot and a trial take about two seconds here; on a busy machine longer.
pub(super) const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// Tells a directory of the demo from one that must not be removed.
const MARK: &str = ".otad-demo";
/// The health check of the device: the truth comes from the image.
const HEALTH_CHECK: &str = "exec rootfs/bin/busybox sh rootfs/usr/lib/app/selftest";

/// Makes the directory, in the place of an earlier demo if there is one, and returns its absolute path.
pub(super) fn fresh_directory(dir: &Path) -> Result<PathBuf, Error> {
    let failed = |act, dir: &Path| {
        let dir = dir.to_owned();
        move |source| Error::Io { act, path: dir, source }
    };
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let dir = dir.canonicalize().map_err(failed("find", dir))?;
    check_directory(&dir)?;
    let is_ours = dir.join(MARK).exists();
    if is_ours {
        slots::detach_leftovers(&dir.join("device"));
    }
    for entry in fs::read_dir(&dir).map_err(failed("list", &dir))? {
        let path = entry.map_err(failed("list", &dir))?.path();
        if !is_ours {
            let what = "is not empty and not from an earlier demo; choose another --dir";
            return Err(Error::Setup(format!("{} {what}", dir.display())));
        }
        // The mark stays: a removal that is interrupted can be repeated.
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        } else if !path.ends_with(MARK) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    fs::write(dir.join(MARK), "").map_err(failed("write to", &dir))?;
    Ok(dir)
}

impl Story {
    /// Everything up to a running device.
    pub(super) fn prepare(&mut self) -> Result<Stage, Trouble> {
        self.build_images()?;
        self.make_keys()?;
        self.create_bundles()?;
        let server = self.start_server()?;
        let device = self.build_device(&server)?;
        let mut stage = Stage { device, server };
        self.first_boot(&mut stage)?;
        Ok(stage)
    }

    fn build_images(&mut self) -> Result<(), Trouble> {
        self.voice.heading("Three root file systems");
        self.voice.say(
            "Real ext4 images with Debian's busybox, an application with a self-test, and some megabytes of other \
             files. Version 2 is a good update; version 3 changes the application's table format and forgets the table.",
        );
        for release in Release::ALL {
            let number = release.number();
            let tree = self.path(&format!("images/v{number}"));
            self.played(image::plant(release, &tree))?;
            self.played(image::make(&tree, &self.path(&format!("v{number}.ext4")), IMAGE_BYTES))?;
        }
        let sizes = [1, 2, 3].map(|number| self.size(&format!("v{number}.ext4")));
        self.told(sizes == [IMAGE_BYTES; 3], "three images of 64 MiB", || format!("{sizes:?} bytes"))?;
        self.voice.quote(["images/v1, v2, v3 became v1.ext4, v2.ext4, v3.ext4 of 64 MiB each"]);
        self.voice.note("three images were built", "ext4, 64 MiB each, checked by e2fsck");
        Ok(())
    }

    fn make_keys(&mut self) -> Result<(), Trouble> {
        self.voice.heading("A release key and the root of trust");
        self.succeed(&mut self.otactl(["key", "generate", "--out", "release.key"]))?;
        self.succeed(&mut self.otactl([
            "trust",
            "create",
            "--key",
            "release.key.pub",
            "--out",
            "root.toml",
        ]))?;
        self.voice.note("key and root of trust made", "device and server get root.toml");
        Ok(())
    }

    fn create_bundles(&mut self) -> Result<(), Trouble> {
        self.voice.heading("Signed bundles");
        for release in Release::ALL {
            let number = release.number();
            let (version, description) = (release.version(), release.description());
            let manifest = format!(
                "[update]\nversion = \"{version}\"\nsequence = {number}\ncompatible = [\"{COMPATIBLE}\"]\n\
                 description = \"{description}\"\n"
            );
            self.write(&format!("v{number}.toml"), &manifest)?;
            let (toml, image) = (format!("v{number}.toml"), format!("rootfs=v{number}.ext4"));
            let out = format!("v{number}.otab");
            let arguments = [
                "bundle",
                "create",
                "--manifest",
                &toml,
                "--image",
                &image,
                "--key",
                "release.key",
                "-o",
                &out,
            ];
            self.succeed(&mut self.otactl(arguments))?;
        }
        self.succeed(&mut self.otactl(["bundle", "verify", "v2.otab", "--root", "root.toml"]))?;
        let size = mebibytes(self.size("v2.otab"));
        self.voice.note("bundles were signed", format!("v2.otab has {size}, every byte verified"));
        Ok(())
    }

    fn start_server(&mut self) -> Result<Server, Trouble> {
        self.voice.heading("The update server, with version 2");
        let server = Server::start(&self.path("server"), &self.path("root.toml"), &self.binaries);
        let server = self.played(server)?;
        self.voice
            .command("otaserver --data server --listen 127.0.0.1:0 --heartbeat-seconds 1 --root root.toml &");
        println!("listening on {}", server.url());
        self.upload(&server, "v2.otab")?;
        self.voice.note("the server took version 2", "it verified the upload against root.toml");
        Ok(server)
    }

    /// Uploads a bundle as a build system does, and returns its URL.
    pub(super) fn upload(&self, server: &Server, bundle: &str) -> Result<String, Trouble> {
        let mut curl = std::process::Command::new("curl");
        curl.args(server.upload_command(Path::new(bundle))).current_dir(&self.dir);
        let (status, answer) = self.played(self.voice.ask(&mut curl))?;
        let said = String::from_utf8_lossy(&answer).into_owned();
        self.told(status.success(), "the server to take the bundle", || said)?;
        let artifact = self.played(Server::parse_artifact(&answer))?;
        let (version, release) = (&artifact.version, short(&artifact.release));
        self.voice.quote([
            format!("version {version}, release {release}, at {}", short_url(&artifact.url)).as_str()
        ]);
        Ok(server.artifact_url(&artifact))
    }

    fn build_device(&mut self, server: &Server) -> Result<Device, Trouble> {
        self.voice.heading("A device from the factory");
        let mut builder = Device::builder(self.path("device"))
            .factory_image(self.path("v1.ext4"))
            .trust_root(self.path("root.toml"))
            .compatible(COMPATIBLE)
            .backing(self.options.backing)
            .server(server.url(), POLL_SECONDS)
            .health_check("10-application", HEALTH_CHECK);
        if self.options.volume == Volume::Verbose {
            builder = builder.on_console(Box::new(|line| println!("  | {line}")));
        }
        let device = self.played(builder.build(&self.binaries))?;
        let loops = device.machine().slots().iter().filter(|slot| slot.is_loop()).count();
        let made_of = if loops == 2 { "loop devices" } else { "files" };
        self.voice.say(&format!(
            "Slot a holds version 1, slot b nothing; both are {made_of}. The boot environment has two copies in \
             U-Boot's format. otad is configured by device/otad.toml and talks on a bus of its own:",
        ));
        println!("  export OTAD_BUS={}", device.bus_address());
        Ok(device)
    }

    fn first_boot(&mut self, stage: &mut Stage) -> Result<(), Trouble> {
        let seen = self.console_length(stage)?;
        self.played(stage.device.power_on())?;
        let status = stage.device.wait_for("the first boot", BOOT_LIMIT, |status| status.rests_in("a"));
        let status = self.played(status)?;
        self.show_console(stage, seen)?;
        self.succeed(&mut self.device_otactl(stage, ["status"]))?;
        self.told(status.version == "1.0.0", "version 1.0.0 in slot a", || format!("{status:?}"))?;
        self.voice.note("the device booted slot a", "version 1.0.0, confirmed");
        Ok(())
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), Trouble> {
        let path = self.path(name);
        self.played(fs::write(&path, text).map_err(|source| Error::Io { act: "write", path, source }))
    }

    fn size(&self, name: &str) -> u64 {
        fs::metadata(self.path(name)).map_or(0, |metadata| metadata.len())
    }
}

/// The first digits of a digest, enough to tell releases apart.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// `/artifacts/255f6d4f21aa….otab`.
fn short_url(url: &str) -> String {
    match url.rsplit_once('/') {
        Some((path, name)) => format!("{path}/{}….otab", short(name)),
        None => url.to_owned(),
    }
}

/// A size for people.
pub(super) fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
