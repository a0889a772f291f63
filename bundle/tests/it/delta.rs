//! Deltas between whole bundles: what comes out is the new release, or a typed error.

use std::cell::RefCell;
use std::io::{Cursor, Read};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use otad_bundle::delta::{Content, Delta, DeltaError, Extent, MadeDelta, Part, ReadAt, make_delta};
use otad_bundle::{
    Bundle, Chunk, Chunking, Error, FileInput, Image, IndexReader, Input, Recipe, Source, StreamInput, build,
};
use proptest::prelude::*;

use crate::support::{Memory, Rng, key, root, update};

/// Two releases with one image, and the delta between them.
pub(crate) struct Pair {
    pub(crate) old: Vec<u8>,
    pub(crate) old_index: Vec<u8>,
    pub(crate) index: Vec<u8>,
    pub(crate) image: Image,
    pub(crate) delta: Vec<u8>,
    directory: tempfile::TempDir,
}

const SMALL: Chunking = Chunking::FastCdc { min: 2048, average: 8192, max: 32768 };

fn bundle(directory: &Path, name: &str, roles: &[(&str, &[u8])]) -> std::path::PathBuf {
    let source = |(role, bytes): &(&str, &[u8])| {
        let path = directory.join(format!("{name}-{role}"));
        std::fs::write(&path, bytes).unwrap();
        Source { role: (*role).into(), path }
    };
    let mut recipe = Recipe::new(update("1.0.0", 1), roles.iter().map(source).collect());
    recipe.chunking = SMALL;
    let output = directory.join(name);
    build(&recipe, &[&key(1)], &output, &mut |_| ()).unwrap();
    output
}

fn index_of(path: &Path) -> (Image, Vec<u8>) {
    let mut bundle = Bundle::open(FileInput::open(path).unwrap(), &root()).unwrap();
    let mut index = Vec::new();
    bundle.read_index(0, &mut index).unwrap();
    (bundle.manifest().images[0].clone(), index)
}

impl Pair {
    pub(crate) fn new(old: &[u8], new: &[u8]) -> Pair {
        let directory = tempfile::tempdir().unwrap();
        let from = bundle(directory.path(), "old.otab", &[("rootfs", old)]);
        let to = bundle(directory.path(), "new.otab", &[("rootfs", new)]);
        let output = directory.path().join("x.otad-delta");
        make_delta(&from, &to, &output, None, &mut |_| ()).unwrap();
        let ((_, old_index), (image, index)) = (index_of(&from), index_of(&to));
        let delta = std::fs::read(output).unwrap();
        Pair { old: old.to_vec(), old_index, index, image, delta, directory }
    }

    /// The manifest of the `old` or `new` bundle.
    pub(crate) fn manifest(&self, name: &str) -> Vec<u8> {
        let path = self.directory.path().join(format!("{name}.otab"));
        let bundle = Bundle::open(FileInput::open(&path).unwrap(), &root()).unwrap();
        bundle.manifest_bytes().to_vec()
    }

    /// The chunks of the new image with their offsets.
    fn chunks(&self) -> Vec<(u64, Chunk)> {
        let mut offset = 0;
        let place = |chunk: Result<Chunk, Error>| {
            let chunk = chunk.unwrap();
            offset += u64::from(chunk.plain_len);
            (offset - u64::from(chunk.plain_len), chunk)
        };
        IndexReader::new(self.index.as_slice(), &self.image).map(place).collect()
    }

    /// Asks for every chunk in the given order; every one that comes is the right one.
    fn ask<I: Input>(&self, delta: &mut Delta<I>, order: &[(u64, Chunk)]) -> Vec<Result<(), DeltaError>> {
        let section = delta.find(Part::Image, Content::of_image(&self.image)).unwrap_or(1);
        let (mut old, mut plain) = (self.old.as_slice(), Vec::new());
        let mut ask = |(offset, chunk): &(u64, Chunk)| {
            let result = delta.chunk(section, *offset, chunk, &mut old, &mut plain);
            assert!(result.is_err() || otad_bundle::Digest::of(&plain) == chunk.sha256);
            result
        };
        order.iter().map(&mut ask).collect()
    }

