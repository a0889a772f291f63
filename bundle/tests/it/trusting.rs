//! Who is believed: keys, roles, thresholds, roots.

use otad_bundle::{
    Bundle, KeyId, PublicKey, Role, Root, Signatures, SigningKey, StreamInput, add_signature, pae,
};

use crate::support::{
    Member, archive, check_with, entry, key, members, message, public, refusal, sample, signatures,
};

/// The sample with another signature file.
fn with_signatures(text: &str) -> Vec<u8> {
    let mut changed = members(sample());
    changed[2] = Member::new("manifest.sig", text.as_bytes());
    archive(&changed)
}

fn manifest() -> Vec<u8> {
    members(sample())[1].content.clone()
}

fn code(bytes: &[u8], root: &Root) -> &'static str {
    check_with(bytes, root).map_or_else(|error| error.code(), |()| "ok")
}

/// B9: a sound signature by a key that the root does not list, or lists for something else.
#[test]
fn b9_unknown_key_and_wrong_role() {
    let stranger = Root::with_release_keys(&[public(2)]);
    let error = check_with(sample(), &stranger).unwrap_err();
    assert_eq!(error.code(), "SIG_UNTRUSTED");
    assert!(error.to_string().contains(&public(1).id().to_string()), "{error}");

    let text = format!(
        "schema = 1\nversion = 3\n{}\n{}\n[role.online]\nkeys = [\"{}\"]\nthreshold = 1\n[role.release]\nkeys = [\"{}\"]\nthreshold = 1\n",
        key_table(1),
        key_table(2),
        public(1).id(),
        public(2).id()
    );
    let root = Root::parse(text.as_bytes()).unwrap();
    assert_eq!(code(sample(), &root), "SIG_UNTRUSTED", "an online key introduces no image");
    let signed = Signatures::parse(&members(sample())[2].content).unwrap();
    assert_eq!(
        root.verify(Role::Online, "otab-manifest-v1", &manifest(), &signed).unwrap(),
        [public(1).id()]
    );
    assert_eq!(
        root.verify(Role::Recovery, "otab-manifest-v1", &manifest(), &signed).unwrap_err().code(),
        "SIG_UNTRUSTED",
        "a role without keys"
    );
}

fn key_table(seed: u8) -> String {
    let text = Root::with_release_keys(&[public(seed)]).to_toml();
    let start = text.find("[[key]]").unwrap();
    text[start..text.find("[role").unwrap()].to_owned()
}

/// B9: a signature over the same bytes as another kind of document, or over the bare bytes.
#[test]
fn b9_wrong_domain() {
    use otad_bundle::Signer as _;
    let manifest = manifest();
    let id = public(1).id().to_string();
    for wrong in [
        pae("otab-root-v1", &manifest),
        pae("otab-manifest-v2", &manifest),
        manifest.clone(),
        [b"DSSEv1 16 otab-manifest-v1 ".to_vec(), manifest.clone()].concat(),
    ] {
        let value = key(1).sign(&wrong).unwrap();
        assert_eq!(refusal(&with_signatures(&entry(&id, &value))), "SIG_INVALID");
    }
    let value = key(1).sign(&message(&manifest)).unwrap();
    assert_eq!(with_signatures(&entry(&id, &value)), sample(), "the test's own writer is right");
}

/// B9: points of small order, in canonical and other encodings, can neither be loaded nor listed.
#[test]
fn b9_weak_keys() {
    let mut weak: Vec<[u8; 32]> = Vec::new();
    for (first, last) in [(0, 0), (0, 0x80), (1, 0), (1, 0x80)] {
        let mut point = [0; 32];
        (point[0], point[31]) = (first, last);
        weak.push(point);
    }
    for (first, last) in [(0xec, 0x7f), (0xec, 0xff), (0xed, 0x7f), (0xed, 0xff), (0xee, 0x7f), (0xee, 0xff)]
    {
        let mut point = [0xff; 32];
        (point[0], point[31]) = (first, last);
        weak.push(point);
    }
    let order_8 = [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ];
    weak.extend(order_8.map(|text| text.parse::<otad_bundle::Digest>().unwrap().0));
    for point in weak {
        let error = PublicKey::from_bytes(point).unwrap_err();
        assert_eq!(error.code(), "KEY_INVALID", "{point:02x?}");
        // In a root, with a fitting id.
        let raw = entry("0", &point).lines().last().unwrap().replace("value", "public");
        let id = otad_bundle::Digest::of(&point).to_string();
        let text = format!(
            "schema = 1\nversion = 1\n[[key]]\nid = \"{0}\"\nalgorithm = \"ed25519\"\n{raw}\n[role.release]\nkeys = [\"{0}\"]\nthreshold = 1\n",
            &id[..32]
        );
        assert_eq!(Root::parse(text.as_bytes()).unwrap_err().code(), "TRUST_INVALID");
    }
}

