//! Decoders: bounded, strict, and behind the hash of the stored bytes.

use otad_bundle::{Chunk, ChunkKind, Decoder, Digest, MAX_CHUNK_BYTES};

/// A chunk whose record says that `stored` is right and `plain_len` bytes come out of it.
fn record(kind: ChunkKind, stored: &[u8], plain: &[u8], plain_len: u32) -> Chunk {
    Chunk {
        sha256: Digest::of(plain),
        stored_sha256: Digest::of(stored).truncated(),
        plain_len,
        stored_len: u32::try_from(stored.len()).unwrap(),
        kind,
    }
}

fn code(chunk: &Chunk, stored: &[u8]) -> &'static str {
    let mut plain = Vec::new();
    let result = Decoder::new().unwrap().decode(chunk, stored, &mut plain);
    assert!(plain.capacity() <= 2 * MAX_CHUNK_BYTES as usize, "{} bytes were taken", plain.capacity());
    result.map_or_else(|error| error.code(), |()| "ok")
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2_gzip();
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn flate2_gzip() -> flate2::write::GzEncoder<Vec<u8>> {
    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best())
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(plain, 3).unwrap()
}

fn text() -> Vec<u8> {
    b"a line of text that compresses well enough\n".repeat(500)
}

#[test]
fn decodes_every_kind_with_one_decoder() {
    let plain = text();
    let length = u32::try_from(plain.len()).unwrap();
    let mut decoder = Decoder::new().unwrap();
    let mut out = vec![7; 3];
    for _ in 0..3 {
        for (kind, stored) in [
            (ChunkKind::Stored, plain.clone()),
            (ChunkKind::Gzip, gzip(&plain)),
            (ChunkKind::Zstd, zstd(&plain)),
        ] {
            decoder.decode(&record(kind, &stored, &plain, length), &stored, &mut out).unwrap();
            assert_eq!(out, plain);
        }
        for length in [1, 4096, 4097] {
            let zeros = vec![0; length as usize];
            decoder.decode(&record(ChunkKind::Zero, &[], &zeros, length), &[], &mut out).unwrap();
            assert_eq!(out, zeros);
        }
    }
}

/// B2: bits that a decoder ignores (gzip time, system, flags; zstd unused bit) still change the stored hash.
#[test]
fn ignored_header_bits_are_hashed_first() {
    let plain = text();
    let length = u32::try_from(plain.len()).unwrap();
    for (kind, stored) in [(ChunkKind::Gzip, gzip(&plain)), (ChunkKind::Zstd, zstd(&plain))] {
        let chunk = record(kind, &stored, &plain, length);
        for bit in 0..stored.len().min(64) * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(code(&chunk, &flipped), "HASH_MISMATCH", "{kind:?} bit {bit}");
        }
        assert_eq!(code(&chunk, &stored[1..]), "HASH_MISMATCH");
        assert_eq!(code(&chunk, &[stored.clone(), vec![0]].concat()), "HASH_MISMATCH");
    }
}

/// N9, B14: streams that decode to more than announced, although the record vouches for the stored bytes.
#[test]
fn n9_bombs_are_bounded() {
    let huge = vec![0; 200 << 20];
    for (kind, stored) in [(ChunkKind::Gzip, gzip(&huge)), (ChunkKind::Zstd, zstd(&huge))] {
        for announced in [1, 4096, MAX_CHUNK_BYTES] {
            let chunk = record(kind, &stored, &huge, announced);
            assert_eq!(code(&chunk, &stored), "SIZE_EXCEEDED", "{kind:?} {announced}");
        }
    }
}

/// B14: less than announced is wrong too.
#[test]
fn short_streams_are_refused() {
    let plain = text();
    let length = u32::try_from(plain.len()).unwrap();
    for (kind, stored) in
        [(ChunkKind::Gzip, gzip(&plain)), (ChunkKind::Zstd, zstd(&plain)), (ChunkKind::Stored, plain.clone())]
    {
        assert_eq!(code(&record(kind, &stored, &plain, length + 1), &stored), "HASH_MISMATCH", "{kind:?}");
    }
}

