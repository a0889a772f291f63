//! otad as it is installed, under a systemd that really boots: `scripts/with-systemd` starts this machine's own root
//! file system in namespaces of its own, and this very test binary is what it runs there ([`inside`]).

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use otad_bundle::{Recipe, Root, Signer as _, SigningKey, Source, Update, build};
use zbus::{Connection, Fd, OwnedObjectPath, Variant};

use super::device::{Device, Loop, SLOT_BYTES, open};
use super::{NOBODY, STATE, run, said, tree, wait_for};

/// Where the device's files are in the booted system.
const DIR: &str = "/etc/otad";
/// What the inside says last before it goes down on purpose.
const GOING_DOWN: &str = "every step passed; the device reboots now";

/// D2, D3, D4 on a real systemd: activation through the bus, who may act, a whole install onto block devices inside the
/// sandbox of the unit, restart after a kill, refusal of a second otad, and the reboot.
#[test]
fn the_unit_works_under_a_real_systemd() {
    assert!(nix::unistd::geteuid().is_root(), "this test boots a systemd in namespaces and needs root");
    let dir = tempfile::tempdir().unwrap();
    let disks = ["a", "b", "env"].map(|name| Loop::new(&dir.path().join(name), SLOT_BYTES));
    let image = image();
    fs::write(dir.path().join("image"), &image).unwrap();

    let root = dir.path().join("root");
    install(&root, &disks, &dir.path().join("image"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/with-systemd");
    let (_, module) = module_path!().split_once("::").unwrap();
    let program = format!("/opt/it --exact {module}::inside --ignored --nocapture");
    let output = run("timeout", ["120".as_ref(), script.as_os_str(), root.as_os_str(), program.as_ref()]);
    let text = said(&output);
    assert!(text.contains(GOING_DOWN), "{}\n{text}", output.status);
    assert_eq!(output.status.code(), Some(121), "otad did not reboot the system\n{text}");

    let slot = fs::read(dir.path().join("b")).unwrap();
    assert!(slot[..image.len()] == image[..], "slot b does not hold the image");
}

/// 6 MiB: some that compresses, some that is zero, some that does neither.
fn image() -> Vec<u8> {
    let mut image = vec![0; 6 << 20];
    let mut state = 1u64;
    for (at, byte) in image.iter_mut().enumerate().filter(|(at, _)| !(2 << 20..4 << 20).contains(at)) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = if at < 2 << 20 { b"update"[at % 6] } else { (state >> 56) as u8 };
    }
    image
}

/// What packaging would install, the device's own files, and this test program, into `root`.
fn install(root: &Path, disks: &[Loop; 3], image: &Path) {
    let copy = |from: &Path, to: &str| {
        let to = root.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &to).unwrap();
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
    };
    copy(Path::new(env!("CARGO_BIN_EXE_otad")), "usr/bin/otad");
    copy(&std::env::current_exe().unwrap(), "opt/it");
    let copied = run("cp", ["-r".as_ref(), tree().join("usr").as_os_str(), root.as_os_str()]);
    assert!(copied.status.success(), "{}", said(&copied));

    let here = root.join(DIR.trim_start_matches('/'));
    fs::create_dir_all(&here).unwrap();
    let [a, b, env] = disks.each_ref().map(|disk| disk.0.as_str());
    let boot = "backend = \"uboot\"\nroot-device-check = false\n";
    Device::write(&here, Path::new(DIR), boot, "", [a, b], env);
    let key = SigningKey::from_seed([7; 32]).unwrap();
    fs::write(here.join("root.toml"), Root::with_release_keys(&[key.public_key()]).to_toml()).unwrap();
    let update = Update {
        version: semver::Version::new(2, 0, 0),
        sequence: 2,
        compatible: vec!["board".to_owned()],
        description: String::new(),
        critical: Vec::new(),
    };
    let recipe = Recipe::new(update, vec![Source { role: "rootfs".to_owned(), path: image.to_owned() }]);
    build(&recipe, &[&key], &here.join("update.otab"), &mut |_| {}).unwrap();
}