    /// Front to back from a pipe, and in any order from a file.
    fn check(&self, seed: u64) {
        let mut delta = Delta::open(StreamInput::new(self.delta.as_slice())).unwrap();
        let section = delta.find(Part::Index, Content::of_index(&self.image)).unwrap();
        let mut index = Vec::new();
        delta.write_all(section, &mut self.old_index.as_slice(), &mut index).unwrap();
        assert!(index == self.index);
        let chunks = self.chunks();
        self.ask(&mut delta, &chunks).into_iter().for_each(Result::unwrap);
        assert_eq!(delta.bytes_read(), self.delta.len() as u64, "every byte is read once");

        let mut delta = Delta::open(Memory::new(&self.delta)).unwrap();
        let mut rng = Rng(seed);
        let mut shuffled = chunks;
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, rng.below(at + 1));
        }
        self.ask(&mut delta, &shuffled).into_iter().for_each(Result::unwrap);
    }
}

/// One change of an image, placed by fractions of its length.
#[derive(Debug, Clone)]
enum Edit {
    Noise { at: f64, length: usize, seed: u64 },
    Insert { at: f64, length: usize, seed: u64 },
    Remove { at: f64, length: usize },
    Zeros { at: f64, length: usize },
    Copy { from: f64, to: f64, length: usize },
    Nudge { at: f64, length: usize, step: usize },
}

