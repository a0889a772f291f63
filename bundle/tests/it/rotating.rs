//! The chain of roots: who may follow whom, and every attack on it (V6, and the rotation rules of TUF 5.3).

use otad_bundle::{
    Bundle, Chain, Error, FileInput, Recovery, Root, SignedRoot, Signer, StreamInput, add_signature,
    add_signature_and_roots, build, verify,
};

use crate::support::{Rng, key, members, public, recipe, sample};

/// The text of a root: roles with seeds of keys and a threshold.
fn text(version: u64, roles: &[(&str, &[u8], usize)]) -> String {
    let mut seeds: Vec<u8> = roles.iter().flat_map(|(_, seeds, _)| seeds.iter().copied()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let mut text = format!("schema = 1\nversion = {version}\n");
    for seed in seeds {
        let one = Root::with_release_keys(&[public(seed)]).to_toml();
        let (_, table) = one.split_once("\n\n").unwrap();
        text += &format!("\n{}", table.split("\n[role").next().unwrap());
    }
    for (role, seeds, threshold) in roles {
        let ids: Vec<_> = seeds.iter().map(|seed| format!("\"{}\"", public(*seed).id())).collect();
        text += &format!("\n[role.{role}]\nkeys = [{}]\nthreshold = {threshold}\n", ids.join(", "));
    }
    text
}

/// A root of version `version`: `root` keys with a threshold, one release key; signed by `signers`.
fn signed(version: u64, root: (&[u8], usize), release: u8, signers: &[u8]) -> SignedRoot {
    let text = text(version, &[("root", root.0, root.1), ("release", &[release], 1)]);
    sign(&text, signers)
}

fn sign(text: &str, signers: &[u8]) -> SignedRoot {
    let mut draft = SignedRoot::draft(&Root::parse(text.as_bytes()).unwrap()).unwrap();
    signers.iter().for_each(|seed| draft.sign(&key(*seed)).unwrap());
    draft
}

fn chain(roots: &[&SignedRoot]) -> Chain {
    Chain::of(roots.iter().map(|root| (*root).clone()).collect()).unwrap()
}

/// Root 1 with keys 11 and 12 (two of two); root 2 with 12 and 13; root 3 with 13 and 14. Release keys 1, 2, 3.
fn three() -> [SignedRoot; 3] {
    [
        signed(1, (&[11, 12], 2), 1, &[11, 12]),
        signed(2, (&[12, 13], 2), 2, &[11, 12, 13]),
        signed(3, (&[13, 14], 2), 3, &[12, 13, 14]),
    ]
}

/// The code with which `root` refuses a chain, or the versions that it walks to.
fn walk(root: &Root, chain: &Chain) -> Result<Vec<u64>, &'static str> {
    let beyond = root.follow(chain).map_err(|error| error.code())?;
    Ok(beyond.iter().map(|step| step.root().version()).collect())
}

#[test]
fn a_device_walks_the_chain_from_wherever_it_is() {
    let [one, two, three] = three();
    assert_eq!(walk(one.root(), &chain(&[&two, &three])), Ok(vec![2, 3]));
    assert_eq!(walk(one.root(), &chain(&[&one, &two, &three])), Ok(vec![2, 3]));
    assert_eq!(walk(two.root(), &chain(&[&two, &three])), Ok(vec![3]));
    assert_eq!(walk(two.root(), &chain(&[&three])), Ok(vec![3]));
    assert_eq!(walk(three.root(), &chain(&[&two, &three])), Ok(vec![]));
    assert_eq!(walk(three.root(), &chain(&[&two])), Ok(vec![]), "a release from before the last rotation");
    let bare = Root::with_release_keys(&[public(1)]);
    assert_eq!(walk(&bare, &chain(&[&two, &three])), Ok(vec![]), "keys given by hand follow nobody");
}

