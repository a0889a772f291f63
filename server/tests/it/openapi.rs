//! Whether the OpenAPI document is true: held against the router, and against the answers of a real server.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::http::{Answer, get, send};
use crate::rig::{Server, Spec, routes};

const ADMIN: &str = "0123456789abcdef0123456789abcdef";
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

fn ask(server: &Server, method: &str, target: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(server.address, method, target, &[("Authorization", &format!("Bearer {ADMIN}"))], body.as_bytes())
}

/// What is in the document is in the router, with just these methods; and what is in the router is in the document, but for the files of
/// the dashboard.
#[test]
fn the_document_and_the_router_say_the_same() {
    let server = Server::with(|options| options.token = Some(ADMIN.into()));
    let document = ask(&server, "GET", "/api/v1/openapi.json", &Value::Null).json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 30, "{}", paths.len());
    for (path, operations) in paths {
        let target = path.replace("{file}", &format!("{}.otab", "0".repeat(64))).replace(['{', '}'], "");
        for method in METHODS {
            let documented = operations.get(method.to_lowercase());
            let answer = ask(&server, method, &target, &Value::Null);
            assert_eq!(answer.status != 405, documented.is_some(), "{method} {path}: {}", answer.status);
            let described =
                documented.is_none_or(|says| says["responses"].get(answer.status.to_string()).is_some());
            assert!(described, "{method} {path}: {} is not described", answer.status);
        }
    }
    let documented: BTreeSet<String> = paths.keys().cloned().collect();
    // The files of the dashboard, and the gate's answer to what is nowhere.
    let other =
        |path: &String| path == "/" || path.starts_with("/web/") || path == "/api/v1" || path == "/api/v1/";
    let routed: BTreeSet<String> = routes().into_iter().filter(|path| !other(path)).collect();
    assert_eq!(routed, documented);
}

/// Makes the server one that has something to answer with.
fn furnish(server: &Server) -> [String; 3] {
    let bundles = [1, 2].map(|sequence| Spec { sequence, ..Spec::default() }.bundle());
    let upload = |target, body: &[u8]| {
        let token = format!("Bearer {ADMIN}");
        let answer = send(server.address, "POST", target, &[("Authorization", &token)], body);
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["sha256"].as_str().unwrap().to_owned()
    };
    upload("/api/v1/artifacts", &bundles[0]);
    let artifact = upload("/api/v1/artifacts", &bundles[1]);
    let delta = upload("/api/v1/deltas", &crate::rig::delta(&bundles[0], &bundles[1]));
    let filters =
        json!([{ "field": "attributes.site", "in": ["oslo"] }, { "field": "model", "equals": "acme" }]);
    for (method, target, body, status) in [
        ("PUT", "/api/v1/devices/gw-1/attributes", json!({ "site": "oslo" }), 204),
        ("POST", "/api/v1/device-groups", json!({ "name": "north", "filters": filters }), 201),
        ("POST", "/api/v1/releases", json!({ "name": "r-1", "artifact": artifact, "group": "north" }), 201),
        ("PATCH", "/api/v1/releases/r-1", json!({ "policy": { "staging_percent": 100 } }), 200),
        ("POST", "/api/v1/releases/r-1/start", Value::Null, 200),
        (
            "POST",
            "/api/v1/webhooks",
            json!({ "name": "here", "url": "http://127.0.0.1:1/", "events": ["release-paused"] }),
            201,
        ),
        ("GET", "/device/v1/update?device=gw-1&compatible=acme&version=1.0.0&sequence=1", Value::Null, 200),
        ("POST", "/device/v1/progress", json!({ "device": "gw-1", "phase": "writing", "percent": 5 }), 204),
        ("POST", "/device/v1/reports", crate::devices::report("gw-1", "r1"), 204),
    ] {
        let answer = ask(server, method, target, &body);
        assert_eq!(answer.status, status, "{target}: {}", String::from_utf8_lossy(&answer.body));
    }
    let token = ask(server, "POST", "/api/v1/devices/gw-1/token", &Value::Null);
    [artifact, delta, token.json()["token"].as_str().unwrap().to_owned()]
}

/// The document with examples of what is there: otherwise chance finds nothing but 404. What is allowed stays as it is.
fn aimed(mut document: Value, artifact: &str, delta: &str) -> Value {
    let (file, delta_file) = (format!("{artifact}.otab"), format!("{delta}.otad-delta"));
    for (parameter, example) in [
        ("path-device", "gw-1"),
        ("path-release", "r-1"),
        ("path-group", "north"),
        ("path-webhook", "here"),
        ("path-sha256", artifact),
        ("path-file", &file),
        ("path-delta", &delta_file),
        ("device", "gw-1"),
        ("of-device", "gw-1"),
        ("of-release", "r-1"),
        ("compatible", "acme"),
        ("Range", "bytes=0-1,5-9,99999999-"),
    ] {
        document["components"]["parameters"][parameter]["example"] = json!(example);
    }
    document
}

/// W2: schemathesis, with a device's token, without any and with an admin's, finds no 5xx, no status, no body and no header that the
/// document does not have, nothing that is taken although the document forbids it, and no route that is open without its credential.
#[test]
fn w2_schemathesis_finds_nothing_undocumented() {
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let list = "server/tests/openapi/requirements.txt";
    let python = Command::new("scripts/python-tools").arg(list).current_dir(repository).output().unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let python = String::from_utf8(python.stdout).unwrap();
    let server = Server::with(|options| options.token = Some(ADMIN.into()));
    let [artifact, delta, device] = furnish(&server);
    let document = aimed(ask(&server, "GET", "/api/v1/openapi.json", &Value::Null).json(), &artifact, &delta);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("openapi.json");
    std::fs::write(&path, document.to_string()).unwrap();
    // Bounded by the number of cases, not by a clock: what is tried is the same on every machine. The admin comes last, since what they do
    // may take away what the others need; what strangers may not do on the operators' routes is tried with the admin's (`ignored_auth`).
    for (who, token, phases, paths, cases) in [
        ("device", device.as_str(), "examples,fuzzing", "^/(device|artifacts|deltas|healthz)", "12"),
        ("nobody", "", "examples,fuzzing", "^/(device|artifacts|deltas|healthz)", "6"),
        ("admin", ADMIN, "examples,coverage,fuzzing", "^/", "3"),
    ] {
        let output = Command::new("timeout")
            .args(["300", python.trim(), "-m", "schemathesis.cli", "--config-file"])
            .arg(Path::new(repository).join("server/tests/openapi/schemathesis.toml"))
            .args(["run", "--phases", phases])
            .args(["--max-examples", cases, "--include-path-regex", paths])
            .args(["--seed", "1", "--no-shrink", "--no-color", "--suppress-health-check", "all"])
            .args(["--header", &format!("Authorization: Bearer {token}"), "--url"])
            .arg(format!("http://{}", server.address))
            .arg(&path)
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", Path::new(repository).join("server/tests/openapi"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "as {who}:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        let tried = said.lines().find(|line| line.contains(" generated, ")).unwrap_or_default().trim();
        assert!(tried.len() > 4 && !said.contains("Skipped"), "as {who}:\n{said}");
        println!("schemathesis as {who}: {tried}");
    }
    assert_eq!(get(server.address, "/healthz").status, 200);
}
