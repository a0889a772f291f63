//! One function per parser; what each asserts stands in its first line.

use std::io::{Cursor, Read};
use std::path::Path;
use std::time::Duration;

use bootenv::format::{Copy, Layout};
use bootenv::{ByteOrder, Environment};
use otad::adapters::http::{HttpFetch, Limits};
use otad::bus::Endian;
use otad::lifecycle::record;
use otad::ports::{Fetch as _, Stop};
use otad::roles::hostile;
use otad::testing::edges::{self, put_file};
use otad::testing::rig::Rig;
use otad::testing::storage::{Names, Storage};
use otad_bundle::delta::{Announced, Content, Delta, Part, ReadAt};
use otad_bundle::{
    Binding, Bundle, Chain, DeviceKey as _, Digest, Image, IndexReader, Input, Manifest, Root, Signatures,
    SignedChannel, StreamInput, verify,
};

use crate::device::{self, Way};
use crate::{encrypted, fixture};

/// A whole bundle through a pipe, encrypted or not: nothing but the genuine two verify, with the device's key or without.
pub fn container(bytes: &[u8]) {
    let mut verified = false;
    for key in [None, Some(encrypted::device_key())] {
        let Ok(mut bundle) = Bundle::open(StreamInput::new(bytes), fixture::root()) else { return };
        if let Some(key) = key.filter(|_| bundle.is_locked()) {
            drop(bundle.unlock(key));
        } else if key.is_some() {
            break;
        }
        verified |= verify(&mut bundle, &mut |_| ()).is_ok();
    }
    let genuine = bytes == fixture::genuine() || bytes == encrypted::BUNDLE;
    assert!(!verified || genuine, "a bundle that nobody signed verifies");
}

/// The head of an encrypted bundle, signed by a thief of the release key: recipients, wrapped keys, encrypted hashes, and where the index
/// stands. What the device's key makes of it is the genuine images or nothing.
pub fn encryption(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let recipients = manifest.encryption.iter().flat_map(|encryption| &encryption.recipients);
        for wrapped in recipients {
            drop(encrypted::device_key().unwrap(wrapped, &Binding::of(&manifest.update)));
        }
    }
    let bundle = encrypted::with_manifest(bytes);
    let Ok(mut bundle) = Bundle::open(StreamInput::new(bundle.as_slice()), fixture::root()) else { return };
    if !bundle.is_locked() || bundle.unlock(encrypted::device_key()).is_err() {
        return;
    }
    if verify(&mut bundle, &mut |_| ()).is_ok() {
        let hashes: Vec<_> = bundle.manifest().images.iter().map(|image| image.sha256).collect();
        let genuine: Vec<_> = fixture::images().iter().map(|image| Digest::of(image)).collect();
        assert_eq!(hashes, genuine);
    }
}

/// A manifest that is understood has images, and none twice.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert!(!manifest.images.is_empty() && !manifest.update.compatible.is_empty());
        let mut roles: Vec<_> = manifest.images.iter().map(|image| &image.role).collect();
        roles.sort();
        roles.dedup();
        assert_eq!(roles.len(), manifest.images.len());
    }
}

/// An index that is read to its end without an error adds up to the image, whatever its hash.
pub fn index(bytes: &[u8]) {
    let image = fixture::described().iter().find(|image| image.role == "rootfs").unwrap();
    let chunks: Result<Vec<_>, _> = IndexReader::new(Cursor::new(bytes), image).collect();
    if let Ok(chunks) = chunks {
        assert_eq!(chunks.iter().map(|chunk| u64::from(chunk.plain_len)).sum::<u64>(), image.size);
    }
}

/// Signatures that are understood have one spelling.
pub fn signature(bytes: &[u8]) {
    if let Ok(signatures) = Signatures::parse(bytes) {
        assert_eq!(signatures.to_toml().as_bytes(), bytes);
    }
}

