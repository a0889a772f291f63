//! `otactl commit --when-healthy`: waits until otad's health checks have decided about the running system.
//!
//! It asks for nothing: a system that is not on trial is confirmed already, and one that is gets confirmed by otad or not.

use otad_dbus::value::{outcome, slot_state};

use super::link::{Event, Link, unless_interrupted};
use super::model::Device;
use super::trouble::Trouble;
use super::voice::{Report, Voice};
use crate::show::or_dash;

/// Waits, and succeeds when the running system is confirmed.
pub(super) async fn wait(bus: &str, voice: Voice) -> Result<(), Trouble> {
    let link = Link::open(bus).await?;
    let mut events = link.listen().await?;
    let mut told = false;
    loop {
        match unless_interrupted(link.device()).await {
            Ok(device) if on_trial(&device) => {
                if !told {
                    voice.report(&Report::Waiting { on: "trial" })?;
                    told = true;
                }
            }
            Ok(device) => return tell(&device, voice),
            // It is being started or restarted: whoever waits for a verdict waits for that too.
            Err(trouble) if told && trouble.is_absence() => {}
            Err(trouble) => return Err(trouble),
        }
        match events.next().await {
            Event::BusLost => return Err(Trouble::BusLost),
            Event::Interrupt => {
                let what = "not waiting any longer; otad goes on deciding (otactl status)";
                return Err(Trouble::Detached(what.to_owned()));
            }
            Event::Changed { .. } | Event::JobRemoved(_) | Event::Appeared | Event::Vanished => {}
        }
    }
}

fn on_trial(device: &Device) -> bool {
    device.slots.iter().any(|slot| slot.booted && slot.state == slot_state::TRIAL)
}

/// What runs is not on trial: confirmed, or just given up, with the reboot about to come.
fn tell(device: &Device, voice: Voice) -> Result<(), Trouble> {
    let given_up = device.slots.iter().any(|slot| slot.booted && slot.state == slot_state::DISARMED);
    if given_up {
        let message = format!("slot {} was not confirmed and is given up", or_dash(&device.booted_slot));
        return Err(Trouble::Refused { code: otad_dbus::Code::RolledBack, message });
    }
    let committed = device
        .last_result
        .as_ref()
        .filter(|result| result.outcome == outcome::COMMITTED && result.slot == device.booted_slot);
    voice.report(&Report::Done { act: "commit", result: committed })?;
    voice.say(&format!(
        "confirmed: {} runs from slot {}",
        or_dash(&device.version),
        or_dash(&device.booted_slot)
    ))
}
