//! Who may ask otad for what, on a bus with the policy that we ship: row D4 without polkit, and what the tests with one share.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::device::Device;
use super::{NOBODY, Running, STATE, said, tree, wait_for};

/// otad on a system bus of its own: the rules of Debian's `system.conf` in short, and the policy that we ship.
pub(super) struct Stage {
    pub(super) otad: Running,
    _bus: Running,
    pub(super) address: String,
    pub(super) dir: TempDir,
}

impl Stage {
    pub(super) fn start() -> Stage {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        // Everybody must reach the socket; nothing secret is in the directory.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let address = format!("unix:path={}", dir.path().join("bus").display());
        let bus = bus(dir.path(), &address);
        let device = Device::of_files(dir.path());
        let mut otad = Command::new(env!("CARGO_BIN_EXE_otad"));
        otad.arg("--config").arg(&device.config).args(["--bus", &address]).stdin(Stdio::null());
        let log = fs::File::create(dir.path().join("otad.log")).unwrap();
        let otad = Running(otad.stderr(log).spawn().unwrap());
        let mut stage = Stage { otad, _bus: bus, address, dir };
        wait_for("otad on the bus", Duration::from_secs(20), || {
            assert_eq!(stage.otad.0.try_wait().unwrap(), None, "otad ended: {}", stage.log());
            stage.busctl(NOBODY, &STATE).status.success()
        });
        stage
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("otad.log")).unwrap()
    }

    /// `busctl` as the user of that number, without any other group.
    pub(super) fn busctl(&self, user: &str, arguments: &[&str]) -> Output {
        let mut command = self.busctl_command(user);
        command.arg("--allow-interactive-authorization=no").args(arguments).output().unwrap()
    }

    /// The same, to be started with further options and arguments.
    pub(super) fn busctl_command(&self, user: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "busctl"]);
        command.args([&format!("--address={}", self.address), "--timeout=30"]).stdin(Stdio::null());
        command
    }

    /// What a user is told who calls a method of the manager.
    pub(super) fn call(&self, user: &str, call: &[&str]) -> String {
        said(&self.busctl(user, &[&MANAGER, call].concat()))
    }
}

pub(super) const MANAGER: [&str; 4] = ["call", "org.otad1", "/org/otad1", "org.otad1.Manager"];

/// Calls of the manager, each with the action that polkit is asked about. Without a root of trust, an update or a server, all that
/// they do is answer; only a reboot would be one.
pub(super) const ACTS: [(&[&str], &str); 7] = [
    (&["Check"], "check"),
    (&["Install", "sa{sv}", "http://127.0.0.1:9/x.otab", "0"], "install"),
    (&["Cancel"], "install"),
    (&["Commit"], "commit"),
    (&["Rollback"], "commit"),
    (&["Mark", "ss", "a", "good"], "commit"),
    (&["Reboot"], "reboot"),
];

/// Whether otad refused to do what needs this action.
pub(super) fn is_denied(answer: &str, action: &str) -> bool {
    answer.contains(&format!("may not do this (org.otad1.{action})"))
}

fn bus(dir: &Path, address: &str) -> Running {
    let policy = tree().join("usr/share/dbus-1/system.d/org.otad1.conf");
    let config = dir.join("bus.conf");
    // The rules about polkit are those that it brings along, and root may play its part.
    let text = format!(
        r#"<busconfig>
          <listen>{address}</listen><auth>EXTERNAL</auth>
          <!-- A busy machine is no attack on the bus. -->
          <limit name="auth_timeout">60000</limit>
          <policy context="default">
            <allow user="*"/><deny own="*"/><deny send_type="method_call"/>
            <allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
            <allow send_requested_reply="true" send_type="error"/>
            <allow receive_type="method_call"/><allow receive_type="method_return"/>
            <allow receive_type="error"/><allow receive_type="signal"/>
            <allow send_destination="org.freedesktop.DBus"/>
            <allow send_destination="org.freedesktop.PolicyKit1"/>
          </policy>
          <policy user="root"><allow own="org.freedesktop.PolicyKit1"/></policy>
          <include ignore_missing="yes">/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
          <include>{}</include>
        </busconfig>"#,
        policy.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("dbus-daemon");
    command.arg("--nofork").arg(format!("--config-file={}", config.display()));
    command.stdin(Stdio::null()).stderr(fs::File::create(dir.join("bus.log")).unwrap());
    let bus = Running(command.spawn().expect("dbus-daemon, of Debian's package dbus-daemon"));
    wait_for("the bus", Duration::from_secs(5), || dir.join("bus").exists());
    bus
}

const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const READS: [&[&str]; 5] = [
    &["call", "org.otad1", "/org/otad1", PROPERTIES, "GetAll", "s", "org.otad1.Manager"],
    &["call", "org.otad1", "/org/otad1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"],
    &["call", "org.otad1", "/org/otad1", "org.freedesktop.DBus.Introspectable", "Introspect"],
    &["call", "org.otad1", "/org/otad1", "org.freedesktop.DBus.Peer", "Ping"],
    &["call", "org.otad1", "/org/otad1", "org.otad1.Manager", "History"],
];

/// D4: without polkit everybody may look, and nobody but root (and the group otad) may act.
#[test]
fn d4_strangers_may_look_and_not_act() {
    let stage = Stage::start();
    for user in ["0", NOBODY] {
        assert_eq!(said(&stage.busctl(user, &STATE)), "s \"idle\"\n", "user {user}");
        for read in READS {
            let output = stage.busctl(user, read);
            assert!(output.status.success(), "user {user}, {read:?}: {}", said(&output));
        }
    }
    for (act, action) in ACTS {
        let answer = stage.call(NOBODY, act);
        assert!(is_denied(&answer, action) && answer.contains("polkit cannot be asked"), "{act:?}: {answer}");
        if act[0] != "Reboot" {
            let answer = stage.call("0", act);
            assert!(!answer.contains("may not do this"), "{act:?}: {answer}");
        }
    }
    // Properties are there to be read; the bus itself keeps strangers from setting them, and from being otad.
    let set =
        ["call", "org.otad1", "/org/otad1", PROPERTIES, "Set", "ssv", "org.otad1.Manager", "State", "s", "x"];
    assert!(said(&stage.busctl(NOBODY, &set)).contains("Access denied"));
    let name = ["call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"];
    let own = stage.busctl(NOBODY, &[&name[..], &["RequestName", "su", "org.otad1", "0"]].concat());
    assert!(said(&own).contains("Access denied"), "{}", said(&own));
}
