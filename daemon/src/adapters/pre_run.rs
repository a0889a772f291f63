//! The self-test of a system that is not running yet: `otad-pre-run@.service` mounts its image and starts its `otad --self-test`.
//!
//! The sandbox is systemd's and stands in that unit. otad itself has no right to mount anything, and keeps none for this.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::health::run;
use crate::failure::{Code, Failure};

/// Longer than the unit's own limits together (see its `TimeoutStartSec=` and `TimeoutStopSec=`), which strike first.
const LIMIT: Duration = Duration::from_secs(150);
/// Where the unit puts what the self-test says, in otad's runtime directory.
const OUTPUT: &str = "pre-run.log";

/// Runs the self-test of the system on `image` and waits for its end.
pub(super) fn pre_run(image: &Path, runtime_dir: &Path) -> Result<(), Failure> {
    let unit = unit_name(image);
    let fail =
        |what: String| Failure::new(Code::PreRunFailed, format!("self-test of the new system: {what}"));
    let systemctl = |act: &str| {
        let mut command = Command::new("systemctl");
        command.args([act, "--", &unit]);
        run(command, LIMIT).map_err(|error| fail(format!("systemctl cannot be started: {error}")))
    };
    let output = runtime_dir.join(OUTPUT);
    match std::fs::remove_file(&output) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(fail(format!("{} is in the way: {error}", output.display())));
        }
        Ok(()) | Err(_) => {}
    }
    let (status, answer) = systemctl("start")?;
    match status {
        Some(status) if status.success() => Ok(()),
        None => {
            systemctl("stop")?;
            let seconds = LIMIT.as_secs();
            Err(fail(format!("{unit} did not end within {seconds} s; nothing was armed")))
        }
        Some(_) => {
            let said = std::fs::read_to_string(output).unwrap_or_default();
            // The last thing the test said; when it said nothing, the first thing systemd says of it.
            let said = said.trim().lines().next_back().or(answer.trim().lines().next());
            let said = said.unwrap_or("it failed without a word");
            Err(fail(format!("{said}; nothing was armed; see systemctl status '{unit}'")))
        }
    }
}

/// The unit's name: the path as systemd.unit(5) escapes it.
fn unit_name(image: &Path) -> String {
    let path = image.to_string_lossy();
    let mut name = String::from("otad-pre-run@");
    for (at, byte) in path.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b'_' | b':' | b'.' => name.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => name.push(byte.into()),
            byte => {
                // Writing to a string cannot fail.
                let _ = write!(name, "\\x{byte:02x}");
            }
        }
    }
    name.push_str(".service");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_systemd_does() {
        for path in ["/dev/mmcblk0p2", "/dev/disk/by-partlabel/rootfs-b", "/.x/a b/ü_1:2.img"] {
            let template = "--template=otad-pre-run@.service";
            let output = Command::new("systemd-escape").args(["--path", template, path]).output().unwrap();
            assert_eq!(unit_name(Path::new(path)), String::from_utf8(output.stdout).unwrap().trim_end());
        }
    }
}
