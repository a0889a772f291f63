//! What is checked at the end of most scenarios.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::stage::{BOOT, Stage};
use crate::build::{BOOT_LIMIT, Slot};
use crate::emulator::boots::route;
use crate::emulator::firmware;

/// Boots that a bad release may cost: every attempt, and the boot that goes back.
pub(crate) const MOST_BOOTS: usize = BOOT_LIMIT as usize + 1;

impl Stage<'_> {
    /// The boots behind the first one went through these slots, in this order: `bbba`.
    pub(super) fn went(&mut self, expected: &str) -> Result<(), Failure> {
        let boots = self.boots_now()?;
        let later = route(boots.get(1..).unwrap_or_default());
        Failure::unless(later == expected, &format!("boots of the slots {expected}"), &later)?;
        Failure::unless(later.len() <= MOST_BOOTS, &format!("at most {MOST_BOOTS} boots"), &later)?;
        if !later.is_empty() {
            self.note(format!("boots {later}"));
        }
        Ok(())
    }

    /// The environment on the card is, byte for byte, the same for `bootenv` here, for `fw_printenv` and `bootenv` on the
    /// board, and for U-Boot itself; and it is healthy. Cuts the power.
    pub(super) fn environment_agrees(&mut self) -> Result<(), Failure> {
        let guest = self.guest()?;
        let by_other_tool = guest.run("fw_printenv")?;
        let by_otad_tool = guest.run("bootenv print")?;
        self.power_off();
        let stored = self.card.environment()?;
        let text: BTreeMap<String, String> = stored
            .iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .map(|(name, value)| {
                [name, value].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).into()
            })
            .collect();
        let same = |who: &str, said: &str| {
            let said: BTreeMap<String, String> = said
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let wrong = text.keys().chain(said.keys()).find(|name| text.get(*name) != said.get(*name));
            let found = wrong.map(|name| (name, text.get(name), said.get(name)));
            Failure::unless(found.is_none(), &format!("{who} to say what is on the card"), found)
        };
        same("fw_printenv on the board", &by_other_tool)?;
        same("bootenv on the board", &by_otad_tool)?;
        let by_boot_loader = firmware::printenv(&self.machine, &self.card)?;
        let found = firmware::difference(&stored, &by_boot_loader);
        Failure::unless(found.is_none(), "U-Boot's printenv to say what is on the card", found)?;
        let health = self.card.health()?;
        Failure::unless(health.is_healthy(), "both copies of the environment valid", health.to_string())?;
        self.step(&format!("{} variables are the same for U-Boot, fw_printenv and bootenv", text.len()));
        Ok(())
    }

    /// Waits until the board's environment has this value.
    pub(super) fn wait_variable(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let guest = self.guest()?;
        let began = Instant::now();
        loop {
            let said = guest.try_run(&format!("bootenv print -n {name}"))?.output;
            if said.trim_end() == value {
                return Ok(());
            }
            Failure::unless(began.elapsed() < BOOT, &format!("{name}={value} on the board"), &said)?;
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// These variables are on the card; an empty value means that it is not set. With the power off.
    pub(super) fn card_says(&self, expected: &[(&str, &str)]) -> Result<(), Failure> {
        let environment = self.card.environment()?;
        let found: Vec<(&str, &str)> =
            expected.iter().map(|(name, _)| (*name, environment.get_str(name).unwrap_or_default())).collect();
        Failure::unless(found == expected, &format!("on the card {expected:?}"), &found)
    }

    /// The slot holds this release, byte for byte. With the power off.
    pub(super) fn untouched(&self, slot: &str, release: &Slot) -> Result<(), Failure> {
        let expected = format!("slot {slot} to hold {} byte for byte", release.version);
        Failure::unless(self.slot_holds(slot, release)?, &expected, "other bytes")
    }
}
