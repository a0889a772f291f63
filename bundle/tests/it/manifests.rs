//! Manifests that are signed and still wrong, and indexes likewise.

use std::time::{Duration, Instant};

use otad_bundle::{
    Bundle, Chunk, ChunkKind, Chunking, Digest, Image, ImageKind, IndexReader, IndexRef, Manifest, Recovery,
    StreamInput,
};
use proptest::prelude::*;

use crate::support::{Member, check, members, refusal, root, sample, signed, update};

fn genuine() -> String {
    String::from_utf8(members(sample())[1].content.clone()).unwrap()
}

/// Each change is a manifest that key 1 signed; opening it must say why it is refused.
fn refuse(what: &str, text: &str) {
    assert_ne!(text, genuine(), "{what}: the change did not apply");
    let rest = members(sample())[3..].to_vec();
    assert_eq!(refusal(&signed(text.as_bytes(), &rest)), "MANIFEST_INVALID", "{what}");
}

#[test]
fn the_genuine_manifest_passes_through_the_same_way() {
    check(&signed(genuine().as_bytes(), &members(sample())[3..])).unwrap();
}

/// B12: images.
#[test]
fn b12_images() {
    let text = genuine();
    let (update, image) = text.split_once("\n[[image]]").unwrap();
    let (first, _) = image.split_once("\n[[image]]").unwrap();
    refuse("no image", update);
    refuse("the same role twice", &format!("{update}\n[[image]]{first}\n[[image]]{first}"));
    for role in ["", "-x", "Rootfs", "root fs", "root/fs", "..", "r.o", "rootfs\\u0000", &"a".repeat(33)] {
        refuse(&format!("role {role}"), &text.replacen("\"rootfs\"", &format!("\"{role}\""), 1));
    }
    refuse("unknown kind", &text.replacen("\"raw\"", "\"archive\"", 1));
    refuse("empty image", &text.replacen("\nsize = ", "\nsize = 0 # ", 1));
    refuse("image of 2^63-1 bytes", &text.replacen("\nsize = ", "\nsize = 9223372036854775807 # ", 1));
    let many: String =
        (0..65).map(|n| format!("\n[[image]]{}", first.replacen("rootfs", &format!("r{n}"), 1))).collect();
    refuse("65 images", &format!("{update}{many}"));
}

/// B14: sizes that do not fit each other, absurd chunkings.
#[test]
fn b14_sizes_and_chunking() {
    let text = genuine();
    let fixed = "chunking = { kind = \"fixed\", size = 4096 }";
    assert!(text.contains(fixed));
    for chunking in [
        "{ kind = \"fixed\", size = 0 }",
        "{ kind = \"fixed\", size = 1 }",
        "{ kind = \"fixed\", size = 4097 }",
        "{ kind = \"fixed\", size = 2097152 }",
        "{ kind = \"fixed\", size = 4294967296 }",
        "{ kind = \"fixed\", size = -4096 }",
        "{ kind = \"fixed\" }",
        "{ kind = \"fixed\", size = 4096, extra = 1 }",
        "{ kind = \"rolling\", size = 4096 }",
        "{ kind = \"fastcdc\", min = 0, average = 0, max = 0 }",
        "{ kind = \"fastcdc\", min = 65536, average = 16384, max = 262144 }",
        "{ kind = \"fastcdc\", min = 16384, average = 65536, max = 4194304 }",
        "{ kind = \"fastcdc\", min = 16385, average = 65536, max = 262144 }",
        "{ kind = \"fixed\", size = 8192 }",
        "4096",
        "[]",
    ] {
        refuse(chunking, &text.replacen(fixed, &format!("chunking = {chunking}"), 1));
    }
    for index in ["0", "59", "61", "660000", "-60", "1e3", "9223372036854775800", "\"60\""] {
        refuse(
            &format!("index {index}"),
            &text.replacen("index = { size = ", &format!("index = {{ size = {index} #"), 1),
        );
        let (head, tail) = text.split_once("index = { size = ").unwrap();
        let tail = tail.split_once(',').unwrap().1;
        refuse(&format!("index size {index}"), &format!("{head}index = {{ size = {index},{tail}"));
    }
    for payload in ["8589934592", "9223372036854775807", "-1", "18446744073709551616", "1000000"] {
        refuse(payload, &text.replacen("payload-size = ", &format!("payload-size = {payload} # "), 1));
    }
    for hash in ["00", "z"] {
        refuse(hash, &text.replacen("sha256 = \"", &format!("sha256 = \"{hash}"), 1));
    }
}

