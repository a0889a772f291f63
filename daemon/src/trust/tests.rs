//! What is believed after which story, on a real directory.

use otad_bundle::{PublicKey, Signer as _, SigningKey};

use super::*;
use crate::adapters::state_fs::DataDirectory;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32]).unwrap()
}

/// Roots 1 to `count` of the family of `seed`: each has one release key, which signs the next; the first is unsigned.
fn family(seed: u8, count: u8) -> Vec<SignedRoot> {
    (1..=count).map(|version| member(seed, version, "")).collect()
}

fn member(seed: u8, version: u8, expires: &str) -> SignedRoot {
    let public: PublicKey = key(seed + version).public_key();
    let text = Root::with_release_keys(&[public]).to_toml();
    let text = text.replacen("version = 1\n", &format!("version = {version}\n{expires}"), 1);
    let mut root = SignedRoot::draft(&Root::parse(text.as_bytes()).unwrap()).unwrap();
    if version > 1 {
        root.sign(&key(seed + version - 1)).unwrap();
        root.sign(&key(seed + version)).unwrap();
    }
    root
}

fn image(roots: &[SignedRoot]) -> Chain {
    Chain::of(roots.to_vec()).unwrap()
}

struct Device {
    _dir: tempfile::TempDir,
    fs: Arc<DataDirectory>,
}

impl Device {
    fn new() -> Device {
        let dir = tempfile::tempdir().unwrap();
        let fs = Arc::new(DataDirectory::open(dir.path()).unwrap());
        Device { _dir: dir, fs }
    }

    fn boots(&self, roots: &[SignedRoot]) -> Keeper {
        Keeper::open(image(roots), self.fs.clone()).unwrap()
    }
}

#[test]
fn every_step_is_stored_and_walked_again_at_the_next_start() {
    let (roots, device) = (family(1, 4), Device::new());
    let keeper = device.boots(&roots[..1]);
    assert_eq!((keeper.root().version(), keeper.stored_version()), (1, 0));
    keeper.accept(&roots[1..3]).unwrap();
    keeper.accept(&roots[1..3]).unwrap();
    assert_eq!((keeper.root().version(), keeper.stored_version()), (3, 3));
    let again = device.boots(&roots[..1]);
    assert_eq!(again.root().version(), 3);
    again.accept(&roots[3..]).unwrap();
    assert_eq!(device.boots(&roots[..1]).root().version(), 4);
}

#[test]
fn a_root_that_may_not_follow_leaves_what_came_before_it() {
    let (roots, others, device) = (family(1, 4), family(101, 3), Device::new());
    let keeper = device.boots(&roots[..1]);
    let mixed = [roots[1].clone(), others[2].clone()];
    assert_eq!(keeper.accept(&mixed).unwrap_err().code, Code::SigUntrusted);
    assert_eq!(keeper.accept(&roots[3..]).unwrap_err().code, Code::KeysGap);
    assert_eq!(device.boots(&roots[..1]).root().version(), 2);
}

/// V6: an older image does not bring back the roots that were left behind, whether it knows the later ones or not.
#[test]
fn an_older_image_brings_no_older_root_back() {
    let (roots, device) = (family(1, 3), Device::new());
    let keeper = device.boots(&roots);
    assert_eq!(
        (keeper.root().version(), keeper.stored_version()),
        (3, 0),
        "an image on trial stores nothing"
    );
    keeper.adopt_image().unwrap();
    assert_eq!(keeper.stored_version(), 3);
    let older = device.boots(&roots[..1]);
    assert_eq!(older.root().version(), 3, "the later image brought every root since");

    let device = Device::new();
    let tip_only = roots[2..].to_vec();
    device.boots(&tip_only).adopt_image().unwrap();
    let older = device.boots(&roots[..1]);
    assert_eq!((older.root().version(), older.stored_version()), (1, 0), "root 2 is missing in between");
    // The record remembers; a bundle that brings the roots is the way out.
    older.require(3);
    let refused = older.root().verify(
        otad_bundle::Role::Release,
        "otab-manifest-v1",
        b"",
        &otad_bundle::Signatures::default(),
    );
    assert_eq!(from_bundle(&refused.unwrap_err()).code, Code::KeysReplay);
    older.accept(&roots[1..]).unwrap();
    assert_eq!((older.root().version(), older.root().least()), (3, 3));
}

