//! `otactl status` and `otactl log`: what runs, what is installed, what happened.

use otad_dbus::value::{outcome, slot_state, state};

use super::link::{Event, Events, Link, unless_interrupted};
use super::meter::Meter;
use super::model::{Device, Outcome, Slot};
use super::trouble::Trouble;
use super::voice::{Report, Voice};
use super::watch::{Watched, settle, watch};
use crate::show::{Style, Tone, human_bytes, or_dash, short_digest, table, utc_time};

/// Shows the device once.
pub(super) async fn show(bus: &str, voice: Voice) -> Result<(), Trouble> {
    let device = Link::open(bus).await?.device().await?;
    voice.document(&device)?;
    voice.say(&render(&device, Style::of_stdout()))
}

/// Shows the running install like the `otactl install` that started it, and ends with it. Without one, shows the state
/// at every change until Ctrl-C.
pub(super) async fn follow(bus: &str, voice: Voice) -> Result<(), Trouble> {
    let link = Link::open(bus).await?;
    let mut events = link.listen().await?;
    let device = unless_interrupted(link.device()).await?;
    if let Some(mut job) = device.job {
        voice.report(&Report::Started { job: &job.path })?;
        return match watch(&mut events, &mut job, &mut Meter::new(voice)).await? {
            Watched::Ended(end) => {
                settle(end)?;
                let device = link.device().await?;
                voice.report(&Report::Done { act: "install", result: device.last_result.as_ref() })?;
                voice.say(&sentence(&device))
            }
            Watched::Vanished => Err(Trouble::WentAway { during: format!("in phase {}", or_dash(&job.phase)) }),
            Watched::Interrupted => Err(Trouble::Detached(
                "detached; the install goes on: stop it with `otactl cancel`, see it again with `otactl status --follow`"
                    .to_owned(),
            )),
        };
    }
    voice.report(&Report::Status(&device))?;
    voice.say(&render(&device, Style::of_stdout()))?;
    follow_states(&link, &mut events, device, voice).await
}

async fn follow_states(
    link: &Link,
    events: &mut Events,
    mut shown: Device,
    voice: Voice,
) -> Result<(), Trouble> {
    let mut meter = Meter::new(voice);
    loop {
        match events.next().await {
            Event::Changed { interface, .. } if interface == otad_dbus::MANAGER_INTERFACE => {}
            Event::Appeared => meter.note("otad is back"),
            Event::Vanished => {
                meter.note("otad went away (a restart or a reboot)");
                voice.report(&Report::Waiting { on: "daemon" })?;
                continue;
            }
            Event::BusLost => return Err(Trouble::BusLost),
            // The only way to end this; nothing was given up.
            Event::Interrupt => return Ok(()),
            Event::Changed { .. } | Event::JobRemoved(_) => continue,
        }
        let device = match unless_interrupted(link.device()).await {
            Ok(device) => device,
            // It went away again; the event says so next.
            Err(trouble) if trouble.is_absence() => continue,
            Err(trouble) => return Err(trouble),
        };
        if let Some(mut job) = device.job.clone() {
            match watch(events, &mut job, &mut meter).await? {
                Watched::Ended(end) => {
                    if let Err(trouble) = settle(end) {
                        meter.note(&format!("{trouble} (code {})", trouble.code()));
                    }
                }
                Watched::Vanished => meter.note("otad went away during the install"),
                Watched::Interrupted => return Ok(()),
            }
            continue;
        }
        if device != shown {
            voice.report(&Report::Status(&device))?;
            voice.say(&sentence(&device))?;
            shown = device;
        }
    }
}

/// Shows the history.
pub(super) async fn log(bus: &str, voice: Voice) -> Result<(), Trouble> {
    let history = Link::open(bus).await?.history().await?;
    voice.document(&history)?;
    voice.say(&render_history(&history, Style::of_stdout()))
}

/// The whole status as text.
fn render(device: &Device, style: Style) -> String {
    let mut text = format!("{}\n\n", style.paint(state_tone(device), &sentence(device)));
    text.push_str(&table(&slot_rows(device, style)));
    text.push('\n');
    let mut rows = vec![row(["device", &or_dash(&device.compatible)])];
    rows.extend(
        device.slots.iter().map(|slot| row([&format!("slot {}", or_dash(&slot.name)), &images(slot)])),
    );
    let root = match device.root_version {
        0 => "no root of trust".to_owned(),
        version => format!("root {version}"),
    };
    // An otad from before these properties tells neither.
    if (device.root_version, device.sequence_floor) != (0, 0) {
        rows.push(row(["trust", &format!("{root}, no release below sequence {}", device.sequence_floor)]));
    }
    for problem in &device.problems {
        let text = format!("{}: {}", or_dash(&problem.code), or_dash(&problem.message));
        rows.push(row(["problem", &style.paint(Tone::Bad, &text)]));
    }
    if let Some(job) = &device.job {
        let done = format!(
            "{}, {} %, {} fetched, {} written, {} unchanged",
            or_dash(&job.phase),
            job.progress,
            human_bytes(job.bytes_fetched),
            human_bytes(job.bytes_written),
            human_bytes(job.bytes_unchanged)
        );
        rows.push(row(["job", &done]));
    }
    match &device.last_result {
        None => rows.push(row(["last result", "none yet"])),
        Some(last) => {
            rows.push(row(["last result", &paint_outcome(last, style)]));
            rows.push(row([
                "",
                &format!(
                    "{} to slot {}, {}",
                    or_dash(&last.version),
                    or_dash(&last.slot),
                    utc_time(last.time)
                ),
            ]));
            if !last.code.is_empty() || !last.message.is_empty() {
                rows.push(row(["", &reason(last)]));
            }
        }
    }
    text.push_str(&table(&rows));
    text
}

