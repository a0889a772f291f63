//! The good update and the bad one.

use std::fs;

use otad_demo::image::IMAGE_BYTES;
use otad_demo::{Error, Status};
use sha2::{Digest as _, Sha256};

use super::prepare::{BOOT_LIMIT, short};
use super::{Stage, Story, Trouble, Volume};

impl Story {
    /// Version 2: fetched, written, compared, tried, committed.
    pub(super) fn good_update(&mut self, stage: &Stage) -> Result<(), Trouble> {
        self.install(stage)?;
        self.compare(stage)?;
        self.try_and_commit(stage)
    }

    /// Version 3: fetched, written, tried, rolled back, remembered, reported.
    pub(super) fn bad_update(&mut self, stage: &Stage) -> Result<(), Trouble> {
        self.offer(stage)?;
        self.try_and_roll_back(stage)?;
        self.ask_again(stage)?;
        self.read_report(stage)
    }

    fn install(&mut self, stage: &Stage) -> Result<(), Trouble> {
        self.voice.heading("Version 2 over HTTP, into slot b");
        let artifacts = self.played(stage.server.artifacts())?;
        let url = artifacts.first().map(|artifact| stage.server.artifact_url(artifact)).unwrap_or_default();
        self.succeed(&mut self.device_otactl(stage, ["install", &url]))?;
        let status = self.played(stage.device.status())?;
        self.told(armed(&status, "b"), "slot b to be armed with version 2.0.0", || format!("{status:?}"))?;
        let log = self.log_line(stage, "is synced")?;
        self.voice.quote([log.as_str()]);
        self.voice.note("version 2 was written to b", log.trim_start_matches("otad: slot b is synced: "));
        Ok(())
    }

    /// The bytes of the target slot are those of the image.
    fn compare(&mut self, stage: &Stage) -> Result<(), Trouble> {
        self.voice.heading("The bytes in slot b");
        let path = self.path("v2.ext4");
        let image = self.played(fs::read(&path).map_err(|source| Error::Io { act: "read", path, source }))?;
        let slot = self.played(stage.device.slot_bytes("b", image.len()))?;
        let [of_image, of_slot] = [&image, &slot].map(|bytes| hex(&Sha256::digest(bytes)));
        self.voice.say(&format!("SHA-256 of v2.ext4 and of the first {IMAGE_BYTES} bytes of slot b:"));
        println!("  image  {of_image}\n  slot   {of_slot}");
        self.told(image == slot, "the same bytes in v2.ext4 and in slot b", || {
            let at = image.iter().zip(&slot).position(|(a, b)| a != b).unwrap_or_default();
            format!("the first difference at byte {at}")
        })?;
        self.voice
            .note("slot b equals the image", format!("{IMAGE_BYTES} bytes, SHA-256 {}…", short(&of_slot)));
        Ok(())
    }

    fn try_and_commit(&mut self, stage: &Stage) -> Result<(), Trouble> {
        self.voice.heading("Reboot, trial, commit");
        let seen = self.console_length(stage)?;
        self.succeed(&mut self.device_otactl(stage, ["reboot"]))?;
        let committed = |status: &Status| status.rests_in("b") && status.last_outcome() == "committed";
        let status =
            self.played(stage.device.wait_for("version 2 to be committed", BOOT_LIMIT, committed))?;
        self.show_console(stage, seen)?;
        self.voice.say("The self-test in the new system passed for a second, so otad committed it:");
        self.succeed(&mut self.device_otactl(stage, ["status"]))?;
        self.told(status.version == "2.0.0", "version 2.0.0", || status.version.clone())?;
        let environment = self.played(stage.device.environment())?;
        let found = ["otad_slot", "otad_b_ok", "upgrade_available"]
            .map(|name| format!("{name}={}", environment.get_str(name).unwrap_or_default()))
            .join(" ");
        self.told(found == "otad_slot=b otad_b_ok=1 upgrade_available=0", "a committed slot b", || {
            found.clone()
        })?;
        self.voice.note("version 2 was committed", found);
        Ok(())
    }

    fn offer(&mut self, stage: &Stage) -> Result<(), Trouble> {
        self.voice.heading("Version 3, which is broken, into slot a");
        self.upload(&stage.server, "v3.otab")?;
        self.voice
            .say("The device would ask within the hour; it is told to ask now, and takes what is offered.");
        self.succeed(&mut self.device_otactl(stage, ["check"]))?;
        let status = self
            .played(stage.device.wait_for("slot a to be armed", BOOT_LIMIT, |status| armed(status, "a")))?;
        let version = status.slot("a").map(|slot| slot.version.clone()).unwrap_or_default();
        self.told(version == "3.0.0", "version 3.0.0 in slot a", || version.clone())?;
        let log = self.log_line(stage, "is synced")?;
        self.voice.quote([log.as_str()]);
        self.voice.note("version 3 was written to a", log.trim_start_matches("otad: slot a is synced: "));
        Ok(())
    }