/// A chain of roots that is understood has one spelling, and nothing but the genuine root 2 follows the device's.
pub fn root(bytes: &[u8]) {
    // A root by itself is one that an image vouches for: any that can be read is as good.
    drop(Root::parse(bytes));
    if let Ok(chain) = Chain::parse(bytes) {
        let text: String = chain.roots().iter().map(otad_bundle::SignedRoot::to_text).collect();
        assert_eq!(text.as_bytes(), bytes);
        let followed = fixture::root().follow(&chain).is_ok_and(|beyond| !beyond.is_empty());
        assert!(!followed || bytes == fixture::next_root(), "a root that nobody signed is followed");
    }
}

/// Nothing but the genuine channel document verifies.
pub fn channel(bytes: &[u8]) {
    let verified = SignedChannel::parse(bytes).and_then(|signed| signed.verify(fixture::root()).map(drop));
    assert!(
        verified.is_err() || bytes == fixture::channel(),
        "a channel document that nobody signed verifies"
    );
}

/// The old bytes that a delta asks for, as noise.
struct Old;

impl ReadAt for Old {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        buf.fill(offset.to_le_bytes()[0]);
        Ok(())
    }
}

/// A delta costs no more than it has bytes, and what it makes counts by its hash alone.
pub fn delta(bytes: &[u8]) {
    if let Ok(delta) = Delta::open(StreamInput::new(bytes)) {
        read_all(delta, fixture::described());
    }
}

/// What an encrypted delta says to everybody is what it says to the device; inside, as [`delta`].
pub fn sealed_delta(bytes: &[u8]) {
    let announced = Announced::read(Jumping(Cursor::new(bytes)));
    let bundle = encrypted::unlocked();
    let Ok(input) = bundle.delta_input(StreamInput::new(bytes)) else { return };
    assert!(announced.is_ok_and(|announced| announced.encrypted), "it opens and was not announced");
    if let Ok(delta) = Delta::open(input) {
        read_all(delta, &bundle.manifest().images);
    }
}

/// Reads every section for those images, a piece of it and the whole.
fn read_all<I: Input>(mut delta: Delta<I>, images: &[Image]) {
    for image in images {
        for (part, content) in
            [(Part::Index, Content::of_index(image)), (Part::Image, Content::of_image(image))]
        {
            let Some(section) = delta.find(part, content) else { continue };
            let mut piece = vec![0; 8192.min(usize::try_from(content.size).unwrap())];
            drop(delta.read(section, 0, &mut piece, &mut Old));
            let mut whole = Vec::new();
            if delta.write_all(section, &mut Old, &mut whole).is_ok() {
                assert_eq!((Digest::of(&whole), whole.len() as u64), (content.sha256, content.size));
            }
        }
    }
}

/// Bytes in memory that can be read from anywhere.
struct Jumping<'a>(Cursor<&'a [u8]>);

impl Read for Jumping<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

impl Input for Jumping<'_> {
    fn seek_to(&mut self, offset: u64) -> std::io::Result<()> {
        self.0.set_position(offset);
        Ok(())
    }

    fn random_access(&self) -> bool {
        true
    }
}

/// Both layouts and byte orders, with the checksum as it is and as it should be; and the text formats beside it.
pub fn environment(bytes: &[u8]) {
    for layout in [Layout::Single, Layout::Redundant] {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            drop(Copy::decode(bytes, layout, order));
            let copy = Copy { flags: 1, data: bytes.to_vec() }.encode(layout, order);
            match Copy::decode(&copy, layout, order) {
                Ok(copy) => assert_eq!(copy.data, bytes),
                Err(why) => assert!(bytes.is_empty(), "what is encoded is decoded: {why:?}"),
            }
        }
    }
    let environment = Environment::parse(bytes);
    drop(environment.serialise(bytes.len() + 2, 0));
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(bootenv::Config::parse(text));
    }
}

