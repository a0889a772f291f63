//! The program itself: starting, being killed, stopping, and a database in trouble.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::database::{self, Data};
use crate::http::{connect, get, post_json, send};
use crate::rig::{Server, Spec, delta, files, root, sha256};

const UPLOAD: &str = "/api/v1/artifacts";

/// A running `otaserver`, killed when the test ends.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

pub(crate) fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otaserver"));
    command.args(["--listen", "127.0.0.1:0", "--log-level", "error", "--data"]).arg(data);
    command.args(database::url(data).map(|url| format!("--database={url}")));
    command
}

impl Process {
    pub(crate) fn start(data: &Path) -> Process {
        Process::of(command(data))
    }

    /// Starts a command line of otaserver.
    pub(crate) fn of(mut command: Command) -> Process {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("start otaserver");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").and_then(|url| url.split_once("://"));
        let address = address.map(|(_, address)| address.parse().unwrap());
        match address {
            Some(address) => Process { child, address },
            None => {
                let _ = child.kill();
                panic!("the first line is {line:?}");
            }
        }
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Sends a signal that ends it.
    pub(crate) fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        self.send(signal);
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < Duration::from_secs(15), "{signal} does not end it");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory in memory where there is one: a kill asks nothing of the disk, which others may keep busy.
pub(crate) fn directory() -> Data {
    let data = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    std::fs::write(data.path().join("root.toml"), root()).unwrap();
    Data::in_directory(data)
}

/// W6: `kill -9` in the middle of an upload, early and one byte before the end.
#[test]
fn w6_a_kill_during_an_upload_leaves_nothing_half_there() {
    let data = directory();
    let bundle = Spec { random_bytes: 1 << 20, ..Spec::default() }.bundle();
    for sent in [1, bundle.len() / 2, bundle.len() - 1] {
        let mut process = Process::start(data.path());
        let mut stream = connect(process.address);
        write!(
            stream,
            "POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            bundle.len()
        )
        .unwrap();
        stream.write_all(&bundle[..sent]).unwrap();
        let begin = Instant::now();
        while files(&data.path().join("incoming")).is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(5), "the upload does not begin");
            std::thread::sleep(Duration::from_millis(10));
        }
        process.signal(Signal::SIGKILL);
        assert_eq!(files(&data.path().join("incoming")).len(), 1, "the kill came in the middle");

        let process = Process::start(data.path());
        assert_eq!(files(&data.path().join("incoming")), [""; 0]);
        assert_eq!(files(&data.path().join("artifacts")), [""; 0]);
        assert_eq!(get(process.address, UPLOAD).json()["artifacts"], serde_json::json!([]));
    }
    let process = Process::start(data.path());
    assert_eq!(send(process.address, "POST", UPLOAD, &[], &bundle).status, 201);
}

/// W8: what was acknowledged is there after `kill -9`, however soon it comes.
#[test]
fn w8_what_was_acknowledged_survives_a_kill() {
    let data = directory();
    let bundle = Spec::default().bundle();
    let mut process = Process::start(data.path());
    let url = send(process.address, "POST", UPLOAD, &[], &bundle).json()["url"].as_str().unwrap().to_owned();
    let report = crate::devices::report("gw-1", "r1");
    assert_eq!(post_json(process.address, "/device/v1/reports", &report).status, 204);
    process.signal(Signal::SIGKILL);

    let process = Process::start(data.path());
    assert!(get(process.address, &url).body == bundle);
    let reports = get(process.address, "/api/v1/reports?device=gw-1").json();
    assert_eq!(reports["reports"][0]["report_id"], "r1");
}

/// W6: kills at several moments around the end of an upload: afterwards the artifact is on offer in full, or not at all.
#[test]
fn w6_kills_around_the_end_of_an_upload() {
    let data = directory();
    for step in 0..10 {
        let bundle = Spec { sequence: step + 1, ..Spec::default() }.bundle();
        let mut process = Process::start(data.path());
        let mut stream = connect(process.address);
        write!(
            stream,
            "POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            bundle.len()
        )
        .unwrap();
        stream.write_all(&bundle).unwrap();
        std::thread::sleep(Duration::from_millis(step * 3));
        process.signal(Signal::SIGKILL);

        let process = Process::start(data.path());
        assert_eq!(files(&data.path().join("incoming")), [""; 0]);
        let listed = get(process.address, UPLOAD).json();
        for artifact in listed["artifacts"].as_array().unwrap() {
            assert_eq!(artifact["withdrawn_at"], serde_json::Value::Null, "step {step}");
            let bytes = get(process.address, artifact["url"].as_str().unwrap()).body;
            assert_eq!(artifact["sha256"], sha256(&bytes), "step {step}");
        }
        let status = send(process.address, "POST", UPLOAD, &[], &bundle).status;
        assert!(matches!(status, 200 | 201), "step {step}: {status}");
    }
}