    fn try_and_roll_back(&mut self, stage: &Stage) -> Result<(), Trouble> {
        self.voice.heading("Reboot, trial, automatic rollback");
        let seen = self.console_length(stage)?;
        self.succeed(&mut self.device_otactl(stage, ["reboot"]))?;
        let rolled_back =
            |status: &Status| status.booted_slot == "b" && status.last_outcome() == "rolled-back";
        let status =
            self.played(stage.device.wait_for("version 3 to be rolled back", BOOT_LIMIT, rolled_back))?;
        self.show_console(stage, seen)?;
        self.succeed(&mut self.device_otactl(stage, ["status"]))?;
        self.succeed(&mut self.device_otactl(stage, ["log"]))?;
        let last = status.last_result.as_ref();
        let (code, message) =
            last.map(|last| (last.code.as_str(), last.message.as_str())).unwrap_or_default();
        let why = format!("{code}: {message}");
        let is_right = code == "HEALTH_FAILED" && message.contains("4 columns wanted");
        self.told(is_right, "the self-test's own words as the reason", || why.clone())?;
        self.told(status.version == "2.0.0", "version 2.0.0 to run again", || status.version.clone())?;
        self.voice.note("version 3 was rolled back", why);
        Ok(())
    }

    fn ask_again(&mut self, stage: &Stage) -> Result<(), Trouble> {
        self.voice.heading("The server is asked again");
        let mut check = self.device_otactl(stage, ["check"]);
        let status = self.played(self.voice.run(&mut check))?;
        self.told(!status.success(), "otactl check to refuse version 3", || status.to_string())?;
        self.voice.quote([status.to_string().as_str()]);
        let status = self.played(stage.device.status())?;
        let quiet =
            status.job.is_none() && status.booted_slot == "b" && status.last_outcome() == "rolled-back";
        self.told(quiet, "no new attempt", || format!("{status:?}"))?;
        self.voice.note("version 3 is not taken again", "RELEASE_FAILED_BEFORE");
        Ok(())
    }

    fn read_report(&mut self, stage: &Stage) -> Result<(), Trouble> {
        self.voice.heading("What the server was told");
        self.voice.say("Reports of demo-device, from /api/v1/reports, the newest first:");
        let reports = self.played(stage.server.reports("demo-device"))?;
        for report in &reports {
            let version = report.version.as_deref().unwrap_or("-");
            let reason = report.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            self.voice.quote([format!("{version} {}{reason}", report.outcome).as_str()]);
        }
        let found = || format!("{reports:?}");
        let of = |outcome: &str, version: &str| {
            reports
                .iter()
                .find(|report| report.outcome == outcome && report.version.as_deref() == Some(version))
        };
        self.told(of("committed", "2.0.0").is_some(), "a report of the commit of version 2", found)?;
        let log = of("rolled-back", "3.0.0").map(|report| report.log.as_slice()).unwrap_or_default();
        let explains = log.iter().any(|line| line.contains("4 columns wanted"));
        self.told(explains, "a report of the rollback of version 3, with the log of the failed boot", found)?;
        self.voice.say("With the log of the boot that failed:");
        self.voice.quote(log.iter().map(String::as_str));
        self.voice.note("the server knows why", format!("a report with {} lines of its log", log.len()));
        Ok(())
    }

    /// How much the console has said so far.
    pub(super) fn console_length(&self, stage: &Stage) -> Result<usize, Trouble> {
        self.played(stage.device.console()).map(|text| text.len())
    }

    /// Shows what the console has said since then, unless it was shown as it came.
    pub(super) fn show_console(&self, stage: &Stage, since: usize) -> Result<(), Trouble> {
        if self.options.volume == Volume::Normal {
            let text = self.played(stage.device.console())?;
            self.voice.quote(text.get(since..).unwrap_or_default().lines());
        }
        Ok(())
    }

    /// The last line of otad's log that contains this.
    fn log_line(&self, stage: &Stage, part: &str) -> Result<String, Trouble> {
        let path = stage.device.otad_log_path();
        let log = self.played(fs::read(&path).map_err(|source| Error::Io { act: "read", path, source }))?;
        let log = String::from_utf8_lossy(&log);
        Ok(log.lines().rev().find(|line| line.contains(part)).unwrap_or_default().to_owned())
    }
}

/// Whether this slot was installed and waits for its trial.
fn armed(status: &Status, slot: &str) -> bool {
    let here =
        status.last_result.as_ref().is_some_and(|last| last.outcome == "installed" && last.slot == slot);
    status.state == "post-upgrade" && status.primary_slot == slot && status.job.is_none() && here
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
