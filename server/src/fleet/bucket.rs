//! Who is in a stage: a stable number per release and device, so that 10 % is part of 100 % and nobody changes sides.

use sha2::{Digest, Sha256};

/// Buckets of a release: hundredths of a percent.
const BUCKETS: u64 = 10_000;

/// Whether a device is among the first `percent` of a release's devices.
///
/// The number is the first 8 bytes, big-endian, of SHA-256 over the release's digest, a line feed and the device's name,
/// modulo 10 000. Other releases shuffle the fleet anew, so that it is not always the same devices that go first.
pub fn is_within(release: &str, device: &str, percent: u8) -> bool {
    bucket(release, device) < u64::from(percent) * (BUCKETS / 100)
}

fn bucket(release: &str, device: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(release);
    hash.update(b"\n");
    hash.update(device);
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().take(8).fold(0, |number: u64, byte| (number << 8) | u64::from(*byte)) % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_percent_is_about_a_tenth_and_part_of_every_larger_stage() {
        let release = "ab".repeat(32);
        let names: Vec<_> = (0..10_000).map(|number| format!("gw-{number:05}")).collect();
        let within = |percent| names.iter().filter(|name| is_within(&release, name, percent)).count();
        assert_eq!((within(0), within(100)), (0, names.len()));
        assert!((900..1100).contains(&within(10)), "{}", within(10));
        for name in &names {
            let sides: Vec<_> = (0..=100).map(|percent| is_within(&release, name, percent)).collect();
            assert!(sides.is_sorted(), "{name} leaves a stage that grows");
        }
    }

    #[test]
    fn other_releases_begin_with_other_devices() {
        let first = |release: &str| {
            (0..1000).filter(|n| is_within(release, &format!("d{n}"), 10)).collect::<Vec<_>>()
        };
        assert_ne!(first(&"ab".repeat(32)), first(&"cd".repeat(32)));
    }

    /// A new version of the server must not reshuffle a release that is under way.
    #[test]
    fn the_number_is_fixed() {
        // printf 'r\nd' | sha256sum | cut -c1-16, modulo 10000
        assert_eq!(bucket("r", "d"), 3391);
    }
}