/// Signatures have one form: a larger S (S + L) and other changes of a sound signature are refused.
#[test]
fn non_canonical_signatures() {
    // The order of the group, little-endian (RFC 8032, section 5.1).
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let signed = Signatures::parse(&members(sample())[2].content).unwrap();
    let genuine = signed.iter().next().unwrap().clone();
    let mut larger = genuine.value;
    let mut carry = 0;
    for (byte, add) in larger[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    let id = genuine.key.to_string();
    assert_eq!(refusal(&with_signatures(&entry(&id, &larger))), "SIG_INVALID", "S + L");
    for value in [[0; 64], [0xff; 64]] {
        assert_eq!(refusal(&with_signatures(&entry(&id, &value))), "SIG_INVALID");
    }
    assert_eq!(refusal(&with_signatures(&entry(&id, &genuine.value[..63]))), "SIG_INVALID");
}

/// B10: no signature, an empty list, other algorithms, and thresholds that count distinct keys.
#[test]
fn b10_missing_signatures() {
    assert_eq!(refusal(&with_signatures("")), "SIG_MISSING");
    let none = signatures(&manifest(), &[1]).replace("ed25519", "none");
    assert_eq!(refusal(&with_signatures(&none)), "SIG_MISSING");
    assert_eq!(refusal(&with_signatures("signature = []\n")), "SIG_INVALID");

    let both = Root::with_release_keys(&[public(1), public(2)]).release_threshold(2).unwrap();
    let one = check_with(sample(), &both).unwrap_err();
    assert_eq!((one.code(), one.to_string().contains("1 of 2")), ("SIG_MISSING", true));
    let single = signatures(&manifest(), &[1]);
    assert_eq!(code(&with_signatures(&format!("{single}\n{single}")), &both), "SIG_INVALID", "one key twice");
    assert_eq!(code(&with_signatures(&signatures(&manifest(), &[1, 3])), &both), "SIG_MISSING");
    assert_eq!(code(&with_signatures(&signatures(&manifest(), &[1, 2])), &both), "ok");
    assert_eq!(code(&with_signatures(&signatures(&manifest(), &[3, 2, 1])), &both), "ok");
    assert!(Root::with_release_keys(&[public(1)]).release_threshold(2).is_err());
    assert!(Root::with_release_keys(&[public(1), public(1)]).release_threshold(2).is_err());
}

#[test]
fn a_listed_key_that_does_not_verify_refuses_the_bundle() {
    let either = Root::with_release_keys(&[public(1), public(2)]);
    let good = signatures(&manifest(), &[1, 2]);
    let mut bytes = with_signatures(&good);
    let mut bundle = Bundle::open(StreamInput::new(bytes.as_slice()), &either).unwrap();
    assert_eq!(bundle.signed_by().len(), 2);
    otad_bundle::verify(&mut bundle, &mut |_| ()).unwrap();
    let wrong = signatures(b"another manifest", &[2]);
    let entries = |text: &str| text.trim_end().split("\n\n").map(str::to_owned).collect::<Vec<_>>();
    let mut mixed = entries(&good);
    for entry in &mut mixed {
        if entry.contains(&public(2).id().to_string()) {
            *entry = entries(&wrong)[0].clone();
        }
    }
    bytes = with_signatures(&format!("{}\n", mixed.join("\n\n")));
    assert_eq!(code(&bytes, &either), "SIG_INVALID");
    assert_eq!(code(&bytes, &Root::with_release_keys(&[public(1)])), "ok", "keys of others decide nothing");
}

/// D-level strictness of `root.toml`: one wrong thing at a time.
#[test]
fn roots_are_strict() {
    let good = Root::with_release_keys(&[public(1), public(2)]).to_toml();
    let parsed = Root::parse(good.as_bytes()).unwrap();
    assert_eq!(parsed.to_toml(), good);
    let id = public(1).id().to_string();
    let expiring = good.replacen("version = 1", "version = 1\nexpires = 2030-01-01T00:00:00Z", 1);
    assert_eq!(Root::parse(expiring.as_bytes()).unwrap().expires().unwrap(), "2030-01-01T00:00:00Z");
    for (what, wrong) in [
        ("empty", String::new()),
        ("schema of the future", good.replacen("schema = 1", "schema = 2", 1)),
        ("no schema", good.replacen("schema = 1", "", 1)),
        ("version zero", good.replacen("version = 1", "version = 0", 1)),
        ("unknown key", good.replacen("version", "x = 1\nversion", 1)),
        ("unknown role", format!("{good}\n[role.king]\nkeys = [\"{id}\"]\nthreshold = 1\n")),
        ("no release role", good.replacen("role.release", "role.online", 1)),
        ("threshold zero", good.replacen("threshold = 1", "threshold = 0", 1)),
        ("threshold three", good.replacen("threshold = 1", "threshold = 3", 1)),
        ("key twice in a role", good.replacen("keys = [", &format!("keys = [\"{id}\", "), 1)),
        ("unlisted key", good.replacen("keys = [", &format!("keys = [\"{}\", ", "0".repeat(32)), 1)),
        ("id of another key", good.replacen(&id, &"0".repeat(32), 1)),
        ("upper case id", good.replacen(&id, &id.to_uppercase(), 1)),
        ("key table twice", format!("{good}{}", key_table(1))),
        ("algorithm", good.replacen("ed25519", "rsa", 1)),
        ("date only", good.replacen("version = 1", "version = 1\nexpires = 2030-01-01", 1)),
        ("expiry as text", good.replacen("version = 1", "version = 1\nexpires = \"soon\"", 1)),
        ("base64", good.replacen("public = \"", "public = \"AA", 1)),
        ("too long", format!("{good}{}", "#".repeat(70_000))),
    ] {
        assert_ne!(wrong, good, "{what}: the change did not apply");
        assert_eq!(Root::parse(wrong.as_bytes()).unwrap_err().code(), "TRUST_INVALID", "{what}");
    }
}

#[test]
fn key_files_are_private_and_never_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("release.key");
    let made = SigningKey::generate();
    let public_path = made.write_new(&path).unwrap();
    assert_eq!(public_path, directory.path().join("release.key.pub"));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(SigningKey::generate().write_new(&path).unwrap_err().code(), "FILE_IO");
    let id = |key: &SigningKey| otad_bundle::Signer::key_id(key);
    assert_eq!(id(&SigningKey::read(&path).unwrap()), id(&made), "the first key is still there");
    assert_eq!(PublicKey::read(&public_path).unwrap().id(), id(&made));
    assert_eq!(id(&made).to_string().parse::<KeyId>().unwrap(), id(&made));

    let error = PublicKey::read(&path).unwrap_err();
    assert!(error.to_string().contains("private key"), "{error}");
    assert_eq!(SigningKey::read(&public_path).err().unwrap().code(), "KEY_INVALID");
    assert_eq!(SigningKey::from_pem("").err().unwrap().code(), "KEY_INVALID");
    assert_eq!(SigningKey::from_seed([0; 32]).err().unwrap().code(), "KEY_INVALID");
    // A public half that exists already stops the act, and the private half made on the way is gone.
    std::fs::write(directory.path().join("two.pub"), "x").unwrap();
    assert!(SigningKey::generate().write_new(&directory.path().join("two")).is_err());
    assert!(!directory.path().join("two").exists());
}

#[test]
fn signing_again_verifies_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.otab");
    std::fs::write(&path, sample()).unwrap();
    add_signature(&path, &key(2), &path, &mut |_| ()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let both = Root::with_release_keys(&[public(1), public(2)]).release_threshold(2).unwrap();
    assert_eq!(code(&bytes, &both), "ok");
    assert_eq!(add_signature(&path, &key(2), &path, &mut |_| ()).unwrap_err().code(), "INVALID_OPTION");

    let mut damaged = sample().to_vec();
    let at = damaged.len() - 2000;
    damaged[at] ^= 1;
    for wrong in [damaged, [sample(), b"x"].concat(), sample()[..sample().len() - 1].to_vec()] {
        std::fs::write(&path, &wrong).unwrap();
        assert!(add_signature(&path, &key(2), &path, &mut |_| ()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), wrong, "the file is as it was");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
}
