//! Encrypted bundles: who can read them, and what any change to them does.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use otad_bundle::delta::{Announced, Delta, make_delta, make_delta_with_key};
use otad_bundle::{
    Binding, Bundle, Chunking, Compression, ContentKey, DeviceKey, Digest, Error, FileInput, IndexReader,
    KeyId, Recipe, Recipient, RecipientKey, Signer as _, Source, StreamInput, WrapAlgorithm, Wrapped,
    X25519Key, build_for, extract, verify,
};

use crate::support::{self, Memory, Rng, kernel, key, members, root, rootfs, signed};

fn device(seed: u8) -> X25519Key {
    X25519Key::from_bytes([seed; 32]).unwrap()
}

fn built(recipe: &Recipe, devices: &[u8], directory: &Path) -> Vec<u8> {
    let output = directory.join("sealed.otab");
    let keys: Vec<RecipientKey> = devices.iter().map(|&seed| device(seed).public()).collect();
    let recipients: Vec<&dyn Recipient> = keys.iter().map(|key| key as &dyn Recipient).collect();
    build_for(recipe, &recipients, &[&key(1)], &output, &mut |_| ()).unwrap();
    std::fs::read(output).unwrap()
}

/// Version 1 for devices 1 and 2.
fn sample() -> &'static [u8] {
    static SAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        built(&support::recipe(directory.path(), 1), &[1, 2], directory.path())
    })
}

fn open(bytes: &[u8]) -> Result<Bundle<StreamInput<&[u8]>>, Error> {
    Bundle::open(StreamInput::new(bytes), &root())
}

fn check(bytes: &[u8], key: Option<&dyn DeviceKey>) -> Result<(), Error> {
    let mut bundle = open(bytes)?;
    if let Some(key) = key {
        bundle.unlock(key)?;
    }
    verify(&mut bundle, &mut |_| ())
}

fn images(bytes: &[u8], key: &dyn DeviceKey) -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let mut bundle = open(bytes).unwrap();
    bundle.unlock(key).unwrap();
    let files = extract(&mut bundle, directory.path(), &[], &mut |_| ()).unwrap();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
