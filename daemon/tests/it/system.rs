//! What is installed around otad: the unit, the bus policy, and both under a real systemd and a real bus.

#[path = "system/booted.rs"]
mod booted;
#[path = "system/callers.rs"]
mod callers;
#[path = "system/device.rs"]
pub(crate) mod device;
#[path = "system/polkit.rs"]
mod polkit;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The user that owns nothing, in every distribution.
const NOBODY: &str = "65534";

/// Where the tree that mirrors install paths is.
fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

/// Runs a program. One that is missing is a failure with the package that has it, never a skipped test.
fn run<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| {
        panic!("cannot run {program} ({error}); `scripts/need test` installs what the tests use")
    })
}

/// Both outputs of a program as text.
fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

/// Waits until a condition holds.
fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "waited {} s for {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn units() -> Vec<PathBuf> {
    let dir = tree().join("usr/lib/systemd/system");
    let mut units: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    units.sort();
    assert!(!units.is_empty());
    units
}

/// No unit we ship is exposed more than 1.5 of 10 as systemd counts it. The one that runs the user's own health checks leaves them the
/// network and block devices, and comes to 1.8.
#[test]
fn units_are_hardened() {
    let dir = tempfile::tempdir().unwrap();
    // A timer and a socket run nothing; what they start is a service.
    for unit in units().into_iter().filter(|unit| unit.extension().is_some_and(|kind| kind == "service")) {
        let name = unit.file_name().unwrap().to_str().unwrap();
        let most = if name == "otad-health@.service" { 18 } else { 15 };
        // systemd looks at instances, not at templates.
        let instance = dir.path().join(name.replace('@', "@1"));
        fs::copy(&unit, &instance).unwrap();
        let threshold = format!("--threshold={most}");
        let arguments = ["security", "--offline=true", &threshold, "--no-pager"].map(OsStr::new);
        let output = run("systemd-analyze", arguments.into_iter().chain([instance.as_os_str()]));
        assert!(output.status.success(), "{name}:\n{}", said(&output));
        println!("{}", said(&output).lines().last().unwrap_or_default());
    }
}

/// systemd finds nothing to complain about, in a tree where the program is installed.
#[test]
fn units_are_well_formed() {
    for unit in units() {
        let arguments =
            ["verify".as_ref(), "--man=no".as_ref(), "--recursive-errors=one".as_ref(), unit.as_os_str()];
        let output = run("systemd-analyze", arguments);
        let text = said(&output);
        let complaints: Vec<_> = text
            .lines()
            .filter(|line| !line.ends_with("is not executable: No such file or directory"))
            .collect();
        assert!(complaints.is_empty(), "{}:\n{text}", unit.display());
    }
}

/// The unit does what `otad` documents: exit status 75 means that another one runs.
#[test]
fn the_unit_and_the_program_agree() {
    let unit = fs::read_to_string(tree().join("usr/lib/systemd/system/otad.service")).unwrap();
    let help = said(&run(env!("CARGO_BIN_EXE_otad"), ["--help"]));
    assert!(help.contains("2 usage, 75 another otad is running"), "{help}");
    for line in ["Type=notify", "BusName=org.otad1", "Restart=on-failure", "RestartPreventExitStatus=2 75"] {
        assert!(unit.lines().any(|found| found == line), "otad.service lacks {line}");
    }
}

