//! Who may do what: every route, asked by everybody.

use otaserver::http::{Needs, rules};
use otaserver::role::Role;
use serde_json::{Value, json};

use crate::http::{get, post_json, send};
use crate::rig::{Server, Spec};

const ADMIN: &str = "0123456789abcdef0123456789abcdef";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn ask(server: &Server, method: &str, target: &str, token: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = send(server.address, method, target, &[("Authorization", &bearer(token))], body.as_bytes());
    let shape = if answer.body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&answer.body).unwrap_or_default()
    };
    (answer.status, shape)
}

fn token(server: &Server, target: &str, body: &Value) -> String {
    let (status, shape) = ask(server, "POST", target, ADMIN, body);
    assert_eq!(status, 201, "{shape}");
    shape["token"].as_str().unwrap().to_owned()
}

/// W3, W4: every route of operators, generated from the list that the server itself is made from: without a credential, with a wrong
/// one, with a device's, and with that of every role.
#[test]
fn w3_w4_every_route_with_every_credential() {
    let server = Server::with(|options| options.token = Some(ADMIN.into()));
    let roles = ["viewer", "operator", "admin"];
    let tokens =
        roles.map(|role| token(&server, "/api/v1/operators", &json!({ "name": role, "role": role })));
    let device = token(&server, "/api/v1/devices/gw-1/token", &Value::Null);
    let rules = rules();
    assert!(rules.len() > 30, "{}", rules.len());
    for rule in &rules {
        let Needs::Role(least) = rule.needs else { continue };
        let target = rule.path.replace("{sha256}", &"0".repeat(64)).replace(['{', '}'], "");
        let method = rule.method.as_str();
        assert_eq!(send(server.address, method, &target, &[], b"").status, 401, "{method} {target}");
        for wrong in ["x".repeat(64), device.clone(), String::new(), tokens[2].to_uppercase()] {
            assert_eq!(
                ask(&server, method, &target, &wrong, &Value::Null).0,
                401,
                "{method} {target} {wrong}"
            );
        }
        // W2: what is no path is an error like any other.
        if target != rule.path && !target.contains("artifacts") && !target.contains("deltas") {
            let strange = rule.path.split('{').next().unwrap().to_owned() + "%ff";
            let strange = strange + &"/x".repeat(rule.path.matches('/').count() - strange_slashes(rule.path));
            let answer =
                send(server.address, method, &strange, &[("Authorization", &bearer(&tokens[2]))], b"");
            let (status, code) = (answer.status, answer.code());
            assert!(
                matches!(status, 400 | 404 | 405) && code != "INTERNAL",
                "{method} {strange}: {status} {code}"
            );
        }
        for (role, token) in roles.iter().zip(&tokens) {
            let (status, shape) = ask(&server, method, &target, token, &Value::Null);
            let enough =
                roles.iter().position(|r| r == role) >= roles.iter().position(|r| *r == least.as_str());
            assert_eq!(!matches!(status, 401 | 403), enough, "{method} {target} as {role}: {status} {shape}");
            assert_ne!(status, 405, "{method} {target}: the list is what the router is made from");
            assert!(status < 500, "{method} {target} as {role}: {status} {shape}");
        }
    }
    // The least that a role may do is in the list, so nothing but looking is open to a viewer.
    for rule in rules.iter().filter(|rule| rule.needs == Needs::Role(Role::Viewer)) {
        assert_eq!(rule.method.as_str(), "GET", "{}", rule.path);
    }
}

fn strange_slashes(path: &str) -> usize {
    path.split('{').next().unwrap().matches('/').count()
}

/// W3, W4: a device with a token is believed only with it; nobody speaks for another device.
#[test]
fn w3_w4_no_device_speaks_for_another() {
    let server = Server::with(|options| options.token = Some(ADMIN.into()));
    server.upload(&Spec::default().bundle());
    let [one, two] =
        ["gw-1", "gw-2"].map(|name| token(&server, &format!("/api/v1/devices/{name}/token"), &Value::Null));
    let report = crate::devices::report("gw-1", "r1");
    let progress = json!({ "device": "gw-1", "phase": "writing", "percent": 5 });
    let check = "/device/v1/update?device=gw-1&compatible=acme";
    for rule in rules().iter().filter(|rule| rule.needs == Needs::Device) {
        let method = rule.method.as_str();
        let (target, body) = match rule.path {
            "/device/v1/update" => (check, &Value::Null),
            "/device/v1/reports" => (rule.path, &report),
            "/device/v1/progress" => (rule.path, &progress),
            // It is signed, the same for a whole model, and asks for no name that could be another's.
            "/device/v1/channel" => continue,
            path => panic!("a new route of devices: say how to ask {path} as gw-1"),
        };
        let none = send(
            server.address,
            method,
            target,
            &[],
            if body.is_null() { String::new() } else { body.to_string() }.as_bytes(),
        );
        assert_eq!((none.status, none.code().as_str()), (401, "NOT_AUTHORIZED"), "{target} without");
        for wrong in [two.as_str(), ADMIN, "x"] {
            assert_eq!(ask(&server, method, target, wrong, body).0, 401, "{target} with {wrong}");
        }
        assert_eq!(ask(&server, method, target, &one, body).0, 204, "{target} with its own");
    }
    // Devices that never got a token go on as before, unless the operator wants it otherwise.
    assert_eq!(get(server.address, "/device/v1/update?device=free&compatible=acme").status, 204);
    // A new token ends the old one; taking it back ends the need for one.
    let new = token(&server, "/api/v1/devices/gw-1/token", &Value::Null);
    assert_eq!(
        (ask(&server, "GET", check, &one, &Value::Null).0, ask(&server, "GET", check, &new, &Value::Null).0),
        (401, 204)
    );
    assert_eq!(ask(&server, "DELETE", "/api/v1/devices/gw-1/token", ADMIN, &Value::Null).0, 204);
    assert_eq!(get(server.address, check).status, 204);
}