fn each_recipient_reads_it_and_nobody_else() {
    for seed in [1, 2] {
        check(sample(), Some(&device(seed))).unwrap();
        assert_eq!(images(sample(), &device(seed)), [rootfs(1), kernel(1)]);
    }
    let error = check(sample(), Some(&device(3))).unwrap_err();
    assert_eq!(error.code(), "DECRYPT_NO_KEY");
    assert!(error.to_string().contains("recipients: 2"), "{error}");
    let mut locked = open(sample()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for error in [
        locked.read_index(0, &mut std::io::sink()).unwrap_err(),
        extract(&mut locked, directory.path(), &[], &mut |_| ()).unwrap_err(),
    ] {
        assert_eq!(error.code(), "DECRYPT_NO_KEY");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn nothing_of_the_images_shows() {
    let bytes = sample();
    let plain = [rootfs(1), kernel(1)];
    for image in &plain {
        let hash = Digest::of(image);
        let shows = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(!shows(hash.to_string().as_bytes()), "the hash of an image is in the manifest");
        assert!(image.chunks(32).filter(|part| part.iter().any(|&byte| byte != 0)).all(|part| !shows(part)));
    }
    // Nor the hash of any chunk, nor that of an index in the clear.
    let mut bundle = open(bytes).unwrap();
    bundle.unlock(&device(1)).unwrap();
    let mut index = Vec::new();
    bundle.read_index(0, &mut index).unwrap();
    let image = bundle.manifest().images[0].clone();
    assert_eq!((image.index.sha256, image.index.size), (Digest::of(&index), index.len() as u64));
    for chunk in IndexReader::new(index.as_slice(), &image) {
        let sha256 = chunk.unwrap().sha256.0;
        assert!(!bytes.windows(32).any(|window| window == sha256));
    }
    assert!(!bytes.windows(64).any(|window| window == image.index.sha256.to_string().as_bytes()));
    // The same twice is not the same bytes: the content key is new.
    let directory = tempfile::tempdir().unwrap();
    let again = built(&support::recipe(directory.path(), 1), &[1, 2], directory.path());
    assert_eq!(again.len(), bytes.len());
    let (old, new) = (members(bytes), members(&again));
    assert!(old.iter().zip(&new).skip(3).all(|(old, new)| old.content != new.content));
}

/// B1 to B8 for encrypted bundles: no bit of the file can be another, with a key or without.
#[test]
fn no_bit_can_be_changed() {
    let bytes = sample();
    // The whole front, and every third bit behind it: with a key each try decrypts.
    let step = 17;
    for bit in (0..bytes.len() * 8).step_by(step) {
        let mut wrong = bytes.to_vec();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&wrong, None).is_err(), "bit {bit} is not covered without a key");
        assert!(check(&wrong, Some(&device(1))).is_err(), "bit {bit} is not covered");
    }
    for length in (0..bytes.len()).step_by(211) {
        assert!(check(&bytes[..length], None).is_err() && check(&bytes[..length], Some(&device(2))).is_err());
    }
    assert!(check(&[bytes, &[0]].concat(), None).is_err());
}

/// What the signer's own tools could get wrong: signed, with the right hashes, and still not what it says.
#[test]
fn what_is_encrypted_is_bound_to_its_place() {
    let parts = members(sample());
    let manifest = String::from_utf8(parts[1].content.clone()).unwrap();
    let rest = &parts[3..];
    check(&signed(manifest.as_bytes(), rest), Some(&device(1))).unwrap();
    for (from, to) in [("sequence = 1\n", "sequence = 2\n"), ("version = \"1.0.0\"", "version = \"1.0.1\"")] {
        let other = manifest.replace(from, to);
        assert_ne!(manifest, other);
        let error = check(&signed(other.as_bytes(), rest), Some(&device(1))).unwrap_err();
        assert_eq!(error.code(), "DECRYPT_FAILED", "{error}");
        // Nobody who has no key can see that.
        check(&signed(other.as_bytes(), rest), None).unwrap();
    }
    // Two chunks of the same length in each other's place, in the index too.
    let (mut index, mut payload) = (Vec::new(), parts[4].content.clone());
    let mut bundle = open(sample()).unwrap();
    bundle.unlock(&device(1)).unwrap();
    bundle.read_index(0, &mut index).unwrap();
    let seal = bundle.seal(0).unwrap();
    let image = bundle.manifest().images[0].clone();
    let mut at = 0;
    let mut placed = Vec::new();
    for (number, chunk) in (0u64..).zip(IndexReader::new(index.as_slice(), &image)) {
        let chunk = chunk.unwrap();
        let end = at + chunk.stored_len as usize;
        placed.push((number, chunk, at..end));
        at = end;
    }
    let mut decoder = otad_bundle::Decoder::new().unwrap();
    let stored: Vec<_> = placed.iter().filter(|(_, chunk, _)| chunk.stored_len > 0).collect();
    let (number, chunk, range) = stored[0];
    let mut plain = vec![0; chunk.plain_len as usize];
    let mut decode = |number: u64| {
        decoder.decode_sealed_into(chunk, (&seal, number), &mut payload[range.clone()].to_vec(), &mut plain)
    };
    decode(*number).unwrap();
    assert_eq!(decode(stored[1].0).unwrap_err().code(), "DECRYPT_FAILED");
    // Before anything is decrypted the stored bytes are compared.
    payload[range.start] ^= 1;
    let error = decoder
        .decode_sealed_into(chunk, (&seal, *number), &mut payload[range.clone()], &mut plain)
        .unwrap_err();
    assert_eq!(error.code(), "HASH_MISMATCH");
    assert!(matches!(error, Error::StoredMismatch { .. }), "{error}");
}

#[test]
fn the_manifest_says_all_or_nothing() {
    let parts = members(sample());
    let manifest = String::from_utf8(parts[1].content.clone()).unwrap();
    let wrapped = manifest.split("[[encryption.recipient]]").nth(1).unwrap().split("\n\n").next().unwrap();
    for (from, to) in [
        ("critical = [\"encryption\"]\n", String::new()),
        ("cipher = \"aes-256-gcm\"", "cipher = \"none\"".into()),
        ("algorithm = \"hpke-x25519\"", "algorithm = \"rot13\"".into()),
        ("algorithm = \"hpke-x25519\"", "algorithm = \"rsa-oaep-sha256\"".into()),
        ("payload-sha256 = ", "payload-md5 = ".into()),
        ("hashes = \"", "hashes = \"AAAA".into()),
        ("\n[[image]]", format!("\n[[encryption.recipient]]{wrapped}\n\n[[image]]")),
    ] {
        assert!(manifest.contains(from), "{from}");
        let other = manifest.replacen(from, &to, 1);
        let error = check(&signed(other.as_bytes(), &parts[3..]), Some(&device(1))).unwrap_err();
        assert_eq!(error.code(), "MANIFEST_INVALID", "{from}: {error}");
    }
    let plain = String::from_utf8(members(support::sample())[1].content.clone()).unwrap();
    let named = plain.replacen("[update]\n", "[update]\ncritical = [\"encryption\"]\n", 1);
    let error = check(&signed(named.as_bytes(), &members(support::sample())[3..]), None).unwrap_err();
    assert_eq!(error.code(), "MANIFEST_INVALID", "{error}");
}

/// Content-defined chunks, every compression, several frames of the index, and input that goes back.
#[test]
fn all_kinds_of_chunks_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = Rng(7).bytes(300_000);
    image.extend(vec![0; 70_000]);
    image.extend("all work and no play makes jack a dull boy\n".repeat(200_000).bytes());
    let path = directory.path().join("big");
    std::fs::write(&path, &image).unwrap();
    let source = Source { role: "rootfs".into(), path };
    let fixed = Chunking::Fixed { size: 4096 };
    for (compression, chunking) in [
        (Compression::DEFAULT, Chunking::FastCdc { min: 2048, average: 4096, max: 8192 }),
        (Compression::Gzip { level: 6 }, fixed),
        (Compression::None, fixed),
    ] {
        let mut recipe = Recipe::new(support::update("3.0.0", 3), vec![source.clone()]);
        recipe.chunking = chunking;
        recipe.compression = compression;
        let bytes = built(&recipe, &[1], directory.path());
        check(&bytes, None).unwrap();
        assert!(images(&bytes, &device(1)) == [image.clone()], "{compression:?}");
        let mut bundle = Bundle::open(Memory::new(&bytes), &root()).unwrap();
        bundle.unlock(&device(1)).unwrap();
        let mut index = Vec::new();
        bundle.read_index(0, &mut index).unwrap();
        assert!(chunking != fixed || index.len() > 2 * 1024 * 60, "fewer than three frames");
        verify(&mut bundle, &mut |_| ()).unwrap();
    }
}

