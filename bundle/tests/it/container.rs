//! The tar layer: one order, one spelling of every header.

use otad_bundle::{Bundle, Decoder, IndexReader, StreamInput};

use crate::support::{Member, Memory, archive, check, kernel, members, other, refusal, root, rootfs, sample};

#[test]
fn the_test_writer_agrees_with_the_library() {
    let again: Vec<_> =
        members(sample()).iter().map(|member| Member::new(&member.name(), &member.content)).collect();
    assert_eq!(archive(&again), sample());
    let names: Vec<_> = again.iter().map(Member::name).collect();
    let expected = [
        "otab",
        "manifest.toml",
        "manifest.sig",
        "rootfs.index",
        "rootfs.chunks",
        "kernel.index",
        "kernel.chunks",
    ];
    assert_eq!(names, expected);
}

/// B3: every duplicate, every omission, every swap.
#[test]
fn b3_members_stand_once_and_in_order() {
    let genuine = members(sample());
    for first in 0..genuine.len() {
        let mut fewer = genuine.clone();
        fewer.remove(first);
        assert!(matches!(refusal(&archive(&fewer)), "BUNDLE_FORMAT" | "NOT_A_BUNDLE"), "without {first}");
        let mut extra = genuine.clone();
        extra.insert(first, Member::new("extra", b"x"));
        assert!(
            matches!(refusal(&archive(&extra)), "BUNDLE_FORMAT" | "NOT_A_BUNDLE"),
            "extra before {first}"
        );
        for second in 0..genuine.len() {
            let mut twice = genuine.clone();
            twice.insert(second, genuine[first].clone());
            if twice[..genuine.len()].iter().zip(&genuine).all(|(a, b)| a.header == b.header) {
                continue;
            }
            assert!(
                matches!(refusal(&archive(&twice)), "BUNDLE_FORMAT" | "NOT_A_BUNDLE"),
                "{first} again at {second}"
            );
            if first != second {
                let mut swapped = genuine.clone();
                swapped.swap(first, second);
                assert!(
                    matches!(refusal(&archive(&swapped)), "BUNDLE_FORMAT" | "NOT_A_BUNDLE"),
                    "{first} for {second}"
                );
            }
        }
    }
    let mut extra = genuine.clone();
    extra.push(Member::new("extra", b"x"));
    assert_eq!(refusal(&archive(&extra)), "BUNDLE_FORMAT", "a member at the end");
}

/// Replaces the header of each member in turn and expects a refusal.
fn refuse_header(what: &str, change: impl Fn(Member) -> Member) {
    let genuine = members(sample());
    for number in 0..genuine.len() {
        let mut changed = genuine.clone();
        changed[number] = change(changed[number].clone());
        let code = refusal(&archive(&changed));
        // A signature file that says it is empty is one, before anything behind it is looked at.
        let empty = number == 2 && code == "SIG_MISSING";
        assert!(
            empty || matches!(code, "BUNDLE_FORMAT" | "NOT_A_BUNDLE"),
            "{what} at member {number}: {code}"
        );
    }
}

/// B4: names are compared, never used.
#[test]
fn b4_names() {
    let long = [b'a'; 100];
    let names: [&[u8]; 9] = [
        b"../otab\0",
        b"/etc/passwd\0",
        b"./otab\0",
        b"manifest.toml/\0",
        b"manifest\0.toml",
        b"\xff\xfe\0",
        b"MANIFEST.TOML\0",
        b"\0",
        &long,
    ];
    for name in names {
        refuse_header(&name.escape_ascii().to_string(), |member| member.with(0, name));
    }
    refuse_header("prefix field", |member| member.with(345, b"../../etc"));
}

/// B5: regular files only, no extension headers.
#[test]
fn b5_types() {
    for kind in
        [b'\0', b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'x', b'g', b'L', b'K', b'S', b'V', b'M', b'D']
    {
        refuse_header(&format!("type {:?}", char::from(kind)), |member| member.with(156, &[kind]));
    }
    refuse_header("link name", |member| member.with(157, b"/dev/mmcblk0"));
    // Extension members before the one they describe, as pax and GNU tar write them.
    let genuine = members(sample());
    for number in 0..=genuine.len() {
        let pax = Member::new("./PaxHeaders/otab", b"12 size=99\n").with(156, b"x");
        let global = Member::new("pax_global_header", b"12 path=99\n").with(156, b"g");
        let long = Member::new("././@LongLink", b"manifest.toml\0").with(156, b"L");
        let sparse = Member::new("otab", b"").with(156, b"S").with(386, b"00000000000\x0000000010000\0");
        for extension in [pax, global, long, sparse] {
            let mut changed = genuine.clone();
            changed.insert(number, extension);
            assert!(matches!(refusal(&archive(&changed)), "BUNDLE_FORMAT" | "NOT_A_BUNDLE"));
        }
    }
}

/// B6: sizes have one spelling, and it is that of the signed size.
#[test]
fn b6_sizes() {
    for size in [
        &b"77777777777\0"[..],
        b"00000000000\0",
        b"00000000001\0",
        b"zzzzzzzzzzz\0",
        b"           \0",
        b"-0000000001\0",
        b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
        b"\x80\0\0\0\0\0\0\0\0\0\0\x07",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        refuse_header(&size.escape_ascii().to_string(), |member| {
            if member.header[124..136] == *size { member.with(136, b"1") } else { member.with(124, size) }
        });
    }
    // The same number, spelled as other tar writers do.
    refuse_header("size with a space at the end", |member| {
        let mut field = member.header[124..136].to_vec();
        field[11] = b' ';
        member.with(124, &field)
    });
    refuse_header("size padded with spaces", |member| {
        let mut field = member.header[124..136].to_vec();
        field[0] = b' ';
        member.with(124, &field)
    });
}

