//! Valid inputs, which everything hostile is made from: built once, by the library itself.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use otad_bundle::delta::make_delta;
use otad_bundle::{
    Chain, Channel, Chunking, Digest, Image, Manifest, NamedRelease, Recipe, Recipient, Role, Root,
    SignedChannel, SignedRoot, Signer as _, SigningKey, Source, Update, build_for,
};

use crate::device;
use crate::members;
use crate::mutate::Rng;

struct Fixture {
    images: [Vec<u8>; 2],
    bundle: Vec<u8>,
    delta: Vec<u8>,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32]).unwrap()
}

/// The root of trust of the device: one release key, one online key.
pub(crate) fn root() -> &'static Root {
    static ROOT: OnceLock<Root> = OnceLock::new();
    ROOT.get_or_init(|| {
        Root::with_release_keys(&[key(1).public_key()]).with_key(Role::Online, key(3).public_key())
    })
}

/// The key that signs releases.
pub(crate) fn release_key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| key(1))
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let images = [kernel(), rootfs()];
        let mut older = images.clone();
        older[1][5000..9000].fill(7);
        let old = build_in(dir.path(), 1, &older, &[]);
        let new = build_in(dir.path(), 2, &images, &[]);
        let made = dir.path().join("x.otad-delta");
        make_delta(&old, &new, &made, None, &mut |_| ()).unwrap();
        Fixture { images, bundle: std::fs::read(new).unwrap(), delta: std::fs::read(made).unwrap() }
    })
}

/// Builds a release in a directory, for everybody or for `recipients` alone.
pub(crate) fn build_in(
    dir: &Path,
    sequence: u64,
    images: &[Vec<u8>; 2],
    recipients: &[&dyn Recipient],
) -> PathBuf {
    let sources = ["kernel", "rootfs"].into_iter().zip(images).map(|(role, bytes)| {
        let path = dir.join(role);
        std::fs::write(&path, bytes).unwrap();
        Source { role: role.to_owned(), path }
    });
    let update = Update {
        version: format!("{sequence}.0.0").parse().unwrap(),
        sequence,
        compatible: vec!["acme-gateway".to_owned()],
        description: "for hostile hands".to_owned(),
        critical: Vec::new(),
    };
    let mut recipe = Recipe::new(update, sources.collect());
    recipe.chunking = Chunking::Fixed { size: 4096 };
    let output = dir.join(format!("{sequence}.otab"));
    build_for(&recipe, recipients, &[release_key()], &output, &mut |_| {}).unwrap();
    output
}

/// Noise, which is stored as it is.
fn kernel() -> Vec<u8> {
    let mut rng = Rng(7);
    (0..9000).map(|_| rng.number().to_le_bytes()[0]).collect()
}

/// Text, zeros and noise, more than the head that is written last.
fn rootfs() -> Vec<u8> {
    let mut image: Vec<u8> =
        (0..600).flat_map(|line| format!("line {line} of the root file system\n").into_bytes()).collect();
    image.resize(132 * 1024, 0);
    image.extend(kernel());
    image
}

/// The genuine images, in the order of the media.
pub(crate) fn images() -> &'static [Vec<u8>; 2] {
    &fixture().images
}

pub(crate) fn bundle() -> Vec<u8> {
    genuine().to_vec()
}

/// The genuine bundle.
pub(crate) fn genuine() -> &'static [u8] {
    &fixture().bundle
}

pub(crate) fn delta() -> Vec<u8> {
    fixture().delta.clone()
}

pub(crate) fn manifest() -> Vec<u8> {
    members::read(&fixture().bundle, "manifest.toml")
}

pub(crate) fn signature() -> Vec<u8> {
    members::read(&fixture().bundle, "manifest.sig")
}

pub(crate) fn index() -> Vec<u8> {
    members::read(&fixture().bundle, "rootfs.index")
}

/// The images of the genuine bundle, as its manifest describes them.
pub(crate) fn described() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| Manifest::parse(&manifest()).unwrap().images)
}

/// Root 2, which may follow the device's root.
pub(crate) fn next_root() -> Vec<u8> {
    let next = root().successor().unwrap().with_key(Role::Release, key(2).public_key());
    let mut next = SignedRoot::draft(&next).unwrap();
    next.sign(&key(1)).unwrap();
    Chain::of(vec![next.clone()]).unwrap();
    next.to_text().into_bytes()
}

pub(crate) fn channel() -> Vec<u8> {
    let channel = Channel {
        compatible: "acme-gateway".to_owned(),
        counter: 7,
        issued: 1_700_000_000,
        expires: 1_700_086_400,
        release: Digest::of(b"x"),
        sequence: 2,
        also: vec![NamedRelease { release: Digest::of(b"y"), sequence: 1 }],
    };
    let mut signed = SignedChannel::draft(&channel).unwrap();
    signed.sign(&key(3)).unwrap();
    signed.to_text().into_bytes()
}

pub(crate) fn environment() -> Vec<u8> {
    device::environment_copy(2)
}

pub(crate) fn record() -> Vec<u8> {
    br#"{"state":"idle","next_job":3,"floor":2,"root_version":1,"history":[],"slots":{"a":{}},"failed":[{"count":1}]}"#
        .to_vec()
}

pub(crate) fn http_head() -> Vec<u8> {
    b"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\nContent-Range: bytes 0-9/20\r\n\
      ETag: \"v1\"\r\nContent-Length: 10\r\nRetry-After: 5\r\n\r\n0123456789"
        .to_vec()
}

/// `sa{sv}` in little endian: a URL and the option `reboot`.
pub(crate) fn dbus_arguments() -> Vec<u8> {
    let mut bytes = vec![10, 0, 0, 0];
    bytes.extend(b"http://x/y\0\0");
    bytes.extend([20, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([6, 0, 0, 0]);
    bytes.extend(b"reboot\0\x01b\0\0\0\x01\0\0\0");
    bytes
}

pub(crate) fn config() -> Vec<u8> {
    device::configuration_text().into_bytes()
}

/// For [`crate::pipeline`]: through a pipe, and one bit of a chunk is another.
pub(crate) fn edits() -> Vec<u8> {
    vec![0, 0x00, 0x20, 0x00, 1]
}

/// An offer as a fetcher hands it on: a frame of its length, the kind and each field with its length, all little-endian.
pub(crate) fn role_answer() -> Vec<u8> {
    let fields: [&[u8]; 5] =
        [&60u64.to_le_bytes(), &[7; 32], b"2.0.0", b"https://updates.example.com/artifacts/7.otab", b""];
    let mut rest = vec![1];
    for field in fields {
        rest.extend(u32::try_from(field.len()).unwrap().to_le_bytes());
        rest.extend_from_slice(field);
    }
    [&[0][..], &u32::try_from(rest.len()).unwrap().to_le_bytes(), &rest].concat()
}