impl Edit {
    fn apply(&self, image: &mut Vec<u8>) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let place = |at: f64, image: &[u8]| (image.len() as f64 * at) as usize;
        match *self {
            Edit::Noise { at, length, seed } => {
                let at = place(at, image);
                for (byte, noise) in image[at..].iter_mut().zip(Rng(seed).bytes(length)) {
                    *byte = noise;
                }
            }
            Edit::Insert { at, length, seed } => {
                let at = place(at, image);
                drop(image.splice(at..at, Rng(seed).bytes(length)));
            }
            Edit::Remove { at, length } => {
                let at = place(at, image);
                let end = (at + length).min(image.len());
                drop(image.drain(at..end));
            }
            Edit::Zeros { at, length } => {
                let at = place(at, image);
                image[at..].iter_mut().take(length).for_each(|byte| *byte = 0);
            }
            Edit::Copy { from, to, length } => {
                let (from, to) = (place(from, image), place(to, image));
                let copy = image[from..(from + length).min(image.len())].to_vec();
                drop(image.splice(to..to, copy));
            }
            Edit::Nudge { at, length, step } => {
                let at = place(at, image);
                image[at..]
                    .iter_mut()
                    .take(length)
                    .step_by(step)
                    .for_each(|byte| *byte = byte.wrapping_add(7));
            }
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || 0.0..1.0;
    // Whole blocks as often as odd lengths: both ways of finding moved data are used.
    let length = || prop_oneof![1..60_000usize, (1..12usize).prop_map(|blocks| blocks * 4096)];
    prop_oneof![
        (at(), length(), any::<u64>()).prop_map(|(at, length, seed)| Edit::Noise { at, length, seed }),
        (at(), length(), any::<u64>()).prop_map(|(at, length, seed)| Edit::Insert { at, length, seed }),
        (at(), length()).prop_map(|(at, length)| Edit::Remove { at, length }),
        (at(), length()).prop_map(|(at, length)| Edit::Zeros { at, length }),
        (at(), at(), length()).prop_map(|(from, to, length)| Edit::Copy { from, to, length }),
        (at(), length(), 3..300usize).prop_map(|(at, length, step)| Edit::Nudge { at, length, step }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_edits_of_random_images(
        seed in any::<u64>(), length in 1..700_000usize, edits in prop::collection::vec(edit(), 0..8)
    ) {
        let old = Rng(seed).bytes(length);
        let mut new = old.clone();
        edits.iter().for_each(|edit| edit.apply(&mut new));
        prop_assume!(!new.is_empty());
        Pair::new(&old, &new).check(seed);
    }
}

#[test]
fn images_of_odd_lengths() {
    let noise = Rng(9).bytes(20_000);
    for old in [1, 4095, 4096, 4097, 16_385] {
        for new in [1, 4095, 4096, 4097, 20_000] {
            Pair::new(&noise[..old], &noise[..new]).check(1);
            Pair::new(&vec![0; old], &noise[..new]).check(2);
            Pair::new(&noise[..old], &vec![0; new]).check(3);
        }
    }
}

/// Data on both sides of the 64 MiB that a segment makes, and a chunk across.
#[test]
fn images_of_several_segments() {
    let data = Rng(4).bytes(600_000);
    let mut old = vec![0; 66 << 20];
    old[1 << 20..][..600_000].copy_from_slice(&data);
    let mut new = vec![0; (66 << 20) + 77];
    new[(64 << 20) - 300_000..][..600_000].copy_from_slice(&data);
    new[(64 << 20) - 5..][..10].fill(0xaa);
    let pair = Pair::new(&old, &new);
    pair.check(5);
    assert!(pair.delta.len() < 30_000, "{} bytes for moved data", pair.delta.len());
}

/// What each part of the format is there for.
#[test]
fn finds_what_the_device_has() {
    let old = Rng(1).bytes(1 << 20);
    let table: Vec<u8> = (0..4096u32).flat_map(|n| [[7; 240], record(n, 1)].concat()).collect();
    let moved: Vec<u8> = (0..4096u32).flat_map(|n| [[7; 240], record(n, 3)].concat()).collect();
    let same = [&old[..], &Rng(2).bytes(4096)].concat();
    let shifted = [&Rng(3).bytes(100)[..], &old].concat();
    let twice = [Rng(4).bytes(1 << 18), Rng(4).bytes(1 << 18)].concat();
    for (what, old, new, limit) in [
        ("the same", &old, &old, 1_000),
        ("one more block", &old, &same, 6_000),
        ("moved by 100 bytes", &old, &shifted, 3_000),
        ("new data twice", &old, &twice, (1 << 18) + 6_000),
        ("small differences everywhere", &table, &moved, 12_000),
    ] {
        let pair = Pair::new(old, new);
        pair.check(6);
        let delta = Delta::open(Memory::new(&pair.delta)).unwrap();
        let stored = delta.header().sections[1].stored();
        assert!(stored < limit, "{what}: {stored} bytes");
    }
}

/// 16 bytes like an entry in a table of blocks: a number that nobody else has, and an address.
fn record(number: u32, address: u32) -> [u8; 240] {
    let mut record = [7; 240];
    record[..8].copy_from_slice(&u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    record[8..12].copy_from_slice(&(number * 4 + address).to_le_bytes());
    record
}

fn two_images(directory: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let noise = Rng(7).bytes(200_000);
    let changed = [&noise[..90_000], &Rng(8).bytes(3000), &noise[90_000..]].concat();
    let from = bundle(directory, "old.otab", &[("kernel", &noise[..50_000]), ("rootfs", &noise)]);
    let to = bundle(
        directory,
        "new.otab",
        &[("rootfs", &changed), ("dtb", &noise[..100]), ("kernel", &noise[..60_000])],
    );
    (from, to)
}

fn make(directory: &Path, threads: usize) -> (MadeDelta, Vec<u8>) {
    let (from, to) = two_images(directory);
    let output = directory.join("x.otad-delta");
    let mut last = None;
    let made =
        make_delta(&from, &to, &output, NonZeroUsize::new(threads), &mut |progress| last = Some(progress));
    let last = last.unwrap();
    assert_eq!((last.done, last.total), (263_000, 263_000));
    (made.unwrap(), std::fs::read(output).unwrap())
}

#[test]
fn roles_are_matched_and_threads_do_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let (made, one) = make(directory.path(), 1);
    assert_eq!(made.left_out, ["dtb"]);
    let names: Vec<_> = made.header.sections.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["rootfs.index", "kernel.index", "rootfs", "kernel"]);
    assert_eq!(made.header.total_size, one.len() as u64);
    assert_eq!(Delta::open(Memory::new(&one)).unwrap().header(), &made.header);
    let (_, three) = make(directory.path(), 3);
    assert!(one == three);
}

#[test]
fn bundles_that_do_not_fit_leave_no_output() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = bundle(directory.path(), "kernel.otab", &[("kernel", b"kernel")]);
    let rootfs = bundle(directory.path(), "rootfs.otab", &[("rootfs", b"rootfs")]);
    let output = directory.path().join("x.otad-delta");
    let try_it = |from: &Path, to: &Path| make_delta(from, to, &output, None, &mut |_| ()).unwrap_err();
    assert_eq!(try_it(&kernel, &rootfs).code(), "INVALID_OPTION");
    assert_eq!(try_it(&kernel, &directory.path().join("none")).code(), "FILE_IO");
    assert_eq!(try_it(&kernel, &directory.path().join("kernel.otab-kernel")).code(), "NOT_A_BUNDLE");
    let mut bytes = std::fs::read(&kernel).unwrap();
    let at = bytes.len() - 1024 - 512;
    bytes[at] ^= 1;
    std::fs::write(&rootfs, bytes).unwrap();
    assert_eq!(try_it(&kernel, &rootfs).code(), "HASH_MISMATCH");
    assert!(!output.exists());
}

/// A release that is not the one the delta starts from: refused by its hash, and chunk by chunk if nobody looks.
#[test]
fn another_old_image() {
    let old = Rng(1).bytes(600_000);
    let new = [&old[300_000..], &Rng(2).bytes(50_000), &old[..300_000]].concat();
    let pair = Pair::new(&old, &new);
    let mut delta = Delta::open(Memory::new(&pair.delta)).unwrap();
    let section = delta.find(Part::Image, Content::of_image(&pair.image)).unwrap();
    delta.check_old(section, otad_bundle::Digest::of(&old)).unwrap();
    let error = delta.check_old(section, otad_bundle::Digest::of(&new)).unwrap_err();
    assert!(matches!(error, DeltaError::OtherOld { .. }) && error.extent() == Extent::Delta, "{error}");
    assert!(delta.find(Part::Image, Content::of_index(&pair.image)).is_none());

    // One changed byte costs the chunks that use its block or page, and no others.
    let chunks = pair.chunks();
    let mut changed = Pair { old: old.clone(), directory: tempfile::tempdir().unwrap(), ..pair };
    changed.old[150_000] ^= 1;
    let results = changed.ask(&mut delta, &chunks);
    let lost: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(!lost.is_empty() && lost.len() * 2 < chunks.len(), "{} of {}", lost.len(), chunks.len());
    assert!(lost.iter().all(|error| error.extent() == Extent::Chunk && error.code() != "INTERNAL"));

    // An old image that cannot be read to its end is an error of the chunks that need the rest.
    changed.old.truncate(500_000);
    let results = changed.ask(&mut delta, &chunks);
    assert!(results.iter().any(|result| matches!(result, Err(DeltaError::Old { .. }))));
    assert!(results.iter().filter(|result| result.is_ok()).count() > 3);
}

/// A wrong piece costs its own chunks; the next chunk comes again.
#[test]
fn a_damaged_piece_is_lost_alone() {
    let mut pair = Pair::new(&Rng(1).bytes(5000), &Rng(2).bytes(1_000_000));
    let chunks = pair.chunks();
    let middle = pair.delta.len() / 2;
    pair.delta[middle] ^= 1;
    let results = pair.ask(&mut Delta::open(Memory::new(&pair.delta)).unwrap(), &chunks);
    let lost = results.iter().filter(|result| result.is_err()).count();
    assert!(lost > 0 && lost * 2 < chunks.len(), "{lost} of {}", chunks.len());
    assert!(results.first().unwrap().is_ok() && results.last().unwrap().is_ok());
}

/// What an input was told last to expect.
#[derive(Clone, Default)]
struct Expected(Rc<RefCell<Vec<Range<u64>>>>);

impl Expected {
    fn bytes(&self) -> u64 {
        self.0.borrow().iter().map(|extent| extent.end - extent.start).sum()
    }
}

/// A delta for which a jump is dear: it hears beforehand what will be read, and then nothing else is.
struct Told {
    input: Memory,
    expected: Expected,
}

impl Read for Told {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.input.read(buf)
    }
}

