//! A bounded part of `make fuzz` that every `make test` runs: the same targets, the same mutator, fewer inputs.
#![allow(
    clippy::unwrap_used,
    reason = "a test that is surprised must fail; clippy.toml only knows functions marked #[test]"
)]

use std::path::Path;

use otad_fuzz::mutate::{Rng, mutate};
use otad_fuzz::{TARGETS, attack};

/// Inputs per target; the slowest of them installs.
const INPUTS: u64 = 1500;

/// Seeds that lie in the tree: inputs that found something once, or that no mutator of valid ones comes to.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// B1 to B16, D10, E1: no input of any parser is a finding.
#[test]
fn no_target_has_a_finding() {
    for target in TARGETS {
        let mut seeds = kept(target.name);
        (target.run)(&[]);
        seeds.iter().for_each(|seed| (target.run)(seed));
        seeds.push((target.seed)());
        (target.run)(seeds.last().unwrap());
        for number in 0..INPUTS {
            let mut rng = Rng(number);
            let seed = &seeds[rng.below(seeds.len())];
            (target.run)(&mutate(&mut rng, seed, seed.len()));
        }
        println!("{}: {INPUTS} inputs, no finding", target.name);
    }
}

/// What begins the mutations reaches the inside of its parser.
#[test]
fn seeds_are_valid() {
    let seed = |name: &str| {
        let target = TARGETS.iter().find(|target| target.name == name).unwrap();
        (target.seed)()
    };
    otad::bus::read_arguments(&seed("dbus_arguments"), otad::bus::Endian::Little).unwrap();
    let text = String::from_utf8(seed("config")).unwrap();
    otad::config::parse(&text, Path::new("otad.toml"), &|_| true).unwrap();
    otad_bundle::Manifest::parse(&seed("manifest")).unwrap();
    assert!(otad_bundle::Manifest::parse(&seed("encryption")).unwrap().encryption.is_some());
    otad_bundle::Signatures::parse(&seed("signature")).unwrap();
    otad_bundle::Chain::parse(&seed("root")).unwrap();
    otad_bundle::SignedChannel::parse(&seed("channel")).unwrap();
    let answers = otad::roles::hostile::fetcher_answers(&seed("roles")[1..]).unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    otad_bundle::delta::Delta::open(otad_bundle::StreamInput::new(seed("delta").as_slice())).unwrap();
}

/// B2, B11, V3, V6: mutations of a valid bundle, of an encrypted one, root and channel document are refused, each by a code of its own, and the running slot
/// stays as it is.
#[test]
fn no_mutation_is_taken() {
    let tally = attack::run(0, 12_000);
    println!("{tally:?}");
    for code in ["SIG_INVALID", "BUNDLE_FORMAT", "BUNDLE_TRUNCATED", "HASH_MISMATCH"] {
        let seen = tally.refused.contains_key(code);
        assert!(seen, "no mutation ended with {code}: the mutator misses a layer: {:?}", tally.refused);
    }
}