/// B16: documents that are wrong as a whole.
#[test]
fn b16_documents() {
    let text = genuine();
    for (what, wrong) in [
        ("empty", String::new()),
        ("not TOML", "\u{0}\u{1}".into()),
        ("JSON", "{\"update\": 1}".into()),
        ("duplicate key", text.replacen("sequence", "version = \"9.9.9\"\nsequence", 1)),
        ("duplicate table", format!("{text}\n[update]\nversion = \"1.0.0\"\n")),
        ("unknown key", text.replacen("sequence", "surprise = 1\nsequence", 1)),
        ("unknown table", format!("{text}\n[surprise]\n")),
        ("unknown key of an image", format!("{text}path = \"/dev/mmcblk0\"\n")),
        ("wrong type", text.replacen("sequence = 1", "sequence = \"1\"", 1)),
        ("negative", text.replacen("sequence = 1", "sequence = -1", 1)),
        ("2^64", text.replacen("sequence = 1", "sequence = 18446744073709551616", 1)),
        ("no version", text.replacen("version", "#", 1)),
        ("not semantic", text.replacen("\"1.0.0\"", "\"1.0\"", 1)),
        ("version of 1 MB", text.replacen("1.0.0", &format!("1.0.0+{}", "a".repeat(1000)), 1)),
        ("no hardware", text.replacen("[\"acme-gateway\"]", "[]", 1)),
        ("empty hardware", text.replacen("\"acme-gateway\"", "\"\"", 1)),
        ("terminal escape", text.replacen("a \"test", "\\u001b]0;a \"test", 1)),
        ("critical feature", text.replacen("sequence", "critical = [\"holograms\"]\nsequence", 1)),
        ("critical feature, new shape", "[update]\ncritical = [\"holograms\"]\nnew = 1\n".into()),
    ] {
        if wrong.is_empty() {
            assert_eq!(refusal(&signed(b"", &[])), "MANIFEST_INVALID");
        } else {
            refuse(what, &wrong);
        }
    }
    let error = Manifest::parse(b"[update]\ncritical = [\"holograms\"]\nnew = 1\n").unwrap_err();
    assert!(error.to_string().contains("holograms"), "{error}");
    assert_eq!(Manifest::parse(&[0xff, 0xfe]).unwrap_err().code(), "MANIFEST_INVALID");
}

