//! A delta written byte by byte from the specification, by code that shares nothing with the library.

use otad_bundle::Digest;
use otad_bundle::delta::{Delta, MAGIC, Part};

use crate::delta::Pair;
use crate::support::{Memory, Rng};

const BLOCK: usize = 4096;

fn frame(plain: &[u8], prefix: &[u8]) -> Vec<u8> {
    let mut context = zstd::zstd_safe::CCtx::create();
    context.ref_prefix(prefix).unwrap();
    let mut stored = Vec::with_capacity(plain.len() + 1000);
    context.compress2(&mut stored, plain).unwrap();
    stored
}

fn u32s(numbers: &[usize]) -> Vec<u8> {
    numbers.iter().flat_map(|&number| u32::try_from(number).unwrap().to_le_bytes()).collect()
}

/// What a test may change before it goes into its frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Head,
    Patch,
}

/// One image of 7 blocks, the last one of 10 bytes: copy, zero, literal, patch, repeat.
fn by_hand(old: &[u8], change: impl Fn(Layer, &mut Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    let literals = [vec![5; BLOCK], b"0123456789".to_vec()].concat();
    let new = [&old[2 * BLOCK..3 * BLOCK], &[0; BLOCK], &old[BLOCK..2 * BLOCK], &literals[..BLOCK]].concat();
    let new = [&new[..], &literals[..BLOCK], &old[..BLOCK], b"0123456789"].concat();
    // Two literal blocks, the second one with zeros behind its end, as a patch of the second page.
    let page = &old[16384..20480 + 300];
    let differences: Vec<u8> =
        literals[..100].iter().zip(&page[50..]).map(|(n, o)| n.wrapping_sub(*o)).collect();
    let mut extra = literals[100..].to_vec();
    extra.resize(2 * BLOCK - 100, 0);
    // Steps: one; seek 50 (zigzag 100), add 100, extra 8092 (two bytes of varint).
    let mut patch = [&[1, 100, 100, 0x9c, 0x3f], &differences[..], &extra].concat();
    change(Layer::Patch, &mut patch);
    let piece = frame(&patch, page);
    let word = piece.len() * 2 + 1;
    assert!(word < 1 << 14);
    #[allow(clippy::cast_possible_truncation)]
    let mut head = vec![
        7, // runs
        4 + 1,
        4,
        4 + 1,
        4 + 3,
        4 + 2,
        4 + 1,
        4 + 3,
        // copy block 2, 1 (the next would be 3), 0 (the next would be 2): zigzag
        4,
        3,
        3,
        // repeat: one literal block back
        1,
        // the piece: twice its length and form 1, one run of pages, gap 1, one page
        (word & 0x7f | 0x80) as u8,
        (word >> 7) as u8,
        1,
        1,
        0,
    ];
    change(Layer::Head, &mut head);
    let head = frame(&head, &[]);
    let mut delta = b"otad-delta 1\n\0\0\0".to_vec();
    delta.extend(((96 + 128 + head.len() + piece.len()) as u64).to_le_bytes());
    delta.extend(u32s(&[1, 128]));
    delta.extend([[0xaa; 32], [0xbb; 32]].concat());
    delta.extend(b"rootfs");
    delta.extend([0; 26]);
    delta.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    delta.extend((old.len() as u64).to_le_bytes());
    delta.extend((new.len() as u64).to_le_bytes());
    delta.extend([Digest::of(old).0, Digest::of(&new).0].concat());
    delta.extend(u32s(&[head.len(), piece.len()]));
    delta.extend(head);
    delta.extend(piece);
    (delta, new)
}

#[test]
fn reads_what_the_specification_says() {
    let old = Rng(3).bytes(5 * BLOCK + 300);
    let (bytes, new) = by_hand(&old, |_, _| ());
    let mut delta = Delta::open(Memory::new(&bytes)).unwrap();
    let header = delta.header().clone();
    assert_eq!((header.old_release.0, header.new_release.0), ([0xaa; 32], [0xbb; 32]));
    let section = &header.sections[0];
    assert_eq!((section.to_string().as_str(), section.part), ("rootfs", Part::Image));
    assert_eq!((section.old.size, section.new.size), (20_780, 6 * 4096 + 10));
    let mut made = Vec::new();
    delta.write_all(0, &mut old.as_slice(), &mut made).unwrap();
    assert!(made == new);
}

/// Heads and patches that are sound frames of anything: what a flipped bit in a file hardly ever becomes.
#[test]
fn survives_every_head_and_patch() {
    const SEED: u64 = 0x0de1_7a01;
    println!("seed {SEED:#x}");
    let mut rng = Rng(SEED);
    let old = Rng(3).bytes(5 * BLOCK + 300);
    let (_, new) = by_hand(&old, |_, _| ());
    let (mut made, mut refused) = (0, 0);
    for _ in 0..6000 {
        let (at, value) = (rng.next(), rng.next().to_le_bytes()[0]);
        let wanted = if rng.below(2) == 0 { Layer::Head } else { Layer::Patch };
        // One byte of the head, or of the steps of the patch.
        let (bytes, _) = by_hand(&old, |layer, bytes| {
            if layer == wanted {
                let length = if layer == Layer::Head { bytes.len() } else { 5 };
                let at = usize::try_from(at % length as u64).unwrap();
                bytes[at] = if value < 128 { bytes[at] ^ (1 << (value % 8)) } else { value };
            }
        });
        let mut delta = Delta::open(Memory::new(&bytes)).unwrap();
        let mut out = vec![0; new.len()];
        match delta.read(0, 0, &mut out, &mut old.as_slice()) {
            Ok(()) => made += 1,
            Err(error) => {
                assert_eq!(error.extent(), otad_bundle::delta::Extent::Chunk, "{error}");
                assert_ne!(error.code(), "INTERNAL", "{error}");
                refused += 1;
            }
        }
    }
    println!("{made} made something, {refused} were refused");
    assert!(made > 100 && refused > 1000);
}

/// Header and directory of what the library writes, field by field.
#[test]
fn golden_header() {
    let (old, new) = (Rng(1).bytes(30_000), Rng(2).bytes(10_000));
    let pair = Pair::new(&old, &new);
    let bytes = &pair.delta;
    let total = bytes.len() as u64;
    assert_eq!((&bytes[..16], &bytes[16..24]), (&MAGIC[..], &total.to_le_bytes()[..]));
    assert_eq!(bytes[24..32], [2, 0, 0, 0, 0, 1, 0, 0], "two sections in a directory of 256 bytes");
    for (at, name) in [(32, "old"), (64, "new")] {
        let manifest = pair.manifest(name);
        assert_eq!(bytes[at..at + 32], Digest::of(&manifest).0, "{name}");
    }
    let index = &bytes[96..96 + 128];
    let image = &bytes[224..224 + 128];
    for entry in [index, image] {
        assert_eq!(&entry[..32], b"rootfs\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(entry[33..40], [0; 7]);
    }
    assert_eq!((index[32], image[32]), (0, 1));
    assert_eq!(image[40..56], [[0x30, 0x75, 0, 0, 0, 0, 0, 0], [0x10, 0x27, 0, 0, 0, 0, 0, 0]].concat());
    assert_eq!(image[56..120], [Digest::of(&old).0, Digest::of(&new).0].concat());
    assert_eq!(index[56..120], [Digest::of(&pair.old_index).0, Digest::of(&pair.index).0].concat());
    let number = |at: usize| u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
    assert_eq!(96 + 256 + number(216) + number(220) + number(344) + number(348), total);
}

/// Rules of header and directory, each broken alone.
#[test]
fn refuses_another_header() {
    let old = Rng(3).bytes(5 * BLOCK + 300);
    let (bytes, _) = by_hand(&old, |_, _| ());
    for (at, value, word) in [
        (11, b'2', "not a delta"),
        (16, 0, "file at"),
        (24, 0, "0 sections"),
        (24, 129, "129 sections"),
        (24, 2, "early"),
        (28, 127, "early"),
        (30, 255, "limit"),
        (96, b'R', "role"),
        (100, 0, "role"),
        (128, 2, "part"),
        (133, 1, "part"),
        (142, 255, "bytes"),
        (150, 255, "bytes"),
        (216, 0, "head of 0"),
        (223, 255, "body"),
    ] {
        let mut wrong = bytes.clone();
        wrong[at] = value;
        let error = Delta::open(Memory::new(&wrong)).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(word), "byte {at}: {error}");
    }
}
