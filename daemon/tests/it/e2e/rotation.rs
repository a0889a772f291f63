//! The root of trust is replaced by a bundle that brings its successors, through the real programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use otad_bundle::{
    Chain, Recipe, Recovery, Role, Root, SignedRoot, Signer, SigningKey, Source, Update, build,
};

use super::shelf::{Rig, said, shelf};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32]).unwrap()
}

/// Roots 2 and 3 behind the shelf's root 1: release keys 42 and 43, and a recovery key, 50.
fn successors() -> Chain {
    let first = Root::read(&shelf().path("root.toml")).unwrap();
    let shelf_key = first.keys().next().unwrap().id();
    let second = first.successor().unwrap().with_key(Role::Release, key(42).public_key());
    let second = second.without_key(shelf_key).unwrap().with_key(Role::Recovery, key(50).public_key());
    let third = second.successor().unwrap().with_key(Role::Release, key(43).public_key());
    let third = third.without_key(key(42).public_key().id()).unwrap();
    let mut second = SignedRoot::draft(&second).unwrap();
    second.sign(shelf().key()).unwrap();
    second.sign(&key(42)).unwrap();
    let mut third = SignedRoot::draft(&third).unwrap();
    third.sign(&key(42)).unwrap();
    third.sign(&key(43)).unwrap();
    Chain::of(vec![second, third]).unwrap()
}

fn bundle(
    name: &str,
    sequence: u64,
    recovery: Option<Recovery>,
    roots: bool,
    keys: &[&dyn Signer],
) -> PathBuf {
    let update = Update {
        version: "2.0.0".parse().unwrap(),
        sequence,
        compatible: vec!["demo-board".to_owned()],
        description: String::new(),
        critical: Vec::new(),
    };
    let source = Source { role: "rootfs".to_owned(), path: shelf().image(2) };
    let mut recipe = Recipe::new(update, vec![source]);
    recipe.roots = roots.then(successors);
    recipe.recovery = recovery;
    let output = shelf().path(name);
    build(&recipe, keys, &output, &mut |_| {}).unwrap();
    output
}

fn refused(rig: &Rig, bundle: &Path, code: &str) {
    let output = rig.otactl(&["install", bundle.to_str().unwrap()]);
    assert!(said(&output).contains(code), "{}: wanted {code}, got {}", bundle.display(), said(&output));
    assert_eq!(output.status.code(), Some(3));
}

/// What a new system is asked before it is armed: whether it could update this device.
fn self_test(rig: &Rig) -> Output {
    let mut otad = Command::new(env!("CARGO_BIN_EXE_otad"));
    otad.arg("--config").arg(rig.device.dir().join("otad.toml")).arg("--self-test").output().unwrap()
}

/// A device follows two roots at once, forgets the keys of the first for good, and V1, V5, V6 hold by the new ones.
#[test]
fn a_device_follows_its_roots_and_never_back() {
    let rig = Rig::start(|device| device);
    let stored = rig.device.dir().join("data/roots");
    let without = bundle("rotated-without.otab", 5, None, false, &[&key(43)]);
    refused(&rig, &without, "SIG_UNTRUSTED");
    assert!(!stored.exists());

    let rotated = bundle("rotated.otab", 5, None, true, &[&key(43)]);
    assert!(rig.otactl(&["install", rotated.to_str().unwrap(), "--reboot"]).status.success());
    rig.wait("sequence 5", |status| status.rests_in("b") && status.last_outcome() == "committed");
    let roots = Chain::read(&stored).unwrap();
    assert_eq!(roots.roots().iter().map(|root| root.root().version()).collect::<Vec<_>>(), [2, 3]);

    // The image's own root is still the first one; what was stored counts.
    let status = String::from_utf8(rig.otactl(&["status"]).stdout).unwrap();
    assert!(status.contains("root 3, no release below sequence 5"), "{status}");
    let tested = self_test(&rig);
    let words = String::from_utf8_lossy(&tested.stdout);
    assert!(tested.status.success() && words.contains("can update this device"), "{words}{}", said(&tested));
    let old_key = bundle("old-key.otab", 6, None, false, &[shelf().key()]);
    refused(&rig, &old_key, "SIG_UNTRUSTED");
    refused(&rig, &bundle("leap.otab", 1 << 62, None, false, &[&key(43)]), "VERSION_JUMP");
    let back = Some(Recovery { from: 5 });
    refused(&rig, &bundle("no-recovery.otab", 4, back, false, &[&key(43)]), "DOWNGRADE");

    // The file is gone: the record knows that there were newer roots, and only a bundle that brings them helps.
    fs::remove_file(&stored).unwrap();
    let process = rig.device.lights().otad;
    rig.device.kill_otad();
    rig.wait("otad again", |_| rig.device.lights().otad != process && rig.device.lights().otad.is_some());
    refused(&rig, &old_key, "KEYS_REPLAY");
    let tested = self_test(&rig);
    assert!(!tested.status.success(), "{}", said(&tested));
    let words = "its root of trust is version 1, this device follows 3 and would refuse every bundle";
    assert!(said(&tested).contains(words), "{}", said(&tested));

    let back = bundle("recovery.otab", 4, back, true, &[&key(43), &key(50)]);
    assert!(rig.otactl(&["install", back.to_str().unwrap(), "--reboot"]).status.success());
    rig.wait("sequence 4", |status| status.rests_in("a") && status.last_outcome() == "committed");
    assert!(stored.exists());
    let record = fs::read_to_string(rig.device.dir().join("data/record.json")).unwrap();
    assert!(record.contains("\"floor\":4") && record.contains("\"root_version\":3"), "{record}");
}