/// B16: depth 10^5, 1 MiB of everything; the parser stays quick and refuses.
#[test]
fn b16_bounded_parser() {
    const DEEP: usize = 100_000;
    let long = |unit: &str| unit.repeat(1_000_000 / unit.len());
    for (what, text) in [
        ("arrays", format!("x = {}", "[".repeat(DEEP))),
        ("closed arrays", format!("x = {}{}", "[".repeat(DEEP), "]".repeat(DEEP))),
        ("arrays in extra", format!("[extra]\nx = {}{}", "[".repeat(DEEP), "]".repeat(DEEP))),
        ("inline tables", format!("x = {}", "{a=".repeat(DEEP))),
        ("dotted key", format!("{}x = 1", "a.".repeat(DEEP))),
        ("dotted table", format!("[{}x]", "a.".repeat(DEEP))),
        ("many tables", (0..50_000).map(|n| format!("[t{n}]\n")).collect()),
        ("many images", long("[[image]]\n")),
        ("many keys", (0..60_000).map(|n| format!("k{n} = 1\n")).collect()),
        ("one string", format!("x = \"{}\"", "y".repeat(1_000_000))),
        ("quotes", long("\"")),
        ("brackets", long("[")),
        ("comments", long("#\n")),
        ("numbers", format!("x = {}", "9".repeat(1_000_000))),
        ("long array", format!("x = [{}]", "1,".repeat(400_000))),
    ] {
        let start = Instant::now();
        let error = Manifest::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.code(), "MANIFEST_INVALID", "{what}");
        assert!(error.to_string().len() < 600, "{what}: {error}");
        assert!(start.elapsed() < Duration::from_secs(5), "{what} took {:?}", start.elapsed());
    }
    let too_long = vec![b'#'; 1024 * 1024 + 1];
    assert_eq!(Manifest::parse(&too_long).unwrap_err().code(), "MANIFEST_INVALID");
    assert_eq!(refusal(&signed(&too_long, &[])), "BUNDLE_FORMAT");
    // 100 MB announced, nothing delivered: refused before memory is taken.
    let huge = Member::new("manifest.toml", b"").with(124, format!("{:011o}\0", 100_000_000).as_bytes());
    let bytes = crate::support::archive(&[Member::new("otab", b"otab 1\n"), huge]);
    assert_eq!(refusal(&bytes), "BUNDLE_FORMAT");
}

/// Every text that is a manifest but for one byte gives an answer.
#[test]
fn damaged_manifests_never_panic() {
    const SEED: u64 = 0x07ad_0003;
    println!("seed {SEED:#x}");
    let mut rng = crate::support::Rng(SEED);
    let genuine = genuine().into_bytes();
    for _ in 0..20_000 {
        let mut text = genuine.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(text.len());
            match rng.below(3) {
                0 => text[at] = rng.next().to_le_bytes()[0],
                1 => drop(text.remove(at)),
                _ => text.insert(at, b"[]{}=\".#\n"[rng.below(9)]),
            }
        }
        if let Ok(manifest) = Manifest::parse(&text) {
            manifest.check().unwrap();
        }
    }
}

/// A bundle with one image of `records`, signed; the payload is empty or given.
fn with_records(records: &[[u8; 60]], size: u64, payload: &[u8]) -> Vec<u8> {
    let index = records.concat();
    let manifest = Manifest {
        update: update("1.0.0", 1),
        images: vec![Image {
            role: "rootfs".into(),
            kind: ImageKind::Raw,
            size,
            sha256: Digest::of(b"never reached"),
            chunking: Chunking::Fixed { size: 4096 },
            index: IndexRef { size: index.len() as u64, sha256: Digest::of(&index) },
            payload_size: payload.len() as u64,
            sealed: None,
        }],
        recovery: None,
        encryption: None,
        extra: toml::Table::new(),
    };
    let rest = [Member::new("rootfs.index", &index), Member::new("rootfs.chunks", payload)];
    signed(manifest.to_toml().as_bytes(), &rest)
}

fn zero(plain_len: u32) -> [u8; 60] {
    let stored_sha256 = Digest::of(b"").truncated();
    let sha256 = Digest::of(&vec![0; plain_len as usize]);
    Chunk { sha256, stored_sha256, plain_len, stored_len: 0, kind: ChunkKind::Zero }.encode()
}

