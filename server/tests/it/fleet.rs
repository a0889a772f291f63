//! Groups, releases and confirmed success: what each rule does to a device that asks.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{Answer, get, post_json, send};
use crate::rig::{Options, Server, Spec};

const OLD: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// A server with one artifact (sequence 2, model acme), and a release of it named `r`.
pub(crate) fn released(policy: Value, change: impl FnOnce(&mut Options)) -> (Server, Value) {
    let server = Server::with(|options| {
        options.limits.round = Duration::from_millis(50);
        change(options);
    });
    let uploaded = server.upload(&Spec { random_bytes: 1000, ..Spec::default() }.bundle()).json();
    let body = json!({ "name": "r", "artifact": uploaded["sha256"], "policy": policy });
    let answer = post_json(server.address, "/api/v1/releases", &body);
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    (server, uploaded)
}

pub(crate) fn act(server: &Server, what: &str) -> Answer {
    send(server.address, "POST", &format!("/api/v1/releases/r/{what}"), &[], b"")
}

pub(crate) fn check(server: &Server, device: &str, rest: &str) -> u16 {
    get(server.address, &format!("/device/v1/update?device={device}&compatible=acme&{rest}")).status
}

fn old(server: &Server, device: &str) -> u16 {
    check(server, device, &format!("version=1.0.0&sequence=1&release={OLD}&boot_id=b1&state=idle"))
}

fn report(server: &Server, id: &str, outcome: &str, release: &Value, boot: Value) -> u16 {
    let body = json!({
        "device": "d", "compatible": "acme", "report_id": id, "outcome": outcome, "release": release,
        "version": "2.0.0", "slot": "b", "boot_id": boot,
    });
    post_json(server.address, "/device/v1/reports", &body).status
}

pub(crate) fn step(server: &Server, device: &str) -> String {
    let shown = get(server.address, &format!("/api/v1/devices/{device}")).json();
    shown["releases"][0]["standing"]["step"].as_str().unwrap_or("none").to_owned()
}

fn why(server: &Server, device: &str) -> String {
    let shown = get(server.address, &format!("/api/v1/devices/{device}")).json();
    shown["why"][0]["because"].as_str().unwrap().to_owned()
}

fn everybody() -> Value {
    json!({ "staging_percent": 100, "promote": false })
}

