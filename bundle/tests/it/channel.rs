//! Channel documents: one spelling, signed by the online role, and every bit counts.

use otad_bundle::{
    ALSO_LIMIT, CHANNEL_LIMIT_BYTES, Channel, Digest, NamedRelease, Role, Root, SignedChannel,
};

use crate::support::{key, public};

fn channel() -> Channel {
    Channel {
        compatible: "acme \"one\"".into(),
        counter: 17,
        issued: 1_795_391_999,
        expires: 1_795_400_000,
        release: Digest::of(b"a manifest"),
        sequence: 42,
        also: Vec::new(),
    }
}

fn signed(seeds: &[u8]) -> SignedChannel {
    let mut document = SignedChannel::draft(&channel()).unwrap();
    seeds.iter().for_each(|seed| document.sign(&key(*seed)).unwrap());
    document
}

/// Release key 1; online keys 2 and 3, any one of which is enough.
fn root() -> Root {
    Root::with_release_keys(&[public(1)]).with_key(Role::Online, public(2)).with_key(Role::Online, public(3))
}

#[test]
fn a_document_says_what_the_online_role_signed() {
    let text = signed(&[2]).to_text();
    assert!(text.contains("issued = 2026-11-22T23:59:59Z\n"), "{text}");
    let read = SignedChannel::parse(text.as_bytes()).unwrap();
    assert_eq!(read.verify(&root()).unwrap(), &channel());
    let code = |document: &SignedChannel, root: &Root| document.verify(root).unwrap_err().code();
    assert_eq!(
        code(&signed(&[1]), &root()),
        "SIG_UNTRUSTED",
        "the release role says nothing about freshness"
    );
    assert_eq!(
        code(&read, &Root::with_release_keys(&[public(2)])),
        "SIG_UNTRUSTED",
        "a root without online keys"
    );
    let both = root().with_threshold(Role::Online, 2).unwrap();
    assert_eq!(code(&read, &both), "SIG_MISSING");
    assert!(signed(&[2, 3]).verify(&both).is_ok());
    assert_eq!(SignedChannel::parse(channel().to_toml().as_bytes()).unwrap_err().code(), "SIG_MISSING");
}

/// A channel document is no manifest, whoever signed it: the online role introduces nothing.
#[test]
fn a_document_is_another_kind_of_thing() {
    let body = channel().to_toml();
    let mut signatures = otad_bundle::Signatures::default();
    signatures.add(body.as_bytes(), &key(2)).unwrap();
    let as_manifest = SignedChannel::parse(format!("{body}\n{}", signatures.to_toml()).as_bytes()).unwrap();
    assert_eq!(as_manifest.verify(&root()).unwrap_err().code(), "SIG_INVALID");
}

#[test]
fn every_bit_counts_and_every_cut() {
    let text = signed(&[2]).to_text().into_bytes();
    let accepted = |bytes: &[u8]| SignedChannel::parse(bytes).is_ok_and(|read| read.verify(&root()).is_ok());
    assert!(accepted(&text));
    for bit in 0..text.len() * 8 {
        let mut changed = text.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!accepted(&changed), "bit {bit}");
    }
    for length in 0..text.len() {
        assert!(!accepted(&text[..length]), "cut to {length}");
    }
}

#[test]
fn there_is_one_spelling() {
    let text = signed(&[2]).to_text();
    for (what, wrong) in [
        ("a remark", text.replacen("counter", "# hi\ncounter", 1)),
        ("spaces", text.replacen("counter = ", "counter  = ", 1)),
        ("an offset", text.replacen("23:59:59Z", "23:59:59+00:00", 1)),
        ("an unknown key", text.replacen("counter", "x = 1\ncounter", 1)),
        ("another schema", text.replacen("schema = 1", "schema = 2", 1)),
        ("ends before it begins", text.replacen("expires = 2026", "expires = 2025", 1)),
        ("a negative counter", text.replacen("counter = 17", "counter = -17", 1)),
        ("before 1970", text.replacen("issued = 2026", "issued = 1926", 1)),
        ("too long", format!("{text}{}", " ".repeat(CHANNEL_LIMIT_BYTES))),
    ] {
        assert_ne!(wrong, text, "{what}: the change did not apply");
        assert_eq!(SignedChannel::parse(wrong.as_bytes()).unwrap_err().code(), "METADATA_INVALID", "{what}");
    }
    let huge = Channel { counter: u64::MAX, ..channel() };
    assert_eq!(SignedChannel::draft(&huge).unwrap_err().code(), "METADATA_INVALID");
}

/// Older releases may be named beside the latest one: in order, and not many. Documents without any read as they always did.
#[test]
fn older_releases_may_be_fine_as_well() {
    let named = |sequence: u64| NamedRelease { release: Digest::of(&sequence.to_le_bytes()), sequence };
    let with =
        |sequences: &[u64]| Channel { also: sequences.iter().copied().map(named).collect(), ..channel() };
    let mut document = SignedChannel::draft(&with(&[41, 39])).unwrap();
    document.sign(&key(2)).unwrap();
    let text = document.to_text();
    assert!(text.starts_with(&channel().to_toml()), "{text}");
    let read = SignedChannel::parse(text.as_bytes()).unwrap();
    let named: Vec<_> = read.verify(&root()).unwrap().named().map(|named| named.sequence).collect();
    assert_eq!(named, [42, 41, 39]);
    let without = text.replacen("sequence = 39", "sequence = 38", 1);
    let without = SignedChannel::parse(without.as_bytes()).unwrap();
    assert_eq!(without.verify(&root()).unwrap_err().code(), "SIG_INVALID", "the list is signed");

    let most: Vec<_> = (1..=ALSO_LIMIT as u64).rev().collect();
    assert!(SignedChannel::draft(&with(&most)).is_ok());
    let more: Vec<_> = (1..=1 + ALSO_LIMIT as u64).rev().collect();
    for (what, sequences) in [
        ("too many", &more[..]),
        ("newer", &[43]),
        ("the same", &[42]),
        ("rising", &[39, 41]),
        ("twice", &[41, 41]),
    ] {
        assert_eq!(SignedChannel::draft(&with(sequences)).unwrap_err().code(), "METADATA_INVALID", "{what}");
    }
    for (from, to) in [("\n[[also]]\n", "\n[also]\n"), ("sequence = 41", "sequence = 41\nuntil = 5")] {
        let wrong = text.replacen(from, to, 1);
        assert_eq!(SignedChannel::parse(wrong.as_bytes()).unwrap_err().code(), "METADATA_INVALID", "{to}");
    }
}