/// Somebody who can write the data directory and holds no key: believed in nothing.
#[test]
fn forged_and_damaged_files_are_not_used() {
    let (roots, others) = (family(1, 3), family(101, 3));
    let text = |roots: &[SignedRoot]| roots.iter().map(SignedRoot::to_text).collect::<String>().into_bytes();
    let mut flipped = text(&roots[1..]);
    flipped[700] ^= 1;
    let mut own = others[1..].to_vec();
    own.insert(0, roots[1].clone());
    for (what, bytes) in [
        ("another family", text(&others[1..])),
        ("another family behind a genuine root", text(&own)),
        ("a flipped bit", flipped),
        ("unsigned", roots[1].root().to_toml().into_bytes()),
        ("empty", Vec::new()),
        ("torn", text(&roots[1..])[..900].to_vec()),
    ] {
        let device = Device::new();
        let mut file = device.fs.create(FILE).unwrap();
        file.write_all(&bytes).unwrap();
        assert_eq!(device.boots(&roots[..1]).root().version(), 1, "{what}");
    }
}

#[test]
fn the_image_wins_where_it_is_newer() {
    let (roots, device) = (family(1, 4), Device::new());
    device.boots(&roots[..1]).accept(&roots[1..2]).unwrap();
    assert_eq!(device.boots(&roots).root().version(), 4);
    device.boots(&roots).adopt_image().unwrap();
    assert_eq!(device.boots(&roots[..1]).root().version(), 4);
}

#[test]
fn a_root_expires_by_the_earliest_time_that_it_can_be() {
    let device = Device::new();
    let keeper = device.boots(&[member(1, 1, "expires = 2030-01-01T00:00:00Z\n")]);
    assert!(keeper.refuse_expired(1_893_455_999).is_ok());
    let refused = keeper.refuse_expired(1_893_456_000).unwrap_err();
    assert_eq!(refused.code, Code::KeysExpired);
    assert!(refused.message.contains("2030-01-01T00:00:00Z"), "{refused}");
    // The way out is a root that follows; it may come although the one before has expired.
    keeper.accept(&[member(1, 2, "expires = 2040-01-01T00:00:00Z\n")]).unwrap();
    assert!(keeper.refuse_expired(1_893_456_000).is_ok());
    assert!(
        Device::new().boots(&family(1, 1)).refuse_expired(u64::MAX).is_ok(),
        "without a date it never expires"
    );
}

const NOW: u64 = 1_800_000_000;

fn document(counter: u64, issued: u64, signer: u8) -> String {
    let channel = Channel {
        compatible: "acme".into(),
        counter,
        issued,
        expires: issued + 1000,
        release: otad_bundle::Digest([7; 32]),
        sequence: 42,
        also: Vec::new(),
    };
    let mut signed = otad_bundle::SignedChannel::draft(&channel).unwrap();
    signed.sign(&key(signer)).unwrap();
    signed.to_text()
}

/// Roots of one family whose online role has these keys, root by root.
fn online(seeds: &[u8]) -> Vec<SignedRoot> {
    let roots = seeds.iter().zip(1u8..).map(|(seed, version)| {
        let root = member(1, version, "").root().clone();
        let root = root.with_key(otad_bundle::Role::Online, key(*seed).public_key());
        let mut root = SignedRoot::draft(&root).unwrap();
        if version > 1 {
            root.sign(&key(version)).unwrap();
            root.sign(&key(version + 1)).unwrap();
        }
        root
    });
    roots.collect()
}

