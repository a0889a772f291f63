//! otad as it is installed, under a systemd that really boots: `scripts/with-systemd` starts this machine's own root
//! file system in namespaces of its own, and this very test binary is what it runs there ([`inside`]).

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
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
    let good = image(dir.path(), "good", Path::new(env!("CARGO_BIN_EXE_otad")));
    let broken = image(dir.path(), "broken", Path::new("/bin/false"));

    let root = dir.path().join("root");
    install(&root, &disks, [("good", &good), ("broken", &broken)]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/with-systemd");
    let (_, module) = module_path!().split_once("::").unwrap();
    let program = format!("/opt/it --exact {module}::inside --ignored --nocapture");
    let output = run("timeout", ["120".as_ref(), script.as_os_str(), root.as_os_str(), program.as_ref()]);
    let text = said(&output);
    assert!(text.contains(GOING_DOWN), "{}\n{text}", output.status);
    assert_eq!(output.status.code(), Some(121), "otad did not reboot the system\n{text}");

    let slot = fs::read(dir.path().join("b")).unwrap();
    assert!(slot == fs::read(good).unwrap(), "slot b does not hold the image");
}

/// A file system as a release has it, as far as a sandbox needs it: `otad` with its libraries, or something that fails in
/// its place, and the directories that a system is mounted over.
fn image(dir: &Path, name: &str, otad: &Path) -> PathBuf {
    let (root, image) = (dir.join(format!("{name}.d")), dir.join(format!("{name}.img")));
    for empty in ["etc", "proc", "sys", "dev", "run", "tmp", "var", "root", "home", "usr/bin"] {
        fs::create_dir_all(root.join(empty)).unwrap();
    }
    // Symbols are of no use there, and twice its size.
    let stripped = root.join("usr/bin/otad");
    let strip = run("strip", ["-o".as_ref(), stripped.as_os_str(), otad.as_os_str()]);
    assert!(strip.status.success(), "{}", said(&strip));
    let libraries = said(&run("ldd", [otad]));
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(library, to).unwrap();
    }
    fs::File::create(&image).unwrap().set_len(SLOT_BYTES).unwrap();
    let arguments = ["-q", "-t", "ext4", "-d"].map(AsRef::<std::ffi::OsStr>::as_ref);
    let made = run("mke2fs", arguments.into_iter().chain([root.as_os_str(), image.as_os_str()]));
    assert!(made.status.success(), "{}", said(&made));
    image
}