/// H7, P8: the deadline that needs no otad knows a trial from a confirmed system and from one that only has an armed slot.
#[test]
fn the_deadline_without_otad_strikes_only_on_trial() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let bootenv = Path::new(env!("CARGO_BIN_EXE_otad")).with_file_name("bootenv");
    assert!(bootenv.is_file(), "no {}; run cargo build first", bootenv.display());
    let search = format!("{}:/usr/bin:/bin", bootenv.parent().unwrap().display());
    fs::write(path("config"), format!("{0} 0x0 0x1000\n{0} 0x1000 0x1000\n", path("env"))).unwrap();
    fs::write(path("env"), [0u8; 0x2000]).unwrap();
    let on_trial = |variables: &str, cmdline: &str| {
        fs::write(path("variables"), variables).unwrap();
        fs::write(path("cmdline"), cmdline).unwrap();
        let init = run(bootenv.to_str().unwrap(), ["-c", &path("config"), "init", &path("variables")]);
        assert!(init.status.success(), "{}", said(&init));
        let script = tree().join("usr/lib/otad/on-trial");
        let mut command = Command::new(script);
        command.args([path("cmdline"), path("config")]).env("PATH", &search).status().unwrap().code()
    };
    let trial = "otad_slot=b\notad_trial=b\nupgrade_available=1\n";
    assert_eq!(on_trial(trial, "quiet otad.slot=b panic=1\n"), Some(0));
    assert_eq!(on_trial(trial, "otad.slot=b"), Some(0), "the last line may lack its end");
    assert_eq!(on_trial(trial, "otad.slot=a\n"), Some(1), "armed, not booted yet");
    assert_eq!(on_trial(trial, "otad.slot=bb\n"), Some(1));
    let boot_order = "BOOT_ORDER=B A\nBOOT_B_LEFT=2\nBOOT_A_LEFT=3\notad_trial=b\n";
    assert_eq!(on_trial(boot_order, "otad.slot=b\n"), Some(0));
    assert_eq!(on_trial(boot_order, "otad.slot=a\n"), Some(1), "its attempts ran out");
    assert_eq!(on_trial("otad_slot=b\notad_b_ok=1\n", "otad.slot=b\n"), Some(1), "confirmed");
    // Without an environment the record decides: as the old otad left it before the reboot, or none at all.
    let script = tree().join("usr/lib/otad/on-trial");
    let by_record = |env: &[u8], record: &str| {
        fs::write(path("env"), env).unwrap();
        fs::write(path("record"), record).unwrap();
        let mut command = Command::new(&script);
        command
            .args([path("cmdline"), path("config"), path("record")])
            .env("PATH", &search)
            .status()
            .unwrap()
            .code()
    };
    let armed = "otad-record 1 0\n{\"state\":{\"post-upgrade\":[{\"job\":1,\"target\":\"b\"},\"armed\"]}}";
    for env in [&[0u8; 0x2000][..], &[]] {
        assert_eq!(by_record(env, armed), Some(0));
        assert_eq!(by_record(env, "otad-record 1 0\n{\"state\":\"idle\"}"), Some(1), "no reason to reboot");
        assert_eq!(by_record(env, ""), Some(1), "a lost environment alone is no reason to reboot");
    }
}

/// What the deadline without otad greps for is what otad writes.
#[test]
fn the_record_is_written_as_the_deadline_reads_it() {
    use otad::lifecycle::event::{Attempt, Origin, Stage, State};
    use otad::ports::StateFs as _;
    let dir = tempfile::tempdir().unwrap();
    let fs = otad::adapters::state_fs::DataDirectory::open(dir.path()).unwrap();
    let attempt = Attempt {
        job: 1,
        origin: Origin::Descriptor,
        from: "a".to_owned(),
        target: "b".to_owned(),
        boot_id: "x".to_owned(),
        started: 0,
        reboot: false,
        release: None,
        counts: Default::default(),
        supersedes: None,
    };
    let mut record = otad::lifecycle::record::Record::default();
    record.set_state(&State::PostUpgrade(attempt, Stage::Armed)).unwrap();
    otad::lifecycle::record::save(&fs, &record).unwrap();
    let text = String::from_utf8(fs.read("record.json").unwrap().unwrap()).unwrap();
    assert!(text.contains("\"state\":{\"post-upgrade\"") && text.contains("\"target\":\"b\""), "{text}");
}

/// The example of the configuration is one: every line that is a comment for its default may be uncommented.
#[test]
fn the_example_configuration_is_accepted() {
    let text = fs::read_to_string(tree().join("etc/otad/otad.toml")).unwrap();
    let path = Path::new("otad.toml");
    let terse = otad::config::parse(&text, path, &|_| true).unwrap();
    let is_key = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        line.starts_with('[')
            || !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'.')
    };
    let full = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_key(rest) && !rest.starts_with("model-dir") => rest,
        _ => line,
    });
    let full = full.collect::<Vec<_>>().join("\n");
    let mut full =
        otad::config::parse(&full, path, &|_| true).unwrap_or_else(|failure| panic!("{failure}\n{full}"));
    let server = full.server.take().unwrap();
    assert_eq!(server.interval, Duration::from_secs(60));
    assert_eq!(full.health.checks.take().as_deref(), Some(Path::new("/usr/lib/otad/health.d")));
    assert_eq!(full.pre_run.take().as_deref(), Some("rootfs"));
    assert!(full.decrypt.take().is_some());
    assert_eq!(full, terse, "a default in the example is not the default of otad");
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const STATE: [&str; 5] = ["get-property", "org.otad1", "/org/otad1", "org.otad1.Manager", "State"];
