//! What goes wrong with a PostgreSQL: it is away, it is full, it drops connections, its URL holds a password.

use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::database::{Session, url};
use crate::http::{get, post_json};
use crate::process::{Process, directory, fails};
use crate::rig::{Server, Spec};

/// W8: connections that break are replaced, and nobody who asks notices.
#[test]
fn w8_broken_connections_are_replaced() {
    let server = Server::start();
    assert_eq!(server.upload(&Spec::default().bundle()).status, 201);
    for round in 0..5 {
        Session::open(server.data()).run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        let report = crate::devices::report("gw-1", &format!("r{round}"));
        assert_eq!(post_json(server.address, "/device/v1/reports", &report).status, 204, "round {round}");
        assert_eq!(get(server.address, "/healthz").status, 200, "round {round}");
    }
    let reports = get(server.address, "/api/v1/reports?device=gw-1").json();
    assert_eq!(reports["reports"].as_array().unwrap().len(), 5);
}

/// W10: a start without its database says which it misses, and not the password.
#[test]
fn w10_no_message_has_the_password() {
    let data = directory();
    for wrong in [
        "postgres://ota:hunter2@127.0.0.1:1/fleet",
        &format!("{}&password=hunter2x", url(data.path()).unwrap().replace(":///t", ":///no")),
    ] {
        let mut start = Command::new(env!("CARGO_BIN_EXE_otaserver"));
        start.args(["--listen", "127.0.0.1:0", "--log-level", "trace", "--database", wrong, "--data"]);
        start.arg(data.path());
        let message = fails(start);
        assert!(message.contains("cannot open the database") && message.contains("createdb"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

/// W6: a full disk below PostgreSQL is told as a full database is with SQLite, and keeps no device from its update.
#[test]
fn w6_a_full_disk_still_offers_updates() {
    let data = directory();
    let disk = tempfile::tempdir().unwrap();
    let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
    let options = format!("size=6m,mode=700,uid={},gid={}", user.uid, user.gid);
    let kind = Some("tmpfs");
    mount(kind, disk.path(), kind, MsFlags::empty(), Some(options.as_str())).unwrap();
    let _unmount = Unmount(disk.path());
    let process = Process::start(data.path());
    let bundle = Spec::default().bundle();
    assert_eq!(crate::http::send(process.address, "POST", "/api/v1/artifacts", &[], &bundle).status, 201);
    let name = disk.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_lowercase();
    let path = disk.path().display();
    let mut session = Session::open(data.path());
    session.run(&format!("CREATE TABLESPACE {name} LOCATION '{path}'"));
    session.run(&format!("ALTER TABLE reports SET TABLESPACE {name}"));
    session.run(&format!("ALTER TABLE devices SET TABLESPACE {name}"));
    let mut report = crate::devices::report("d", "r");
    let refused = (0..1000).find_map(|number| {
        report["device"] = format!("d{number}").into();
        // Lines that no table compresses.
        let noise = crate::rig::noise(25_000, number);
        let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        report["log"] = noise.chunks(500).map(line).collect();
        let answer = post_json(process.address, "/device/v1/reports", &report);
        (answer.status != 204).then_some(answer)
    });
    let refused = refused.expect("the disk has an end");
    assert_eq!((refused.status, refused.code().as_str()), (507, "QUOTA"));
    for device in ["d1", "new-1", "new-2"] {
        let target = format!("/device/v1/update?device={device}&compatible=acme&sequence=0");
        assert_eq!(get(process.address, &target).status, 200);
    }
    session.run("ALTER TABLE devices SET TABLESPACE pg_default");
    session.run("TRUNCATE reports");
    session.run("ALTER TABLE reports SET TABLESPACE pg_default");
    session.run(&format!("DROP TABLESPACE {name}"));
}

struct Unmount<'a>(&'a std::path::Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).unwrap();
    }
}
