//! Update checks and reports.

use serde_json::{Value, json};

use crate::http::{get, post_json, send};
use crate::rig::{Server, Spec};

const REPORT: &str = "/device/v1/reports";

fn check(server: &Server, device: &str, compatible: &str, sequence: u64) -> (u16, Option<Value>) {
    let target = format!(
        "/device/v1/update?device={device}&compatible={compatible}&version=1.0.0&sequence={sequence}"
    );
    let answer = get(server.address, &target);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let offer = (answer.status == 200).then(|| answer.json());
    if answer.status == 204 {
        assert!(answer.body.is_empty());
    }
    (answer.status, offer)
}

pub(crate) fn report(device: &str, id: &str) -> Value {
    json!({
        "device": device, "compatible": "acme", "report_id": id, "release": "ab".repeat(32), "version": "2.0.0",
        "from_version": "1.0.0", "slot": "b", "outcome": "rolled-back", "phase": "trial", "code": "HEALTH_TIMEOUT",
        "message": "health checks did not hold", "boot_id": "5f0c5d2e-0000-4000-8000-000000000000",
        "started_at": 1_790_000_000_u64, "duration_ms": 12_345, "bytes_fetched": 678, "log": ["first", "last"],
    })
}

/// Names of devices and reports may hold hyphens; no two of them come to the same record.
#[test]
fn no_report_is_taken_for_that_of_another_device() {
    let server = Server::start();
    for (device, id) in [("gw-7", "abc"), ("7", "abc-gw"), ("gw-7", "abc")] {
        assert_eq!(post_json(server.address, REPORT, &report(device, id)).status, 204);
    }
    let records = get(server.address, "/api/v1/records").json();
    let mut devices: Vec<_> =
        records["records"].as_array().unwrap().iter().map(|row| row["device_id"].as_str().unwrap()).collect();
    devices.sort_unstable();
    assert_eq!(devices, ["7", "gw-7"]);
}

#[test]
fn a_device_gets_the_highest_sequence_above_its_own() {
    let server = Server::start();
    for (compatible, sequence) in [("acme", 2), ("acme", 4), ("acme", 3), ("other", 9)] {
        let spec = Spec { compatible: &[compatible], sequence, ..Spec::default() };
        assert_eq!(server.upload(&spec.bundle()).status, 201);
    }
    for (compatible, sequence, expected) in [
        ("acme", 0, Some(4)),
        ("acme", 3, Some(4)),
        ("acme", 4, None),
        ("acme", 5, None),
        ("acme", u64::MAX, None),
        ("other", 4, Some(9)),
        ("third", 0, None),
        ("ACME", 0, None),
    ] {
        let (status, offer) = check(&server, "gw-1", compatible, sequence);
        assert_eq!(status, if expected.is_some() { 200 } else { 204 }, "{compatible} {sequence}");
        assert_eq!(offer.map(|offer| offer["sequence"].as_u64().unwrap()), expected);
    }
}

/// The keys of an offer are the contract with devices in the field.
#[test]
fn an_offer_names_the_artifact_completely() {
    let server = Server::start();
    let spec = Spec { sequence: 7, version: "2.1.0-rc.1+build.5", ..Spec::default() };
    let bundle = spec.bundle();
    let uploaded = server.upload(&bundle).json();
    let (_, offer) = check(&server, "gw-1", "acme", 0);
    let sha256 = crate::rig::sha256(&bundle);
    assert_eq!(
        offer.unwrap(),
        json!({
            "version": "2.1.0-rc.1+build.5", "sequence": 7, "release": uploaded["release"], "sha256": sha256,
            "size": bundle.len(), "url": format!("/artifacts/{sha256}.otab"), "description": "a test",
        })
    );
}

#[test]
fn version_and_sequence_may_be_unknown() {
    let server = Server::start();
    server.upload(&Spec::default().bundle());
    for query in [
        "device=d&compatible=acme",
        "device=d&compatible=acme&version=&sequence=0",
        "device=d&compatible=acme&future=1",
    ] {
        assert_eq!(get(server.address, &format!("/device/v1/update?{query}")).status, 200, "{query}");
    }
}