/// Both thresholds, of distinct keys, and no version left out.
#[test]
fn a_root_that_may_not_follow_is_refused() {
    let [one, _, three] = three();
    let keys: (&[u8], usize) = (&[12, 13], 2);
    let after_one = |next: SignedRoot| walk(one.root(), &chain(&[&next]));
    assert_eq!(after_one(signed(2, keys, 2, &[])), Err("SIG_MISSING"), "nobody signed");
    assert_eq!(after_one(signed(2, keys, 2, &[12, 13])), Err("SIG_MISSING"), "one of two old keys");
    assert_eq!(after_one(signed(2, keys, 2, &[11, 12])), Err("SIG_MISSING"), "one of two new keys");
    assert_eq!(
        after_one(signed(2, keys, 2, &[21, 22, 12, 13])),
        Err("SIG_MISSING"),
        "strangers count nothing"
    );
    let thief: (&[u8], usize) = (&[21, 22], 2);
    assert_eq!(after_one(signed(2, thief, 2, &[21, 22])), Err("SIG_UNTRUSTED"), "a root of a thief's own");
    assert_eq!(after_one(signed(2, keys, 2, &[11, 12, 13])), Ok(vec![2]));

    assert_eq!(after_one(three.clone()), Err("KEYS_GAP"), "a version left out");
    let skipping = signed(3, keys, 2, &[11, 12, 13]);
    assert_eq!(after_one(skipping), Err("KEYS_GAP"), "although the right keys signed it");
    let release_only = sign(&text(2, &[("root", &[12, 13], 1), ("release", &[1], 1)]), &[1, 12]);
    assert_eq!(
        after_one(release_only),
        Err("SIG_MISSING"),
        "a release key rotates no root that has root keys"
    );
}

/// One key twice in a file does not make two: the file has one spelling, in which it cannot.
#[test]
fn a_key_counts_once() {
    let [one, ..] = three();
    let next = signed(2, (&[12, 13], 2), 2, &[12, 13]);
    let text = next.to_text();
    let first = text.find("[[signature]]").unwrap();
    let second = text.rfind("[[signature]]").unwrap();
    let twice = format!("{}\n{}", text, &text[second..]);
    assert_eq!(Chain::parse(twice.as_bytes()).unwrap_err().code(), "SIG_INVALID");
    let swapped = format!("{}{}\n{}", &text[..first], &text[second..], text[first..second].trim_end());
    assert_eq!(Chain::parse(format!("{swapped}\n").as_bytes()).unwrap_err().code(), "SIG_INVALID");
    assert_eq!(walk(one.root(), &Chain::parse(text.as_bytes()).unwrap()), Err("SIG_MISSING"));
}

/// V6: the keys of a root that was left behind count no more, and neither does another root of the same version.
#[test]
fn v6_old_keys_after_a_rotation() {
    let [one, two, three] = three();
    // The old root keys, stolen after the rotation, make a second root 2 and a root 3 behind it.
    let forked = signed(2, (&[11, 21], 1), 9, &[11, 12]);
    let further = signed(3, (&[11, 21], 1), 9, &[11, 21]);
    assert_eq!(
        walk(one.root(), &chain(&[&forked, &further])),
        Ok(vec![2, 3]),
        "one that never heard of root 2"
    );
    assert_eq!(walk(two.root(), &chain(&[&forked, &further])), Err("KEYS_REPLAY"));
    assert_eq!(walk(two.root(), &chain(&[&further])), Err("SIG_UNTRUSTED"));
    assert_eq!(walk(three.root(), &chain(&[&forked, &further])), Err("KEYS_REPLAY"));

    let left_behind = one.root().clone().at_least(3);
    let refused = left_behind.verify(
        otad_bundle::Role::Release,
        "otab-manifest-v1",
        &members(sample())[1].content,
        &otad_bundle::Signatures::parse(&members(sample())[2].content).unwrap(),
    );
    assert_eq!(refused.unwrap_err().code(), "KEYS_REPLAY", "the file was rolled back");
}

/// A root of the first kind, release keys only, is rotated by them: they could replace it by an image anyway.
#[test]
fn a_root_without_root_keys_is_rotated_by_its_release_keys() {
    let legacy = Root::with_release_keys(&[public(1), public(2)]).release_threshold(2).unwrap().to_toml();
    let legacy = Root::parse(legacy.as_bytes()).unwrap();
    let next = text(2, &[("root", &[11, 12], 2), ("release", &[3], 1)]);
    assert_eq!(walk(&legacy, &chain(&[&sign(&next, &[1, 2, 11, 12])])), Ok(vec![2]));
    assert_eq!(walk(&legacy, &chain(&[&sign(&next, &[1, 11, 12])])), Err("SIG_MISSING"));
}