/// B14: signed indexes whose records or sums are wrong.
#[test]
fn b14_signed_indexes() {
    let good = [zero(4096), zero(4096), zero(100)];
    assert_eq!(refusal(&with_records(&good, 8292, b"")), "HASH_MISMATCH", "only the image hash is wrong");
    let change = |at: usize, value: u8| {
        let mut records = good;
        records[1][at] = value;
        records
    };
    for (what, bytes) in [
        ("sum too small", with_records(&good, 8293, b"")),
        ("sum too large", with_records(&good, 8291, b"")),
        ("short in the middle", with_records(&[zero(4096), zero(100), zero(4096)], 8292, b"")),
        ("long chunk", with_records(&[zero(4096), zero(4097), zero(99)], 8292, b"")),
        ("stored sum too small", with_records(&good, 8292, b"x")),
        ("kind", with_records(&change(56, 4), 8292, b"")),
        ("kind stored without bytes", with_records(&change(56, 1), 8292, b"")),
        ("reserved", with_records(&change(59, 1), 8292, b"")),
        ("plain length zero", with_records(&change(49, 0), 8292, b"")),
        ("plain length 2^32-1", with_records(&change(51, 255), 8292, b"")),
        ("stored length of zeros", with_records(&change(52, 1), 8292, b"x")),
        ("stored hash of zeros", with_records(&change(32, 1), 8292, b"")),
    ] {
        assert_eq!(refusal(&bytes), "INDEX_INVALID", "{what}");
    }
    let huge = {
        let mut records = good;
        records[1][52..57].copy_from_slice(&[255, 255, 255, 255, 3]);
        records
    };
    assert_eq!(refusal(&with_records(&huge, 8292, b"x")), "INDEX_INVALID");
}

#[test]
fn index_reader_ends_with_an_error_when_its_input_does() {
    let bundle = Bundle::open(StreamInput::new(sample()), &root()).unwrap();
    let image = &bundle.manifest().images[0];
    let index = &members(sample())[3].content;
    assert_eq!(IndexReader::new(index.as_slice(), image).count() as u64, image.chunk_count());
    for length in [0, 59, 60, index.len() - 1] {
        let results: Vec<_> = IndexReader::new(&index[..length], image).collect();
        assert_eq!(results.last().unwrap().as_ref().unwrap_err().code(), "INDEX_INVALID");
        assert_eq!(results.len(), length / 60 + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What is written reads back the same, whatever the texts and numbers.
    #[test]
    fn manifests_round_trip(
        sequence in 0..=i64::MAX as u64,
        compatible in proptest::collection::btree_set("[ -~]{1,40}", 1..4),
        description in "[ -~\n\t\u{a0}-\u{2fff}]{0,200}",
        blocks in 1u64..5000,
        payload in 0u64..4096,
    ) {
        let mut update = update("1.2.3-rc.1+build.7", sequence);
        // A name that stands there twice is refused.
        update.compatible = compatible.into_iter().collect();
        update.description = description;
        let image = Image {
            role: "rootfs".into(),
            kind: ImageKind::Raw,
            size: blocks * 65536,
            sha256: Digest::of(b"image"),
            chunking: Chunking::DEFAULT_FIXED,
            index: IndexRef { size: blocks * 60, sha256: Digest::of(b"index") },
            payload_size: payload,
            sealed: None,
        };
        let other = Image { role: "kernel".into(), chunking: Chunking::DEFAULT, ..image.clone() };
        let extra = toml::from_str("ticket = \"A-1\"\n[build]\nhost = \"ci\"\n").unwrap();
        let recovery = Some(Recovery { from: update.sequence });
        let manifest = Manifest { update, images: vec![image, other], recovery, encryption: None, extra };
        prop_assert_eq!(Manifest::parse(manifest.to_toml().as_bytes()).unwrap(), manifest);
    }

    /// Records: every sound record round-trips, every 60 bytes either decode to themselves or are refused.
    #[test]
    fn records_round_trip(record in proptest::collection::vec(any::<u8>(), 60), kind in 0u8..5, len in 0u32..70_000) {
        let mut record: [u8; 60] = record.try_into().unwrap();
        record[48..52].copy_from_slice(&len.to_le_bytes());
        record[52..56].copy_from_slice(&(len / 2).to_le_bytes());
        record[56..].copy_from_slice(&[kind, 0, 0, 0]);
        if let Ok(chunk) = Chunk::decode(&record) {
            prop_assert_eq!(chunk.encode(), record);
        } else {
            prop_assert!(len < 2 || !(2..=3).contains(&kind));
        }
    }
}
