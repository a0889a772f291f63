//! What an operator may set for a release, with the defaults and the bounds of each number.

use serde::{Deserialize, Serialize};

use super::class::Class;
use super::step::Step;
use super::window::Window;

/// Longest time an operator may allow for a step, in seconds: a month.
const MAX_TIMEOUT_SECONDS: u32 = 31 * 24 * 3600;
/// Longest wait between two tries, in seconds.
const MAX_BACKOFF_SECONDS: i64 = 24 * 3600;
/// Most windows of a release.
const MAX_WINDOWS: usize = 50;

/// How a release goes through the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Share of the devices that the staging stage offers the release to.
    pub staging_percent: u8,
    /// Goes to production by itself when the thresholds are met; else an operator does.
    pub promote: bool,
    /// Share of the devices with a result that must be confirmed to go to production.
    pub success_percent: u8,
    /// Confirmed devices that are needed for that, unless the whole stage has fewer and all of it has a result.
    pub min_confirmed: u32,
    /// Share of the devices with a result that may go wrong before the release pauses itself.
    pub error_percent: u8,
    /// Bad results that are needed for that.
    pub min_errors: u32,
    /// Devices that may be at it at the same time.
    pub max_concurrent: u32,
    /// When the release is offered; empty: always.
    pub windows: Vec<Window>,
    /// What the clocks of the windows are ahead of UTC.
    pub utc_offset_minutes: i16,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// How often a device is offered the release again after a failure of each kind.
    pub retries: Retries,
    /// Wait before the first of them; doubles with each one after it.
    pub backoff_seconds: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            staging_percent: 10,
            promote: true,
            success_percent: 95,
            min_confirmed: 10,
            error_percent: 5,
            min_errors: 3,
            max_concurrent: 500,
            windows: Vec::new(),
            utc_offset_minutes: 0,
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            backoff_seconds: 300,
        }
    }
}

/// How long a device may stay in a step, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// From the offer to the first word of it.
    pub offer: u32,
    /// Reading and checking.
    pub download: u32,
    /// Writing the slot.
    pub install: u32,
    /// From going away to the first word of the new system.
    pub boot: u32,
    /// On trial.
    pub confirm: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        // Slow lines and slow flash are common: these catch what hangs, not what is slow.
        Timeouts { offer: 3600, download: 24 * 3600, install: 6 * 3600, boot: 1800, confirm: 3600 }
    }
}

/// Offers after a failure, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the kinds of `Class`")]
pub struct Retries {
    pub network: u32,
    pub verification: u32,
    pub write: u32,
    pub boot: u32,
    pub health: u32,
    pub operator: u32,
    pub other: u32,
}

impl Default for Retries {
    fn default() -> Self {
        // What failed its own checks does not get better by itself; a line does. A device remembers a release that was
        // rolled back and does not take it more often than it thinks right, whatever stands here.
        Retries { network: 8, verification: 0, write: 2, boot: 1, health: 0, operator: 0, other: 1 }
    }
}

impl Policy {
    /// Refuses what cannot be meant.
    pub fn check(&self) -> Result<(), String> {
        let percent = |name: &str, value: u8, least: u8| {
            if (least..=100).contains(&value) {
                Ok(())
            } else {
                Err(format!("`{name}` is {value}; allowed are {least} to 100"))
            }
        };
        percent("staging_percent", self.staging_percent, 1)?;
        percent("success_percent", self.success_percent, 1)?;
        percent("error_percent", self.error_percent, 0)?;
        if self.min_errors == 0 || self.min_confirmed == 0 || self.max_concurrent == 0 {
            return Err("`min_errors`, `min_confirmed` and `max_concurrent` are at least 1".into());
        }
        if self.windows.len() > MAX_WINDOWS {
            return Err(format!("{} windows; allowed are {MAX_WINDOWS}", self.windows.len()));
        }
        if !(-24 * 60..=24 * 60).contains(&self.utc_offset_minutes) {
            return Err("`utc_offset_minutes` is at most a day".into());
        }
        let Timeouts { offer, download, install, boot, confirm } = self.timeouts;
        if [offer, download, install, boot, confirm].iter().any(|t| !(1..=MAX_TIMEOUT_SECONDS).contains(t)) {
            return Err(format!("`timeouts` are 1 to {MAX_TIMEOUT_SECONDS} seconds"));
        }
        Ok(())
    }