/// A signature over a root is none over a manifest with the same bytes, and the other way round.
#[test]
fn a_root_is_another_kind_of_document() {
    let [one, two, _] = three();
    let body = two.root().to_toml();
    let mut signatures = otad_bundle::Signatures::default();
    [11, 12, 13].iter().for_each(|seed| signatures.add(body.as_bytes(), &key(*seed)).unwrap());
    let text = format!("{body}\n{}", signatures.to_toml());
    assert_eq!(walk(one.root(), &Chain::parse(text.as_bytes()).unwrap()), Err("SIG_INVALID"));
}

#[test]
fn the_file_form_round_trips_and_is_strict() {
    let [one, two, three] = three();
    let whole = chain(&[&one, &two, &three]);
    let text = whole.to_text();
    assert_eq!(Chain::parse(text.as_bytes()).unwrap(), whole);
    assert_eq!(Root::parse(text.as_bytes()).unwrap().version(), 3, "a file of roots counts as its newest");
    // What people wrote by hand comes first or not at all.
    let by_hand = format!("# our root\n{}", one.root().to_toml());
    assert_eq!(Root::parse(by_hand.as_bytes()).unwrap().version(), 1);
    assert_eq!(Root::parse(format!("{by_hand}{}", two.to_text()).as_bytes()).unwrap().version(), 2);
    for (what, wrong, code) in [
        ("unsigned and not first", format!("{text}{}", one.root().to_toml()), "SIG_MISSING"),
        ("a remark within", text.replacen("version = 2", "# hello\nversion = 2", 1), "TRUST_INVALID"),
        ("a remark behind", format!("{text}# hello\n"), "SIG_INVALID"),
        (
            "an empty line between",
            text.replacen("\nschema = 1\nversion = 3", "\n\nschema = 1\nversion = 3", 1),
            "SIG_INVALID",
        ),
        ("backwards", chain_text(&[&three, &two]), "KEYS_GAP"),
        ("with a gap", chain_text(&[&one, &three]), "KEYS_GAP"),
        ("twice", chain_text(&[&two, &two]), "KEYS_GAP"),
        ("too long", format!("{text}{}", "#".repeat(300_000)), "TRUST_INVALID"),
    ] {
        assert_eq!(Root::parse(wrong.as_bytes()).unwrap_err().code(), code, "{what}");
    }
}

fn chain_text(roots: &[&SignedRoot]) -> String {
    roots.iter().map(|root| root.to_text()).collect()
}

/// Whatever bit of a chain is another, a device refuses it, also in the roots that it does not need. The one exception decides
/// nothing: who has left root 1 behind cannot tell whether its keys signed root 2.
#[test]
fn every_bit_of_a_chain_counts() {
    let [one, two, three] = three();
    let text = chain_text(&[&two, &three]);
    let retired = text.find(&format!("key = \"{}\"", public(11).id())).unwrap();
    let retired = retired..retired + text[retired..].find("==\"").unwrap() + 3;
    let text = text.into_bytes();
    let mut refused = 0;
    for root in [one.root(), two.root(), three.root()] {
        for bit in 0..text.len() * 8 {
            if retired.contains(&(bit / 8)) && root.version() > 1 {
                continue;
            }
            let mut changed = text.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let outcome = Chain::parse(&changed).and_then(|chain| root.follow(&chain).map(<[_]>::len));
            assert!(outcome.is_err(), "bit {bit} of root {}: {outcome:?}", root.version());
            refused += 1;
        }
    }
    println!("{refused} changed chains refused");
}

/// Random changes of a bundle that brings roots, and of its roots alone: none is accepted.
#[test]
fn mutated_bundles_with_roots_are_refused() {
    let (directory, bytes) = bundle_with_roots();
    let [one, ..] = three();
    drop(directory);
    let open = |bytes: &[u8]| -> Result<(), Error> {
        let mut bundle = Bundle::open(StreamInput::new(bytes), one.root())?;
        verify(&mut bundle, &mut |_| ())
    };
    open(&bytes).unwrap();
    let mut rng = Rng(0x0707);
    let front = bytes.len().min(16 * 1024);
    for round in 0..4000 {
        let mut changed = bytes.clone();
        let at = rng.below(if round % 2 == 0 { front } else { bytes.len() });
        changed[at] ^= 1 << rng.below(8);
        assert!(open(&changed).is_err(), "round {round}: byte {at}");
    }
    for length in 0..front {
        assert!(open(&bytes[..length]).is_err(), "cut to {length}");
    }
}