/// A bundle for everybody is what it always was, byte for byte.
#[test]
fn the_plain_path_knows_nothing_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = support::recipe(directory.path(), 1);
    let output = directory.path().join("plain.otab");
    build_for(&recipe, &[], &[&key(1)], &output, &mut |_| ()).unwrap();
    assert_eq!(std::fs::read(&output).unwrap(), support::sample());
    let mut bundle = open(support::sample()).unwrap();
    bundle.unlock(&device(1)).unwrap();
    assert!(!bundle.is_locked() && bundle.seal(0).is_none());
    let text = String::from_utf8(members(support::sample())[1].content.clone()).unwrap();
    assert!(!text.contains("encryption") && !text.contains("hashes"));
}

fn openssl(arguments: &[&str], directory: &Path) {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An RSA key as a token would have it: openssl wraps and unwraps.
struct Token<'a> {
    directory: &'a Path,
    public: RecipientKey,
}

impl Token<'_> {
    fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let (from, to) = (self.directory.join("in"), self.directory.join("out"));
        std::fs::write(&from, input).unwrap();
        let oaep = [
            "-pkeyopt",
            "rsa_padding_mode:oaep",
            "-pkeyopt",
            "rsa_oaep_md:sha256",
            "-in",
            "in",
            "-out",
            "out",
        ];
        openssl(&[&["pkeyutl"], arguments, &oaep].concat(), self.directory);
        std::fs::read(to).unwrap()
    }
}

impl Recipient for Token<'_> {
    fn wrap(&self, content: &ContentKey, _: &Binding) -> Result<Wrapped, Error> {
        let bytes = self.run(&["-encrypt", "-pubin", "-inkey", "rsa.pub"], content.as_bytes());
        Ok(Wrapped { key: self.public.id(), algorithm: WrapAlgorithm::RsaOaepSha256, bytes })
    }
}

impl DeviceKey for Token<'_> {
    fn id(&self) -> KeyId {
        self.public.id()
    }

    fn unwrap(&self, wrapped: &Wrapped, _: &Binding) -> Result<ContentKey, Error> {
        let plain = self.run(&["-decrypt", "-inkey", "rsa.key"], &wrapped.bytes);
        Ok(ContentKey::new(plain.try_into().unwrap()))
    }
}

