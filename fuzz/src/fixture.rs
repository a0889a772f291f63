//! Valid inputs, which everything hostile is made from: built once, by the library itself.

use std::sync::OnceLock;

use otad_bundle::delta::make_delta;
use otad_bundle::{
    Bundle, Chain, Channel, Chunking, Digest, Recipe, Role, Root, SignedChannel, SignedRoot, Signer,
    SigningKey, Source, StreamInput, Update, build,
};

use crate::device;
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
pub(crate) fn root() -> Root {
    Root::with_release_keys(&[key(1).public_key()]).with_key(Role::Online, key(3).public_key())
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let images = [kernel(), rootfs()];
        let bundle = |name: &str, sequence: u64, images: &[Vec<u8>; 2]| {
            let sources = ["kernel", "rootfs"].into_iter().zip(images).map(|(role, bytes)| {
                let path = dir.path().join(role);
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
            let output = dir.path().join(name);
            build(&recipe, &[&key(1)], &output, &mut |_| {}).unwrap();
            output
        };
        let mut older = images.clone();
        older[1][5000..9000].fill(7);
        let (old, new) = (bundle("old.otab", 1, &older), bundle("new.otab", 2, &images));
        let made = dir.path().join("x.otad-delta");
        make_delta(&old, &new, &made, None, &mut |_| ()).unwrap();
        Fixture { images, bundle: std::fs::read(new).unwrap(), delta: std::fs::read(made).unwrap() }
    })
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
    fixture().bundle.clone()
}

pub(crate) fn delta() -> Vec<u8> {
    fixture().delta.clone()
}

/// A member of the bundle: what stands behind its canonical header.
fn member(name: &str) -> Vec<u8> {
    let bytes = &fixture().bundle;
    let mut at = 0;
    loop {
        let header = &bytes[at..at + 512];
        let size = std::str::from_utf8(&header[124..135]).unwrap();
        let size = usize::from_str_radix(size.trim_end_matches(['\0', ' ']), 8).unwrap();
        if header.starts_with(name.as_bytes()) && header[name.len()] == 0 {
            return bytes[at + 512..at + 512 + size].to_vec();
        }
        at += 512 + size.next_multiple_of(512);
    }
}

pub(crate) fn manifest() -> Vec<u8> {
    member("manifest.toml")
}

pub(crate) fn signature() -> Vec<u8> {
    member("manifest.sig")
}

pub(crate) fn index() -> Vec<u8> {
    member("rootfs.index")
}

/// A genuine bundle, opened.
pub(crate) fn opened() -> Bundle<StreamInput<std::io::Cursor<Vec<u8>>>> {
    Bundle::open(StreamInput::new(std::io::Cursor::new(bundle())), &root()).unwrap()
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
        also: Vec::new(),
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