/// What a zstd decoder would take and this one must not: the stored bytes are vouched for, so only strictness refuses.
#[test]
fn zstd_frames_have_one_shape() {
    let plain = text();
    let length = u32::try_from(plain.len()).unwrap();
    let frame = zstd(&plain);
    let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"junk"].concat();
    // The same blocks behind a header that asks for a window of its own: content size of 4 bytes, window descriptor.
    let windowed = |descriptor: u8| {
        assert_eq!(frame[4], 0x60, "single segment, content size of 2 bytes");
        [&frame[..4], &[0x80, descriptor], &length.to_le_bytes(), &frame[7..]].concat()
    };
    let unsized_frame = {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        encoder.finish().unwrap()
    };
    let mut with_dictionary = frame.clone();
    with_dictionary[4] |= 1;
    let mut reserved = frame.clone();
    reserved[4] |= 8;
    let mut unused = frame.clone();
    unused[4] |= 16;
    for (what, stored) in [
        ("two frames", [frame.clone(), zstd(b"")].concat()),
        ("bytes behind", [frame.clone(), vec![0]].concat()),
        ("skippable frame before", [skippable.clone(), frame.clone()].concat()),
        ("skippable frame behind", [frame.clone(), skippable].concat()),
        ("no content size", unsized_frame),
        ("window of 9 MiB", windowed(13 << 3 | 1)),
        ("window of 16 MiB", windowed(14 << 3)),
        ("window of 3.75 TiB", windowed(0xff)),
        ("dictionary id", with_dictionary),
        ("reserved bit", reserved),
        ("unused bit", unused),
        ("cut", frame[..frame.len() - 1].to_vec()),
        ("magic only", frame[..4].to_vec()),
        ("nothing", Vec::new()),
        ("gzip", gzip(&plain)),
    ] {
        assert_eq!(
            code(&record(ChunkKind::Zstd, &stored, &plain, length), &stored),
            "HASH_MISMATCH",
            "{what}"
        );
    }
    for sound in [frame.clone(), windowed(10 << 3), windowed(13 << 3)] {
        assert_eq!(code(&record(ChunkKind::Zstd, &sound, &plain, length), &sound), "ok");
    }
}

/// The same for gzip.
#[test]
fn gzip_members_have_one_shape() {
    let plain = text();
    let length = u32::try_from(plain.len()).unwrap();
    let member = gzip(&plain);
    let flags = |bits: u8| {
        let mut stored = member.clone();
        stored[3] = bits;
        stored
    };
    let named = {
        let mut encoder =
            flate2::GzBuilder::new().filename("x").write(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        encoder.finish().unwrap()
    };
    let change = |from_end: usize| {
        let mut stored = member.clone();
        let at = stored.len() - from_end;
        stored[at] ^= 1;
        stored
    };
    for (what, stored) in [
        ("two members", [member.clone(), member.clone()].concat()),
        ("bytes behind", [member.clone(), vec![0]].concat()),
        ("file name", named),
        ("text flag", flags(1)),
        ("reserved flag", flags(0x80)),
        ("crc", change(8)),
        ("length", change(1)),
        ("cut", member[..member.len() - 1].to_vec()),
        ("header only", member[..10].to_vec()),
        ("less than a header", member[..9].to_vec()),
        ("nothing", Vec::new()),
    ] {
        assert_eq!(
            code(&record(ChunkKind::Gzip, &stored, &plain, length), &stored),
            "HASH_MISMATCH",
            "{what}"
        );
    }
    assert_eq!(code(&record(ChunkKind::Gzip, &member, &plain, length), &member), "ok");
}

/// Authentic garbage (a stolen key, a defective builder) must neither crash a decoder nor get through.
#[test]
fn random_streams_never_panic() {
    const SEED: u64 = 0x07ad_0002;
    println!("seed {SEED:#x}");
    let mut rng = crate::support::Rng(SEED);
    let plain = text();
    let length = u32::try_from(plain.len()).unwrap();
    let (mut decoder, mut out, mut refused) = (Decoder::new().unwrap(), Vec::new(), 0);
    for round in 0..4000 {
        for (kind, mut stored) in [(ChunkKind::Gzip, gzip(&plain)), (ChunkKind::Zstd, zstd(&plain))] {
            let at = rng.below(stored.len());
            let value = rng.next().to_le_bytes()[0];
            if stored[at] == value {
                continue;
            }
            stored[at] = value;
            let chunk = record(kind, &stored, &plain, length);
            match decoder.decode(&chunk, &stored, &mut out) {
                // A match copied from elsewhere, or the time in a gzip header: the plain bytes are right all the same.
                Ok(()) => assert_eq!(out, plain, "seed {SEED:#x}, round {round}, {kind:?}, byte {at}"),
                Err(_) => refused += 1,
            }
        }
    }
    println!("{refused} of 8000 refused");
    assert!(refused > 7000, "{refused}");
}