impl Input for Told {
    fn seek_to(&mut self, offset: u64) -> std::io::Result<()> {
        let expected = self.expected.0.borrow();
        assert!(expected.iter().any(|extent| extent.contains(&offset)), "{offset} is not in {expected:?}");
        self.input.seek_to(offset)
    }
    fn random_access(&self) -> bool {
        true
    }
    fn expect(&mut self, extents: Vec<Range<u64>>) {
        *self.expected.0.borrow_mut() = extents;
    }
}

#[test]
fn says_what_it_will_read() {
    let (old, new) = (Rng(1).bytes(300_000), Rng(2).bytes(300_000));
    let pair = Pair::new(&old, &new);
    let expected = Expected::default();
    let told = Told { input: Memory::new(&pair.delta), expected: expected.clone() };
    let mut delta = Delta::open(told).unwrap();
    assert_eq!(expected.bytes(), 0, "not before it is known which section is wanted");
    let stored = delta.header().sections[1].stored();
    pair.ask(&mut delta, &pair.chunks()).into_iter().for_each(Result::unwrap);
    assert_eq!(expected.bytes(), stored);
}

/// Who was interrupted begins behind the first segment, and does not want what lies before.
#[test]
fn says_what_it_will_read_from_the_middle_on() {
    const SEGMENT_BYTES: usize = 64 << 20;
    let mut new = vec![0; SEGMENT_BYTES];
    new.extend(Rng(2).bytes(900_000));
    let pair = Pair::new(&Rng(1).bytes(10_000), &new);
    let expected = Expected::default();
    let told = Told { input: Memory::new(&pair.delta), expected: expected.clone() };
    let mut delta = Delta::open(told).unwrap();
    let behind = (SEGMENT_BYTES + 600_000) as u64;
    let chunks: Vec<_> = pair.chunks().into_iter().filter(|(at, _)| *at >= behind).collect();
    assert!(chunks.len() > 1);
    pair.ask(&mut delta, &chunks).into_iter().for_each(Result::unwrap);
    let whole = pair.delta.len() as u64;
    assert!((200_000..500_000).contains(&expected.bytes()), "{} of {whole}", expected.bytes());
}