fn within(limit: Duration, what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_model_without_a_release_gets_the_newest_artifact_and_one_with_a_release_only_that() {
    let (server, _) = released(everybody(), |_| {});
    let other = Spec { compatible: &["other"], random_bytes: 1000, ..Spec::default() };
    server.upload(&other.bundle());
    server.upload(&Spec { sequence: 9, random_bytes: 1000, ..Spec::default() }.bundle());
    assert_eq!(get(server.address, "/device/v1/update?device=o&compatible=other").status, 200);
    assert_eq!(old(&server, "d"), 204, "a draft holds its model back");
    assert_eq!(why(&server, "d"), "it is a draft");
    assert_eq!(act(&server, "start").json()["stage"], "staging");
    let offer = get(server.address, "/device/v1/update?device=d&compatible=acme&sequence=1");
    assert_eq!(offer.json()["sequence"], 2, "not the newer one that nobody released");
    assert_eq!(act(&server, "abort").status, 200);
    assert_eq!((old(&server, "d"), step(&server, "d").as_str()), (204, "cancelled"));
    assert_eq!(why(&server, "d"), "it was aborted");
}

#[test]
fn with_releases_only_nothing_else_is_offered() {
    let server = Server::with(|options| options.limits.undeclared = otaserver::assign::Undeclared::Nothing);
    server.upload(&Spec::default().bundle());
    assert_eq!(old(&server, "d"), 204);
    assert!(why(&server, "d").contains("no release is declared"));
}

/// Only a word from the new release, with a boot after the one that installed and the version, committed, is success.
#[test]
fn success_is_only_what_the_new_system_confirms() {
    let (server, uploaded) = released(everybody(), |_| {});
    act(&server, "start");
    let release = &uploaded["release"];
    assert_eq!(old(&server, "d"), 200);
    let at = |expected: &str, what: &str| assert_eq!(step(&server, "d"), expected, "{what}");
    at("offered", "asked");
    let told = |state: &str, boot: &str, release: &str, sequence: u64| {
        check(
            &server,
            "d",
            &format!(
                "version={sequence}.0.0&sequence={sequence}&release={release}&boot_id={boot}&state={state}"
            ),
        );
    };
    told("pre-upgrade", "b1", OLD, 1);
    at("downloading", "says so");
    told("upgrading", "b1", OLD, 1);
    at("installing", "says so");
    report(&server, "1", "installed", release, json!("b1"));
    at("installed", "reported");
    for (id, boot) in [("2", Value::Null), ("3", json!("b1"))] {
        report(&server, id, "committed", release, boot);
        at("installed", "committed without a later boot");
    }
    report(&server, "4", "committed", &json!(OLD), json!("b2"));
    at("installed", "committed another release");
    told("post-upgrade", "b2", release.as_str().unwrap(), 2);
    at("on-trial", "runs it");
    told("idle", "b1", release.as_str().unwrap(), 2);
    at("on-trial", "idle in the boot that installed cannot be the new system");
    report(&server, "5", "committed", release, json!("b2"));
    at("confirmed", "with everything");
    report(&server, "6", "rolled-back", release, json!("b3"));
    at("confirmed", "what comes late takes nothing back");
    let release = get(server.address, "/api/v1/releases/r").json();
    assert_eq!((&release["devices"]["confirmed"], &release["reach"]["running"]), (&json!(1), &json!(1)));
}

/// A report that got lost for ever is made up for by the next question, which has the same evidence.
#[test]
fn a_lost_report_is_learned_from_the_next_question() {
    let (server, uploaded) = released(everybody(), |_| {});
    act(&server, "start");
    let release = uploaded["release"].as_str().unwrap();
    old(&server, "d");
    report(&server, "1", "installed", &uploaded["release"], json!("b1"));
    check(&server, "d", &format!("version=2.0.0&sequence=2&release={release}&boot_id=b2&state=idle"));
    assert_eq!(step(&server, "d"), "confirmed");
    // And a rollback that nobody reported: the old system asks from a later boot.
    old(&server, "e");
    let body = json!({ "device": "e", "compatible": "acme", "report_id": "1", "outcome": "installed",
                       "release": release, "version": "2.0.0", "boot_id": "b1" });
    post_json(server.address, "/device/v1/reports", &body);
    assert_eq!((old(&server, "e"), step(&server, "e").as_str()), (204, "installed"));
    check(&server, "e", &format!("version=1.0.0&sequence=1&release={OLD}&boot_id=b3&state=idle"));
    assert_eq!(step(&server, "e"), "rolled-back");
}

/// A device that goes away to boot and stays away is silent, not failed and not successful; and believed when it comes back.
#[test]
fn silent_since_the_reboot() {
    let policy = json!({ "staging_percent": 100, "promote": false, "timeouts": { "boot": 1, "offer": 1 } });
    let (server, uploaded) = released(policy, |options| options.limits.heartbeat_seconds = 1);
    act(&server, "start");
    old(&server, "d");
    report(&server, "1", "installed", &uploaded["release"], json!("b1"));
    old(&server, "slow");
    within(Duration::from_secs(5), "an offer that nobody takes up ends", || {
        step(&server, "slow") == "failed"
    });
    assert!(why(&server, "slow").contains("OFFER_TIMEOUT"), "{}", why(&server, "slow"));
    within(Duration::from_secs(20), "it becomes silent", || step(&server, "d") == "silent");
    let shown = get(server.address, "/api/v1/devices/d").json();
    assert_eq!(
        (&shown["presence"], &shown["releases"][0]["standing"]["class"]),
        (&json!("lost"), &json!("boot"))
    );
    report(&server, "2", "committed", &uploaded["release"], json!("b2"));
    assert_eq!(step(&server, "d"), "confirmed");
    let records = get(server.address, "/api/v1/records?device=d").json();
    assert_eq!(records["records"].as_array().unwrap().len(), 1, "one try, one record: {records}");
}

#[test]
fn groups_are_dynamic_and_explained() {
    let (server, uploaded) = released(everybody(), |_| {});
    let filters = json!([{ "field": "firmware_version", "semver": "<2" }, { "field": "attributes.site", "in": ["oslo"] }]);
    let group = json!({ "name": "north", "filters": filters });
    assert_eq!(post_json(server.address, "/api/v1/device-groups", &group).status, 201);
    assert_eq!(post_json(server.address, "/api/v1/device-groups", &group).status, 201, "again is fine");
    let other = json!({ "name": "north", "filters": [] });
    assert_eq!(post_json(server.address, "/api/v1/device-groups", &other).code(), "CONFLICT");
    let second =
        json!({ "name": "s", "artifact": uploaded["sha256"], "group": "north", "policy": everybody() });
    assert_eq!(post_json(server.address, "/api/v1/releases", &second).status, 201);
    send(server.address, "POST", "/api/v1/releases/s/start", &[], b"");

    assert_eq!(old(&server, "d"), 204);
    let members = || get(server.address, "/api/v1/device-groups/north/devices").json()["devices"].clone();
    assert_eq!(members(), json!([]));
    assert_eq!(why(&server, "d"), "group north does not match: attributes.site is not known");
    let put = |site: &str| {
        let body = json!({ "site": site }).to_string();
        send(server.address, "PUT", "/api/v1/devices/d/attributes", &[], body.as_bytes()).status
    };
    assert_eq!(put("oslo"), 204);
    assert_eq!(
        members()[0]["because"],
        "matches because firmware_version is 1.0.0 (<2) and attributes.site is oslo (one of oslo)"
    );
    assert_eq!(old(&server, "d"), 200);
    assert_eq!(put("bergen"), 204);
    assert_eq!(members(), json!([]));
    assert_eq!(send(server.address, "DELETE", "/api/v1/device-groups/north", &[], b"").code(), "CONFLICT");
    for bad in [
        json!({ "name": "x", "filters": [{ "field": "model" }] }),
        json!({ "name": "../x" }),
        json!({ "name": "x", "filter": [] }),
    ] {
        assert_eq!(post_json(server.address, "/api/v1/device-groups", &bad).status, 400, "{bad}");
    }
}

#[test]
fn places_windows_pauses_and_people_hold_a_device_back() {
    let policy = json!({ "staging_percent": 100, "promote": false, "max_concurrent": 1 });
    let (server, _) = released(policy.clone(), |_| {});
    act(&server, "start");
    assert_eq!((old(&server, "a"), old(&server, "b"), old(&server, "a")), (200, 204, 200));
    assert_eq!(why(&server, "b"), "it waits for a place: 1 of 1 devices are at it");
    // Who is at it goes on while the release is paused; nobody else begins.
    assert_eq!(act(&server, "pause").json()["status"], "paused");
    assert_eq!((old(&server, "a"), old(&server, "b")), (200, 204));
    assert_eq!(why(&server, "b"), "it is paused: by this machine");
    assert_eq!((act(&server, "pause").code(), act(&server, "resume").status), ("CONFLICT".to_owned(), 200));
    // An operator takes a device out, and lets it in again.
    for (act, expected) in [("deny", 204), ("retry", 200)] {
        let target = format!("/api/v1/releases/r/devices/a/{act}");
        assert_eq!(send(server.address, "POST", &target, &[], b"").status, 204);
        assert_eq!(old(&server, "a"), expected, "{act}");
    }
    // A window that is not now.
    let mut narrow = policy;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let hour = |ahead: u64| format!("{:02}:00", (now / 3600 + ahead) % 24);
    narrow["windows"] = json!([{ "from": hour(2), "to": hour(4) }]);
    narrow["max_concurrent"] = json!(5);
    let body = json!({ "policy": narrow }).to_string();
    assert_eq!(send(server.address, "PATCH", "/api/v1/releases/r", &[], body.as_bytes()).status, 200);
    assert_eq!(old(&server, "b"), 204);
    assert_eq!(why(&server, "b"), "it waits for its maintenance window");
}

/// W6: beyond the devices that are recorded, strangers get no declared release and leave nothing in the database; known ones go on.
#[test]
fn w6_strangers_beyond_the_table_leave_no_trace() {
    let (server, uploaded) = released(everybody(), |options| options.limits.max_devices = 1);
    server.upload(&Spec { compatible: &["other"], random_bytes: 1000, ..Spec::default() }.bundle());
    act(&server, "start");
    assert_eq!((old(&server, "d"), old(&server, "stranger"), old(&server, "d")), (200, 204, 200));
    let undeclared = "/device/v1/update?device=stranger&compatible=other";
    assert_eq!(get(server.address, undeclared).status, 200, "the newest artifact is nothing to write down");
    assert_eq!(
        post_json(server.address, "/device/v1/reports", &crate::devices::report("stranger", "1")).status,
        204
    );
    report(&server, "1", "failed", &uploaded["release"], Value::Null);
    let reports = |device: &str| {
        let shown = get(server.address, &format!("/api/v1/reports?device={device}")).json();
        shown["reports"].as_array().unwrap().len()
    };
    assert_eq!((reports("d"), reports("stranger")), (1, 0));
    let records = get(server.address, "/api/v1/records").json();
    assert!(records["records"].as_array().unwrap().iter().all(|row| row["device_id"] == "d"), "{records}");
    let members = get(server.address, "/api/v1/releases/r/devices").json();
    assert_eq!(members["devices"].as_array().unwrap().len(), 1, "{members}");
}

/// Who has installed waits for a reboot without any time limit, and so holds no place; the reboot takes one again. A free
/// place goes to who waits longest (W1).
#[test]
fn who_waits_for_a_reboot_holds_no_place() {
    let policy = json!({ "staging_percent": 100, "promote": false, "max_concurrent": 1 });
    let (server, uploaded) = released(policy, |options| options.limits.max_updates = 1);
    act(&server, "start");
    assert_eq!((old(&server, "d"), old(&server, "e")), (200, 204));
    report(&server, "1", "installed", &uploaded["release"], json!("b1"));
    assert_eq!((step(&server, "d").as_str(), old(&server, "f"), old(&server, "e")), ("installed", 204, 200));
    assert_eq!(get(server.address, "/api/v1/fleet").json()["updating"], 2, "both are at it");
}

/// A look at the staging that ends after the operator promoted the release does not complete it.
#[test]
fn a_look_at_one_stage_says_nothing_of_the_next() {
    let (server, uploaded) = released(everybody(), |_| {});
    act(&server, "start");
    old(&server, "d");
    report(&server, "1", "installed", &uploaded["release"], json!("b1"));
    report(&server, "2", "committed", &uploaded["release"], json!("b2"));
    assert_eq!((step(&server, "d").as_str(), old(&server, "e")), ("confirmed", 200));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let location = crate::database::location(server.data(), 1 << 30);
        let store = otaserver::store::Store::at(&location).await.unwrap();
        let seen = store.rollouts().await.unwrap();
        assert_eq!(act(&server, "promote").status, 200);
        store.judge(&seen[0], 0).await.unwrap();
        store.close().await;
    });
    assert_eq!(get(server.address, "/api/v1/releases/r").json()["status"], "production");
}

