//! The story: a good update, a bad update, and the proof of both.
//!
//! Every step shows the command lines that anybody could type, with their real output, and then checks from another
//! side that what it tells is so.

mod prepare;
mod update;
mod voice;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use otad_demo::{Binaries, Device, Error, Server};

use voice::Voice;

/// What the caller wants.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Where everything goes.
    pub(crate) dir: PathBuf,
    /// What slots are made of.
    pub(crate) backing: otad_demo::Backing,
    /// What happens at the end.
    pub(crate) afterwards: Afterwards,
    /// How much is shown.
    pub(crate) volume: Volume,
}

/// What happens at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// Everything stops.
    Stop,
    /// Everything runs until Ctrl-C.
    KeepRunning,
}

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Volume {
    /// The story.
    Normal,
    /// The device's console too.
    Verbose,
}

/// Why the story ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// It could not begin.
    #[error(transparent)]
    Unprepared(Error),
    /// Something could not be played.
    #[error("step {step}: {source}")]
    Stopped { step: usize, source: Error },
    /// Something is not as told.
    #[error("step {step} is not as told: expected {expected}, found {found}")]
    NotAsTold { step: usize, expected: String, found: String },
}

/// Everything that the steps share.
pub(crate) struct Story {
    options: Options,
    /// Absolute.
    dir: PathBuf,
    binaries: Binaries,
    voice: Voice,
}

/// What the story is about, once it is there. Dropped in this order.
struct Stage {
    device: Device,
    server: Server,
}

impl Story {
    /// Tells the whole story.
    pub(crate) fn tell(options: Options) -> Result<(), Trouble> {
        let started = Instant::now();
        let binaries = Binaries::find().map_err(Trouble::Unprepared)?;
        let dir = prepare::fresh_directory(&options.dir).map_err(Trouble::Unprepared)?;
        let mut story = Story { options, dir, binaries, voice: Voice::new() };
        story.introduce();
        let stage = story.prepare()?;
        story.good_update(&stage)?;
        story.bad_update(&stage)?;
        println!();
        story.voice.table();
        println!();
        let seconds = started.elapsed().as_secs_f64();
        story.voice.say(&format!(
            "All of it was checked, in {seconds:.0} s: version 2 is committed, version 3 was rolled back."
        ));
        story.say_goodbye(stage);
        Ok(())
    }

    fn introduce(&self) {
        self.voice.say(
            "A device made of files gets a good update and a bad one. The programs are the real ones; the boot loader \
             is played by a model of U-Boot. Commands run in",
        );
        println!("  {}", self.dir.display());
    }

    fn say_goodbye(&self, stage: Stage) {
        let show = |text: &str| println!("  {text}");
        println!();
        if self.options.afterwards == Afterwards::KeepRunning {
            self.voice.say("Everything is still running. Talk to it in another terminal:");
            show(&format!("cd {}", self.dir.display()));
            show(&format!("export PATH={}:$PATH", self.binaries.dir().display()));
            show(&format!("export OTAD_BUS={}", stage.device.bus_address()));
            show("otactl status --follow");
            show("otactl install v3.otab --reboot --wait-commit");
            show(&format!("curl {}/api/v1/devices", stage.server.url()));
            println!();
            self.voice.say("Ctrl-C ends it.");
            loop {
                // The signal thread ends the program.
                std::thread::park();
            }
        }
        drop(stage);
        self.voice.say("Everything is stopped. Look around:");
        show(&format!("cd {}", self.dir.display()));
        show("less device/console.log device/otad.log   # what the device said");
        show("less device/otad.toml                     # how it is configured");
        show("strings device/disk/uboot.env             # both copies of its environment");
        show("ls images/v2 device/rootfs                # the system installed, the system run");
        println!();
        self.voice.say("To play with a running one: otad-demo --keep-running; docs/demo.md has ideas.");
    }

    /// A program of this project, run in the directory of the demo.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.path(name));
        command.current_dir(&self.dir);
        command
    }

    /// `otactl` without a device.
    fn otactl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.program("otactl");
        command.args(arguments);
        command
    }

    /// `otactl` on the device.
    fn device_otactl<'a>(&self, stage: &Stage, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = stage.device.otactl_command();
        command.args(arguments).current_dir(&self.dir);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Shows and runs a command that has to succeed.
    fn succeed(&self, command: &mut Command) -> Result<(), Trouble> {
        let status = self.played(self.voice.run(command))?;
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.told(status.success(), &format!("{name} to exit with 0"), || status.to_string())
    }

    /// Adds the step to what could not be played.
    fn played<T>(&self, result: Result<T, Error>) -> Result<T, Trouble> {
        result.map_err(|source| Trouble::Stopped { step: self.voice.step(), source })
    }

    /// Checks that something is as told.
    fn told(&self, holds: bool, expected: &str, found: impl FnOnce() -> String) -> Result<(), Trouble> {
        if holds {
            return Ok(());
        }
        Err(Trouble::NotAsTold { step: self.voice.step(), expected: expected.to_owned(), found: found() })
    }
}
