//! Which of two valid copies is current, for every pair of flags, against two oracles that do not share our code.

use std::fs;
use std::os::unix::fs::FileExt;

use bootenv::format::{Copy, choose};
use bootenv::{ByteOrder, CopyId, FlagScheme, Layout};

use crate::support::{Place, Random, run, seed};

/// U-Boot's rule as `doc/` and `env/common.c` state it, written down as the pairs of the second copy's wins: the counter is
/// one of 256 on a circle only at the seam (255, 0); everywhere else the plain greater one wins, and a tie is the first's.
fn counter_table() -> Vec<[CopyId; 256]> {
    let mut table = vec![[CopyId::First; 256]; 256];
    for (first, row) in table.iter_mut().enumerate() {
        for cell in &mut row[first + 1..] {
            *cell = CopyId::Second;
        }
    }
    table[0][255] = CopyId::First;
    table[255][0] = CopyId::Second;
    table
}

/// The rule for flags that say active (1) or obsolete (0): the second copy wins as the active one of an active and an obsolete
/// one, and as an erased one (255) against anything but 255.
fn boolean_table() -> Vec<[CopyId; 256]> {
    let mut table = vec![[CopyId::First; 256]; 256];
    table[0][1] = CopyId::Second;
    for (first, row) in table.iter_mut().enumerate() {
        if first != 255 {
            row[255] = CopyId::Second;
        }
    }
    table
}

/// E4: all 65,536 pairs, for both meanings of the flags.
#[test]
fn e4_every_pair_of_flags_chooses_the_copy_u_boot_chooses() {
    let mut pairs = 0;
    for (scheme, table) in [(FlagScheme::Counter, counter_table()), (FlagScheme::Boolean, boolean_table())] {
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                let expected = table[usize::from(first)][usize::from(second)];
                assert_eq!(
                    choose(Some(first), Some(second), scheme),
                    Some(expected),
                    "{scheme:?} {first} {second}"
                );
                pairs += 1;
            }
            assert_eq!(choose(Some(first), None, scheme), Some(CopyId::First));
            assert_eq!(choose(None, Some(first), scheme), Some(CopyId::Second));
        }
        assert_eq!(choose(None, None, scheme), None);
    }
    assert_eq!(pairs, 2 * 65_536);
}

/// E4: a sample against Debian's fw_printenv, with every edge: the seam of the counter, ties, the sign bit at 127/128. It reads
/// from files, so it counts generations; the boolean rule needs real NOR flash.
#[test]
fn e4_fw_printenv_chooses_the_same_copy() {
    const SIZE: usize = 0x40;
    let edges = [0, 1, 2, 63, 64, 126, 127, 128, 129, 130, 191, 192, 253, 254, 255_u8];
    let mut pairs: Vec<(u8, u8)> = edges.iter().flat_map(|&a| edges.iter().map(move |&b| (a, b))).collect();
    let seed = seed();
    let mut random = Random(seed);
    pairs.extend((0..175).map(|_| ((random.next() % 256) as u8, (random.next() % 256) as u8)));

    let place = Place::new(2, SIZE);
    for (index, copy) in place.copies.iter().enumerate() {
        let mut data = format!("which={index}\0\0").into_bytes();
        data.resize(SIZE - 5, 0);
        fs::write(copy, Copy { flags: 0, data }.encode(Layout::Redundant, ByteOrder::NATIVE)).unwrap();
    }
    let files: Vec<fs::File> =
        place.copies.iter().map(|copy| fs::OpenOptions::new().write(true).open(copy).unwrap()).collect();
    for (first, second) in &pairs {
        // The checksum does not cover the flags.
        files[0].write_all_at(&[*first], 4).unwrap();
        files[1].write_all_at(&[*second], 4).unwrap();
        let config = place.config();
        let output = run("fw_printenv", ["-c".as_ref(), config.as_os_str(), "-n".as_ref(), "which".as_ref()]);
        let theirs = String::from_utf8(output.stdout).unwrap();
        let ours = place.open().load().unwrap();
        assert_eq!(ours.environment.get_str("which"), Some(theirs.trim()), "{first} {second} (seed {seed})");
    }
    println!("{} pairs of flags agree with fw_printenv (seed {seed})", pairs.len());
}
