//! B7: images and payloads beyond 4 GiB.

use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

use otad_bundle::{
    Bundle, Chunk, ChunkKind, Chunking, Digest, FileInput, Image, ImageKind, IndexRef, Input, Manifest,
    Recipe, Source, build, extract,
};

use crate::support::{Member, check, key, root, signed, update};

const GIB: u64 = 1 << 30;

/// B7: a sparse image of 5 GiB with data at the start, across 4 GiB and at the end; every part of it is covered.
#[test]
fn b7_image_of_5_gib() {
    let start = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let image = std::fs::File::create(&path).unwrap();
    image.set_len(5 * GIB).unwrap();
    let marks = [(0, b"start".as_slice()), (4 * GIB - 3, b"across"), (5 * GIB - 3, b"end")];
    for (offset, text) in marks {
        image.write_all_at(text, offset).unwrap();
    }
    let output = directory.path().join("x.otab");
    let mut recipe = Recipe::new(update("1.0.0", 1), vec![Source { role: "rootfs".into(), path }]);
    recipe.chunking = Chunking::Fixed { size: 1024 * 1024 };
    let built = build(&recipe, &[&key(1)], &output, &mut |_| ()).unwrap();
    assert_eq!(built.manifest.images[0].size, 5 * GIB);

    let mut bundle = Bundle::open(FileInput::open(&output).unwrap(), &root()).unwrap();
    let files = extract(&mut bundle, directory.path(), &[], &mut |_| ()).unwrap();
    let copy = std::fs::File::open(&files[0]).unwrap();
    assert_eq!(copy.metadata().unwrap().len(), 5 * GIB);
    assert!(copy.metadata().unwrap().blocks() * 512 < 64 << 20, "zeros are holes");
    for (offset, text) in marks {
        let mut found = vec![0; text.len()];
        copy.read_exact_at(&mut found, offset).unwrap();
        assert_eq!(found, text);
    }

    // The chunk beyond 4 GiB is as well covered as the first.
    let mut bytes = std::fs::read(&output).unwrap();
    let last_chunk = bytes.len() - 1024 - 512 + 20;
    bytes[last_chunk] ^= 1;
    assert!(check(&bytes).is_err());
    println!("5 GiB in {:?}", start.elapsed());
}

const CHUNK: usize = 1 << 20;
const CHUNKS: u64 = 5 * 1024;

/// 5 GiB of stored chunks that exist only as arithmetic: chunk `n` is filled with the byte `n % 251`.
struct Virtual {
    front: Vec<u8>,
    position: u64,
}

impl Read for Virtual {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let front = self.front.len() as u64;
        let end = front + CHUNKS * CHUNK as u64 + 1024;
        let rest = end.saturating_sub(self.position);
        let count = usize::try_from(rest.min(buf.len() as u64)).unwrap();
        for byte in &mut buf[..count] {
            *byte = match self.position.checked_sub(front) {
                None => self.front[usize::try_from(self.position).unwrap()],
                Some(at) if at < CHUNKS * CHUNK as u64 => fill(at / CHUNK as u64),
                Some(_) => 0,
            };
            self.position += 1;
        }
        Ok(count)
    }
}

fn fill(number: u64) -> u8 {
    u8::try_from(number % 251).unwrap()
}

impl Input for Virtual {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        self.position = offset;
        Ok(())
    }

    fn random_access(&self) -> bool {
        true
    }
}

/// B7: a payload of 5 GiB; chunks on both sides of 2 GiB and 4 GiB are found where they are, and the end behind them.
#[test]
fn b7_payload_of_5_gib() {
    let hashes: Vec<_> = (0..251).map(|byte| Digest::of(&vec![byte; CHUNK])).collect();
    let record = |number: u64| {
        let sha256 = hashes[usize::from(fill(number))];
        let length = u32::try_from(CHUNK).unwrap();
        let stored_sha256 = sha256.truncated();
        Chunk { sha256, stored_sha256, plain_len: length, stored_len: length, kind: ChunkKind::Stored }
    };
    let index: Vec<u8> = (0..CHUNKS).flat_map(|number| record(number).encode()).collect();
    let image = Image {
        role: "rootfs".into(),
        kind: ImageKind::Raw,
        size: CHUNKS * CHUNK as u64,
        sha256: Digest::of(b"not reached"),
        chunking: Chunking::Fixed { size: u32::try_from(CHUNK).unwrap() },
        index: IndexRef { size: index.len() as u64, sha256: Digest::of(&index) },
        payload_size: CHUNKS * CHUNK as u64,
        sealed: None,
    };
    let manifest = Manifest {
        update: update("1.0.0", 1),
        images: vec![image],
        recovery: None,
        encryption: None,
        extra: toml::Table::new(),
    };
    let chunks =
        Member::new("rootfs.chunks", b"").with(124, format!("{:011o}\0", CHUNKS * CHUNK as u64).as_bytes());
    let mut front = signed(manifest.to_toml().as_bytes(), &[Member::new("rootfs.index", &index), chunks]);
    front.truncate(front.len() - 1024);

    let mut bundle = Bundle::open(Virtual { front, position: 0 }, &root()).unwrap();
    assert!(bundle.total_size() > 5 * GIB);
    bundle.read_index(0, &mut Vec::new()).unwrap();
    let mut decoder = otad_bundle::Decoder::new().unwrap();
    let (mut stored, mut plain) = (Vec::new(), Vec::new());
    for number in [0, 2047, 2048, 4095, 4096, CHUNKS - 1] {
        let chunk = record(number);
        bundle.read_stored(0, number * CHUNK as u64, chunk.stored_len, &mut stored).unwrap();
        decoder.decode(&chunk, &stored, &mut plain).unwrap();
        assert_eq!(plain[0], fill(number));
    }
    bundle.finish().unwrap();
}
