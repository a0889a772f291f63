//! The pieces that every byte of an install goes through, one at a time: `cargo bench --package otad-bundle`.
//!
//! Throughput is in plain bytes. What is measured lies in memory, so these are the speeds that nothing outside can better.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::path::Path;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use otad_bundle::delta::{Content, Delta, Part, make_delta};
use otad_bundle::{
    Bundle, Chunk, Chunking, Cutter, Decoder, Digest, Image, IndexReader, Recipe, Root, Signer, SigningKey,
    Source, StreamInput, Update, build, verify,
};

/// Length of the images in bytes: hundreds of chunks, and still less than a second to make.
const IMAGE_BYTES: usize = 16 * 1024 * 1024;

fn main() {
    divan::main();
}

/// Bytes that zstd makes about three times smaller, as it does a root file system: words out of a small dictionary.
fn image(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let words: Vec<u64> = (0..4096).map(|_| next().wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let mut image = Vec::with_capacity(IMAGE_BYTES);
    while image.len() < IMAGE_BYTES {
        let word = words[(next() % 4096) as usize].to_le_bytes();
        image.extend_from_slice(&word[..4 + (next() % 5) as usize]);
    }
    image.truncate(IMAGE_BYTES);
    image
}

/// A bundle and what its index says.
struct Made {
    bytes: Vec<u8>,
    image: Image,
    index: Vec<u8>,
    root: Root,
}

impl Made {
    fn new(directory: &Path, name: &str, content: &[u8]) -> Made {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        let update = Update {
            version: "1.0.0".parse().unwrap(),
            sequence: 1,
            compatible: vec!["bench".into()],
            description: String::new(),
            critical: Vec::new(),
        };
        let key = SigningKey::from_seed([1; 32]).unwrap();
        let recipe = Recipe::new(update, vec![Source { role: "rootfs".into(), path: path.clone() }]);
        let output = path.with_extension("otab");
        build(&recipe, &[&key], &output, &mut |_| ()).unwrap();
        let bytes = std::fs::read(output).unwrap();
        let root = Root::with_release_keys(&[key.public_key()]);
        let mut bundle = Bundle::open(StreamInput::new(bytes.as_slice()), &root).unwrap();
        let image = bundle.manifest().images[0].clone();
        let mut index = Vec::new();
        bundle.read_index(0, &mut index).unwrap();
        Made { bytes, image, index, root }
    }

    fn chunks(&self) -> Vec<Chunk> {
        IndexReader::new(self.index.as_slice(), &self.image).map(Result::unwrap).collect()
    }
}

/// Finding where chunks end.
#[divan::bench]
fn cut(bencher: Bencher) {
    let image = image(1);
    bencher.counter(BytesCount::new(image.len())).bench_local(|| {
        let mut cutter = Cutter::new(image.as_slice(), Chunking::DEFAULT);
        while let Some(chunk) = cutter.next().unwrap() {
            black_box(chunk);
        }
    });
}

/// What the read-back does with every byte.
#[divan::bench]
fn hash(bencher: Bencher) {
    let image = image(1);
    bencher.counter(BytesCount::new(image.len())).bench_local(|| Digest::of(black_box(&image)));
}

/// Hash, decode, hash: what writing does with every byte.
#[divan::bench]
fn decode(bencher: Bencher) {
    let directory = tempfile::tempdir().unwrap();
    let made = Made::new(directory.path(), "image", &image(1));
    let mut bundle = Bundle::open(StreamInput::new(made.bytes.as_slice()), &made.root).unwrap();
    bundle.read_index(0, &mut std::io::sink()).unwrap();
    let mut offset = 0;
    let mut chunks = Vec::new();
    for chunk in made.chunks() {
        let mut stored = Vec::new();
        bundle.read_stored(0, offset, chunk.stored_len, &mut stored).unwrap();
        offset += u64::from(chunk.stored_len);
        chunks.push((chunk, stored, vec![0; chunk.plain_len as usize]));
    }
    let mut decoder = Decoder::new().unwrap();
    bencher.counter(BytesCount::new(IMAGE_BYTES)).bench_local(|| {
        for (chunk, stored, plain) in &mut chunks {
            decoder.decode_into(chunk, stored, plain).unwrap();
        }
    });
}

/// A whole bundle, front to back, on one thread.
#[divan::bench]
fn walk(bencher: Bencher) {
    let directory = tempfile::tempdir().unwrap();
    let made = Made::new(directory.path(), "image", &image(1));
    bencher.counter(BytesCount::new(IMAGE_BYTES)).bench_local(|| {
        let mut bundle = Bundle::open(StreamInput::new(made.bytes.as_slice()), &made.root).unwrap();
        verify(&mut bundle, &mut |_| ()).unwrap();
    });
}

/// Reading an index record by record, which every stage of an install does.
#[divan::bench]
fn index(bencher: Bencher) {
    let directory = tempfile::tempdir().unwrap();
    let made = Made::new(directory.path(), "image", &image(1));
    let records = made.chunks().len();
    bencher.counter(ItemsCount::new(records)).bench_local(|| {
        IndexReader::new(black_box(made.index.as_slice()), &made.image)
            .map(|chunk| u64::from(chunk.unwrap().plain_len))
            .sum::<u64>()
    });
}

/// Making the new image of the old one, of which every tenth page differs.
#[divan::bench]
fn delta(bencher: Bencher) {
    let directory = tempfile::tempdir().unwrap();
    let old = image(1);
    let mut new = old.clone();
    let other = image(2);
    new.chunks_mut(4096).zip(other.chunks(4096)).step_by(10).for_each(|(to, from)| to.copy_from_slice(from));
    Made::new(directory.path(), "old", &old);
    let made = Made::new(directory.path(), "new", &new);
    let path = |name: &str| directory.path().join(name);
    make_delta(&path("old.otab"), &path("new.otab"), &path("delta"), None, &mut |_| ()).unwrap();
    let bytes = std::fs::read(path("delta")).unwrap();
    bencher.counter(BytesCount::new(IMAGE_BYTES)).bench_local(|| {
        let mut delta = Delta::open(StreamInput::new(bytes.as_slice())).unwrap();
        let section = delta.find(Part::Image, Content::of_image(&made.image)).unwrap();
        delta.write_all(section, &mut old.as_slice(), &mut std::io::sink()).unwrap();
    });
}
