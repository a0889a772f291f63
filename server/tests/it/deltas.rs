//! Deltas: which are taken, to whom they are offered, and how they go.

use serde_json::{Value, json};

use crate::database::{refuse_rows, take_rows};
use crate::http::{get, send};
use crate::rig::{Options, Server, Spec, delta, noise, sha256, signed_again};

const DELTAS: &str = "/api/v1/deltas";

/// A server with two releases of one image, and what leads from the first to the second.
struct Fixture {
    server: Server,
    /// SHA-256 of the manifests.
    old: String,
    new: String,
    new_bundle: Vec<u8>,
    /// As `otactl bundle delta` makes it.
    delta: Vec<u8>,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Fixture {
        let server = Server::with(change);
        let [old_bundle, new_bundle] =
            [1, 2].map(|sequence| Spec { sequence, seed: Some(7), ..Spec::default() }.bundle());
        let [old, new] = [&old_bundle, &new_bundle].map(|bundle| {
            let answer = server.upload(bundle);
            assert_eq!(answer.status, 201);
            answer.json()["release"].as_str().unwrap().to_owned()
        });
        let delta = delta(&old_bundle, &new_bundle);
        Fixture { server, old, new, new_bundle, delta }
    }

    /// A delta between the two of exactly this size. Only its header makes sense.
    fn of_size(&self, size: usize) -> Vec<u8> {
        between(&self.old, &self.new, size)
    }

    fn offer(&self, running: Option<&str>) -> Value {
        let release = running.map(|release| format!("&release={release}")).unwrap_or_default();
        let target = format!("/device/v1/update?device=d&compatible=acme&sequence=1{release}");
        let answer = get(self.server.address, &target);
        assert_eq!(answer.status, 200);
        answer.json()
    }

    /// SHA-256 of the delta that a device with the old release is offered.
    fn offered(&self) -> Option<String> {
        let offer = self.offer(Some(&self.old));
        let url = offer.get("delta")?["url"].as_str().unwrap();
        Some(url.strip_prefix("/deltas/").unwrap().strip_suffix(".otad-delta").unwrap().to_owned())
    }

    fn delete(&self, target: &str) -> u16 {
        send(self.server.address, "DELETE", &format!("/api/v1/{target}"), &[], b"").status
    }

