//! What the console's text says of the boots: which slot, which attempt, how it ended.
//!
//! | line | says |
//! |---|---|
//! | `U-Boot 20…` | a boot begins |
//! | `… bad CRC, using default environment` | neither copy of the environment is valid |
//! | `… Bootlimit (N) exceeded …` | U-Boot runs `altbootcmd` |
//! | `Kernel command line: … otad.slot=a otad.bootcount=1` | Linux was started from that slot |
//! | `Kernel panic` | and died |
//! | `Freezing execution` | systemd crashed and does nothing any more |
//! | `reboot: Restarting system` | Linux rebooted of its own accord |
//! | `otad-board: ready slot=a version=1.0.0 uptime=12.3` | its userland has come up |

use std::time::Duration;

/// What begins each boot; also what is waited for when a boot is expected.
pub const BANNER: &str = "U-Boot 20";
/// What the userland of the board says once it is up.
pub const READY: &str = "otad-board: ready ";

/// One boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// When it began, since the power came on.
    pub at: Duration,
    /// U-Boot ran on its compiled-in environment.
    pub default_environment: bool,
    /// U-Boot found the counter over the limit.
    pub limit_exceeded: bool,
    /// The slot that Linux was started from; `None` if none was.
    pub slot: Option<String>,
    /// The attempt that U-Boot told Linux of.
    pub attempt: Option<u32>,
    /// The kernel panicked.
    pub panicked: bool,
    /// Its systemd froze.
    pub froze: bool,
    /// Linux itself ended the boot; if not, the power, a panic or the watchdog did.
    pub restarted: bool,
    /// Version that its userland told, once up.
    pub ready: Option<String>,
    /// Seconds from the boot's beginning to that.
    pub ready_after: Option<Duration>,
}

/// Reads the boots out of a transcript.
pub fn boots(transcript: &[(Duration, String)]) -> Vec<Boot> {
    let mut boots: Vec<Boot> = Vec::new();
    for (at, line) in transcript {
        if line.starts_with(BANNER) {
            boots.push(Boot { at: *at, ..Boot::default() });
            continue;
        }
        let Some(boot) = boots.last_mut() else { continue };
        if line.contains("using default environment") {
            boot.default_environment = true;
        } else if line.contains("Bootlimit") && line.contains("exceeded") {
            boot.limit_exceeded = true;
        } else if line.contains("Kernel command line:") {
            boot.slot = word_after(line, "otad.slot=").map(str::to_owned);
            boot.attempt = word_after(line, "otad.bootcount=").and_then(|count| count.parse().ok());
        } else if line.contains("Kernel panic") {
            boot.panicked = true;
        } else if line.contains("Freezing execution") {
            boot.froze = true;
        } else if line.contains("reboot: Restarting system") {
            boot.restarted = true;
        } else if line.contains(READY) {
            boot.ready = word_after(line, "version=").map(str::to_owned);
            boot.ready_after = Some(at.saturating_sub(boot.at));
        }
    }
    boots
}

/// What stands behind a name, up to the next blank.
pub fn word_after<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(name)?;
    rest.split_whitespace().next()
}

/// The slots that were started, in order, as one word: `abba`; `-` for a boot that started none.
pub fn route(boots: &[Boot]) -> String {
    boots.iter().map(|boot| boot.slot.as_deref().unwrap_or("-")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{boots, route};

    #[test]
    fn reads_slot_attempt_and_end_of_each_boot() {
        let text = "\
noise before the power
U-Boot 2023.01 (Nov 22 2026)
Loading Environment from MMC... OK
[    0.000000] Kernel command line: root=PARTLABEL=rootfs-b ro panic=1 otad.slot=b otad.bootcount=3
[    9.000000] systemd[1]: Freezing execution.
[   10.000000] Kernel panic - not syncing: sysrq triggered crash
U-Boot 2023.01 (Nov 22 2026)
Warning: Bootlimit (3) exceeded. Using altbootcmd.
[    0.000000] Kernel command line: root=PARTLABEL=rootfs-a otad.slot=a otad.bootcount=0
otad-board: ready slot=a version=1.0.0 uptime=11.2
[   12.000000] reboot: Restarting system
U-Boot 2023.01 (Nov 22 2026)
*** Warning - bad CRC, using default environment
";
        let transcript: Vec<(Duration, String)> = text
            .lines()
            .enumerate()
            .map(|(second, line)| (Duration::from_secs(second as u64), line.to_owned()))
            .collect();
        let boots = boots(&transcript);
        assert_eq!(route(&boots), "ba-");
        let [first, second, third] = boots.as_slice() else { panic!("{boots:?}") };
        assert_eq!(
            (first.attempt, first.panicked, first.froze, first.restarted),
            (Some(3), true, true, false)
        );
        assert_eq!((second.attempt, second.limit_exceeded, second.restarted), (Some(0), true, true));
        assert_eq!(second.ready.as_deref(), Some("1.0.0"));
        assert_eq!(second.ready_after, Some(Duration::from_secs(3)));
        assert!(third.default_environment && third.slot.is_none());
    }
}