fn slot_rows(device: &Device, style: Style) -> Vec<Vec<String>> {
    let heading = ["SLOT", "", "STATE", "VERSION", "SEQ", "RELEASE", "INSTALLED"];
    let mut rows = vec![heading.iter().map(|name| style.paint(Tone::Heading, name)).collect::<Vec<_>>()];
    for slot in &device.slots {
        rows.push(vec![
            or_dash(&slot.name),
            marks(slot).to_owned(),
            style.paint(slot_tone(slot), &or_dash(&slot.state)),
            or_dash(&slot.version),
            if slot.sequence == 0 { "-".to_owned() } else { slot.sequence.to_string() },
            short_digest(&slot.release),
            utc_time(slot.installed_at),
        ]);
    }
    rows
}

fn images(slot: &Slot) -> String {
    let images: Vec<String> =
        slot.images.iter().map(|(role, path)| format!("{}={}", or_dash(role), or_dash(path))).collect();
    images.join(" ")
}

fn marks(slot: &Slot) -> &'static str {
    match (slot.booted, slot.primary) {
        (true, true) => "booted, primary",
        (true, false) => "booted",
        (false, true) => "primary",
        (false, false) => "",
    }
}

/// The state in one sentence.
fn sentence(device: &Device) -> String {
    let slot = |name: &str| device.slots.iter().find(|slot| slot.name == name && !name.is_empty());
    let named = |slot: Option<&Slot>| match slot {
        Some(slot) => format!("slot {} ({})", or_dash(&slot.name), or_dash(&slot.version)),
        None => "a slot that otad cannot tell".to_owned(),
    };
    let booted = slot(&device.booted_slot);
    let target = device.job.as_ref().map_or("-".to_owned(), |job| or_dash(&job.version));
    let word = or_dash(&device.state);
    match device.state.as_str() {
        state::IDLE => match booted {
            Some(slot) => format!("{word}: {} is {}", named(booted), or_dash(&slot.state)),
            None => format!("{word}: the running slot is not known, so no slot will be written"),
        },
        state::PRE_UPGRADE => format!("{word}: {target} is being checked; nothing has been changed"),
        state::UPGRADING => format!("{word}: {target} is being written; {} keeps running", named(booted)),
        state::POST_UPGRADE if booted.is_some_and(|slot| slot.state == slot_state::TRIAL) => {
            format!("{word}: {} runs on trial until its health checks confirm it", named(booted))
        }
        // Before the reboot the target is not the slot that runs; with a lost environment nothing tells the two apart.
        state::POST_UPGRADE if device.primary_slot.is_empty() => {
            format!("{word}: {} runs; the boot environment is lost", named(booted))
        }
        state::POST_UPGRADE => format!(
            "{word}: {} is armed; its trial starts with the next boot (otactl reboot)",
            named(slot(&device.primary_slot))
        ),
        state::FAILED => {
            let why = device
                .last_result
                .as_ref()
                .map_or_else(String::new, |last| format!(" ({})", or_dash(&last.code)));
            format!("{word}: the last update did not succeed{why}; {} runs", named(booted))
        }
        _ => word,
    }
}

fn reason(result: &Outcome) -> String {
    match (result.code.is_empty(), result.message.is_empty()) {
        (false, false) => format!("{}: {}", or_dash(&result.code), or_dash(&result.message)),
        (false, true) => or_dash(&result.code),
        (true, _) => or_dash(&result.message),
    }
}

fn state_tone(device: &Device) -> Tone {
    match device.state.as_str() {
        state::IDLE if !device.booted_slot.is_empty() => Tone::Good,
        state::IDLE | state::FAILED => Tone::Bad,
        _ => Tone::Attention,
    }
}

fn slot_tone(slot: &Slot) -> Tone {
    match slot.state.as_str() {
        slot_state::CONFIRMED => Tone::Good,
        slot_state::TRIAL => Tone::Attention,
        slot_state::DISARMED => Tone::Faint,
        _ => Tone::Bad,
    }
}

fn paint_outcome(result: &Outcome, style: Style) -> String {
    let tone = match result.outcome.as_str() {
        outcome::COMMITTED => Tone::Good,
        outcome::INSTALLED | outcome::CANCELLED => Tone::Attention,
        _ => Tone::Bad,
    };
    style.paint(tone, &or_dash(&result.outcome))
}

/// The history as text, oldest first.
fn render_history(history: &[Outcome], style: Style) -> String {
    if history.is_empty() {
        return "no update has been tried on this device yet".to_owned();
    }
    let heading = ["TIME", "OUTCOME", "VERSION", "SEQ", "SLOT", "RELEASE"];
    let mut rows = vec![heading.iter().map(|name| style.paint(Tone::Heading, name)).collect::<Vec<_>>()];
    for entry in history {
        rows.push(vec![
            utc_time(entry.time),
            paint_outcome(entry, style),
            or_dash(&entry.version),
            entry.sequence.to_string(),
            or_dash(&entry.slot),
            short_digest(&entry.release),
        ]);
    }
    // A reason is a sentence and would make every line too long for a terminal: it stands below its line.
    let mut text = String::new();
    let reasons = std::iter::once(String::new()).chain(history.iter().map(reason));
    for (line, reason) in table(&rows).lines().zip(reasons) {
        text.push_str(line);
        text.push('\n');
        if !matches!(reason.as_str(), "" | "-") {
            text.push_str("  ");
            text.push_str(&reason);
            text.push('\n');
        }
    }
    text
}

fn row(cells: [&str; 2]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}