/// W9: a step that took too long ends once, also when two rounds saw it: the one that comes late finds the device in its next try.
#[test]
fn w9_a_late_round_ends_no_later_try() {
    let (server, _) = released(everybody(), |_| {});
    act(&server, "start");
    old(&server, "d");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store =
            otaserver::store::Store::at(&crate::database::location(server.data(), 1 << 30)).await.unwrap();
        let seen = store.memberships("d").await.unwrap().remove(0);
        let late = |member: &otaserver::store::Member| member.step == seen.step && member.since < seen.since;
        let (event, detail) = (otaserver::fleet::step::Event::TimedOut, Default::default());
        assert_eq!(store.happen_while(seen.rollout_id, "d", late, event, detail).await.unwrap(), None);
        let still =
            |member: &otaserver::store::Member| member.step == seen.step && member.since <= seen.since;
        let taken = store.happen_while(seen.rollout_id, "d", still, event, detail).await.unwrap();
        assert_eq!(taken.unwrap().step.as_str(), "failed");
        store.close().await;
    });
}

/// Each kind of failure has its own patience, and a report for an unknown release is a record of its own.
#[test]
fn failures_are_tried_again_by_kind() {
    let policy = json!({ "staging_percent": 100, "promote": false, "backoff_seconds": 1 });
    let (server, _) = released(policy, |_| {});
    act(&server, "start");
    let fail = |device: &str, id: &str, code: &str| {
        let body = json!({ "device": device, "compatible": "acme", "report_id": id, "outcome": "failed",
                           "code": code, "message": "a reason" });
        assert_eq!(post_json(server.address, "/device/v1/reports", &body).status, 204);
    };
    old(&server, "net");
    old(&server, "sig");
    fail("net", "1", "NET_STALLED");
    fail("sig", "1", "SIG_INVALID");
    assert_eq!((old(&server, "net"), old(&server, "sig")), (204, 204));
    assert!(why(&server, "sig").contains("SIG_INVALID); not again until"), "{}", why(&server, "sig"));
    within(Duration::from_secs(5), "a bad line is tried again", || old(&server, "net") == 200);
    let shown = get(server.address, "/api/v1/releases/r").json();
    assert_eq!(shown["errors"], json!({ "verification": 1 }));
    assert_eq!(shown["results"]["bad"], 1, "a bad line says nothing of the release");
    let csv = get(server.address, "/api/v1/records?format=csv");
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let lines = String::from_utf8(csv.body).unwrap();
    assert!(lines.contains(",failed,") && lines.contains(",network,NET_STALLED,"), "{lines}");
    assert_eq!(lines.lines().count(), 3);
}