/// What is on disk and what the database says can differ after a backup was restored; a start brings them together.
#[test]
fn w8_a_start_takes_stock() {
    let data = directory();
    let [gone, short, kept] =
        [1, 2, 3].map(|sequence| Spec { sequence, random_bytes: 30_000, ..Spec::default() }.bundle());
    let mut process = Process::start(data.path());
    let path = |bundle: &[u8]| data.path().join("artifacts").join(sha256(bundle) + ".otab");
    for bundle in [&gone, &short, &kept] {
        assert_eq!(send(process.address, "POST", UPLOAD, &[], bundle).status, 201);
    }
    process.signal(Signal::SIGKILL);
    std::fs::remove_file(path(&gone)).unwrap();
    std::fs::write(path(&short), b"short").unwrap();
    let stray = data.path().join("artifacts").join("0".repeat(64) + ".otab");
    std::fs::write(&stray, b"stray").unwrap();

    let process = Process::start(data.path());
    let listed = get(process.address, UPLOAD).json();
    let offered: Vec<_> =
        listed["artifacts"].as_array().unwrap().iter().map(|row| row["withdrawn_at"].is_null()).collect();
    assert_eq!(offered, [true, false, false]);
    assert!(stray.exists(), "what cannot be explained is not deleted");
    assert_eq!(get(process.address, &format!("/artifacts/{}.otab", "0".repeat(64))).status, 404);
    assert_eq!(send(process.address, "POST", UPLOAD, &[], &short).status, 201, "uploading again repairs");
    assert!(get(process.address, &format!("/artifacts/{}.otab", sha256(&short))).body == short);
}

/// The same for deltas, which a kill does not take either.
#[test]
fn w8_a_start_takes_stock_of_deltas() {
    let data = directory();
    let [old, new] = [1, 2].map(|sequence| Spec { sequence, seed: Some(7), ..Spec::default() }.bundle());
    let lost = delta(&old, &new);
    let upload = |process: &Process, target: &str, bytes: &[u8]| {
        send(process.address, "POST", &format!("/api/v1/{target}"), &[], bytes).status
    };
    let mut process = Process::start(data.path());
    assert_eq!(upload(&process, "artifacts", &new), 201);
    assert_eq!(upload(&process, "deltas", &lost), 201);
    process.signal(Signal::SIGKILL);

    let mut process = Process::start(data.path());
    let url = format!("/deltas/{}.otad-delta", sha256(&lost));
    assert!(get(process.address, &url).body == lost, "what was acknowledged survives");
    process.signal(Signal::SIGKILL);
    std::fs::remove_file(data.path().join(&url[1..])).unwrap();
    let stray = data.path().join("deltas").join("0".repeat(64) + ".otad-delta");
    std::fs::write(&stray, b"stray").unwrap();

    let process = Process::start(data.path());
    assert_eq!(get(process.address, &url).status, 410);
    assert!(stray.exists(), "what cannot be explained is not deleted");
    assert_eq!(get(process.address, &format!("/deltas/{}.otad-delta", "0".repeat(64))).status, 404);
    assert_eq!(upload(&process, "deltas", &lost), 201, "uploading again repairs");
}

#[test]
fn sigterm_and_sigint_end_it_in_order() {
    let data = directory();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut process = Process::start(data.path());
        // An idle connection must not hold it up.
        let idle = connect(process.address);
        assert_eq!(get(process.address, "/healthz").status, 200);
        assert!(process.signal(signal).success(), "{signal}");
        drop(idle);
        assert!(!data.path().join("otaserver.db-wal").exists(), "the database was closed");
    }
}

pub(crate) fn fails(mut command: Command) -> String {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(20) {
            // It serves, which shows as no exit status below.
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let Output { status, stderr, stdout } = child.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(stdout.is_empty());
    String::from_utf8(stderr).unwrap()
}

#[test]
fn a_start_that_cannot_work_says_why() {
    let data = directory();
    let running = Process::start(data.path());
    assert!(fails(command(data.path())).contains("another otaserver works in"));

    let other = directory();
    let mut taken = Command::new(env!("CARGO_BIN_EXE_otaserver"));
    taken.args(["--listen", &running.address.to_string(), "--data"]).arg(other.path());
    assert!(fails(taken).contains("cannot listen on"));

    let mut no_root = command(other.path());
    no_root.args(["--root", "/nonexistent/root.toml"]);
    assert!(fails(no_root).contains("otactl trust create"));

    let mut no_token = command(other.path());
    no_token.args(["--upload-token-file", "/dev/null"]);
    assert!(fails(no_token).contains("no usable token"));
}

/// W8: a database that somebody else holds is 503 with the reason, and 200 again afterwards.
#[test]
fn w8_health_tells_of_a_stuck_database() {
    let server = Server::start();
    let holder = database::hold_the_writer(server.data());
    let answer = get(server.address, "/healthz");
    assert_eq!((answer.status, answer.code().as_str()), (503, "DATABASE"));
    assert!(answer.header("retry-after").is_some());
    drop(holder);
    let begin = Instant::now();
    while get(server.address, "/healthz").status != 200 {
        assert!(begin.elapsed() < Duration::from_secs(10), "it does not recover");
    }
}
