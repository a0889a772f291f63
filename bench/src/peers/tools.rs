//! The parts of the work, each by the plain tool: what no updater can do without, and the ways without an updater.

use std::process::Command;

use super::{Peer, Scene, compressed, missing};
use crate::error::Error;
use crate::process::{command, run};

/// Writes the plain image and flushes.
pub(crate) const DD_WRITE: &str = "dd, plain image, fsync";
/// Reads the slot past the page cache.
pub(crate) const DD_READ: &str = "dd, reading the slot back";
/// Decompresses to nowhere.
pub(crate) const ZSTD: &str = "zstd -d to nowhere";
/// Hashes the image.
pub(crate) const OPENSSL: &str = "openssl sha256";
/// Hashes the image with the usual tool.
pub(crate) const SHA256SUM: &str = "sha256sum";

/// A command line.
pub(crate) struct Tool {
    name: &'static str,
    command: Command,
    fills_slot: bool,
}

impl Tool {
    /// All of them that have to do with the slot.
    pub(crate) fn on_slot(scene: &Scene<'_>) -> Result<Vec<Tool>, Error> {
        let device = scene.target.device().display();
        let packed = compressed(scene.images, scene.goods)?;
        let bytes = std::fs::metadata(scene.images.updated())
            .map_err(Error::io("look at", scene.images.updated()))?
            .len();
        let image = scene.images.updated().display().to_string();
        let write = [
            "bs=1M",
            "conv=fsync",
            "oflag=direct",
            "status=none",
            &format!("if={image}"),
            &format!("of={device}"),
        ];
        let read = [
            "bs=1M",
            "iflag=direct,count_bytes",
            "status=none",
            &format!("count={bytes}"),
            &format!("if={device}"),
            "of=/dev/null",
        ];
        let pipe = format!(
            "zstd -dcq '{}' | dd of={device} bs=1M iflag=fullblock oflag=direct conv=fsync status=none",
            packed.display()
        );
        let tool = |name, command, fills_slot| Tool { name, command, fills_slot };
        Ok(vec![
            tool(DD_WRITE, command("dd", &write), true),
            tool(DD_READ, command("dd", &read), false),
            tool("zstd -d into dd, fsync", command("sh", &["-c", &pipe]), true),
        ])
    }

    /// All of them that have not.
    pub(crate) fn off_slot(scene: &Scene<'_>) -> Result<Vec<Tool>, Error> {
        if let Some(missing) = missing(&["zstd", "openssl"]) {
            return Err(Error::Setup(missing));
        }
        let packed = compressed(scene.images, scene.goods)?.display().to_string();
        let image = scene.images.updated().display().to_string();
        let tool = |name, words: &[&str]| {
            let [program, arguments @ ..] = words else { return None };
            Some(Tool { name, command: command(program, arguments), fills_slot: false })
        };
        let tools = [
            tool(ZSTD, &["zstd", "-dqf", &packed, "-o", "/dev/null"]),
            tool(OPENSSL, &["openssl", "dgst", "-sha256", &image]),
            tool(SHA256SUM, &["sha256sum", &image]),
        ];
        Ok(tools.into_iter().flatten().collect())
    }
}

impl Peer for Tool {
    fn name(&self) -> &'static str {
        self.name
    }

    fn install(&mut self) -> Result<(), Error> {
        run(&mut self.command).map(drop)
    }

    fn fills_slot(&self) -> bool {
        self.fills_slot
    }
}