#[test]
fn a_release_starts_as_scheduled() {
    let (server, uploaded) = released(everybody(), |_| {});
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let body = json!({ "name": "later", "artifact": uploaded["sha256"], "start_at": now + 1 });
    assert_eq!(post_json(server.address, "/api/v1/releases", &body).json()["status"], "draft");
    let status = || get(server.address, "/api/v1/releases/later").json()["status"].clone();
    within(Duration::from_secs(10), "it starts", || status() == "staging");
    let audit = get(server.address, "/api/v1/audit?limit=1").json();
    assert_eq!(
        (&audit["audit"][0]["who"], &audit["audit"][0]["subject"]),
        (&json!("otaserver"), &json!("later"))
    );
}

/// W1: what is too much is turned away with a time to come back, and a contact that brings nothing new is no write.
#[test]
fn w1_heartbeats_are_no_writes_and_too_many_are_turned_away() {
    let server = Server::with(|options| options.limits.max_device_requests = 0);
    let answer = get(server.address, "/device/v1/update?device=d&compatible=acme");
    assert_eq!((answer.status, answer.code().as_str()), (429, "BUSY"));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((15..45).contains(&wait), "{wait}");

    let server = Server::start();
    let told = get(server.address, "/device/v1/update?device=e&compatible=acme");
    // Who has nothing to do gives its connection back, also when it would keep it: the answer is read to the end of the connection.
    let mut kept = crate::http::connect(server.address);
    let question = "GET /device/v1/update?device=e&compatible=acme HTTP/1.1\r\nHost: localhost\r\n\r\n";
    std::io::Write::write_all(&mut kept, question.as_bytes()).unwrap();
    let begin = Instant::now();
    assert_eq!(crate::http::receive(&mut kept, "GET").status, 204);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let told: u64 = told.header("otad-interval").expect("devices are told").parse().unwrap();
    assert!((54..=66).contains(&told), "{told}");
    let metrics = || String::from_utf8(get(server.address, "/api/v1/metrics").body).unwrap();
    let writes = || {
        let metrics = metrics();
        let value = metrics.lines().find_map(|line| line.strip_prefix("otaserver_database_writes_total "));
        value.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(old(&server, "d"), 204);
    let before = writes();
    for _ in 0..17 {
        assert_eq!(old(&server, "d"), 204);
    }
    assert_eq!((before > 0, writes()), (true, before), "a heartbeat is no write");
    let metrics = metrics();
    assert!(metrics.contains("otaserver_update_checks_total 20\n"), "{metrics}");
    assert!(metrics.contains("otaserver_contact_writes_total 2\n"), "{metrics}");
}
