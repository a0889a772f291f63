//! The bus as other people's programs see it: `busctl` and the golden introspection document.

use std::process::{Command, Output};

use otad_demo::Server;

use super::shelf::{Rig, shelf};

pub(super) fn busctl(rig: &Rig, arguments: &[&str]) -> Output {
    let address = format!("--address={}", rig.device.bus_address());
    Command::new("busctl").arg(address).args(arguments).output().unwrap()
}

fn property(rig: &Rig, name: &str) -> String {
    let output = busctl(rig, &["get-property", "org.otad1", "/org/otad1", "org.otad1.Manager", name]);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A whole update with nothing but busctl; docs/dbus.md shows the same calls.
#[test]
fn busctl_alone_installs_and_reboots() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = otad_demo::Binaries::find().unwrap();
    let server = Server::start(&dir.path().join("server"), &shelf().path("root.toml"), &binaries).unwrap();
    let artifact = server.upload(&shelf().bundle(2)).unwrap();
    let rig = Rig::start(|device| device);
    let manager = ["org.otad1", "/org/otad1", "org.otad1.Manager"];
    let call = |method: &str, arguments: &[&str]| {
        busctl(&rig, &[&["call"], &manager[..], &[method], arguments].concat())
    };
    let output = call("Install", &["sa{sv}", &server.artifact_url(&artifact), "0"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "o \"/org/otad1/job/0\"");
    rig.wait("slot b to be armed", |_| {
        property(&rig, "State") == "s \"post-upgrade\"" && property(&rig, "CurrentJob") == "o \"/\""
    });
    assert!(property(&rig, "LastResult").contains("\"outcome\" s \"installed\""));
    assert!(call("Reboot", &[]).status.success());
    rig.wait("version 2", |_| {
        property(&rig, "State") == "s \"idle\"" && property(&rig, "Version") == "s \"2.0.0\""
    });

    // What nothing goes below without the recovery role; `otactl status` says it in words.
    assert_eq!(
        (property(&rig, "RootVersion"), property(&rig, "SequenceFloor")),
        ("t 1".into(), "t 2".into())
    );
    let status = rig.device.otactl_command().arg("status").output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("root 1, no release below sequence 2"), "{status}");

    // Errors have names of their own.
    let output = call("Install", &["sa{sv}", "file:///etc/passwd", "0"]);
    assert!(!output.status.success());
    let output = call("Install", &["sa{sv}", "http://127.0.0.1:1/x", "1", "no-such-option", "b", "true"]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("unknown option `no-such-option`"),
        "{output:?}"
    );
    let output = call("Commit", &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing to commit"), "{output:?}");
}

/// The golden document is what the bus shows, member by member.
#[test]
fn the_bus_shows_the_golden_introspection() {
    use std::io::Write as _;
    let rig = Rig::start(|device| device);
    // An install that waits for its pipe, so that there is a job to look at.
    let mut otactl = rig.device.otactl_command();
    let mut otactl = otactl.args(["install", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let bundle = std::fs::read(shelf().bundle(2)).unwrap();
    otactl.stdin.as_mut().unwrap().write_all(&bundle[..bundle.len() / 2]).unwrap();
    rig.wait("a job", |status| status.job.is_some());
    let mut shown = String::new();
    for path in ["/org/otad1", "/org/otad1/slot/a", "/org/otad1/job/0"] {
        let output = busctl(
            &rig,
            &["call", "org.otad1", path, "org.freedesktop.DBus.Introspectable", "Introspect", "--json=short"],
        );
        let reply: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        shown += reply["data"][0].as_str().unwrap();
    }
    otactl.kill().unwrap();
    otactl.wait().unwrap();
    for interface in ["org.otad1.Manager", "org.otad1.Slot", "org.otad1.Job"] {
        assert_eq!(members(otad_dbus::INTROSPECTION, interface), members(&shown, interface), "{interface}");
    }
}

/// The lines of one interface, without order and indentation.
fn members(document: &str, interface: &str) -> Vec<String> {
    let start = document.find(&format!("<interface name=\"{interface}\">")).expect(interface);
    let body = document[start..].split("</interface>").next().unwrap();
    let mut members = Vec::new();
    let mut current = String::new();
    for line in body.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()) {
        current += line;
        let opens =
            line.starts_with("<method") || line.starts_with("<property") || line.starts_with("<signal");
        if (opens && line.ends_with("/>")) || line.starts_with("</") {
            // Whether an empty element is written in one tag or two is a matter of taste.
            let member = std::mem::take(&mut current);
            members.push(member.replace("\"></method>", "\"/>").replace("\"></property>", "\"/>"));
        }
    }
    members.sort();
    members
}
