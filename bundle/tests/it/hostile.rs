//! Damaged and forged bundles: nothing but the original is accepted, and nothing panics.

use std::io::{Seek, SeekFrom, Write};

use otad_bundle::{Bundle, Decoder, FileInput, IndexReader, verify};

use crate::support::{Memory, Rng, check, members, other, refusal, root, sample};

#[test]
fn accepts_the_originals() {
    check(sample()).unwrap();
    check(other()).unwrap();
    assert_ne!(sample(), other());
    let mut bundle = Bundle::open(Memory::new(sample()), &root()).unwrap();
    verify(&mut bundle, &mut |_| ()).unwrap();
    assert_eq!((bundle.total_size(), bundle.bytes_read()), (sample().len() as u64, sample().len() as u64));
}

/// B1: truncated at every length.
#[test]
fn b1_truncated_at_every_length() {
    for length in 0..sample().len() {
        assert_eq!(refusal(&sample()[..length]), "BUNDLE_TRUNCATED", "length {length}");
    }
    for length in (0..sample().len()).step_by(97) {
        let result = Bundle::open(Memory::new(&sample()[..length]), &root())
            .and_then(|mut bundle| verify(&mut bundle, &mut |_| ()));
        assert_eq!(result.unwrap_err().code(), "BUNDLE_TRUNCATED", "random access, length {length}");
    }
}

/// B2: every single bit in the members before the first index and in every header; every 13th bit elsewhere.
#[test]
fn b2_single_bit_flips() {
    let all = members(sample());
    let mut bytes = sample().to_vec();
    let mut offset = 0;
    let mut flips = 0;
    for member in &all {
        let content = member.content.len();
        let front = ["otab", "manifest.toml", "manifest.sig"].contains(&member.name().as_str());
        let end = offset + 512 + content.next_multiple_of(512);
        for bit in offset * 8..end * 8 {
            if !front && bit / 8 >= offset + 512 && bit % 13 != 0 {
                continue;
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
            let code = refusal(&bytes);
            let expected: &[&str] = match (member.name().as_str(), bit / 8 - offset) {
                ("otab", 0..512) => &["NOT_A_BUNDLE", "BUNDLE_FORMAT"],
                ("manifest.toml", at) if at >= 512 && at < 512 + content => &["SIG_INVALID"],
                ("manifest.sig", at) if at >= 512 && at < 512 + content => {
                    &["SIG_INVALID", "SIG_UNTRUSTED", "SIG_MISSING"]
                }
                (name, at) if !front && at >= 512 && at < 512 + content => {
                    assert!(name.ends_with(".index") || name.ends_with(".chunks"));
                    &["HASH_MISMATCH"]
                }
                _ => &["BUNDLE_FORMAT"],
            };
            assert!(expected.contains(&code), "bit {bit} in {}: {code}", member.name());
            bytes[bit / 8] ^= 1 << (bit % 8);
            flips += 1;
        }
        offset = end;
    }
    for bit in offset * 8..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(refusal(&bytes), "BUNDLE_FORMAT", "end block, bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
        flips += 1;
    }
    assert_eq!(bytes, sample());
    println!("{flips} single bit flips");
    assert!(flips > 40_000, "only {flips}");
}

/// B11: anything behind the end.
#[test]
fn b11_trailing_bytes() {
    for tail in [&[0][..], &[1], &[0; 512], &[0; 9216], sample()] {
        let bytes = [sample(), tail].concat();
        assert_eq!(refusal(&bytes), "BUNDLE_FORMAT", "{} bytes behind the end", tail.len());
    }
}

/// B2, B3, B11, V4: random damage, and recombinations with another genuine bundle.
#[test]
fn random_mutations_are_all_refused() {
    const SEED: u64 = 0x07ad_0001;
    const ROUNDS: usize = 24_000;
    println!("seed {SEED:#x}");
    let mut rng = Rng(SEED);
    let mut identical = 0;
    for round in 0..ROUNDS {
        let bytes = mutate(&mut rng, sample());
        if bytes == sample() || bytes == other() {
            identical += 1;
            continue;
        }
        assert!(check(&bytes).is_err(), "seed {SEED:#x}, round {round}: accepted a mutation");
    }
    println!("{} mutations refused, {identical} were identities", ROUNDS - identical);
    assert!(ROUNDS - identical >= 20_000, "{identical} identities");
}

/// One to three random changes.
fn mutate(rng: &mut Rng, original: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len());
        // Half the time a block boundary: that is where structure is.
        let at = if rng.below(2) == 0 { at / 512 * 512 } else { at };
        let longest = if rng.below(2) == 0 { 16 } else { 3000 };
        let length = 1 + rng.below(longest);
        let end = (at + length).min(bytes.len());
        match rng.below(8) {
            0 => bytes[at] = rng.next().to_le_bytes()[0],
            1 => bytes[at] ^= 1 << rng.below(8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let inserted = if rng.below(2) == 0 { vec![0; length] } else { rng.bytes(length.min(600)) };
                drop(bytes.splice(at..at, inserted));
            }
            4 => {
                let copy = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            5 => bytes[at..end].fill(if rng.below(2) == 0 { 0 } else { 0xff }),
            6 => {
                let from = rng.below(other().len());
                let from_end = (from + length).min(other().len());
                drop(bytes.splice(at..end, other()[from..from_end].iter().copied()));
            }
            _ => {
                let cut = at.min(other().len());
                bytes.truncate(at);
                bytes.extend(&other()[cut..]);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// B15: the file changes after it was opened and verified; what is used is what was hashed.
#[test]
fn b15_file_changes_while_it_is_read() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(sample()).unwrap();
    let mut bundle = Bundle::open(FileInput::open(file.path()).unwrap(), &root()).unwrap();
    let mut index = Vec::new();
    bundle.read_index(0, &mut index).unwrap();
    let image = bundle.manifest().images[0].clone();

    // An attacker replaces the payload with that of another genuine bundle.
    let place = sample().windows(14).position(|name| name == b"rootfs.chunks\0").unwrap() + 512;
    let evil = vec![0x41; usize::try_from(image.payload_size).unwrap()];
    file.as_file_mut().seek(SeekFrom::Start(place as u64)).unwrap();
    file.write_all(&evil).unwrap();

    let (mut stored, mut plain, mut offset) = (Vec::new(), Vec::new(), 0);
    let mut decoder = Decoder::new().unwrap();
    let mut refused = 0;
    for chunk in IndexReader::new(index.as_slice(), &image) {
        let chunk = chunk.unwrap();
        bundle.read_stored(0, offset, chunk.stored_len, &mut stored).unwrap();
        offset += u64::from(chunk.stored_len);
        match decoder.decode(&chunk, &stored, &mut plain) {
            Ok(()) => assert_eq!(chunk.stored_len, 0, "only what is not stored can still be right"),
            Err(error) => {
                assert_eq!(error.code(), "HASH_MISMATCH");
                refused += 1;
            }
        }
    }
    assert!(refused > 3);
}
