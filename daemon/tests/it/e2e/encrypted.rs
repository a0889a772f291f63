//! Encrypted bundles on devices that can read them, and on those that cannot.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use otad_bundle::delta::make_delta_with_key;
use otad_bundle::{Recipe, Recipient, RecipientKey, Source, Update, X25519Key, build_for};
use otad_demo::{Binaries, Server};

use super::shelf::{IMAGE_BYTES, PATIENCE, Rig, said, shelf};

fn device_key(seed: u8) -> X25519Key {
    X25519Key::from_bytes([seed; 32]).unwrap()
}

/// A bundle of an image of the shelf, for these recipients.
fn sealed(image: u64, sequence: u64, output: &Path, recipients: &[&dyn Recipient]) {
    let update = Update {
        version: format!("{image}.0.0").parse().unwrap(),
        sequence,
        compatible: vec!["demo-board".to_owned()],
        description: String::new(),
        critical: Vec::new(),
    };
    let source = Source { role: "rootfs".to_owned(), path: shelf().image(image) };
    build_for(&Recipe::new(update, vec![source]), recipients, &[shelf().key()], output, &mut |_| {}).unwrap();
}

/// A device with these lines in its configuration; the key with the seed 1 lies beside it.
fn start(decrypt: &str) -> Rig {
    let dir = tempfile::Builder::new().prefix("otad-sealed-").tempdir().unwrap();
    let mut device = shelf().factory(dir.path()).build(&Binaries::find().unwrap()).unwrap();
    device_key(1).write_new(&dir.path().join("device.key")).unwrap();
    let lines = decrypt.replace("DIR", dir.path().to_str().unwrap());
    let mut config = fs::OpenOptions::new().append(true).open(device.config_path()).unwrap();
    config.write_all(lines.as_bytes()).unwrap();
    device.power_on().unwrap();
    device.wait_for("otad to answer", PATIENCE, |status| status.state == "idle").unwrap();
    Rig { device, dir }
}

const WITH_KEY: &str = "\n[decrypt]\nkey = \"DIR/device.key\"\n";

fn install(rig: &Rig, bundle: &Path) -> Output {
    rig.otactl(&["install", bundle.to_str().unwrap()])
}

fn log(rig: &Rig) -> String {
    fs::read_to_string(rig.device.otad_log_path()).unwrap()
}

/// Fetched, written and taken from other slots, as the log of the last install says.
fn figures(log: &str) -> [u64; 4] {
    let line = log.lines().rfind(|line| line.contains("is synced")).unwrap();
    let words = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    let words: Vec<u64> = words.collect();
    words.try_into().unwrap_or_else(|_| panic!("{line}"))
}

/// From a file and from a pipe; who cannot read it is told so, and its other slot is as bootable as before.
#[test]
fn only_a_recipient_installs_it() {
    let rig = start(WITH_KEY);
    let path = |name: &str| rig.dir.path().join(name);
    sealed(2, 10, &path("ours"), &[&device_key(9).public(), &device_key(1).public()]);
    sealed(1, 11, &path("others"), &[&device_key(9).public()]);
    sealed(1, 12, &path("next"), &[&device_key(1).public()]);
    assert!(install(&rig, &path("ours")).status.success());
    assert!(rig.holds("b", 2));
    assert!(rig.otactl(&["reboot"]).status.success());
    rig.wait("the commit", |status| status.rests_in("b") && status.last_outcome() == "committed");

    let environment = |rig: &Rig| {
        let environment = rig.device.environment().unwrap();
        environment.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect::<Vec<_>>()
    };
    let (before, indexes) = (environment(&rig), kept(&rig));
    let output = install(&rig, &path("others"));
    let message = said(&output);
    assert!(message.contains("DECRYPT_NO_KEY") && message.contains("recipients: 1"), "{message}");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!((environment(&rig), kept(&rig)), (before, indexes));
    assert_eq!(rig.device.status().unwrap().slot("a").unwrap().state, "confirmed");
    assert!(rig.holds("a", 1));

    // Front to back: the key is unwrapped before the first index comes.
    blank(&rig, "a");
    let otactl = rig.device.otactl_command().args(["install", "-", "--quiet"]).stdin(Stdio::piped()).spawn();
    let mut otactl = otactl.unwrap();
    otactl.stdin.take().unwrap().write_all(&fs::read(path("next")).unwrap()).unwrap();
    assert!(otactl.wait().unwrap().success());
    assert!(rig.holds("a", 1));
}

