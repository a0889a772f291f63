//! Webhooks, with receivers that take, fail, hang and redirect.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::http::{Answer, get, post_json, send};
use crate::process::{Process, directory};
use crate::rig::{Server, Spec};

/// How a receiver answers.
#[derive(Clone)]
enum Manner {
    Status(&'static str),
    /// With this for the first so many, and then takes.
    First(usize, &'static str),
    Hang,
}

/// A receiver: every request that arrives, as text, and how many were open at once at most.
struct Hook {
    address: SocketAddr,
    requests: Receiver<String>,
    most: Arc<AtomicUsize>,
}

impl Hook {
    fn start(manner: Manner) -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        let [most, open] = [0, 0].map(|n| Arc::new(AtomicUsize::new(n)));
        let (highest, seen) = (most.clone(), Arc::new(Mutex::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (sender, manner, seen) = (sender.clone(), manner.clone(), seen.clone());
                let (open, highest) = (open.clone(), highest.clone());
                std::thread::spawn(move || {
                    highest.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    serve(&mut stream.unwrap(), &sender, &manner, &seen);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Hook { address, requests, most }
    }

    fn url(&self) -> String {
        format!("http://{}/hook?a=b", self.address)
    }

    fn next(&self) -> String {
        self.requests.recv_timeout(Duration::from_secs(15)).expect("a delivery")
    }
}

fn serve(stream: &mut TcpStream, sender: &Sender<String>, manner: &Manner, seen: &Mutex<usize>) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    // A body of the announced length, or the end.
    let complete = |text: &str| {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        (body.len() >= length.parse().ok()?).then_some(())
    };
    while complete(&text).is_none() {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => text += std::str::from_utf8(&buffer[..length]).unwrap(),
        }
    }
    let number = {
        let mut seen = seen.lock().unwrap();
        *seen += 1;
        *seen
    };
    let _ = sender.send(text);
    let status = match manner {
        Manner::Status(status) => status,
        Manner::First(count, status) if number <= *count => status,
        Manner::First(..) => "204 No Content",
        Manner::Hang => {
            let _ = stream.read(&mut buffer);
            return;
        }
    };
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
}

fn add(address: SocketAddr, name: &str, url: &str, events: &[&str]) -> String {
    let answer =
        post_json(address, "/api/v1/webhooks", &json!({ "name": name, "url": url, "events": events }));
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["secret"].as_str().unwrap().to_owned()
}

fn release(address: SocketAddr) {
    let uploaded = send(address, "POST", "/api/v1/artifacts", &[], &Spec::default().bundle()).json();
    let new = json!({ "name": "2.0.0", "artifact": uploaded["sha256"] });
    assert_eq!(post_json(address, "/api/v1/releases", &new).status, 201);
    assert_eq!(turn(address, "start").status, 200);
}

fn turn(address: SocketAddr, turn: &str) -> Answer {
    post_json(address, &format!("/api/v1/releases/2.0.0/{turn}"), &json!({}))
}

fn deliveries(address: SocketAddr, name: &str) -> Vec<Value> {
    let answer = get(address, &format!("/api/v1/webhooks/{name}/deliveries"));
    answer.json()["deliveries"].as_array().unwrap().clone()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(15), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn header<'a>(request: &'a str, name: &str) -> &'a str {
    request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

/// The HMAC as openssl makes it.
fn hmac(secret: &str, text: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = String::from_utf8(openssl.wait_with_output().unwrap().stdout).unwrap();
    output.trim_end().rsplit("= ").next().unwrap().to_owned()
}

fn quick(limits: &mut otaserver::Limits) {
    limits.webhook_timeout = Duration::from_secs(1);
    limits.webhook_retry = Duration::from_secs(1);
}

/// W9: who is told of a release that paused gets it signed, once it takes it; nothing of what it did not ask for.
#[test]
fn w9_a_paused_release_is_told_until_it_is_taken() {
    let server = Server::with(|options| quick(&mut options.limits));
    let hook = Hook::start(Manner::First(2, "500 Internal Server Error"));
    let other = Hook::start(Manner::Status("200 OK"));
    let secret = add(server.address, "ops", &hook.url(), &["release-paused"]);
    add(server.address, "other", &other.url(), &["release-completed", "devices-lost"]);
    release(server.address);
    assert_eq!(turn(server.address, "pause").status, 200);
    let tries = [hook.next(), hook.next(), hook.next()];
    for request in &tries {
        assert!(request.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{request}");
        let body = request.split_once("\r\n\r\n").unwrap().1;
        let (timestamp, signature) =
            header(request, "otad-signature").strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        assert_eq!(signature, hmac(&secret, &format!("{timestamp}.{body}")));
        assert_eq!(header(request, "otad-delivery"), header(&tries[0], "otad-delivery"));
        assert_eq!(header(request, "otad-event"), "release-paused");
        let said: Value = serde_json::from_str(body).unwrap();
        let shown = (&said["event"], &said["release"], &said["version"], &said["reason"]);
        assert_eq!(
            shown,
            (&json!("release-paused"), &json!("2.0.0"), &json!("2.0.0"), &json!("by this machine"))
        );
    }
    until("it is not written down", || deliveries(server.address, "ops")[0]["status"] == 204);
    let done = &deliveries(server.address, "ops")[0];
    assert_eq!(
        (&done["attempts"], &done["problem"], &done["next_try_at"]),
        (&json!(3), &Value::Null, &Value::Null)
    );
    // Completing is another event, for another receiver.
    assert_eq!(turn(server.address, "resume").status, 200);
    assert_eq!(turn(server.address, "promote").status, 200);
    until("it does not complete", || turn(server.address, "complete").status != 200);
    assert_eq!(header(&other.next(), "otad-event"), "release-completed");
    assert!(hook.requests.try_recv().is_err() && other.requests.try_recv().is_err(), "each event once");
    // Removed, nothing is left of it.
    assert_eq!(send(server.address, "DELETE", "/api/v1/webhooks/ops", &[], b"").status, 204);
    assert_eq!(get(server.address, "/api/v1/webhooks/ops/deliveries").status, 404);
}

/// A redirect is not followed, silence ends in time, and nobody's trouble holds up the others: four at a time, one of each webhook.
#[test]
fn receivers_that_misbehave_bother_nobody() {
    let server = Server::with(|options| quick(&mut options.limits));
    let elsewhere = Hook::start(Manner::Status("200 OK"));
    let to = format!("307 Temporary Redirect\r\nLocation: {}", elsewhere.url());
    let redirect = Hook::start(Manner::Status(to.leak()));
    let hang = Hook::start(Manner::Hang);
    let good = Hook::start(Manner::Status("200 OK"));
    for number in 0..6 {
        add(server.address, &format!("a-hang-{number}"), &hang.url(), &["release-paused"]);
    }
    add(server.address, "redirect", &redirect.url(), &["release-paused"]);
    add(server.address, "unreachable", "http://127.0.0.1:1/", &["release-paused"]);
    add(server.address, "z-good", &good.url(), &["release-paused"]);
    release(server.address);
    assert_eq!(turn(server.address, "pause").status, 200);
    good.next();
    let problem =
        |name: &str| deliveries(server.address, name)[0]["problem"].as_str().unwrap_or_default().to_owned();
    until("no redirect", || problem("redirect").contains("redirects, which is not followed"));
    until("no connection", || problem("unreachable").contains("no connection"));
    until("no timeout", || problem("a-hang-0").contains("no answer within 1 s"));
    assert!(elsewhere.requests.try_recv().is_err(), "the redirect was followed");
    let most = hang.most.load(Ordering::SeqCst);
    assert!((1..=4).contains(&most), "{most} at a time");
    assert_eq!(get(server.address, "/healthz").status, 200);
}

/// W8: what happened is told although the server was killed before anybody took it.
#[test]
fn w8_the_queue_survives_a_kill() {
    let data = directory();
    let mut process = Process::start(data.path());
    let slow = Hook::start(Manner::Hang);
    add(process.address, "slow", &slow.url(), &["release-paused"]);
    release(process.address);
    assert_eq!(turn(process.address, "pause").status, 200);
    let first = slow.next();
    process.signal(Signal::SIGKILL);

    let process = Process::start(data.path());
    let again = slow.next();
    assert_eq!(header(&first, "otad-delivery"), header(&again, "otad-delivery"), "the same, once more");
    assert_eq!(deliveries(process.address, "slow").len(), 1);
}

/// Lost devices are told of by name, once.
#[test]
fn lost_devices_are_told_once() {
    let server = Server::with(|options| {
        quick(&mut options.limits);
        options.limits.heartbeat_seconds = 1;
        options.limits.lost_seconds = 1;
    });
    let hook = Hook::start(Manner::Status("200 OK"));
    add(server.address, "ops", &hook.url(), &["devices-lost"]);
    for device in ["gw-1", "gw-2"] {
        assert_eq!(
            get(server.address, &format!("/device/v1/update?device={device}&compatible=acme")).status,
            204
        );
    }
    let mut told = Vec::new();
    while told.len() < 2 {
        let request = hook.next();
        let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["event"], "devices-lost");
        told.extend(body["devices"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
    }
    told.sort();
    assert_eq!(told, ["gw-1", "gw-2"]);
    assert!(hook.requests.recv_timeout(Duration::from_secs(3)).is_err(), "nobody is told twice");
}

/// What a webhook may be: where it leads, what it is told of, and how many there are.
#[test]
fn what_a_webhook_may_be() {
    let server = Server::start();
    for (name, url, events, status, code) in [
        ("a", "http://127.0.0.1:1/", json!(["release-paused"]), 201, ""),
        ("a", "http://127.0.0.1:1/", json!(["release-paused"]), 409, "CONFLICT"),
        ("b", "http://192.0.2.1/", json!(["release-paused"]), 400, "INVALID_REQUEST"),
        ("b", "file:///etc/passwd", json!(["release-paused"]), 400, "INVALID_REQUEST"),
        ("b", "https://x/", json!([]), 400, "INVALID_REQUEST"),
        ("b", "https://x/", json!(["everything"]), 400, "INVALID_JSON"),
        ("../b", "https://x/", json!(["release-paused"]), 400, "INVALID_NAME"),
    ] {
        let body = json!({ "name": name, "url": url, "events": events });
        let answer = post_json(server.address, "/api/v1/webhooks", &body);
        let said = if answer.status == 201 { String::new() } else { answer.code() };
        assert_eq!((answer.status, said.as_str()), (status, code), "{body}");
    }
    for number in 1..20 {
        add(server.address, &format!("n{number}"), "https://x/", &["devices-lost", "devices-lost"]);
    }
    let more = json!({ "name": "more", "url": "https://x/", "events": ["devices-lost"] });
    assert_eq!(post_json(server.address, "/api/v1/webhooks", &more).status, 409);
    let listed = get(server.address, "/api/v1/webhooks").json();
    assert_eq!(listed["webhooks"][1]["events"], json!(["devices-lost"]));
    assert!(!listed.to_string().contains("secret"));
    let admin = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otaserver"));
        command.args(["admin", "--data"]).arg(server.data());
        command.args(crate::database::url(server.data()).map(|url| format!("--database={url}")));
        let output = command.args(words).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert!(admin(&["remove-webhook", "n1"]).0);
    let (done, secret) = admin(&["add-webhook", "n1", "https://y/", "--event", "devices-lost"]);
    assert!(done && secret.trim().len() == 64, "{secret}");
    assert!(admin(&["webhooks"]).1.contains("n1\thttps://y/\tdevices-lost\t0 pending\n"));
}