#[test]
fn bad_queries_are_refused_with_the_reason() {
    let server = Server::start();
    for (query, code) in [
        ("", "INVALID_REQUEST"),
        ("device=d", "INVALID_REQUEST"),
        ("device=d&compatible=m&sequence=-1", "INVALID_REQUEST"),
        ("device=d&compatible=m&sequence=1e3", "INVALID_REQUEST"),
        ("device=d&compatible=m&sequence=18446744073709551616", "INVALID_REQUEST"),
        ("device=d&device=e&compatible=m", "INVALID_REQUEST"),
        ("device=&compatible=m", "INVALID_NAME"),
        ("device=d&compatible=", "INVALID_NAME"),
        ("device=d&compatible=m&version=1.0.0+build", "INVALID_NAME"),
        ("device=%ff%fe&compatible=m", "INVALID_NAME"),
    ] {
        let answer = get(server.address, &format!("/device/v1/update?{query}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{query}");
    }
}

#[test]
fn the_fleet_shows_who_was_here() {
    let server = Server::start();
    let agent = "otad/0.1.0 (acme; 1.0.0)";
    let target = "/device/v1/update?device=gw-1&compatible=acme&version=1.0.0&sequence=3";
    assert_eq!(send(server.address, "GET", target, &[("User-Agent", agent)], b"").status, 204);
    let long = "x".repeat(5000) + "\u{1f}";
    let target = "/device/v1/update?device=gw-2&compatible=acme";
    assert_eq!(
        send(server.address, "GET", target, &[("User-Agent", &long.replace('\u{1f}', "\t"))], b"").status,
        204
    );

    let fleet = get(server.address, "/api/v1/devices").json();
    let devices = fleet["devices"].as_array().unwrap();
    assert_eq!((devices.len(), &fleet["next"]), (2, &Value::Null));
    assert_eq!(devices[0]["device"], "gw-1");
    assert_eq!((&devices[0]["version"], &devices[0]["sequence"]), (&json!("1.0.0"), &json!(3)));
    assert_eq!(devices[0]["user_agent"], agent);
    assert_eq!(devices[0]["last_report"], Value::Null);
    assert!(devices[0]["last_seen"].as_i64().unwrap() > 1_700_000_000);
    assert_eq!(
        (&devices[1]["version"], devices[1]["user_agent"].as_str().unwrap().len()),
        (&Value::Null, 512)
    );
    // The running version changes at once, whatever the interval of unchanged sightings.
    check(&server, "gw-1", "acme", 4);
    assert_eq!(get(server.address, "/api/v1/devices").json()["devices"][0]["sequence"], 4);
}

#[test]
fn a_report_is_stored_once_whatever_is_sent_again() {
    let server = Server::start();
    assert_eq!(post_json(server.address, REPORT, &report("gw-1", "r1")).status, 204);
    let mut again = report("gw-1", "r1");
    again["message"] = "another story".into();
    assert_eq!(post_json(server.address, REPORT, &again).status, 204);
    assert_eq!(post_json(server.address, REPORT, &report("gw-2", "r1")).status, 204);

    let stored = get(server.address, "/api/v1/reports?device=gw-1").json();
    let stored = stored["reports"].as_array().unwrap();
    assert_eq!(stored.len(), 1);
    let mut expected = report("gw-1", "r1");
    expected["received_at"] = stored[0]["received_at"].clone();
    assert_eq!(stored[0], expected, "every field comes back as it was sent");
    let fleet = get(server.address, "/api/v1/devices").json();
    assert_eq!(fleet["devices"][0]["last_report"]["code"], "HEALTH_TIMEOUT");
    assert_eq!(fleet["devices"][0]["last_report"]["outcome"], "rolled-back");
}

#[test]
fn every_outcome_and_only_those() {
    let server = Server::start();
    for outcome in ["installed", "committed", "rolled-back", "failed", "cancelled"] {
        let minimal = json!({"device": "d", "compatible": "m", "report_id": outcome, "outcome": outcome});
        assert_eq!(post_json(server.address, REPORT, &minimal).status, 204, "{outcome}");
    }
    let other = json!({"device": "d", "compatible": "m", "report_id": "x", "outcome": "exploded"});
    assert_eq!(post_json(server.address, REPORT, &other).code(), "INVALID_JSON");
    let stored = get(server.address, "/api/v1/reports?device=d").json();
    assert_eq!(stored["reports"].as_array().unwrap().len(), 5);
    assert_eq!(stored["reports"][0]["outcome"], "cancelled", "newest first");
    assert_eq!(stored["reports"][0]["release"], Value::Null);
}

/// otad spells what it does not know as the empty text.
#[test]
fn an_empty_text_is_unknown() {
    let server = Server::start();
    let mut sent = report("d", "r");
    for field in ["release", "version", "from_version", "slot", "phase", "code", "message", "boot_id"] {
        sent[field] = "".into();
    }
    assert_eq!(post_json(server.address, REPORT, &sent).status, 204);
    let stored = get(server.address, "/api/v1/reports?device=d").json();
    for field in ["release", "version", "from_version", "slot", "phase", "code", "message", "boot_id"] {
        assert_eq!(stored["reports"][0][field], Value::Null, "{field}");
    }
}

/// A device that fails in a loop keeps its newest reports and nobody else loses one.
#[test]
fn reports_of_a_device_are_bounded() {
    let server = Server::start();
    post_json(server.address, REPORT, &report("quiet", "only"));
    for number in 0..55 {
        assert_eq!(post_json(server.address, REPORT, &report("loud", &format!("r{number}"))).status, 204);
    }
    let loud = get(server.address, "/api/v1/reports?device=loud").json();
    let loud: Vec<_> =
        loud["reports"].as_array().unwrap().iter().map(|row| row["report_id"].clone()).collect();
    assert_eq!((loud.len(), &loud[0], &loud[49]), (50, &json!("r54"), &json!("r5")));
    assert_eq!(
        get(server.address, "/api/v1/reports?device=quiet").json()["reports"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn sizes_of_a_report_are_strict() {
    let server = Server::start();
    let with = |key: &str, value: Value| {
        let mut body = report("d", "r");
        body[key] = value;
        post_json(server.address, REPORT, &body)
    };
    for (key, value, status) in [
        ("log", json!(vec!["x"; 200]), 204),
        ("log", json!(vec!["x"; 201]), 413),
        ("log", json!(["x".repeat(1024)]), 204),
        ("log", json!(["x".repeat(1025)]), 413),
        ("log", json!(vec!["x".repeat(1000); 100]), 413),
        ("message", json!("x".repeat(4096)), 204),
        ("message", json!("x".repeat(4097)), 413),
        ("phase", json!("x".repeat(65)), 413),
        ("code", json!("x".repeat(65)), 413),
        ("slot", json!("x".repeat(65)), 413),
        ("boot_id", json!("x".repeat(65)), 413),
        ("release", json!("ab"), 400),
        ("release", json!("AB".repeat(32)), 400),
        ("version", json!("1 0"), 400),
        ("version", json!(""), 204),
        ("duration_ms", json!(u64::MAX), 400),
        ("duration_ms", json!(-1), 400),
        ("started_at", json!("yesterday"), 400),
        ("message", Value::Null, 204),
    ] {
        let shown = value.to_string().chars().take(40).collect::<String>();
        assert_eq!(with(key, value).status, status, "{key} {shown}");
    }
}

/// W7: a NUL, which PostgreSQL does not hold, keeps no report from being taken and no question from being answered.
#[test]
fn w7_a_nul_is_no_trouble_of_the_database() {
    let server = Server::start();
    let mut report = report("gw-1", "r1");
    report["message"] = "a\0b".into();
    assert_eq!(post_json(server.address, "/device/v1/reports", &report).status, 204);
    let reports = get(server.address, "/api/v1/reports?device=gw-1").json();
    assert_eq!(reports["reports"][0]["message"], "a\u{fffd}b");
    assert!(matches!(get(server.address, "/api/v1/records?release=%00").status, 200 | 400));
}
