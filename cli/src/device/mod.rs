//! The commands that talk to otad over D-Bus: install, status, commit, rollback, cancel, reboot, check, log.
//!
//! Owns the client's side of `org.otad1`: how progress and results look, which exit status a D-Bus error has, and what
//! happens when either side goes away. It never opens a slot, an environment or otad's data: everything it knows comes
//! over the bus.

mod confirm;
mod fields;
mod install;
mod link;
mod meter;
mod model;
mod pace;
mod source;
mod status;
mod trial;
mod trouble;
mod voice;
mod watch;

use crate::args::{DeviceCommand, Globals};
use crate::exit::Exit;
use link::Link;
use trouble::Trouble;
use voice::{Report, Voice};

/// Runs one command against the daemon.
pub fn run(command: DeviceCommand, globals: &Globals) -> Result<(), Exit> {
    let voice = match (globals.quiet, globals.json) {
        (true, _) => Voice::Quiet,
        (false, true) => Voice::Json,
        (false, false) => Voice::Text,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Trouble::System { act: "start the event loop", source })?;
    let streams = streams_events(&command);
    let done = runtime.block_on(perform(command, &globals.bus, voice));
    // Nothing is left to do in the background, and a read of standard input must not hold us up.
    runtime.shutdown_background();
    done.map_err(|trouble| end(trouble, streams, voice))
}

async fn perform(command: DeviceCommand, bus: &str, voice: Voice) -> Result<(), Trouble> {
    match command {
        DeviceCommand::Install(arguments) => install::run(bus, &arguments, voice).await,
        DeviceCommand::Status(arguments) if arguments.follow => status::follow(bus, voice).await,
        DeviceCommand::Status(_) => status::show(bus, voice).await,
        DeviceCommand::Log => status::log(bus, voice).await,
        DeviceCommand::Commit(arguments) if arguments.when_healthy => confirm::wait(bus, voice).await,
        DeviceCommand::Commit(_) => {
            Link::open(bus).await?.commit().await?;
            acknowledge(voice, "commit", "committed: the running system is confirmed")
        }
        DeviceCommand::Rollback => {
            Link::open(bus).await?.rollback().await?;
            acknowledge(voice, "rollback", "rolled back: the next boot starts the other slot (otactl status)")
        }
        DeviceCommand::Cancel => {
            Link::open(bus).await?.cancel().await?;
            acknowledge(voice, "cancel", "cancelled; the running system is not touched")
        }
        DeviceCommand::Reboot => {
            Link::open(bus).await?.reboot().await?;
            acknowledge(voice, "reboot", "the device reboots")
        }
        DeviceCommand::Check => {
            let found = Link::open(bus).await?.check().await?;
            voice.report(&Report::Checked { found })?;
            voice.say(if found {
                "the server has an update; its install runs (otactl status --follow)"
            } else {
                "the server has nothing new for this device"
            })
        }
    }
}

fn acknowledge(voice: Voice, act: &str, sentence: &str) -> Result<(), Trouble> {
    voice.report(&Report::Done { act, result: None })?;
    voice.say(sentence)
}

/// Whether the command's `--json` output is a stream of events, whose last one then is the failure.
fn streams_events(command: &DeviceCommand) -> bool {
    match command {
        DeviceCommand::Install(_) => true,
        DeviceCommand::Status(arguments) => arguments.follow,
        DeviceCommand::Commit(_)
        | DeviceCommand::Rollback
        | DeviceCommand::Cancel
        | DeviceCommand::Reboot
        | DeviceCommand::Check
        | DeviceCommand::Log => false,
    }
}

/// Turns trouble into the end of the program: in a stream of events as its last event, else as everywhere.
fn end(trouble: Trouble, streams: bool, voice: Voice) -> Exit {
    if !(streams && voice == Voice::Json) {
        return trouble.into();
    }
    let exit = Exit::from(trouble);
    let code = exit.code.as_deref().unwrap_or_default();
    match voice.report(&Report::Failed { code, message: &exit.message }) {
        Ok(()) => Exit::silent(exit.status),
        // Standard output is gone: standard error may still be there.
        Err(_) => exit,
    }
}
