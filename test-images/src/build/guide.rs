//! What an integrator starts from before a board has otad: the inputs of docs/porting-a-board.md, and running its commands.

use std::fs;
use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::error::Error;
use super::step::{self, Links};
use super::{Board, system};

/// Where the guide is in the work tree.
const GUIDE: &str = "docs/porting-a-board.md";

/// A block of commands in it begins with this line, and ends with the one after.
const BLOCK: (&str, &str) = ("```sh", "```");

/// What of the emulated board's own root file system comes from otad's package or is what the guide adds.
const ADDED: [&str; 6] = [
    "etc/otad",
    "etc/fw_env.config",
    "etc/systemd/system/otad-trial-deadline.timer.d",
    "etc/systemd/system.conf.d",
    "usr/lib/otad",
    "usr/share/otad",
];

/// What following the guide leaves in its directory.
#[derive(Debug)]
pub struct Followed {
    /// The boot loader.
    pub uboot: PathBuf,
    /// The disk of a new device.
    pub disk: PathBuf,
    /// Its card.
    pub card: PathBuf,
    /// The directory with the bundles.
    pub work: PathBuf,
}

/// Runs every command of the guide in a directory, in order.
///
/// The root file system and the U-Boot they work on are beside it: what runs on the emulated board without otad, and Debian's
/// source.
pub(crate) fn follow(workspace: &Path, board: &Board, directory: &Path) -> Result<Followed, Error> {
    let (tree, work) = (directory.join("rootfs"), directory.join("work"));
    without_otad(&board.base_tree(), &tree)?;
    let archive = Archive::open(workspace.join("target/board/apt"))?;
    let uboot = archive.unpack_source("u-boot", directory)?;
    fs::create_dir_all(&work).map_err(Error::io("create", &work))?;
    let guide = workspace.join(GUIDE);
    let text = fs::read_to_string(&guide).map_err(Error::io("read", &guide))?;
    let script = directory.join("guide.sh");
    fs::write(&script, commands(&text)).map_err(Error::io("write", &script))?;
    let mut follow = step::command("bash", ["-eu", "-o", "pipefail", &script.display().to_string()]);
    let path = std::env::var("PATH").unwrap_or_default();
    follow
        .current_dir(&work)
        .env("ROOTFS", &tree)
        .env("U_BOOT", &uboot)
        .env("OTAD", workspace)
        .env("PATH", format!("{}:{path}", board.host_programs.display()));
    step::run("the porting guide", &mut follow, "the commands are those of docs/porting-a-board.md")?;
    Ok(Followed {
        uboot: uboot.join("build/u-boot.bin"),
        disk: work.join("disk.img"),
        card: work.join("card.img"),
        work,
    })
}

fn without_otad(from: &Path, tree: &Path) -> Result<(), Error> {
    step::copy_tree("the porting guide", from, tree, Links::Copy)?;
    system::run_other_architectures()?;
    let words = [tree.display().to_string(), "dpkg".to_owned(), "--purge".to_owned(), "otad".to_owned()];
    step::run(
        "the porting guide",
        &mut step::command("chroot", words),
        "is otad installed in the base tree?",
    )?;
    for place in ADDED.map(|place| tree.join(place)) {
        let removed = if place.is_dir() { fs::remove_dir_all(&place) } else { fs::remove_file(&place) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &place)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The commands of a guide as one script.
fn commands(guide: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in guide.lines() {
        match inside {
            false => inside = line == BLOCK.0,
            true if line == BLOCK.1 => inside = false,
            true => script.extend([line, "\n"]),
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_blocks_of_commands_are_run() {
        let guide = "text\n```sh\none\ntwo\n```\n```\n# otactl status\n```\n```sh\nthree\n```\n";
        assert_eq!(commands(guide), "one\ntwo\nthree\n");
    }
}