    /// How long a device may stay in a step, in seconds, and the code of what it means if it stays longer.
    pub fn timeout(&self, step: Step) -> Option<(u32, &'static str)> {
        match step {
            Step::Offered => Some((self.timeouts.offer, "OFFER_TIMEOUT")),
            Step::Downloading => Some((self.timeouts.download, "DOWNLOAD_TIMEOUT")),
            Step::Installing => Some((self.timeouts.install, "INSTALL_TIMEOUT")),
            Step::Rebooting => Some((self.timeouts.boot, "SILENT")),
            Step::OnTrial => Some((self.timeouts.confirm, "SILENT")),
            Step::Installed
            | Step::Confirmed
            | Step::RolledBack
            | Step::Failed
            | Step::Silent
            | Step::Cancelled => None,
        }
    }

    /// When a device that was offered the release `attempts` times may be offered it again, as a wait in seconds; `None`: never by itself.
    pub fn retry_after(&self, class: Class, attempts: u32) -> Option<i64> {
        let retries = match class {
            Class::Network => self.retries.network,
            Class::Verification => self.retries.verification,
            Class::Write => self.retries.write,
            Class::Boot => self.retries.boot,
            Class::Health => self.retries.health,
            Class::Operator => self.retries.operator,
            Class::Other => self.retries.other,
        };
        let wait = i64::from(self.backoff_seconds) << attempts.saturating_sub(1).min(16);
        (attempts <= retries).then_some(wait.min(MAX_BACKOFF_SECONDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_what_is_written_and_defaults_for_the_rest() {
        let policy: Policy =
            serde_json::from_str(r#"{"staging_percent":25,"timeouts":{"boot":60}}"#).unwrap();
        assert_eq!((policy.staging_percent, policy.success_percent), (25, 95));
        assert_eq!((policy.timeouts.boot, policy.timeouts.offer), (60, 3600));
        policy.check().unwrap();
        for bad in [
            r#"{"staging_percent":0}"#,
            r#"{"staging_percent":101}"#,
            r#"{"success_percent":0}"#,
            r#"{"min_errors":0}"#,
            r#"{"max_concurrent":0}"#,
            r#"{"timeouts":{"boot":0}}"#,
            r#"{"utc_offset_minutes":1441}"#,
        ] {
            assert!(serde_json::from_str::<Policy>(bad).unwrap().check().is_err(), "{bad}");
        }
        for bad in [r#"{"stagingpercent":1}"#, r#"{"timeouts":{"reboot":1}}"#, r#"{"retries":{"boot":-1}}"#] {
            assert!(serde_json::from_str::<Policy>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn waits_double_and_end() {
        let policy = Policy { backoff_seconds: 60, ..Policy::default() };
        for (class, attempts, expected) in [
            (Class::Network, 1, Some(60)),
            (Class::Network, 2, Some(120)),
            (Class::Network, 8, Some(60 * 128)),
            (Class::Network, 9, None),
            (Class::Boot, 1, Some(60)),
            (Class::Boot, 2, None),
            (Class::Health, 1, None),
            (Class::Operator, 1, None),
        ] {
            assert_eq!(policy.retry_after(class, attempts), expected, "{class:?} {attempts}");
        }
        let slow = Policy { backoff_seconds: u32::MAX, ..Policy::default() };
        assert_eq!(slow.retry_after(Class::Network, 8), Some(MAX_BACKOFF_SECONDS));
    }
}