/// What packaging would install, the device's own files, and this test program, into `root`.
fn install(root: &Path, disks: &[Loop; 3], images: [(&str, &Path); 2]) {
    let copy = |from: &Path, to: &str| {
        let to = root.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &to).unwrap();
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
    };
    copy(Path::new(env!("CARGO_BIN_EXE_otad")), "usr/bin/otad");
    let otactl = Path::new(env!("CARGO_BIN_EXE_otad")).with_file_name("otactl");
    assert!(otactl.is_file(), "no {}; run cargo build first", otactl.display());
    copy(&otactl, "usr/bin/otactl");
    copy(&std::env::current_exe().unwrap(), "opt/it");
    let copied = run("cp", ["-r".as_ref(), tree().join("usr").as_os_str(), root.as_os_str()]);
    assert!(copied.status.success(), "{}", said(&copied));

    let here = root.join(DIR.trim_start_matches('/'));
    fs::create_dir_all(&here).unwrap();
    let [a, b, env] = disks.each_ref().map(|disk| disk.0.as_str());
    let boot = "backend = \"uboot\"\nroot-device-check = false\n";
    let device = Device::write(&here, Path::new(DIR), boot, "", [a, b], env);
    let text = fs::read_to_string(&device.config).unwrap();
    let more = "[pre-run]\nimage = \"rootfs\"\n[health]\nchecks = \"/etc/otad/health.d\"\n";
    fs::write(&device.config, text + more).unwrap();
    // What needs the network and a device is there for checks, and what failed is said.
    let checks = here.join("health.d");
    fs::create_dir(&checks).unwrap();
    let check = checks.join("10-sensor");
    fs::write(&check, "#!/bin/sh\ncat /sys/class/net/lo/mtu && echo sensor missing >&2 && exit 3\n").unwrap();
    fs::set_permissions(&check, fs::Permissions::from_mode(0o755)).unwrap();
    let key = SigningKey::from_seed([7; 32]).unwrap();
    fs::write(here.join("root.toml"), Root::with_release_keys(&[key.public_key()]).to_toml()).unwrap();
    let update = Update {
        version: semver::Version::new(2, 0, 0),
        sequence: 2,
        compatible: vec!["board".to_owned()],
        description: String::new(),
        critical: Vec::new(),
    };
    for (name, path) in images {
        let source = Source { role: "rootfs".to_owned(), path: path.to_owned() };
        let recipe = Recipe::new(update.clone(), vec![source]);
        build(&recipe, &[&key], &here.join(format!("{name}.otab")), &mut |_| {}).unwrap();
    }
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
    // Nothing is on trial: the confirmation is there at once, and it has pulled in the target that it waits for.
    succeed("systemctl", &["start", "otad-mark-good.service"]);
    succeed("systemctl", &["is-active", "otad-mark-good.service", "boot-complete.target"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    a_system_that_fails_its_own_test_is_not_armed(&runtime);
    health_checks_have_a_unit_of_their_own();
    #[cfg(target_arch = "x86_64")]
    taken_over();
    runtime.block_on(install_from_url("good"));
    let tested = fs::read_to_string("/run/otad/pre-run.log").unwrap();
    assert!(tested.contains("can update this device: first slot a"), "{tested}");
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

/// D4: strangers are denied, members of the group are not.
fn who_may_act() {
    let commit = ["call", "org.otad1", "/org/otad1", "org.otad1.Manager", "Commit"];
    let denied = said(&busctl(&["--clear-groups"], &commit));
    assert!(denied.contains("may not do this (org.otad1.commit)"), "{denied}");
    let group = nix::unistd::Group::from_name("otad").unwrap().expect("the group of sysusers.d").gid;
    let member = said(&busctl(&[&format!("--groups={group}")], &commit));
    assert!(member.contains("nothing to commit"), "{member}");
}

/// H7: a new system whose otad cannot work is found out before it is armed, by running it in the sandbox of its unit.
fn a_system_that_fails_its_own_test_is_not_armed(runtime: &tokio::runtime::Runtime) {
    runtime.block_on(install_from_descriptor("broken"));
    let last = ["get-property", "org.otad1", "/org/otad1", "org.otad1.Manager", "LastResult"];
    let result = said(&busctl(&["--clear-groups"], &last));
    assert!(result.contains("PRE_RUN_FAILED"), "{result}\n{}", journal());
    println!("refused: {result}");
    let env = open(Path::new("/etc/otad/fw_env.config")).load().unwrap().environment;
    assert_eq!((env.get_str("otad_slot"), env.get_str("upgrade_available")), (Some("a"), Some("0")));
    let config = fs::read_to_string("/etc/otad/otad.toml").unwrap();
    let slot = config.split('"').filter(|word| word.starts_with("/dev/")).nth(1).unwrap();
    assert_eq!(said(&run("/sbin/blockdev", ["--getro", slot])), "0\n", "slot b stayed read-only");
}

/// H1: the checks run where they may use the network, and what they say gets out.
fn health_checks_have_a_unit_of_their_own() {
    let failed = run("systemctl", ["start", "otad-health@5.service"]);
    assert!(!failed.status.success(), "{}", journal());
    let told = fs::read_to_string("/run/otad/health.log").unwrap();
    assert_eq!(told, "HEALTH_FAILED health check 10-sensor failed (exit status: 3): sensor missing\n");
    fs::write("/etc/otad/health.d/10-sensor", "#!/bin/sh\n").unwrap();
    succeed("systemctl", &["start", "otad-health@5.service"]);
}

/// Attacker on the network: the daemon of the unit has none, and the fetcher of its unit no device.
#[cfg(target_arch = "x86_64")]
fn taken_over() {
    use crate::takeover::Captive;
    use nix::errno::Errno;
    use nix::libc::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, O_RDONLY, O_RDWR};
    let daemon = Captive::take(property("MainPID").parse().unwrap());
    assert!(daemon.socket(AF_UNIX).is_ok(), "the attempts are real");
    for family in [AF_INET, AF_INET6, AF_NETLINK, AF_PACKET] {
        assert_eq!(daemon.socket(family), Err(Errno::EAFNOSUPPORT), "family {family}");
    }
    drop(daemon);

    let socket = std::os::unix::net::UnixStream::connect("/run/otad-fetch.sock").unwrap();
    let fetcher = || said(&run("pgrep", ["--exact", "otad-fetcher"])).trim().parse().ok();
    wait_for("the fetcher", Duration::from_secs(20), || fetcher().is_some());
    let fetcher: i32 = fetcher().unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{fetcher}")).unwrap());
    assert!(owner != 0 && owner.to_string() != NOBODY, "a user of its own, not {owner}");
    let captive = Captive::take(fetcher);
    assert!(captive.socket(AF_INET).is_ok(), "it is there for the network");
    let config = fs::read_to_string("/etc/otad/otad.toml").unwrap();
    for device in config.split('"').filter(|word| word.starts_with("/dev/")) {
        for flags in [O_RDONLY, O_RDWR] {
            let opened = captive.open(Path::new(device), flags);
            assert!(
                matches!(opened, Err(Errno::EPERM | Errno::EACCES | Errno::ENOENT)),
                "{device}: {opened:?}"
            );
        }
    }
    for secret in ["/var/lib/otad", "/etc/shadow", "/run/otad/lock"] {
        let opened = captive.open(Path::new(secret), O_RDONLY);
        assert!(matches!(opened, Err(Errno::EPERM | Errno::EACCES | Errno::ENOENT)), "{secret}: {opened:?}");
    }
    println!("taken over: neither the daemon nor the fetcher has what the other has");
    drop((captive, socket));
}

async fn install_from_descriptor(name: &str) {
    let bundle = fs::File::open(format!("/etc/otad/{name}.otab")).unwrap();
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    install_by("InstallFd", &(Fd::from(bundle.as_fd()), options)).await;
}

/// Through the fetcher's unit: the daemon has no network.
async fn install_from_url(name: &str) {
    let web = ["-m", "http.server", "8080", "--bind", "127.0.0.1", "--directory", "/etc/otad"];
    let mut web = std::process::Command::new("python3").args(web).spawn().unwrap();
    wait_for("the web server", Duration::from_secs(20), || {
        std::net::TcpStream::connect("127.0.0.1:8080").is_ok()
    });
    let options: HashMap<&str, Variant<'_>> = HashMap::new();
    install_by("Install", &(format!("http://127.0.0.1:8080/{name}.otab"), options)).await;
    web.kill().unwrap();
    web.wait().unwrap();
}

async fn install_by<A: serde::Serialize + zbus::zvariant::Type>(method: &str, arguments: &A) {
    let bus = Connection::system().await.unwrap();
    let manager = zbus::Proxy::new(&bus, "org.otad1", "/org/otad1", "org.otad1.Manager").await.unwrap();
    let job: OwnedObjectPath = manager.call(method, arguments).await.unwrap();
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
    assert!(output.status.success(), "{program} {arguments:?}: {}{}", said(&output), journal());
}

fn property(name: &str) -> String {
    said(&run("systemctl", ["show", "--property", name, "--value", "otad.service"])).trim().to_owned()
}

fn journal() -> String {
    said(&run("journalctl", ["--no-pager", "--lines=40", "--output=cat", "--boot"]))
}