#[test]
fn with_required_tokens_strangers_leave_no_trace() {
    let server = Server::with(|options| options.limits.require_device_tokens = true);
    assert_eq!(get(server.address, "/device/v1/update?device=free&compatible=acme").status, 401);
    assert_eq!(
        post_json(server.address, "/device/v1/reports", &crate::devices::report("free", "r")).status,
        401
    );
    assert_eq!(get(server.address, "/api/v1/devices").json()["devices"], json!([]));
}

/// Every change has a line in the audit log, with who asked and what came of it; reading has none.
#[test]
fn changes_are_in_the_audit_log() {
    let server = Server::with(|options| options.token = Some(ADMIN.into()));
    let alice = token(&server, "/api/v1/operators", &json!({ "name": "alice", "role": "operator" }));
    ask(&server, "GET", "/api/v1/devices", &alice, &Value::Null);
    let (status, _) = ask(&server, "POST", "/api/v1/device-groups", &alice, &json!({ "name": "north" }));
    assert_eq!(status, 201);
    assert_eq!(ask(&server, "DELETE", "/api/v1/device-groups/none", &alice, &Value::Null).0, 404);
    assert_eq!(ask(&server, "DELETE", "/api/v1/operators/alice", ADMIN, &Value::Null).0, 204);
    assert_eq!(
        ask(&server, "GET", "/api/v1/devices", &alice, &Value::Null).0,
        401,
        "it stops working at once"
    );
    let (_, log) = ask(&server, "GET", "/api/v1/audit", ADMIN, &Value::Null);
    let lines: Vec<_> = (log["audit"].as_array().unwrap().iter())
        .map(|row| [row["who"].clone(), row["action"].clone(), row["subject"].clone(), row["status"].clone()])
        .map(|row| json!(row))
        .collect();
    assert_eq!(
        lines,
        [
            json!(["token file", "DELETE /api/v1/operators/{name}", "/operators/alice", 204]),
            json!(["alice", "DELETE /api/v1/device-groups/{group}", "/device-groups/none", 404]),
            json!(["alice", "POST /api/v1/device-groups", "north", 201]),
            json!(["token file", "POST /api/v1/operators", "alice", 201]),
        ]
    );
}

/// The first operator's token ends the rule that whoever is on this machine is an operator; `otaserver admin` makes it.
#[test]
fn admin_on_the_command_line() {
    let server = Server::start();
    let admin = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_otaserver"));
        command.args(["admin", "--data"]).arg(server.data());
        command.args(crate::database::url(server.data()).map(|url| format!("--database={url}")));
        let output = command.args(words).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(get(server.address, "/api/v1/whoami").json()["name"], "this machine");
    let (done, token) = admin(&["add-token", "bob", "--role", "viewer"]);
    assert!(done && token.trim().len() == 64, "{token}");
    assert!(!admin(&["add-token", "bob", "--role", "viewer"]).0, "a name is given once");
    assert_eq!(admin(&["tokens"]), (true, "bob\tviewer\n".to_owned()));
    assert_eq!(get(server.address, "/api/v1/whoami").status, 401);
    let (status, shape) = ask(&server, "GET", "/api/v1/whoami", token.trim(), &Value::Null);
    assert_eq!((status, shape), (200, json!({ "name": "bob", "role": "viewer" })));
    assert!(admin(&["revoke-token", "bob"]).0);
    assert_eq!(get(server.address, "/api/v1/whoami").status, 401, "the last token taken back opens nothing");
    assert_eq!(ask(&server, "GET", "/api/v1/whoami", token.trim(), &Value::Null).0, 401);
    let (done, token) = admin(&["add-token", "bob", "--role", "admin"]);
    assert!(done, "a token can still be had from the command line");
    assert_eq!(ask(&server, "GET", "/api/v1/whoami", token.trim(), &Value::Null).0, 200);
    assert!(!admin(&["add-token", "otaserver", "--role", "viewer"]).0, "the server's own name");
    let taken = json!({ "name": "otaserver", "role": "viewer" });
    let (status, shape) = ask(&server, "POST", "/api/v1/operators", token.trim(), &taken);
    assert_eq!((status, &shape["error"]["code"]), (400, &json!("INVALID_NAME")));
    let (done, token) = admin(&["add-device-token", "gw-1"]);
    assert!(done);
    let check = "/device/v1/update?device=gw-1&compatible=acme";
    assert_eq!(
        (get(server.address, check).status, ask(&server, "GET", check, token.trim(), &Value::Null).0),
        (401, 204)
    );
}

/// Only a page that this server itself gave out may change something; one of another origin may not.
#[test]
fn only_our_own_page_is_an_operator() {
    let server = Server::start();
    for (host, origin, status) in [
        ("localhost:8080", "http://localhost:8080", 200),
        ("127.0.0.1", "http://127.0.0.1", 200),
        ("localhost:8080", "http://localhost:9090", 403),
        ("localhost:8080", "http://evil.example", 403),
        ("localhost:8080", "null", 403),
        ("evil.example", "http://evil.example", 403),
    ] {
        let request = format!(
            "GET /api/v1/whoami HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n"
        );
        let mut stream = crate::http::connect(server.address);
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        assert_eq!(crate::http::receive(&mut stream, "GET").status, status, "{host} {origin}");
    }
}
