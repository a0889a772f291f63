//! Mutations of a valid bundle, of an encrypted one, of the root that follows a device's, and of a channel document, each against a whole device.

use std::collections::BTreeMap;

use otad_bundle::{Chain, SignedChannel};

use crate::device::{self, Way};
use crate::mutate::{Rng, mutate};
use crate::{encrypted, fixture};

/// Bytes of the bundle with headers, manifest and signatures; most mutations go there, since most code reads it.
const FOCUS_BYTES: usize = 8 * 1024;

/// How often each kind was tried, and by which codes bundles were refused.
#[derive(Debug, Default)]
pub struct Tally {
    /// Bundles, encrypted bundles, roots, channel documents.
    pub tried: [u64; 4],
    /// Code to count.
    pub refused: BTreeMap<&'static str, u64>,
}

/// Tries so many mutations, the seed of the first of which is given. Installing asserts that nothing of the running slot is
/// touched and no byte that nobody vouched for is on the target.
///
/// # Panics
/// One is accepted.
pub fn run(first: u64, count: u64) -> Tally {
    let bundles = [fixture::genuine(), encrypted::BUNDLE];
    let (root, channel) = (fixture::next_root(), fixture::channel());
    for bundle in bundles {
        device::install(bundle, Way::Pipe).expect("the genuine bundle installs");
    }
    let mut tally = Tally::default();
    for seed in first..first + count {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kind = usize::try_from(seed % 4).unwrap_or(0);
        tally.tried[kind] += 1;
        match kind {
            0 | 1 => {
                let way = if rng.below(2) == 0 { Way::Pipe } else { Way::File };
                let bytes = mutate(&mut rng, bundles[kind], FOCUS_BYTES);
                let refused =
                    device::install(&bytes, way).expect_err(&format!("bundle of seed {seed} was taken"));
                *tally.refused.entry(refused.code.as_str()).or_default() += 1;
            }
            2 => {
                let bytes = mutate(&mut rng, &root, root.len());
                let followed = Chain::parse(&bytes)
                    .and_then(|chain| fixture::root().follow(&chain).map(|beyond| beyond.len()));
                assert!(!followed.is_ok_and(|beyond| beyond > 0), "root of seed {seed} was taken");
            }
            _ => {
                let bytes = mutate(&mut rng, &channel, channel.len());
                let signed = SignedChannel::parse(&bytes);
                let taken = signed.is_ok_and(|signed| signed.verify(fixture::root()).is_ok());
                assert!(!taken, "channel document of seed {seed} was taken");
            }
        }
    }
    tally
}