/// V3: what was seen outlives a restart; replay, freeze, another model's and another role's each have their code.
#[test]
fn channel_documents_are_remembered() {
    let (roots, device) = (online(&[50]), Device::new());
    let see = |keeper: &Keeper, counter, issued, signer| {
        let seen = keeper.see(document(counter, issued, signer).as_bytes(), "acme", NOW);
        seen.map(|channel| channel.counter).map_err(|failure| failure.code)
    };
    let keeper = device.boots(&roots);
    assert!(keeper.expects_channel() && !Device::new().boots(&family(1, 1)).expects_channel());
    assert_eq!(see(&keeper, 5, NOW - 10, 50), Ok(5));
    assert_eq!(see(&keeper, 6, NOW - 5, 50), Ok(6));
    let again = device.boots(&roots);
    assert_eq!(see(&again, 5, NOW - 10, 50), Err(Code::MetadataReplay));
    assert_eq!(see(&again, 6, NOW - 5, 50), Ok(6));
    assert_eq!(see(&again, 7, NOW - 2000, 50), Err(Code::MetadataStale));
    assert_eq!(see(&again, 7, NOW, 2), Err(Code::SigUntrusted), "the release role");
    let other = again.see(document(7, NOW, 50).as_bytes(), "other", NOW).unwrap_err();
    assert_eq!(other.code, Code::MetadataMismatch);
    assert_eq!(see(&again, 1 << 40, NOW, 50), Err(Code::MetadataJump));
}

/// Only signed times move the lower bound: a clock that was once in 2100 poisons nothing, one that is back in 1970 hides nothing.
#[test]
fn one_wrong_clock_changes_nothing() {
    let (roots, device) = (online(&[50]), Device::new());
    let keeper = device.boots(&roots);
    let document = |counter, issued| document(counter, issued, 50);
    let code =
        |keeper: &Keeper, text: &str, clock| keeper.see(text.as_bytes(), "acme", clock).map_err(|f| f.code);
    assert_eq!(
        code(&keeper, &document(5, NOW), 4_102_444_800),
        Err(Code::MetadataStale),
        "the clock is ahead"
    );
    assert!(code(&keeper, &document(5, NOW), NOW).is_ok(), "and is right again");
    assert_eq!(keeper.earliest(), NOW.max(built_at()));
    assert!(code(&keeper, &document(6, NOW + 2000), 0).is_ok(), "the clock is in 1970");
    let again = device.boots(&roots);
    assert_eq!(again.earliest(), (NOW + 2000).max(built_at()));
    assert_eq!(code(&again, &document(7, NOW), 0), Err(Code::MetadataStale), "by the signed time alone");
    assert!(again.refuse_expired(again.earliest()).is_ok());
}

/// A stolen online key has led counter and time to where no honest one comes: new online keys in the root undo it.
#[test]
fn new_online_keys_reset_what_was_seen() {
    let (roots, device) = (online(&[50, 50, 51]), Device::new());
    let keeper = device.boots(&roots[..1]);
    let far = document(2_000_000, NOW + (1 << 30), 50);
    keeper.see(far.as_bytes(), "acme", NOW).unwrap();
    keeper.accept(&roots[1..2]).unwrap();
    assert_eq!(keeper.earliest(), (NOW + (1 << 30)).max(built_at()), "the same keys: nothing is forgotten");
    keeper.accept(&roots[2..]).unwrap();
    assert_eq!(keeper.earliest(), built_at());
    assert!(keeper.see(document(1, NOW, 51).as_bytes(), "acme", NOW).is_ok());
    assert_eq!(keeper.see(far.as_bytes(), "acme", NOW).unwrap_err().code, Code::SigUntrusted);
    let again = device.boots(&roots[..1]);
    assert_eq!(again.earliest(), NOW.max(built_at()));
}

/// Who can write the data directory and holds no key moves no clock.
#[test]
fn a_forged_channel_file_is_not_used() {
    let (roots, device) = (online(&[50]), Device::new());
    let text = document(5, NOW + (1 << 30), 50);
    for bytes in [text.replace("counter = 5", "counter = 6"), document(5, NOW, 60), String::new()] {
        device.fs.create("channel").unwrap().write_all(bytes.as_bytes()).unwrap();
        assert_eq!(device.boots(&roots).earliest(), built_at());
    }
}
