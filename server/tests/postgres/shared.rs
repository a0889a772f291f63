//! Several servers on one database and one store of files.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::database::{Data, url};
use crate::http::{get, post_json, send};
use crate::lifecycle::{Launch, live_through};
use crate::process::{Process, directory, fails};
use crate::progress::{frame, upgrade_at};
use crate::rig::{Spec, delta, root, sha256};

/// One database and one store, and a directory for each of two servers.
struct Pair {
    shared: Data,
    own: [tempfile::TempDir; 2],
}

impl Pair {
    fn new() -> Pair {
        let own = [0, 1].map(|_| tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap());
        for data in &own {
            std::fs::write(data.path().join("root.toml"), root()).unwrap();
        }
        Pair { shared: directory(), own }
    }

    fn command(&self, one: usize) -> Command {
        command(self.own[one].path(), &url(self.shared.path()).unwrap(), &self.shared.path().join("files"))
    }

    fn start(&self, one: usize) -> Process {
        Process::of(self.command(one))
    }
}

fn command(data: &Path, database: &str, files: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otaserver"));
    command.args(["--listen", "127.0.0.1:0", "--log-level", "error", "--heartbeat-seconds", "1"]);
    command.arg("--data").arg(data).args(["--database", database]).arg("--artifacts").arg(files);
    command
}

