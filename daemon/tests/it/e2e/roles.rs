//! What otad's own processes can do when somebody else has taken them over, and what becomes of an install when they die.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6, AF_UNIX, O_RDONLY, O_RDWR, O_WRONLY};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use otad_demo::Server;

use super::shelf::{Rig, said, shelf};
use super::updates::wait_until;
use crate::takeover::{Argument, Captive, roles};

/// An install that waits for the second half of its bundle, so that its decoders are there.
struct Halted {
    otactl: Child,
    pipe: ChildStdin,
    rest: Vec<u8>,
}

impl Halted {
    fn start(rig: &Rig) -> Halted {
        let mut otactl = rig.device.otactl_command();
        let mut otactl =
            otactl.args(["install", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut bundle = std::fs::read(shelf().bundle(2)).unwrap();
        let rest = bundle.split_off(bundle.len() / 2);
        let mut pipe = otactl.stdin.take().unwrap();
        pipe.write_all(&bundle).unwrap();
        rig.wait("the install to write", |status| {
            status.job.as_ref().is_some_and(|job| job.phase == "writing")
        });
        Halted { otactl, pipe, rest }
    }

    fn finish(mut self) -> std::process::Output {
        // It may have failed before, and then nobody reads.
        let _ = self.pipe.write_all(&self.rest);
        drop(self.pipe);
        self.otactl.wait_with_output().unwrap()
    }
}

/// A device that asks its server every second, so that its fetcher is there.
struct Asking {
    // Dropped before the server.
    rig: Rig,
    server: Server,
    _dir: tempfile::TempDir,
}

impl Asking {
    fn start() -> Asking {
        let dir = tempfile::tempdir().unwrap();
        let binaries = otad_demo::Binaries::find().unwrap();
        let root = shelf().path("root.toml");
        let server = Server::start(&dir.path().join("server"), &root, &binaries).unwrap();
        let rig = Rig::start(|device| device.server(server.url(), 1));
        Asking { rig, server, _dir: dir }
    }

    fn fetcher(&self) -> i32 {
        let otad = otad(&self.rig);
        wait_until("the fetcher", || !roles(otad, "fetcher").is_empty());
        roles(otad, "fetcher")[0]
    }
}

/// The daemon's process.
fn otad(rig: &Rig) -> i32 {
    let file = rig.device.dir().join("run/otad.pid");
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

fn decoders(rig: &Rig) -> Vec<i32> {
    let otad = otad(rig);
    wait_until("the decoders", || !roles(otad, "decoder").is_empty());
    roles(otad, "decoder")
}

/// The device that slot b is, as the configuration names it.
fn slot_b(rig: &Rig) -> PathBuf {
    let config = std::fs::read_to_string(rig.device.config_path()).unwrap();
    let path = config.lines().filter(|line| line.starts_with("images.rootfs")).nth(1).unwrap();
    Path::new(path.split('"').nth(1).unwrap()).to_owned()
}

/// Attacker on the network, in the process that decompresses: neither device nor network, nor any file, nor another program.
#[test]
fn a_decoder_that_was_taken_over_can_open_nothing() {
    let rig = Rig::start(|device| device);
    let halted = Halted::start(&rig);
    let device = slot_b(&rig);
    for decoder in decoders(&rig) {
        let captive = Captive::take(decoder);
        // What it may do shows that the attempts are real.
        assert_eq!(captive.call(nix::libc::SYS_write, &[1, 0, 0].map(Argument::Number)), Ok(0));
        for path in [&device, Path::new("/dev/null"), Path::new("/etc/passwd"), Path::new("/proc/self/mem")] {
            for flags in [O_RDONLY, O_WRONLY, O_RDWR] {
                assert_eq!(captive.open(path, flags), Err(Errno::EPERM), "{}", path.display());
            }
        }
        for family in [AF_INET, AF_INET6, AF_UNIX, nix::libc::AF_NETLINK] {
            assert_eq!(captive.socket(family), Err(Errno::EPERM), "family {family}");
        }
        use nix::libc::{SYS_clone, SYS_execve, SYS_ftruncate, SYS_kill, SYS_ptrace, SYS_sendmsg};
        for call in [SYS_clone, SYS_execve, SYS_ftruncate, SYS_kill, SYS_ptrace, SYS_sendmsg] {
            assert_eq!(captive.call(call, &[]), Err(Errno::EPERM), "call {call}");
        }
    }
    assert!(halted.finish().status.success());
    assert!(rig.holds("b", 2));
}

/// Attacker on the network, in the process that speaks HTTP: no device, nothing to write, no other program.
#[test]
fn a_fetcher_that_was_taken_over_can_open_no_device() {
    let asking = Asking::start();
    let rig = &asking.rig;
    let (device, captive) = (slot_b(rig), Captive::take(asking.fetcher()));
    assert!(captive.socket(AF_INET).is_ok(), "it is there for the network");
    for flags in [O_WRONLY, O_RDWR] {
        assert_eq!(captive.open(&device, flags), Err(Errno::EPERM));
        assert_eq!(captive.open(Path::new("/etc/passwd"), flags), Err(Errno::EPERM));
    }
    let created = O_RDONLY | nix::libc::O_CREAT;
    assert_eq!(captive.open(Path::new("/etc/new"), created), Err(Errno::EPERM));
    assert!(captive.open(Path::new("/etc/hosts"), O_RDONLY).is_ok(), "names are looked up there");
    // Reading one is Landlock's part, where the kernel has it: it says which version.
    let version = [0, 0, 1].map(Argument::Number);
    if captive.call(nix::libc::SYS_landlock_create_ruleset, &version).is_ok() {
        for path in [&device, Path::new("/proc/self/mem"), &rig.dir.path().join("device")] {
            assert_eq!(captive.open(path, O_RDONLY), Err(Errno::EACCES), "{}", path.display());
        }
    }
    use nix::libc::{SYS_execve, SYS_kill, SYS_mknodat, SYS_mount, SYS_ptrace};
    for call in [SYS_execve, SYS_kill, SYS_mknodat, SYS_mount, SYS_ptrace] {
        assert_eq!(captive.call(call, &[]), Err(Errno::EPERM), "call {call}");
    }
}

/// A role that dies ends the install with its reason; the slot stays disarmed, and the next try succeeds.
#[test]
fn a_decoder_that_dies_ends_the_install_and_not_the_device() {
    let rig = Rig::start(|device| device);
    let halted = Halted::start(&rig);
    for decoder in decoders(&rig) {
        kill(Pid::from_raw(decoder), Signal::SIGKILL).unwrap();
    }
    let output = halted.finish();
    let text = said(&output);
    assert!(!output.status.success() && text.contains("ROLE_FAILED"), "{text}");
    assert!(text.contains("the decoder has ended (signal: 9 (SIGKILL))"), "{text}");
    rig.wait("otad to rest", |status| status.state == "failed" && status.job.is_none());
    assert!(rig.install(2).status.success());
    assert!(rig.holds("b", 2));
}

/// Between two questions a fetcher may end: the next one is asked of another.
#[test]
fn a_fetcher_that_dies_is_replaced() {
    let asking = Asking::start();
    kill(Pid::from_raw(asking.fetcher()), Signal::SIGKILL).unwrap();
    asking.server.upload(&shelf().bundle(2)).unwrap();
    asking.rig.wait("version 2 to be armed", |status| status.state == "post-upgrade");
    assert!(asking.rig.holds("b", 2));
}