/// A record as it is, and one whose checksum is right: reading never fails, and what was understood of
/// it can be written and read again. What was not is only kept: numbers beyond 64 bits lose their last digit, as in every JSON library.
pub fn record(bytes: &[u8]) {
    let head = format!("otad-record 1 {:08x}\n", crc32fast::hash(bytes));
    for file in [bytes.to_vec(), [head.as_bytes(), bytes].concat()] {
        let mut storage = Storage::new(Vec::new(), Names::Ordered);
        put_file(&mut storage, "record.json", file);
        let ports = edges::ports(&Rig::new(storage, Vec::new()));
        let loaded = record::load(&*ports.fs).expect("a damaged record is no error");
        record::save(&*ports.fs, &loaded.record).expect("what was read can be written");
        let (again, first) = (record::load(&*ports.fs).unwrap().record, loaded.record);
        assert_eq!(
            (again.floor, again.root_version, again.next_job),
            (first.floor, first.root_version, first.next_job)
        );
        assert_eq!((again.state(), again.slots, again.factory), (first.state(), first.slots, first.factory));
        assert_eq!((again.history, again.failed), (first.history, first.failed));
    }
}

/// An answer of a server, taken for a bundle, for an offer, and for a channel document.
pub fn http_head(bytes: &[u8]) {
    // Nothing here is worth waiting for.
    let limits = Limits { tries: 1, ahead: 0, busy_wait: Duration::ZERO, ..Limits::default() };
    let fetch = HttpFetch::with_limits(Some("http://127.0.0.1/"), "fuzz", limits).unwrap();
    let fetch = fetch.answering(bytes);
    if let Ok(mut input) = fetch.open("http://127.0.0.1/x.otab", &Stop::default()) {
        let mut buffer = [0; 4096];
        for offset in [0, 5, 100_000] {
            if input.seek_to(offset).is_err() || input.read(&mut buffer).is_err() {
                break;
            }
        }
    }
    drop(fetch.channel("acme-gateway"));
}

/// What a fetcher or a decoder that was taken over may say: the first byte chooses what it is taken for. A bundle has no more bytes than it gave.
pub fn roles(bytes: &[u8]) {
    let (kind, says) = bytes.split_first().unwrap_or((&0, &[]));
    match kind % 3 {
        0 => drop(hostile::fetcher_answers(says).expect("there are sockets")),
        1 => {
            let (read, _) = hostile::fetcher_gives(says).expect("there are sockets");
            assert!(read <= says.len() as u64, "{read} bytes of {}", says.len());
        }
        _ => drop(hostile::decoder_answers(says)),
    }
}

/// The arguments of `Install` in a message of either byte order.
pub fn dbus_arguments(bytes: &[u8]) {
    drop(otad::bus::read_arguments(bytes, Endian::Little));
    drop(otad::bus::read_arguments(bytes, Endian::Big));
}

/// A configuration: an error says where.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(failure) = otad::config::parse(text, Path::new("otad.toml"), &|_| true) {
        assert!(failure.message.starts_with("otad.toml:"), "{failure}");
    }
}

/// A genuine bundle with bytes of it changed, installed on a device: the first byte says how it comes (bit 0) and whether it is encrypted
/// (bit 1), each four after it change one byte (offset, 24 bits; what is added to it). It is taken if and only if nothing was changed.
pub fn pipeline(bytes: &[u8]) {
    let (kind, edits) = bytes.split_first().unwrap_or((&0, &[]));
    let genuine = if kind & 2 == 0 { fixture::genuine() } else { encrypted::BUNDLE };
    let mut bundle = genuine.to_vec();
    for edit in edits.chunks_exact(4) {
        let at = u32::from_le_bytes([edit[0], edit[1], edit[2], 0]) as usize % bundle.len();
        bundle[at] = bundle[at].wrapping_add(edit[3]);
    }
    let way = if kind & 1 == 0 { Way::Pipe } else { Way::File };
    let outcome = device::install(&bundle, way);
    assert_eq!(outcome.is_ok(), bundle == genuine, "{outcome:?}");
}