/// A bundle of release key 3, which only root 3 lists, with the roots that lead there.
fn bundle_with_roots() -> (tempfile::TempDir, Vec<u8>) {
    let [_, two, three] = three();
    let directory = tempfile::tempdir().unwrap();
    let mut order = recipe(directory.path(), 1);
    order.roots = Some(chain(&[&two, &three]));
    let path = directory.path().join("x.otab");
    build(&order, &[&key(3)], &path, &mut |_| ()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    (directory, bytes)
}

#[test]
fn a_bundle_brings_the_roots_that_it_needs() {
    let [one, two, three] = three();
    let (directory, bytes) = bundle_with_roots();
    let open = |bytes: &[u8], root: &Root| {
        Bundle::open(StreamInput::new(bytes), root)
            .map(|bundle| bundle.new_roots().iter().map(|step| step.root().version()).collect::<Vec<_>>())
    };
    assert_eq!(open(&bytes, one.root()).unwrap(), [2, 3]);
    assert_eq!(open(&bytes, two.root()).unwrap(), [3]);
    assert!(open(&bytes, three.root()).unwrap().is_empty());
    assert_eq!(open(&bytes, &one.root().clone().at_least(3)).unwrap(), [2, 3]);
    assert_eq!(open(&bytes, &one.root().clone().at_least(4)).unwrap_err().code(), "KEYS_REPLAY");
    let elsewhere = signed(1, (&[21, 22], 2), 1, &[21, 22]);
    assert_eq!(open(&bytes, elsewhere.root()).unwrap_err().code(), "SIG_UNTRUSTED", "another owner's device");

    // The release key of root 1 was retired by root 2: who has walked on takes nothing from it.
    let mut order = recipe(directory.path(), 1);
    let path = directory.path().join("y.otab");
    build(&order, &[&key(1)], &path, &mut |_| ()).unwrap();
    let retired = std::fs::read(&path).unwrap();
    assert!(open(&retired, one.root()).is_ok());
    assert_eq!(open(&retired, two.root()).unwrap_err().code(), "SIG_UNTRUSTED");

    // Roots are carried over when somebody signs, and can be brought in then.
    add_signature_and_roots(&path, &key(3), Some(&chain(&[&two, &three])), &path, &mut |_| ()).unwrap();
    assert_eq!(open(&std::fs::read(&path).unwrap(), one.root()).unwrap(), [2, 3]);
    add_signature(&path, &key(5), &path, &mut |_| ()).unwrap();
    assert_eq!(open(&std::fs::read(&path).unwrap(), one.root()).unwrap(), [2, 3]);
    order.roots = Some(chain(&[&three, &two]));
    assert_eq!(build(&order, &[&key(3)], &path, &mut |_| ()).unwrap_err().code(), "KEYS_GAP");
}

/// V1: a way back needs the recovery role beside the release role, over the same manifest, and says from where.
#[test]
fn a_way_back_is_signed_twice() {
    let roles: &[(&str, &[u8], usize)] = &[("release", &[1], 1), ("recovery", &[31, 32], 2)];
    let root = Root::parse(text(1, roles).as_bytes()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.otab");
    let mut order = recipe(directory.path(), 1);
    order.recovery = Some(Recovery { from: order.update.sequence + 3 });
    let opened = |signers: &[u8]| {
        let keys: Vec<_> = signers.iter().map(|seed| key(*seed)).collect();
        let keys: Vec<&dyn Signer> = keys.iter().map(|key| key as &dyn Signer).collect();
        build(&order, &keys, &path, &mut |_| ()).unwrap();
        let bundle = Bundle::open(FileInput::open(&path).unwrap(), &root).map_err(|error| error.code())?;
        assert_eq!(bundle.manifest().recovery, order.recovery);
        Ok(bundle.recoverers().len())
    };
    assert_eq!(opened(&[1, 31, 32]), Ok(2));
    assert_eq!(opened(&[1, 31]), Ok(0), "one of two");
    assert_eq!(opened(&[1]), Ok(0));
    assert_eq!(opened(&[31, 32]), Err("SIG_UNTRUSTED"), "the recovery role introduces no image");
    order.recovery = Some(Recovery { from: order.update.sequence - 1 });
    assert_eq!(build(&order, &[&key(1)], &path, &mut |_| ()).unwrap_err().code(), "MANIFEST_INVALID");
}
