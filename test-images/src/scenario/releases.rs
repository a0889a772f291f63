//! The releases that scenarios install: good ones, and one for each way in which a release can be bad.

use crate::build::{Edit, IMAGE_INFO, Slot, image_info};

/// A release by what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Nothing.
    Good,
    /// Its kernel is no kernel.
    BadKernel,
    /// It says that another kernel than the board's belongs to it.
    OtherKernel,
    /// Its C library is no library: no program starts.
    BadRootFileSystem,
    /// Its kernel panics while userland starts.
    Panics,
    /// Its first program exits.
    InitExits,
    /// Its systemd freezes before anything useful runs.
    Hangs,
    /// Its health check fails.
    Unhealthy,
    /// Its health check never ends.
    HealthHangs,
    /// Its health check passes and fails in turn.
    HealthFlaps,
    /// Its network does not come up.
    NoNetwork,
    /// Its otad cannot start.
    NoUpdater,
    /// It lacks the driver of the card, so nothing in it can read or change the boot environment.
    NoEnvironment,
    /// It believes that the boot environment is half as large as it is.
    WrongEnvironmentSize,
}

/// What a failing check of the board says.
pub(crate) const SENSOR: &str = "sensor 3 reads 97 degrees";

/// A kernel that nothing here runs on.
pub(crate) const OTHER_KERNEL: &str = "2.6.39-other";

impl Release {
    /// The release with a version and its place in the order of releases.
    pub fn slot(self, version: &str, sequence: u64) -> Slot {
        let edits = match self {
            Release::Good => Vec::new(),
            Release::BadKernel => vec![Edit::write("boot/Image", 0o644, "not a kernel\n".repeat(1000))],
            Release::OtherKernel => vec![Edit::Write {
                path: IMAGE_INFO.to_owned(),
                mode: 0o644,
                contents: image_info(version, sequence, OTHER_KERNEL).into_bytes(),
            }],
            Release::BadRootFileSystem => {
                vec![Edit::write("usr/lib/aarch64-linux-gnu/libc.so.6", 0o755, "not a library\n")]
            }
            Release::Panics => early_unit("echo c >/proc/sysrq-trigger"),
            Release::InitExits => vec![Edit::write("usr/sbin/init", 0o755, "#!/bin/sh\nexit 3\n")],
            // A systemd that crashes freezes, with the watchdog open and fed by nobody.
            Release::Hangs => early_unit("kill -SEGV 1; sleep 1000"),
            Release::Unhealthy => health(&format!("echo '{SENSOR}'; exit 1")),
            Release::HealthHangs => health("exec sleep 10000"),
            // In turns of three seconds; it has to hold four.
            Release::HealthFlaps => {
                health("[ $(( $(date +%s) / 3 % 2 )) = 0 ] || { echo 'it comes and goes'; exit 1; }")
            }
            Release::NoNetwork => {
                vec![Edit::write("usr/lib/otad-board/network", 0o755, "#!/bin/sh\nexit 1\n")]
            }
            Release::NoUpdater => vec![Edit::write("usr/bin/otad", 0o755, "#!/bin/sh\nexit 1\n")],
            Release::NoEnvironment => {
                vec![Edit::write("etc/modules-load.d/board.conf", 0o644, "virtio_net\n")]
            }
            Release::WrongEnvironmentSize => vec![Edit::write(
                "etc/fw_env.config",
                0o644,
                "/dev/mmcblk0 0x100000 0x10000\n/dev/mmcblk0 0x140000 0x10000\n",
            )],
        };
        let slot = Slot::new(version, sequence);
        edits.into_iter().fold(slot, Slot::edit)
    }
}

fn health(script: &str) -> Vec<Edit> {
    vec![Edit::write("usr/lib/otad-board/health", 0o755, format!("#!/bin/sh\n{script}\n"))]
}

/// A unit that runs before otad and everything else that could help.
fn early_unit(script: &str) -> Vec<Edit> {
    let unit = format!(
        "[Unit]\nDescription=What is wrong with this release\nDefaultDependencies=no\nBefore=sysinit.target\n\n\
         [Service]\nType=oneshot\nExecStart=/bin/sh -c '{script}'\n"
    );
    let name = "board-defect.service";
    vec![
        Edit::write(&format!("etc/systemd/system/{name}"), 0o644, unit),
        Edit::Link {
            path: format!("etc/systemd/system/sysinit.target.wants/{name}"),
            target: format!("../{name}"),
        },
    ]
}
