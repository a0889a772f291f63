//! Small bundles, inputs and a tar writer that shares no code with the library.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::OnceLock;

use otad_bundle::{
    Bundle, Chunking, Error, Input, MANIFEST_TYPE, PublicKey, Recipe, Root, Signatures, Signer, SigningKey,
    Source, StreamInput, Update, build, pae, verify,
};

/// A small generator (PCG's multiplier); tests print the seed they use.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 32)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32]).unwrap()
}

pub(crate) fn public(seed: u8) -> PublicKey {
    key(seed).public_key()
}

pub(crate) fn root() -> Root {
    Root::with_release_keys(&[public(1)])
}

pub(crate) fn update(version: &str, sequence: u64) -> Update {
    Update {
        version: version.parse().unwrap(),
        sequence,
        compatible: vec!["acme-gateway".into()],
        description: "a \"test\"\nof two lines".into(),
        critical: Vec::new(),
    }
}

/// About 40 KiB with zeros, text, and noise, different for every `version`.
pub(crate) fn rootfs(version: u8) -> Vec<u8> {
    let mut image = vec![0; 8192];
    for line in 0..400 {
        image.extend(format!("line {line} of version {version} of the root file system\n").bytes());
    }
    image.extend(Rng(u64::from(version)).bytes(9000));
    image.extend(vec![0; 4096]);
    image
}

pub(crate) fn kernel(version: u8) -> Vec<u8> {
    let mut image = Rng(100 + u64::from(version)).bytes(4096);
    image.extend(vec![version; 3000]);
    image
}

/// Writes the images of `version` into `directory` and returns a recipe for them, in small fixed chunks.
pub(crate) fn recipe(directory: &Path, version: u8) -> Recipe {
    let source = |role: &str, bytes: Vec<u8>| {
        let path = directory.join(role);
        std::fs::write(&path, bytes).unwrap();
        Source { role: role.into(), path }
    };
    let images = vec![source("rootfs", rootfs(version)), source("kernel", kernel(version))];
    let mut recipe = Recipe::new(update(&format!("{version}.0.0"), u64::from(version)), images);
    recipe.chunking = Chunking::Fixed { size: 4096 };
    recipe
}

pub(crate) fn built(recipe: &Recipe, directory: &Path) -> Vec<u8> {
    let output = directory.join("out.otab");
    build(recipe, &[&key(1)], &output, &mut |_| ()).unwrap();
    std::fs::read(output).unwrap()
}

/// The bundle that most tests break: version 1, signed by key 1.
pub(crate) fn sample() -> &'static [u8] {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| version(1))
}

/// Another genuine bundle by the same key: version 2.
pub(crate) fn other() -> &'static [u8] {
    static OTHER: OnceLock<Vec<u8>> = OnceLock::new();
    OTHER.get_or_init(|| version(2))
}

fn version(version: u8) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    built(&recipe(directory.path(), version), directory.path())
}

/// Verifies every byte, front to back, as from a pipe.
pub(crate) fn check(bytes: &[u8]) -> Result<(), Error> {
    check_with(bytes, &root())
}

pub(crate) fn check_with(bytes: &[u8], root: &Root) -> Result<(), Error> {
    verify(&mut Bundle::open(StreamInput::new(bytes), root)?, &mut |_| ())
}

/// The code with which a bundle is refused; panics when it is accepted.
pub(crate) fn refusal(bytes: &[u8]) -> &'static str {
    check(bytes).expect_err("accepted a bundle that must be refused").code()
}

/// Random access to bytes in memory.
pub(crate) struct Memory(pub(crate) Cursor<Vec<u8>>);

impl Memory {
    pub(crate) fn new(bytes: &[u8]) -> Memory {
        Memory(Cursor::new(bytes.to_vec()))
    }
}

impl Read for Memory {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // Short reads, as the kernel may give them.
        let count = buf.len().min(1000);
        self.0.read(&mut buf[..count])
    }
}

impl Input for Memory {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(offset)).map(drop)
    }

    fn random_access(&self) -> bool {
        true
    }
}

/// A member as a test wants it: the header's fields can be wrong one by one.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) header: [u8; 512],
    pub(crate) content: Vec<u8>,
}

impl Member {
    pub(crate) fn new(name: &str, content: &[u8]) -> Member {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        for (offset, text) in [
            (100, "0000644\0"),
            (108, "0000000\0"),
            (116, "0000000\0"),
            (124, &format!("{:011o}\0", content.len())),
            (136, "00000000000\0"),
            (156, "0"),
            (257, "ustar\x0000"),
            (329, "0000000\0"),
            (337, "0000000\0"),
        ] {
            header[offset..offset + text.len()].copy_from_slice(text.as_bytes());
        }
        let mut member = Member { header, content: content.to_vec() };
        member.sum();
        member
    }

    /// Overwrites a field and puts the checksum right again.
    pub(crate) fn with(mut self, offset: usize, bytes: &[u8]) -> Member {
        self.header[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.sum();
        self
    }

    fn sum(&mut self) {
        self.header[148..156].fill(b' ');
        let sum: u32 = self.header.iter().map(|&byte| u32::from(byte)).sum();
        self.header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    pub(crate) fn name(&self) -> String {
        self.header[..100].iter().take_while(|&&byte| byte != 0).map(|&byte| char::from(byte)).collect()
    }
}

/// Takes a genuine bundle apart.
pub(crate) fn members(mut bytes: &[u8]) -> Vec<Member> {
    let mut members = Vec::new();
    while bytes[0] != 0 {
        let header: [u8; 512] = bytes[..512].try_into().unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&header[124..135]).unwrap(), 8).unwrap();
        members.push(Member { header, content: bytes[512..512 + size].to_vec() });
        bytes = &bytes[512 + size.next_multiple_of(512)..];
    }
    assert_eq!(bytes, [0; 1024]);
    members
}

/// Puts members together with padding and end blocks.
pub(crate) fn archive(members: &[Member]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members {
        bytes.extend(member.header);
        bytes.extend(&member.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}

/// `manifest.sig` for `manifest` by the given keys.
pub(crate) fn signatures(manifest: &[u8], seeds: &[u8]) -> String {
    let mut signatures = Signatures::default();
    for seed in seeds {
        signatures.add(manifest, &key(*seed)).unwrap();
    }
    signatures.to_toml()
}

/// The front of a bundle with any manifest, signed by key 1 as if it were sound, and then `rest`.
pub(crate) fn signed(manifest: &[u8], rest: &[Member]) -> Vec<u8> {
    let mut all = vec![
        Member::new("otab", b"otab 1\n"),
        Member::new("manifest.toml", manifest),
        Member::new("manifest.sig", signatures(manifest, &[1]).as_bytes()),
    ];
    all.extend_from_slice(rest);
    archive(&all)
}

/// A canonical `manifest.sig` with one entry of any value.
pub(crate) fn entry(key: &str, value: &[u8]) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new("base64")
        .arg("-w0")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("coreutils' base64 is needed");
    child.stdin.take().unwrap().write_all(value).unwrap();
    let value = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    format!("[[signature]]\nkey = \"{key}\"\nalgorithm = \"ed25519\"\nvalue = \"{value}\"\n")
}

/// What a signature over a manifest covers.
pub(crate) fn message(manifest: &[u8]) -> Vec<u8> {
    pae(MANIFEST_TYPE, manifest)
}