    fn nothing_is_left(&self, name: &str) {
        assert_eq!(self.server.files("deltas"), [""; 0], "{name}");
        assert_eq!(self.server.files("incoming"), [""; 0], "{name}");
        assert_eq!(get(self.server.address, DELTAS).json()["deltas"], json!([]), "{name}");
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Bytes before the body: header, and one entry with one segment.
const HEAD_BYTES: usize = 96 + 128;

fn between(from: &str, to: &str, size: usize) -> Vec<u8> {
    let mut out = b"otad-delta 1\n\0\0\0".to_vec();
    out.extend((size as u64).to_le_bytes());
    out.extend([1_u32, 128].map(u32::to_le_bytes).concat());
    out.extend([bytes_of(from), bytes_of(to)].concat());
    // One image of 64 MiB, so that a body may be long: role, part, sizes, hashes, one segment.
    out.extend([&b"rootfs"[..], &[0; 26], &[1, 0, 0, 0, 0, 0, 0, 0]].concat());
    out.extend([64_u64 << 20, 64 << 20].map(u64::to_le_bytes).concat());
    out.extend([0x55; 64]);
    out.extend([1, u32::try_from(size - HEAD_BYTES - 1).unwrap()].map(u32::to_le_bytes).concat());
    assert_eq!(out.len(), HEAD_BYTES);
    out.resize(size, 0xaa);
    out
}

#[test]
fn a_delta_is_taken_listed_and_served() {
    let fixture = Fixture::new();
    let (server, delta) = (&fixture.server, &fixture.delta);
    let first = server.upload_delta(delta);
    assert_eq!(first.status, 201);
    let body = first.json();
    let digest = sha256(delta);
    let url = format!("/deltas/{digest}.otad-delta");
    let uploaded_at = body["uploaded_at"].clone();
    assert!(uploaded_at.as_i64().unwrap() > 1_700_000_000);
    assert_eq!(
        body,
        json!({
            "sha256": digest, "from": fixture.old, "to": fixture.new, "size": delta.len(),
            "uploaded_at": uploaded_at, "withdrawn_at": null, "url": url,
        })
    );
    let again = server.upload_delta(delta);
    assert_eq!((again.status, again.body), (200, first.body));
    assert_eq!(get(server.address, DELTAS).json(), json!({ "deltas": [body], "next": null }));
    assert_eq!(server.files("deltas"), [format!("{digest}.otad-delta")]);
    assert_eq!(server.files("incoming"), [""; 0]);
    assert!(get(server.address, &url).body == *delta);
    assert_eq!(get(server.address, &format!("/artifacts/{digest}.otab")).status, 404, "the two do not mix");

    // A release that this server never had may be what devices run.
    let from_elsewhere = between(&"5".repeat(64), &fixture.new, 1000);
    assert_eq!(server.upload_delta(&from_elsewhere).status, 201);
    let page = get(server.address, &format!("{DELTAS}?limit=1")).json();
    assert_eq!(page["deltas"][0]["sha256"], sha256(&from_elsewhere), "newest first");
    let page = get(server.address, &format!("{DELTAS}?limit=1&after={}", page["next"].as_str().unwrap()));
    assert_eq!(page.json()["deltas"][0]["sha256"], digest);
    assert_eq!(get(server.address, &format!("{DELTAS}?after=x")).code(), "INVALID_NAME");
}

/// Whatever is wrong with a delta: its status, its code, and nothing of it stays.
#[test]
fn bad_deltas_are_refused_and_leave_nothing() {
    let fixture = Fixture::new();
    let good = &fixture.delta;
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    let longer = |by: u64| (good.len() as u64 + by).to_le_bytes();
    for (name, delta, status, code) in [
        ("nothing", Vec::new(), 422, "NOT_A_BUNDLE"),
        ("noise", noise(10_000, 3), 422, "NOT_A_BUNDLE"),
        ("a bundle", fixture.new_bundle.clone(), 422, "NOT_A_BUNDLE"),
        ("another format", with(11, b"2"), 422, "NOT_A_BUNDLE"),
        ("only its magic", good[..16].to_vec(), 422, "BUNDLE_TRUNCATED"),
        ("half a directory", good[..100].to_vec(), 422, "BUNDLE_TRUNCATED"),
        ("without its last byte", good[..good.len() - 1].to_vec(), 422, "BUNDLE_TRUNCATED"),
        ("one byte more", [good, &b"\0"[..]].concat(), 422, "BUNDLE_FORMAT"),
        ("a length that is not the sum", with(16, &longer(1)), 422, "BUNDLE_FORMAT"),
        ("both one byte longer", [&with(16, &longer(1)), &b"\0"[..]].concat(), 422, "BUNDLE_FORMAT"),
        ("no section", with(24, &[0]), 422, "BUNDLE_FORMAT"),
        ("a directory without end", with(28, &[0xff; 4]), 422, "BUNDLE_FORMAT"),
        ("an unknown part", with(96 + 32, &[2]), 422, "BUNDLE_FORMAT"),
        ("to a release that is not here", with(64, &[0; 32]), 409, "RELEASE_UNKNOWN"),
    ] {
        let answer = fixture.server.upload_delta(&delta);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{name}");
        fixture.nothing_is_left(name);
    }
    let answer = fixture.server.upload(good);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (422, "NOT_A_BUNDLE"),
        "no way around the trust root"
    );
    let encoded = send(fixture.server.address, "POST", DELTAS, &[("Content-Encoding", "zstd")], good);
    assert_eq!((encoded.status, encoded.code().as_str()), (415, "INVALID_REQUEST"));
    assert_eq!(fixture.server.upload_delta(good).status, 201, "the good one is still taken");
}

#[test]
fn the_bounds_of_uploads_hold_for_deltas() {
    let fixture = Fixture::with(|options| options.limits.max_artifact_bytes = 200_000);
    assert_eq!(fixture.server.upload_delta(&fixture.of_size(200_000)).status, 201);
    let answer = fixture.server.upload_delta(&fixture.of_size(200_001));
    assert_eq!((answer.status, answer.code().as_str()), (413, "SIZE_EXCEEDED"));

    let server = Server::with(|options| options.limits.keep_free_bytes = u64::MAX);
    let answer = server.upload_delta(&fixture.delta);
    assert_eq!((answer.status, answer.code().as_str()), (507, "QUOTA"));
    assert_eq!((server.files("deltas").len(), server.files("incoming").len()), (0, 0));
}

/// The keys of an offer are the contract with devices in the field: those that do not ask see no new one.
#[test]
fn an_offer_with_and_without_a_delta() {
    let fixture = Fixture::new();
    let plain = fixture.offer(None);
    assert_eq!(fixture.offer(Some(&fixture.old)), plain, "no delta yet");
    assert_eq!(fixture.server.upload_delta(&fixture.delta).status, 201);
    let mut expected = plain.clone();
    let url = format!("/deltas/{}.otad-delta", sha256(&fixture.delta));
    expected["delta"] = json!({ "url": url, "size": fixture.delta.len(), "from": fixture.old });
    assert_eq!(fixture.offer(Some(&fixture.old)), expected);
    for running in [None, Some(""), Some(&*fixture.new), Some(&*"5".repeat(64))] {
        assert_eq!(fixture.offer(running), plain, "{running:?}");
    }
    for release in
        ["x", &fixture.old[1..], &fixture.old.to_uppercase(), &format!("{}0", fixture.old), "..%2f"]
    {
        let target = format!("/device/v1/update?device=d&compatible=acme&release={release}");
        let answer = get(fixture.server.address, &target);
        assert_eq!((answer.status, answer.code().as_str()), (400, "INVALID_REQUEST"), "{release}");
    }
    let up_to_date = format!("/device/v1/update?device=d&compatible=acme&sequence=2&release={}", fixture.old);
    assert_eq!(get(fixture.server.address, &up_to_date).status, 204, "a delta alone is no offer");
}

#[test]
fn the_smallest_that_saves_something_is_offered() {
    let fixture = Fixture::new();
    let bundle = fixture.new_bundle.len();
    for (size, expected) in [
        (bundle + 1, None),
        (bundle, None),
        (bundle - 1, Some(bundle - 1)),
        (50_000, Some(50_000)),
        (60_000, Some(50_000)),
        (1000, Some(1000)),
    ] {
        assert_eq!(fixture.server.upload_delta(&fixture.of_size(size)).status, 201, "{size}");
        let offered = fixture.offer(Some(&fixture.old))["delta"]["size"].as_u64();
        assert_eq!(offered, expected.map(|size| size as u64), "after {size}");
    }
}

#[test]
fn a_withdrawn_delta_is_offered_to_nobody() {
    let fixture = Fixture::new();
    let [small, large] = [1000, 2000].map(|size| fixture.of_size(size));
    for delta in [&small, &large] {
        fixture.server.upload_delta(delta);
    }
    assert_eq!(fixture.offered(), Some(sha256(&small)));
    let target = format!("deltas/{}", sha256(&small));
    for _ in 0..2 {
        assert_eq!(fixture.delete(&target), 204, "again is fine");
    }
    assert_eq!(fixture.offered(), Some(sha256(&large)));
    let gone = get(fixture.server.address, &format!("/{target}.otad-delta"));
    assert_eq!((gone.status, gone.code().as_str()), (410, "WITHDRAWN"));
    assert_eq!(fixture.server.files("deltas"), [format!("{}.otad-delta", sha256(&large))]);
    assert_eq!(fixture.server.upload_delta(&small).status, 201, "the way back");
    assert_eq!(fixture.offered(), Some(sha256(&small)));
    for size in 300..320 {
        let smaller = fixture.of_size(size);
        assert_eq!(fixture.server.upload_delta(&smaller).status, 201);
        assert_eq!(fixture.delete(&format!("deltas/{}", sha256(&smaller))), 204);
    }
    assert_eq!(fixture.offered(), Some(sha256(&small)), "however many smaller ones were withdrawn");
    assert_eq!(fixture.delete(&format!("deltas/{}", "0".repeat(64))), 404);
    assert_eq!(fixture.delete("deltas/..%2fx"), 400);
    assert_eq!(fixture.delete(&format!("artifacts/{}", sha256(&small))), 404, "by its own path only");
}

/// Devices that run a release that was withdrawn are those that need the next one most.
#[test]
fn a_withdrawn_release_takes_the_deltas_to_it_along_and_no_others() {
    let fixture = Fixture::new();
    let server = &fixture.server;
    let newest = Spec { sequence: 3, seed: Some(7), ..Spec::default() }.bundle();
    let newest = server.upload(&newest).json()["release"].as_str().unwrap().to_owned();
    let onward = between(&fixture.new, &newest, 1000);
    for delta in [&fixture.delta, &onward] {
        assert_eq!(server.upload_delta(delta).status, 201);
    }
    assert_eq!(fixture.delete(&format!("artifacts/{}", sha256(&fixture.new_bundle))), 204);
    assert_eq!(fixture.offer(Some(&fixture.new))["delta"]["size"], 1000, "from it: still offered");
    let gone = get(server.address, &format!("/deltas/{}.otad-delta", sha256(&fixture.delta)));
    assert_eq!((gone.status, gone.code().as_str()), (410, "WITHDRAWN"));
    assert_eq!(server.files("deltas"), [format!("{}.otad-delta", sha256(&onward))]);
    let refused = server.upload_delta(&fixture.delta);
    assert_eq!((refused.status, refused.code().as_str()), (409, "RELEASE_UNKNOWN"));
    assert_eq!(server.upload(&fixture.new_bundle).status, 201);
    assert_eq!(server.upload_delta(&fixture.delta).status, 201, "in the order of the first time");
}

#[test]
fn a_release_in_two_files_keeps_its_deltas_until_both_are_gone() {
    let fixture = Fixture::new();
    let twin = signed_again(&fixture.new_bundle);
    let uploaded = fixture.server.upload(&twin);
    assert_eq!((uploaded.status, &uploaded.json()["release"]), (201, &json!(fixture.new)));
    fixture.server.upload_delta(&fixture.delta);
    let digest = sha256(&fixture.delta);
    assert_eq!(fixture.delete(&format!("artifacts/{}", sha256(&twin))), 204);
    assert_eq!(fixture.offered(), Some(digest.clone()));
    assert!(get(fixture.server.address, &format!("/deltas/{digest}.otad-delta")).body == fixture.delta);
    assert_eq!(fixture.delete(&format!("artifacts/{}", sha256(&fixture.new_bundle))), 204);
    assert_eq!(fixture.server.files("deltas"), [""; 0]);
}

/// W6: a row that cannot be written leaves no file behind, whatever it was to be.
#[test]
fn w6_a_failed_row_leaves_no_file() {
    let fixture = Fixture::new();
    let server = &fixture.server;
    let before = server.files("artifacts").len();
    refuse_rows(server.data(), "artifacts");
    refuse_rows(server.data(), "deltas");
    let bundle = Spec { sequence: 9, ..Spec::default() }.bundle();
    for answer in [server.upload(&bundle), server.upload_delta(&fixture.delta)] {
        assert_eq!((answer.status, answer.code().as_str()), (503, "DATABASE"));
    }
    assert_eq!(server.files("artifacts").len(), before);
    fixture.nothing_is_left("a failed row");

    take_rows(server.data(), "artifacts");
    take_rows(server.data(), "deltas");
    assert_eq!(server.upload(&bundle).status, 201);
    assert_eq!(server.upload_delta(&fixture.delta).status, 201);
    // What is on offer already does not suffer when it is sent again at such a time.
    refuse_rows(server.data(), "deltas");
    assert_eq!(server.upload_delta(&fixture.delta).status, 503);
    assert!(
        get(server.address, &format!("/deltas/{}.otad-delta", sha256(&fixture.delta))).body == fixture.delta
    );
}

/// W5: deltas too are addressed by all 256 bits and by nothing else.
#[test]
fn w5_delta_names_are_whole_digests() {
    let fixture = Fixture::new();
    fixture.server.upload_delta(&fixture.delta);
    let hex = sha256(&fixture.delta);
    for name in [
        hex.clone(),
        format!("{hex}.otab"),
        format!("{}.otad-delta", &hex[..63]),
        format!("{}.otad-delta", hex.to_uppercase()),
        format!("..%2fdeltas%2f{hex}.otad-delta"),
        "%ff.otad-delta".into(),
    ] {
        let answer = get(fixture.server.address, &format!("/deltas/{name}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "INVALID_NAME"), "{name}");
    }
}