/// The part that runs in the booted system.
#[test]
#[ignore = "runs inside the system that the_unit_works_under_a_real_systemd boots"]
fn inside() {
    assert_eq!(fs::read_to_string("/proc/1/comm").unwrap(), "systemd\n", "this is not the booted system");
    succeed("systemd-sysusers", &[]);
    succeed("systemd-tmpfiles", &["--create", "otad.conf"]);
    // The bus read its policy before the group was there.
    succeed("busctl", &["call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "ReloadConfig"]);

    // Nobody has started otad; asking for it does.
    assert_eq!(said(&busctl(&["--clear-groups"], &STATE)), "s \"idle\"\n", "{}", journal());
    assert_eq!(property("ActiveState"), "active");
    who_may_act();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(install_from_descriptor());
    assert_eq!(said(&busctl(&["--clear-groups"], &STATE)), "s \"post-upgrade\"\n", "{}", journal());
    let env = open(Path::new("/etc/otad/fw_env.config")).load().unwrap().environment;
    assert_eq!((env.get_str("otad_slot"), env.get_str("upgrade_available")), (Some("b"), Some("1")));

    let before = property("MainPID");
    succeed("systemctl", &["kill", "--signal=KILL", "otad.service"]);
    wait_for("systemd to restart otad", Duration::from_secs(20), || {
        property("ActiveState") == "active" && property("MainPID") != before
    });
    assert_eq!(said(&busctl(&["--clear-groups"], &STATE)), "s \"post-upgrade\"\n", "{}", journal());
    let second = run("/usr/bin/otad", [""; 0]);
    assert_eq!(second.status.code(), Some(75), "{}", said(&second));

    println!("{GOING_DOWN}");
    let reboot = run("busctl", ["call", "org.otad1", "/org/otad1", "org.otad1.Manager", "Reboot"]);
    std::thread::sleep(Duration::from_secs(60));
    panic!("still here: {}{}", said(&reboot), journal());
}

/// D4: strangers are denied by the bus, members of the group reach otad.
fn who_may_act() {
    let commit = ["call", "org.otad1", "/org/otad1", "org.otad1.Manager", "Commit"];
    let denied = said(&busctl(&["--clear-groups"], &commit));
    assert!(denied.contains("Access denied"), "{denied}");
    let group = nix::unistd::Group::from_name("otad").unwrap().expect("the group of sysusers.d").gid;
    let member = said(&busctl(&[&format!("--groups={group}")], &commit));
    assert!(!member.contains("Access denied"), "{member}");
}

async fn install_from_descriptor() {
    let bundle = fs::File::open("/etc/otad/update.otab").unwrap();
    let bus = Connection::system().await.unwrap();
    let manager = zbus::Proxy::new(&bus, "org.otad1", "/org/otad1", "org.otad1.Manager").await.unwrap();
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    let job: OwnedObjectPath = manager.call("InstallFd", &(Fd::from(bundle.as_fd()), options)).await.unwrap();
    println!("installing as {job}");
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let current: OwnedObjectPath = manager.get_property("CurrentJob").await.unwrap();
        if current.as_str() == "/" {
            return;
        }
    }
    panic!("the install did not end within 30 s\n{}", journal());
}

/// `busctl` as nobody, with these groups.
fn busctl(groups: &[&str], arguments: &[&str]) -> std::process::Output {
    let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    let start = [&[user.as_str(), group.as_str()], groups, &["busctl"]].concat();
    run("setpriv", start.iter().chain(arguments))
}

fn succeed(program: &str, arguments: &[&str]) {
    let output = run(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {}", said(&output));
}

fn property(name: &str) -> String {
    said(&run("systemctl", ["show", "--property", name, "--value", "otad.service"])).trim().to_owned()
}

fn journal() -> String {
    said(&run("journalctl", ["--no-pager", "--lines=40", "--output=cat", "--unit=otad.service"]))
}