/// Makes a slot hold nothing that is of use.
fn blank(rig: &Rig, slot: &str) {
    let device = rig.device.machine().slot(slot).unwrap().device().to_owned();
    let file = fs::OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(&vec![0x55; usize::try_from(IMAGE_BYTES).unwrap()], 0).unwrap();
    file.sync_all().unwrap();
}

/// The kept indexes.
fn kept(rig: &Rig) -> Vec<PathBuf> {
    let data = fs::read_to_string(rig.device.config_path()).unwrap();
    let data =
        data.lines().find_map(|line| line.strip_prefix("data-dir = \"")).unwrap().trim_end_matches('"');
    let mut files: Vec<_> =
        fs::read_dir(Path::new(data).join("index")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Without any key a device says what is missing; with a key that is gone, which file.
#[test]
fn a_device_without_its_key_says_so() {
    let rig = start("");
    let bundle = rig.dir.path().join("sealed");
    sealed(2, 10, &bundle, &[&device_key(1).public()]);
    let output = install(&rig, &bundle);
    assert!(
        said(&output).contains("DECRYPT_NO_KEY") && said(&output).contains("[decrypt]"),
        "{}",
        said(&output)
    );
    // A bundle for everybody is taken all the same.
    assert!(rig.install(2).status.success());
    let rig = start("\n[decrypt]\nkey = \"DIR/lost.key\"\n");
    let output = install(&rig, &bundle);
    assert!(said(&output).contains("FILE_IO") && said(&output).contains("lost.key"), "{}", said(&output));
}

/// H6: a new system that has lost what it would be updated with does not stay, however healthy it is otherwise. The key of a device
/// stands for the files of `[server]` and the root of trust, which are looked at in the same place.
#[test]
fn a_system_that_could_not_be_updated_again_is_rolled_back() {
    let rig = start(WITH_KEY);
    assert!(rig.install(2).status.success());
    let key = rig.dir.path().join("device.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(rig.otactl(&["reboot"]).status.success());
    let status = rig.wait("the rollback", |status| status.state == "failed");
    let last = status.last_result.unwrap();
    assert_eq!((last.outcome.as_str(), last.code.as_str()), ("rolled-back", "CONFIG"), "{}", last.message);
    let words = "this system could not be updated: [decrypt] key: mode 0644 lets everybody use";
    assert!(last.message.contains(words), "{}", last.message);
    assert_eq!(status.booted_slot, "a");
    // With the key as it should be, the same release stays.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    rig.update_for_good(2, "b");
}

/// Over the network: what the running slot holds is not fetched, what was there when otad was killed is not fetched again, and a delta
/// gives the rest. The server has no key and takes it all.
#[test]
fn it_is_adaptive_and_resumes_and_takes_deltas() {
    let rig = start(WITH_KEY);
    let path = |name: &str| rig.dir.path().join(name);
    let server =
        Server::start(&path("server"), &shelf().path("root.toml"), &Binaries::find().unwrap()).unwrap();
    let ours = device_key(1).public();
    for (image, sequence, name) in [(2, 10, "two"), (1, 11, "one")] {
        sealed(image, sequence, &path(name), &[&device_key(9).public(), &ours]);
    }
    let [two, one] = ["two", "one"].map(|name| server.artifact_url(&server.upload(&path(name)).unwrap()));
    let whole = fs::metadata(path("two")).unwrap().len();

    // Killed when half of it is there.
    let mut command = rig.device.otactl_command();
    command.args(["install", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut otactl = command.spawn().unwrap();
    let bytes = fs::read(path("two")).unwrap();
    otactl.stdin.as_mut().unwrap().write_all(&bytes[..bytes.len() / 4 * 3]).unwrap();
    rig.wait("most of it to arrive", |status| {
        status.job.as_ref().is_some_and(|job| job.bytes_fetched > whole / 10 * 7)
    });
    // What has arrived is written at once, but for the last batch.
    std::thread::sleep(Duration::from_secs(1));
    rig.device.kill_otad();
    let _ = (otactl.kill(), otactl.wait());
    rig.wait("the interruption to be told", |status| status.state == "failed");
    let output = rig.otactl(&["install", &two]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(rig.holds("b", 2));
    // Without what was there it would be a half: the other half is in the running slot.
    let [fetched, ..] = figures(&log(&rig));
    assert!(fetched < whole / 3, "{fetched} of {whole} fetched");
    assert!(rig.otactl(&["reboot"]).status.success());
    rig.wait("the commit", |status| status.rests_in("b") && status.last_outcome() == "committed");

    blank(&rig, "a");
    let output = rig.otactl(&["install", &one]);
    assert!(output.status.success() && rig.holds("a", 1), "{}", said(&output));
    let [fetched, _, _, taken] = figures(&log(&rig));
    assert!(taken >= 2 << 20 && fetched < whole - (2 << 20), "{fetched} fetched, {taken} taken");
    assert!(rig.otactl(&["cancel"]).status.success());

    blank(&rig, "a");
    make_delta_with_key(&path("two"), &path("one"), &path("delta"), None, Some(&device_key(9)), &mut |_| {})
        .unwrap();
    let route = format!("{}/api/v1/deltas", server.url());
    let upload = ["--silent", "--show-error", "--fail-with-body", "-X", "POST", "-T"];
    let output = Command::new("curl").args(upload).arg(path("delta")).arg(route).output().unwrap();
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let delta = format!("{}{}", server.url(), answer["url"].as_str().unwrap());
    let before = log(&rig).len();
    let output = rig.otactl(&["install", &one, "--delta", &delta]);
    assert!(output.status.success() && rig.holds("a", 1), "{}", said(&output));
    let log = log(&rig).split_off(before);
    let [.., taken] = figures(&log);
    // 3 MiB are in the running slot, and 3 MiB are not.
    assert!(taken > 5 << 20 && !log.contains("comes from the bundle"), "{log}");
}

fn openssl(arguments: &[&str], directory: &Path) {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
}

/// A key in a token: otactl wraps for it by openssl, and a command of the configuration unwraps.
#[test]
fn a_command_unwraps_by_rsa() {
    let rig = start(
        "\n[decrypt]\npublic = \"DIR/rsa.pub\"\ncommand = [\"/usr/bin/openssl\", \"pkeyutl\", \"-decrypt\", \
         \"-inkey\", \"DIR/rsa.key\", \"-pkeyopt\", \"rsa_padding_mode:oaep\", \"-pkeyopt\", \"rsa_oaep_md:sha256\"]\n",
    );
    let dir = rig.dir.path();
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", "rsa.key"], dir);
    openssl(&["pkey", "-in", "rsa.key", "-pubout", "-out", "rsa.pub"], dir);
    let (key, bundle) = (dir.join("release.key"), dir.join("sealed"));
    fs::write(&key, shelf().key().to_pem()).unwrap();
    let image = format!("rootfs={}", shelf().image(2).display());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let recipient = text(&dir.join("rsa.pub"));
    let output = rig.otactl(&[
        "bundle",
        "create",
        "--version",
        "2.0.0",
        "--sequence",
        "10",
        "--compatible",
        "demo-board",
        "--image",
        &image,
        "--key",
        &text(&key),
        "--recipient",
        &recipient,
        "-o",
        &text(&bundle),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let id = RecipientKey::read(&dir.join("rsa.pub")).unwrap().id().to_string();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&id));
    assert!(install(&rig, &bundle).status.success(), "{}", log(&rig));
    assert!(rig.holds("b", 2));
    assert!(rig.otactl(&["cancel"]).status.success());
    // Another key in the token than its public half says.
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", "rsa.key"], dir);
    sealed_again(&rig, &bundle);
}

fn sealed_again(rig: &Rig, bundle: &Path) {
    let output = install(rig, bundle);
    assert!(said(&output).contains("DECRYPT_FAILED"), "{}", said(&output));
    assert_eq!(output.status.code(), Some(1));
}