/// B2, B11: fields that tar programs ignore.
#[test]
fn respelled_headers() {
    for (what, offset, bytes) in [
        ("mode 0755", 100, &b"0000755\0"[..]),
        ("mode with file type", 100, b"0100644\0"),
        ("mode with space", 100, b"000644 \0"),
        ("uid", 108, b"0001750\0"),
        ("gid", 116, b"0001750\0"),
        ("mtime", 136, b"14741123456\0"),
        ("GNU magic", 257, b"ustar  \0"),
        ("old magic", 257, b"\0\0\0\0\0\0\0\0"),
        ("version", 263, b"01"),
        ("owner", 265, b"root"),
        ("group", 297, b"root"),
        ("device numbers empty", 329, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("last bytes", 500, b"x"),
    ] {
        refuse_header(what, |member| member.with(offset, bytes));
    }
    refuse_header("checksum spelled with seven digits", |mut member| {
        member.header.copy_within(148..154, 149);
        member.header[148] = b'0';
        member.header[155] = 0;
        member
    });
    refuse_header("checksum wrong", |mut member| {
        member.header[153] ^= 1;
        member
    });
}

/// V4: the index or payload of another genuine release.
#[test]
fn v4_members_of_two_releases() {
    let (one, two) = (members(sample()), members(other()));
    for number in 1..one.len() {
        let mut mixed = one.clone();
        mixed[number] = two[number].clone();
        let code = refusal(&archive(&mixed));
        assert!(matches!(code, "SIG_INVALID" | "HASH_MISMATCH" | "BUNDLE_FORMAT"), "member {number}: {code}");
    }
    // All images but one.
    let mut mixed = one.clone();
    mixed[5] = two[5].clone();
    mixed[6] = two[6].clone();
    assert!(matches!(refusal(&archive(&mixed)), "HASH_MISMATCH" | "BUNDLE_FORMAT"));
}

/// N13: what a captive portal or a wrong file starts with.
#[test]
fn n13_something_else_altogether() {
    let mut tar = archive(&[Member::new("hello", b"world")]);
    for bytes in
        [&b"<!DOCTYPE html><html><body>please log in"[..], b"PK\x03\x04", b"{\"error\":1}", b"o", &tar]
    {
        let code = refusal(bytes);
        // One letter may still become a bundle.
        assert_eq!(code, if bytes == b"o" { "BUNDLE_TRUNCATED" } else { "NOT_A_BUNDLE" });
    }
    tar.clear();
    let mut newer = members(sample());
    newer[0] = Member::new("otab", b"otab 2\n");
    let error = check(&archive(&newer)).unwrap_err();
    assert_eq!(error.code(), "BUNDLE_FORMAT");
    assert!(error.to_string().contains("otab 2"), "{error}");
}

#[test]
fn random_access_reads_in_any_order_and_checks_all_seams() {
    let mut bundle = Bundle::open(Memory::new(sample()), &root()).unwrap();
    let mut decoder = Decoder::new().unwrap();
    let (mut stored, mut plain) = (Vec::new(), Vec::new());
    for (number, expected) in [(1, kernel(1)), (0, rootfs(1)), (1, kernel(1))] {
        let image = bundle.manifest().images[number].clone();
        let mut index = Vec::new();
        bundle.read_index(number, &mut index).unwrap();
        let chunks: Vec<_> = IndexReader::new(index.as_slice(), &image).collect::<Result<_, _>>().unwrap();
        let mut end = image.payload_size;
        for (at, chunk) in chunks.iter().enumerate().rev() {
            end -= u64::from(chunk.stored_len);
            bundle.read_stored(number, end, chunk.stored_len, &mut stored).unwrap();
            decoder.decode(chunk, &stored, &mut plain).unwrap();
            assert_eq!(plain, expected[at * 4096..][..plain.len()]);
        }
    }
    bundle.finish().unwrap();

    // A bad seam is found by whoever passes it first, even when the payloads are never read.
    for place in ["rootfs.chunks", "kernel.index", "kernel.chunks"] {
        let mut bytes = sample().to_vec();
        let header = bytes.windows(place.len()).position(|name| name == place.as_bytes()).unwrap();
        bytes[header + 140] = b'1';
        let mut bundle = Bundle::open(Memory::new(&bytes), &root()).unwrap();
        assert_eq!(bundle.finish().unwrap_err().code(), "BUNDLE_FORMAT", "{place}");
    }
}

#[test]
fn a_pipe_skips_forward_and_never_back() {
    let mut bundle = Bundle::open(StreamInput::new(sample()), &root()).unwrap();
    let size = bundle.manifest().images[0].payload_size;
    let mut buf = Vec::new();
    bundle.read_index(0, &mut Vec::new()).unwrap();
    bundle.read_stored(0, 100, 10, &mut buf).unwrap();
    bundle.read_stored(0, 500, 10, &mut buf).unwrap();
    assert_eq!(bundle.read_stored(0, 100, 10, &mut buf).unwrap_err().code(), "INTERNAL");
    assert_eq!(bundle.read_stored(0, size - 1, 2, &mut buf).unwrap_err().code(), "INTERNAL");
    assert_eq!(bundle.read_stored(0, u64::MAX, 2, &mut buf).unwrap_err().code(), "INTERNAL");
    assert_eq!(bundle.read_stored(9, 0, 1, &mut buf).unwrap_err().code(), "INTERNAL");
    bundle.read_index(1, &mut Vec::new()).unwrap();
    bundle.finish().unwrap();
}
