//! Other people's programs read what this library writes, and the other way round.

use std::path::Path;
use std::process::Command;

use otad_bundle::{
    Bundle, Chunk, ChunkKind, Decoder, Digest, IndexReader, PublicKey, Signer as _, SigningKey, StreamInput,
};

use crate::support::{key, members, root, rootfs, sample};

/// Runs a shell line in `directory`; a missing program is a failure with its name.
fn shell(directory: &Path, line: &str) -> String {
    let output =
        Command::new("bash").args(["-euo", "pipefail", "-c", line]).current_dir(directory).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}\n{out}{err}");
    out.into_owned()
}

fn with_sample() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("x.otab"), sample()).unwrap();
    directory
}

#[test]
fn gnu_tar_lists_and_unpacks_it() {
    let directory = with_sample();
    let list = shell(directory.path(), "TZ=UTC tar tvf x.otab");
    let names: Vec<_> = list.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let expected: Vec<_> = members(sample()).iter().map(crate::support::Member::name).collect();
    assert_eq!(names, expected);
    assert!(
        list.lines().all(|line| line.starts_with("-rw-r--r-- 0/0") && line.contains("1970-01-01 00:00")),
        "{list}"
    );
    let manifest = shell(directory.path(), "tar xOf x.otab manifest.toml");
    assert_eq!(manifest.as_bytes(), members(sample())[1].content);
}

/// GNU tar, told everything the format fixes, writes the same bytes.
#[test]
fn gnu_tar_makes_the_same_bytes() {
    let directory = with_sample();
    shell(
        directory.path(),
        "mkdir d && tar xf x.otab -C d && tar --create --file y.otab --format=ustar --numeric-owner --blocking-factor=1 \
         --owner=0 --group=0 --mode=0644 --mtime=@0 -C d $(tar tf x.otab) && cmp x.otab y.otab",
    );
}

/// The recipe of docs/bundle-format.md.
#[test]
fn openssl_verifies_the_signature() {
    let directory = with_sample();
    std::fs::write(directory.path().join("release.key.pub"), key(1).public_key().to_pem()).unwrap();
    let verify = "tar xf x.otab manifest.toml manifest.sig
        { printf 'DSSEv1 16 otab-manifest-v1 %d ' $(stat -c %s manifest.toml); cat manifest.toml; } > message
        sed -n 's/^value = \"\\(.*\\)\"$/\\1/p' manifest.sig | base64 -d > signature
        openssl pkeyutl -verify -pubin -inkey release.key.pub -rawin -in message -sigfile signature";
    assert!(shell(directory.path(), verify).contains("Verified Successfully"));
    // And it can fail.
    let wrong = verify.replace("openssl pkeyutl", "printf x >> message; ! openssl pkeyutl");
    shell(directory.path(), &wrong);
}

/// Keys go both ways: ours through openssl, openssl's through ours, and the id is what the documentation says.
#[test]
fn openssl_reads_and_makes_keys() {
    let directory = tempfile::tempdir().unwrap();
    let ours = key(7);
    ours.write_new(&directory.path().join("ours")).unwrap();
    shell(
        directory.path(),
        "openssl pkey -in ours -pubout -out derived && cmp derived ours.pub
         openssl genpkey -algorithm ed25519 -out theirs && openssl pkey -in theirs -pubout -out theirs.pub",
    );
    let theirs = SigningKey::read(&directory.path().join("theirs")).unwrap();
    let public = PublicKey::read(&directory.path().join("theirs.pub")).unwrap();
    assert_eq!(theirs.public_key(), public);
    let id = "openssl pkey -pubin -in theirs.pub -outform DER | tail -c 32 | sha256sum | cut -c 1-32";
    assert_eq!(shell(directory.path(), id).trim(), public.id().to_string());
    // A signature by openssl over the encoded message is one of ours, byte for byte (RFC 8032 is deterministic).
    std::fs::write(directory.path().join("message"), otad_bundle::pae("otab-manifest-v1", b"hello")).unwrap();
    shell(directory.path(), "openssl pkeyutl -sign -inkey theirs -rawin -in message -out signature");
    let signature = std::fs::read(directory.path().join("signature")).unwrap();
    assert_eq!(theirs.sign(&otad_bundle::pae("otab-manifest-v1", b"hello")).unwrap().as_slice(), signature);
}

/// The stored chunks are what `zstd` and `cat` unpack to the image.
#[test]
fn zstd_and_sha256sum_agree() {
    let directory = with_sample();
    let bundle = Bundle::open(StreamInput::new(sample()), &root()).unwrap();
    let image = bundle.manifest().images[0].clone();
    let (index, payload) = (members(sample())[3].content.clone(), members(sample())[4].content.clone());
    let mut at = 0;
    for chunk in IndexReader::new(index.as_slice(), &image) {
        let chunk = chunk.unwrap();
        let stored = &payload[at..at + chunk.stored_len as usize];
        at += stored.len();
        std::fs::write(directory.path().join("stored"), stored).unwrap();
        let line = match chunk.kind {
            ChunkKind::Zero => format!("head -c {} /dev/zero >> image", chunk.plain_len),
            ChunkKind::Stored => "cat stored >> image".into(),
            ChunkKind::Zstd => "zstd -q -d -c < stored >> image".into(),
            ChunkKind::Gzip => "gzip -d -c < stored >> image".into(),
        };
        shell(directory.path(), &line);
    }
    let sum = shell(directory.path(), "sha256sum < image | cut -d' ' -f1");
    assert_eq!(sum.trim(), image.sha256.to_string());
    assert_eq!(std::fs::read(directory.path().join("image")).unwrap(), rootfs(1));
}

/// What `gzip -n` and `zstd` make of a file with known size is accepted: other builders can use them.
#[test]
fn streams_by_gzip_and_zstd_decode() {
    let directory = tempfile::tempdir().unwrap();
    let plain = b"text by somebody else, long enough to shrink\n".repeat(300);
    std::fs::write(directory.path().join("plain"), &plain).unwrap();
    shell(
        directory.path(),
        "gzip -9 -n -k plain; zstd -q -19 --no-check plain; zstd -q --check plain -o checked.zst",
    );
    let mut decoder = Decoder::new().unwrap();
    let mut out = Vec::new();
    for (file, kind) in
        [("plain.gz", ChunkKind::Gzip), ("plain.zst", ChunkKind::Zstd), ("checked.zst", ChunkKind::Zstd)]
    {
        let stored = std::fs::read(directory.path().join(file)).unwrap();
        let chunk = Chunk {
            sha256: Digest::of(&plain),
            stored_sha256: Digest::of(&stored).truncated(),
            plain_len: u32::try_from(plain.len()).unwrap(),
            stored_len: u32::try_from(stored.len()).unwrap(),
            kind,
        };
        decoder.decode(&chunk, &stored, &mut out).unwrap();
        assert_eq!(out, plain, "{file}");
    }
}
