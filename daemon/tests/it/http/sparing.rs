//! No byte of a bundle travels that is not wanted, and none travels twice.

use std::ops::Range;

use otad::adapters::http::Limits;
use otad_bundle::{
    Bundle, Chunking, Compression, IndexReader, Input, Recipe, Root, Signer as _, SigningKey, Source, Update,
    build,
};

use super::open;
use super::script::{Served, Server};

const CHUNK_BYTES: u32 = 4096;

/// A bundle on a server, as it may be wanted by a device.
struct Offered {
    server: Server,
    bytes: Vec<u8>,
    root: Root,
}

impl Offered {
    /// Images of so many bytes that do not compress.
    fn new(images: &[(&str, usize)]) -> Offered {
        let (key, dir) = (SigningKey::from_seed([7; 32]).unwrap(), tempfile::tempdir().unwrap());
        let source = |(role, length): &(&str, usize)| {
            let path = dir.path().join(role);
            std::fs::write(&path, noise(*length)).unwrap();
            Source { role: (*role).to_owned(), path }
        };
        let update = Update {
            version: "2.0.0".parse().unwrap(),
            sequence: 2,
            compatible: vec!["bench".to_owned()],
            description: String::new(),
            critical: Vec::new(),
        };
        let recipe = Recipe {
            chunking: Chunking::Fixed { size: CHUNK_BYTES },
            compression: Compression::None,
            ..Recipe::new(update, images.iter().map(source).collect())
        };
        let output = dir.path().join("new.otab");
        build(&recipe, &[&key], &output, &mut |_| {}).unwrap();
        let bytes = std::fs::read(output).unwrap();
        let served = Served { bytes: bytes.clone(), tag: Some("\"v1\"") };
        let server = Server::start(move |_, request, wire| wire.send(&served.answer(request)));
        Offered { server, bytes, root: Root::with_release_keys(&[key.public_key()]) }
    }

    fn open(&self) -> Bundle<Box<dyn Input + Send>> {
        let input = open(&self.server.url("/x.otab"), Limits::default()).unwrap();
        Bundle::open(input, &self.root).unwrap()
    }

    /// How often each byte was asked for.
    fn asked(&self) -> Vec<u8> {
        let mut asked = vec![0; self.bytes.len()];
        for (first, last) in self.server.requests().iter().flat_map(|request| request.ranges().unwrap()) {
            let end = (last + 1).min(self.bytes.len());
            asked[first..end].iter_mut().for_each(|times| *times += 1);
        }
        asked
    }

    /// Where bytes stand in the file.
    fn find(&self, wanted: &[u8]) -> Range<usize> {
        let at = self.bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
        at..at + wanted.len()
    }
}

/// Bytes that do not compress (splitmix64, Vigna 2015).
fn noise(length: usize) -> Vec<u8> {
    let mut state = length as u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// Reads the chunks of an image that are wanted, as an install does.
fn read(
    bundle: &mut Bundle<Box<dyn Input + Send>>,
    number: usize,
    index: &[u8],
    wanted: impl Fn(u64) -> bool,
) {
    let image = bundle.manifest().images[number].clone();
    let (mut chunks, mut offset) = (Vec::new(), 0);
    for chunk in IndexReader::new(index, &image) {
        let length = chunk.unwrap().stored_len;
        if wanted(offset / u64::from(CHUNK_BYTES)) {
            chunks.push((offset, length));
        }
        offset += u64::from(length);
    }
    let extents = chunks.iter().map(|&(at, length)| at..at + u64::from(length)).collect();
    bundle.expect_stored(number, extents).unwrap();
    for (at, length) in chunks {
        bundle.read_stored(number, at, length, &mut Vec::new()).unwrap();
    }
}

#[test]
fn a_whole_bundle_travels_once() {
    let offered = Offered::new(&[("kernel", 300_000), ("rootfs", 2_000_000)]);
    let mut bundle = offered.open();
    let mut indexes = [Vec::new(), Vec::new()];
    for (number, index) in indexes.iter_mut().enumerate() {
        bundle.read_index(number, index).unwrap();
    }
    for (number, index) in indexes.iter().enumerate() {
        read(&mut bundle, number, index, |_| true);
    }
    bundle.finish().unwrap();
    assert!(offered.asked().iter().all(|times| *times == 1));
    assert!(offered.server.requests().len() <= 10, "{} requests", offered.server.requests().len());
    assert!(offered.server.connections() <= 2, "{} connections", offered.server.connections());
}

/// With an index that was kept, and every third run of chunks missing.
#[test]
fn only_what_is_missing_travels() {
    let offered = Offered::new(&[("rootfs", 3_000_000)]);
    let mut index = Vec::new();
    offered.open().read_index(0, &mut index).unwrap();
    let is_wanted = |number: u64| number % 21 < 7;

    let again = Offered::new(&[("rootfs", 3_000_000)]);
    let mut bundle = again.open();
    read(&mut bundle, 0, &index, is_wanted);
    bundle.finish().unwrap();
    let mut expected = vec![1; again.bytes.len()];
    expected[again.find(&index)].fill(0);
    // Stored as they are, the chunks stand one behind the other.
    let (image, length) = (noise(3_000_000), CHUNK_BYTES as usize);
    let payload = again.find(&image[..length]).start..again.bytes.len();
    for (number, chunk) in expected[payload][..image.len()].chunks_mut(length).enumerate() {
        if !is_wanted(number as u64) {
            chunk.fill(0);
        }
    }
    let opening = usize::try_from(Limits::default().opening).unwrap();
    expected[..opening].fill(1);
    let asked = again.asked();
    let wrong = asked.iter().zip(&expected).position(|(asked, expected)| asked != expected);
    assert_eq!(wrong, None, "at this offset of {}", again.bytes.len());
    assert!(again.server.requests().len() <= 8, "{} requests", again.server.requests().len());
    assert!(again.server.connections() <= 2, "{} connections", again.server.connections());
}

/// A device that has every chunk, for example from a delta, looks at the headers and the end, over one connection.
#[test]
fn little_travels_when_nothing_is_missing() {
    let offered = Offered::new(&[("rootfs", 3_000_000)]);
    let mut index = Vec::new();
    offered.open().read_index(0, &mut index).unwrap();

    let again = Offered::new(&[("rootfs", 3_000_000)]);
    let mut bundle = again.open();
    read(&mut bundle, 0, &index, |_| false);
    bundle.finish().unwrap();
    drop(bundle);
    assert!(again.asked().iter().filter(|times| **times > 0).count() < 8192);
    assert_eq!((again.server.requests().len(), again.server.connections()), (2, 1));
}
