//! What otad costs on the board: memory, time at boot, size.

use super::failure::Failure;
use super::stage::Stage;

/// The daemon alone: its fetcher and decoders are processes of the same name.
const STATUS: &str = "cat /proc/$(systemctl show --property MainPID --value otad)/status";

impl Stage<'_> {
    /// Notes the memory that otad holds now and held at most; the install is over.
    pub(super) fn footprint_after_install(&mut self) -> Result<(), Failure> {
        let text = self.guest()?.run(STATUS)?;
        let [now, most] = ["VmRSS:", "VmHWM:"].map(|name| kib(&text, name));
        self.note(format!(
            "the daemon held {:.1} MiB at most while installing, {:.1} after",
            mib(most),
            mib(now)
        ));
        Ok(())
    }

    /// Notes what otad added to the boot, its memory at rest, and the size of its programs.
    pub(super) fn footprint_of_boot(&mut self) -> Result<(), Failure> {
        let guest = self.guest()?;
        let whole = guest.run("systemd-analyze time")?;
        let blame = guest.run("systemd-analyze blame --no-pager")?;
        let text = guest.run(STATUS)?;
        let sizes = guest.run("stat -c '%n %s' /usr/bin/otad /usr/bin/otactl /usr/bin/bootenv")?;
        let of_otad =
            blame.lines().find(|line| line.ends_with(" otad.service")).unwrap_or("unknown otad.service");
        let time = of_otad.trim().trim_end_matches(" otad.service");
        let whole = whole.lines().next().unwrap_or_default().trim().to_owned();
        self.note(format!("otad at rest {:.1} MiB, its start {time}; {whole}", mib(kib(&text, "VmRSS:"))));
        let sizes = sizes.lines().filter_map(|line| {
            let (path, bytes) = line.split_once(' ')?;
            let name = path.rsplit('/').next()?;
            Some(format!("{name} {:.1} MiB", bytes.parse::<f64>().ok()? / 1024.0 / 1024.0))
        });
        self.note(sizes.collect::<Vec<_>>().join(", "));
        Ok(())
    }
}

/// A number of KiB behind a name in a status of proc(5); 0 if it is not there.
fn kib(status: &str, name: &str) -> u32 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn mib(kib: u32) -> f64 {
    f64::from(kib) / 1024.0
}