/// W8, W9: the life of a release on two servers, half of the devices with each; 20 kills lose nothing and count nothing twice, no more
/// devices are at it than there are places, and when one server is gone for good the other ends what both began.
#[test]
fn w8_w9_the_life_of_a_release_on_two_servers() {
    let pair = Pair::new();
    let launches: [Launch<'_>; 2] = [Box::new(|| pair.start(0)), Box::new(|| pair.start(1))];
    live_through(&launches, 5);
}

/// W9: 200 devices ask two servers at the same moment for 5 places, and 5 of them get one; with the next release the same for all together.
#[test]
fn w9_places_hold_over_servers() {
    let pair = Pair::new();
    let [one, two] = [0, 1].map(|one| {
        let mut command = pair.command(one);
        command.args(["--max-updates", "8"]);
        Process::of(command)
    });
    let addresses = [one.address, two.address];
    for (name, sequence, model, places, expected) in [("r", 1, "acme", 5, 5), ("s", 2, "other", 100, 3)] {
        let bundle = Spec { sequence, compatible: &[model], random_bytes: 1000, ..Spec::default() }.bundle();
        let uploaded = send(one.address, "POST", "/api/v1/artifacts", &[], &bundle).json();
        let policy = json!({ "staging_percent": 100, "promote": false, "max_concurrent": places });
        let release = json!({ "name": name, "artifact": uploaded["sha256"], "policy": policy });
        assert_eq!(post_json(one.address, "/api/v1/releases", &release).status, 201);
        assert_eq!(
            send(two.address, "POST", &format!("/api/v1/releases/{name}/start"), &[], b"").status,
            200
        );
        let offered = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for worker in 0..20 {
                let offered = &offered;
                scope.spawn(move || {
                    for turn in 0..10 {
                        let target =
                            format!("/device/v1/update?device={name}-{worker}-{turn}&compatible={model}");
                        let got = get(addresses[(worker + turn) % 2], &target).status == 200;
                        offered.fetch_add(got.into(), std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(offered.into_inner(), expected, "of {name}");
    }
}

/// W6: what one server publishes the other serves, and what one withdraws the other does not serve any more; also while the first
/// starts again, and after an upload that a kill broke off.
#[test]
fn w6_files_are_those_of_both() {
    let pair = Pair::new();
    let [mut one, two] = [0, 1].map(|one| pair.start(one));
    let [old, new] = [1, 2].map(|sequence| Spec { sequence, seed: Some(7), ..Spec::default() }.bundle());
    let between = delta(&old, &new);
    assert_eq!(send(one.address, "POST", "/api/v1/artifacts", &[], &new).status, 201);
    assert_eq!(send(two.address, "POST", "/api/v1/deltas", &[], &between).status, 201);
    let urls =
        [format!("/artifacts/{}.otab", sha256(&new)), format!("/deltas/{}.otad-delta", sha256(&between))];
    for process in [&one, &two] {
        assert!(get(process.address, &urls[0]).body == new);
        assert!(get(process.address, &urls[1]).body == between);
    }
    // An upload under way on the one is no leftover for the other, which starts meanwhile.
    let mut half = crate::http::connect(two.address);
    let head = format!(
        "POST /api/v1/artifacts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        old.len()
    );
    std::io::Write::write_all(&mut half, &[head.as_bytes(), &old[..100]].concat()).unwrap();
    one.signal(Signal::SIGKILL);
    let one = pair.start(0);
    std::io::Write::write_all(&mut half, &old[100..]).unwrap();
    assert_eq!(crate::http::receive(&mut half, "POST").status, 201);
    assert!(get(one.address, &format!("/artifacts/{}.otab", sha256(&old))).body == old);

    let name = format!("/api/v1/artifacts/{}", sha256(&new));
    assert_eq!(send(one.address, "DELETE", &name, &[], b"").status, 204);
    assert_eq!(urls.map(|url| get(two.address, &url).status), [410, 410]);
    assert_eq!(crate::rig::files(&pair.shared.path().join("files/deltas")), [""; 0]);
}

/// W6: a server that would keep its files elsewhere would take those of the others for lost.
#[test]
fn w6_another_store_is_refused() {
    let pair = Pair::new();
    let one = pair.start(0);
    let bundle = Spec::default().bundle();
    assert_eq!(send(one.address, "POST", "/api/v1/artifacts", &[], &bundle).status, 201);
    let elsewhere =
        command(pair.own[1].path(), &url(pair.shared.path()).unwrap(), &pair.own[1].path().join("files"));
    assert!(fails(elsewhere).contains("--artifacts"));
    assert_eq!(get(one.address, &format!("/artifacts/{}.otab", sha256(&bundle))).status, 200);
}

/// W7, W9: who asks one server is there for the other, is never lost to it, and its steps are heard there.
#[test]
fn w7_w9_one_hears_of_the_devices_of_the_other() {
    let pair = Pair::new();
    let [one, two] = [0, 1].map(|one| pair.start(one));
    let bundle = Spec { random_bytes: 1000, ..Spec::default() }.bundle();
    let uploaded = send(one.address, "POST", "/api/v1/artifacts", &[], &bundle).json();
    let policy = json!({ "staging_percent": 100, "promote": false });
    let release = json!({ "name": "r", "artifact": uploaded["sha256"], "policy": policy });
    assert_eq!(post_json(one.address, "/api/v1/releases", &release).status, 201);
    let (mut live, head) = upgrade_at(one.address, "/api/v1/progress", "");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(send(two.address, "POST", "/api/v1/releases/r/start", &[], b"").status, 200);
    let ask = |process: &Process, rest: &str| {
        get(process.address, &format!("/device/v1/update?device=d&compatible=acme&boot_id=b1&{rest}")).status
    };
    let old = format!("version=1.0.0&sequence=1&release={}&state=idle", "1".repeat(64));
    assert_eq!(
        (ask(&two, &old), ask(&one, &old)),
        (200, 200),
        "the offer of the one is repeated by the other"
    );
    let heard = frame(&mut live);
    assert_eq!(
        (&heard["devices"][0]["device"], &heard["devices"][0]["step"]),
        (&json!("d"), &json!("offered"))
    );

    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(16) {
        ask(&two, &old);
        let fleet = get(one.address, "/api/v1/fleet").json();
        assert_eq!(
            (&fleet["devices"], &fleet["lost"]),
            (&json!(1), &json!(0)),
            "after {:?}",
            begin.elapsed()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    // It went on with the other and came back to this one as it was: that is news.
    let device = |process: &Process| get(process.address, "/api/v1/devices/d").json()["version"].clone();
    ask(&one, &old);
    ask(&two, "version=1.5.0&sequence=1&state=failed");
    let begin = Instant::now();
    loop {
        ask(&one, &old);
        if device(&two) == "1.0.0" {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(12), "the way back is not written down");
        std::thread::sleep(Duration::from_millis(200));
    }
}