/// Keys by openssl, and RSA beside X25519 in one bundle.
#[test]
fn openssl_makes_keys_and_wraps_by_rsa() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    openssl(&["genpkey", "-algorithm", "x25519", "-out", "x.key"], path);
    openssl(&["pkey", "-in", "x.key", "-pubout", "-out", "x.pub"], path);
    let x = X25519Key::read(&path.join("x.key")).unwrap();
    assert_eq!(RecipientKey::read(&path.join("x.pub")).unwrap(), x.public());
    for bits in ["2048", "3072"] {
        let bits = format!("rsa_keygen_bits:{bits}");
        openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", &bits, "-out", "rsa.key"], path);
        openssl(&["pkey", "-in", "rsa.key", "-pubout", "-out", "rsa.pub"], path);
        if bits.ends_with("2048") {
            let error = RecipientKey::read(&path.join("rsa.pub")).unwrap_err();
            assert!(error.to_string().contains("2048 bits"), "{error}");
        }
    }
    let token = Token { directory: path, public: RecipientKey::read(&path.join("rsa.pub")).unwrap() };
    let output = path.join("both.otab");
    let recipe = support::recipe(path, 1);
    build_for(&recipe, &[&token, &x.public()], &[&key(1)], &output, &mut |_| ()).unwrap();
    let bytes = std::fs::read(&output).unwrap();
    check(&bytes, Some(&token)).unwrap();
    check(&bytes, Some(&x)).unwrap();
    // What we write, openssl reads.
    let made = X25519Key::generate().unwrap();
    let public = made.write_new(&path.join("made.key")).unwrap();
    openssl(&["pkey", "-in", "made.key", "-pubout", "-out", "again.pub"], path);
    assert_eq!(std::fs::read(public).unwrap(), std::fs::read(path.join("again.pub")).unwrap());
    assert_eq!(X25519Key::read(&path.join("made.key")).unwrap().public(), made.public());
    std::fs::write(path.join("x.txt"), "-----BEGIN PUBLIC KEY-----\nAA").unwrap();
    for (file, problem) in [("made.key", "private key"), ("rootfs", "UTF-8"), ("x.txt", "not a public key")] {
        let error = RecipientKey::read(&path.join(file)).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
    let signing = key(1).public_key().to_pem();
    assert!(RecipientKey::from_pem(&signing).unwrap_err().to_string().contains("a key that signs"));
}

/// A delta to an encrypted bundle is encrypted too, and one from an encrypted bundle never tells what that holds.
#[test]
fn deltas_are_encrypted_under_the_new_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (mut old, mut new) = (Rng(1).bytes(400_000), Rng(1).bytes(400_000));
    new[200_000..200_100].fill(7);
    new.extend(Rng(2).bytes(150_000));
    old.extend(vec![0; 4096]);
    for (number, image) in [(1, &old), (2, &new)] {
        std::fs::write(path("rootfs"), image).unwrap();
        let source = Source { role: "rootfs".into(), path: path("rootfs") };
        let recipe = Recipe::new(support::update(&format!("{number}.0.0"), number), vec![source]);
        std::fs::write(path(&format!("{number}.otab")), built(&recipe, &[1, 2], directory.path())).unwrap();
        let plain = path(&format!("{number}.plain.otab"));
        build_for(&recipe, &[], &[&key(1)], &plain, &mut |_| ()).unwrap();
    }
    let (from, to, out) = (path("1.otab"), path("2.otab"), path("delta"));
    let error = make_delta(&from, &to, &out, None, &mut |_| ()).unwrap_err();
    assert_eq!(error.code(), "DECRYPT_NO_KEY");
    let made = make_delta_with_key(&from, &to, &out, None, Some(&device(1)), &mut |_| ()).unwrap();
    let error = make_delta_with_key(&from, &path("2.plain.otab"), &out, None, Some(&device(1)), &mut |_| ());
    assert_eq!(error.unwrap_err().code(), "INVALID_OPTION");
    let bytes = std::fs::read(&out).unwrap();
    let announced = Announced::read(Memory::new(&bytes)).unwrap();
    assert_eq!((announced.total_size, announced.encrypted), (bytes.len() as u64, true));
    assert_eq!(announced.new_release, made.header.new_release);
    assert_eq!(made.size, bytes.len() as u64);
    let unchanged = &new[420_000..420_032];
    assert!(!bytes.windows(32).any(|window| window == unchanged));

    let mut bundle = Bundle::open(FileInput::open(&to).unwrap(), &root()).unwrap();
    assert!(bundle.delta_input(Memory::new(&bytes)).is_err());
    bundle.unlock(&device(2)).unwrap();
    let made_of = |bytes: &[u8]| {
        let mut delta = Delta::open(bundle.delta_input(StreamInput::new(bytes))?)?;
        let number = delta.header().sections.len() - 1;
        let mut image = Vec::new();
        delta.write_all(number, &mut old.as_slice(), &mut image).map(|()| image)
    };
    assert!(made_of(&bytes).unwrap() == new);
    assert!(Delta::open(Memory::new(&bytes)).is_err());
    for at in (0..bytes.len()).step_by(97) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x40;
        assert!(made_of(&wrong).is_err(), "byte {at}");
        assert!(made_of(&bytes[..at]).is_err(), "cut at {at}");
    }
    // A plain delta is no delta to an encrypted bundle.
    make_delta(&path("1.plain.otab"), &path("2.plain.otab"), &out, None, &mut |_| ()).unwrap();
    assert!(made_of(&std::fs::read(&out).unwrap()).is_err());
    assert!(!Announced::read(FileInput::open(&out).unwrap()).unwrap().encrypted);
}
