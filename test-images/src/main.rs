//! `otad-board`: arguments and the exit status; nothing else.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bootenv::scheme::SchemeKind;
use lexopt::prelude::{Long, Short, Value};
use otad_board::build::{Board, Slot};
use otad_board::scenario::command;

const HELP: &str = "\
otad-board: builds an emulated ARM64 board with U-Boot, Linux and systemd, and updates it

Usage: otad-board build [--scheme bootcount|boot-order]    make everything that runs start from
                        [--device DIR]                 and a new device in DIR, with the line that starts it
@COMMANDS@
Everything goes to target/board. scripts/need-board installs what this takes from Debian.
Exit status: 0 done, 1 failed, 2 usage.
";

const HAND_WRITTEN: &str = "\
qemu-system-aarch64 -M virt -cpu cortex-a53 -m 512 -nographic -bios @UBOOT@ \\
  -drive if=none,id=disk,format=raw,file=@DISK@ -device virtio-blk-device,drive=disk \\
  -drive if=none,id=card,format=raw,file=@CARD@ -device sdhci-pci -device sd-card,drive=card \\
  -netdev user,id=net,hostfwd=tcp:127.0.0.1:2222-:22 -device virtio-net-device,netdev=net \\
  -device i6300esb -action watchdog=reset";

fn main() -> ExitCode {
    let mut parser = lexopt::Parser::from_env();
    let done = match parser.next() {
        Ok(Some(Value(word))) if word == "build" => build(parser).map(|()| true),
        Ok(Some(Value(word))) if word == "run" => command::run(&workspace(), parser),
        Ok(Some(Value(word))) if word == "list" => command::list(parser),
        Ok(Some(Value(word))) if word == "cuts" => command::cuts(&workspace(), parser),
        Ok(Some(Short('h') | Long("help"))) => {
            print!("{}", HELP.replace("@COMMANDS@\n", &format!("{}\n", command::HELP)));
            Ok(true)
        }
        Ok(Some(other)) => Err(other.unexpected().into()),
        Ok(None) => Err(lexopt::Error::from("no command").into()),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("otad-board: {error}");
            if error.is::<lexopt::Error>() {
                eprintln!("see otad-board --help");
                return ExitCode::from(2);
            }
            ExitCode::FAILURE
        }
    }
}

fn build(mut parser: lexopt::Parser) -> Result<(), Box<dyn std::error::Error>> {
    let mut scheme = SchemeKind::Bootcount;
    let mut device = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("scheme") => {
                scheme = parser.value()?.to_string_lossy().parse().map_err(|error| format!("{error}"))?
            }
            Long("device") => device = Some(PathBuf::from(parser.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    let board = Board::build(&workspace(), scheme)?;
    let image = board.image(&Slot::new("1.0.0", 1))?;
    println!("boot loader   {}\nrelease 1.0.0 {}", board.uboot.display(), image.display());
    if let Some(directory) = device {
        std::fs::create_dir_all(&directory)?;
        let (disk, card) = (board.new_disk(&directory, &image, None)?, board.new_card(&directory)?);
        println!(
            "a new device, to be started by hand (log in as root on the console, or with ssh -p 2222 -i {}):",
            board.ssh_key.display()
        );
        println!(
            "{}",
            HAND_WRITTEN
                .replace("@UBOOT@", &board.uboot.display().to_string())
                .replace("@DISK@", &disk.display().to_string())
                .replace("@CARD@", &card.display().to_string())
        );
    }
    Ok(())
}

/// Where the parts of the board are: the parent of this package.
fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}