/// Truncated at every length, every bit flipped: no panic, no wrong chunk, no endless loop.
#[test]
fn damage_of_every_kind() {
    let old = Rng(1).bytes(40_000);
    let text = b"a line of a configuration file\n".repeat(400);
    let new = [&old[4096..], &text, &vec![0; 9000], &old[1000..2000]].concat();
    let mut pair = Pair::new(&old, &new);
    let chunks = pair.chunks();
    let whole = pair.delta.clone();
    for length in 0..whole.len() {
        pair.delta.truncate(0);
        pair.delta.extend_from_slice(&whole[..length]);
        match Delta::open(Memory::new(&pair.delta)) {
            Ok(mut delta) => {
                let lost = pair.ask(&mut delta, &chunks).iter().filter(|result| result.is_err()).count();
                assert!(lost > 0 || length > whole.len() - 10, "{length} of {} were enough", whole.len());
            }
            Err(error) => assert_eq!(error.extent(), Extent::Delta),
        }
    }
    let (mut opened, mut lost) = (0, 0);
    for bit in 0..whole.len() * 8 {
        pair.delta.clone_from(&whole);
        pair.delta[bit / 8] ^= 1 << (bit % 8);
        if let Ok(mut delta) = Delta::open(Memory::new(&pair.delta)) {
            opened += 1;
            lost += pair.ask(&mut delta, &chunks).iter().filter(|result| result.is_err()).count();
            let _ = delta.write_all(0, &mut pair.old_index.as_slice(), &mut std::io::sink());
        }
    }
    println!("{} flips: {opened} opened, {lost} chunks lost", whole.len() * 8);
    assert!(opened > 1000 && lost > 1000);
}

/// A caller that asks for what is not there gets an error, not a panic.
#[test]
fn questions_beyond_the_end() {
    let pair = Pair::new(&[1; 5000], &[2; 7000]);
    let mut delta = Delta::open(Memory::new(&pair.delta)).unwrap();
    let mut old: &[u8] = &pair.old;
    for (section, offset, length) in [(1, 6999, 2), (1, u64::MAX, 1), (1, 7001, 0), (2, 0, 1)] {
        let mut buf = vec![0; length];
        let error = delta.read(section, offset, &mut buf, &mut old as &mut dyn ReadAt).unwrap_err();
        assert!(matches!(error, DeltaError::Caller(_)), "{error}");
    }
    assert!(matches!(Delta::open(Memory(Cursor::new(vec![]))), Err(DeltaError::NotADelta { .. })));
}
