//! What SQLite alone promises: databases in the field, damaged files, a bound on its size.

use nix::sys::signal::Signal;

use crate::database::Session;
use crate::http::{get, post_json, send};
use crate::process::{Process, command, directory, fails};
use crate::rig::{Server, Spec, delta};

/// W8: a database from before there were deltas keeps everything and learns about them.
#[test]
fn w8_a_database_of_the_first_form_is_brought_up() {
    let data = directory();
    let bundle = Spec::default().bundle();
    let mut process = Process::start(data.path());
    let url = send(process.address, "POST", "/api/v1/artifacts", &[], &bundle).json()["url"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(process.signal(Signal::SIGTERM).success());
    let mut session = Session::open(data.path());
    for undo in [
        "DROP TABLE webhook_deliveries",
        "DROP TABLE webhooks",
        "DROP TABLE lost_devices",
        "DROP TABLE rollout_devices",
        "DROP TABLE happenings",
        "DROP TABLE rollouts",
        "DROP TABLE device_groups",
        "DROP TABLE device_attributes",
        "DROP TABLE device_tokens",
        "DROP TABLE operators",
        "DROP TABLE marks",
        "DROP TABLE channels",
        "DROP TABLE audit",
        "DROP TABLE records",
        "ALTER TABLE devices DROP COLUMN release",
        "ALTER TABLE devices DROP COLUMN boot_id",
        "ALTER TABLE devices DROP COLUMN state",
        "DROP TABLE deltas",
        "DROP INDEX artifacts_by_release",
        "DELETE FROM _sqlx_migrations WHERE version >= 2",
    ] {
        session.run(undo);
    }
    drop(session);
    std::fs::remove_dir(data.path().join("deltas")).unwrap();

    let process = Process::start(data.path());
    assert!(get(process.address, &url).body == bundle);
    let old = Spec { sequence: 1, ..Spec::default() }.bundle();
    assert_eq!(send(process.address, "POST", "/api/v1/deltas", &[], &delta(&old, &bundle)).status, 201);
}

/// W8: a damaged database is named and left alone.
#[test]
fn w8_a_damaged_database_is_never_replaced() {
    let data = directory();
    let path = data.path().join("otaserver.db");
    let garbage = [0x55_u8; 8192];
    std::fs::write(&path, garbage).unwrap();
    let message = fails(command(data.path()));
    assert!(message.contains("otaserver.db") && message.contains("restore a backup"), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
}

/// W6: devices cannot fill the disk through the database, and a full database keeps no device from its update.
#[test]
fn w6_a_full_database_still_offers_updates() {
    let server = Server::with(|options| options.limits.max_database_bytes = 256 << 10);
    assert_eq!(server.upload(&Spec::default().bundle()).status, 201);
    let mut report = crate::devices::report("d", "r");
    report["log"] = serde_json::json!(vec!["x".repeat(1000); 50]);
    let refused = (0..100).find_map(|number| {
        report["device"] = format!("d{number}").into();
        let answer = post_json(server.address, "/device/v1/reports", &report);
        (answer.status != 204).then_some(answer)
    });
    let refused = refused.expect("the database has a bound");
    assert_eq!((refused.status, refused.code().as_str()), (507, "QUOTA"));
    for device in ["known", "new-1", "new-2"] {
        let target = format!("/device/v1/update?device={device}&compatible=acme&sequence=0");
        assert_eq!(get(server.address, &target).status, 200);
    }
}
