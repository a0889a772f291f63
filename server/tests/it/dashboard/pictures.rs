//! The pictures of docs/dashboard.md: an empty fleet, a healthy one and a failing one, drawn by the page itself.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::browser::Browser;
use super::{OLD, say, url};
use crate::fleet::{act, check, released};
use crate::http::{get, post_json};
use crate::rig::Server;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/img");
const FLEET: usize = 180;

fn name(number: usize) -> String {
    format!("gw-{number:04}")
}

fn report(server: &Server, device: &str, outcome: &str, release: &Value, boot: &str, code: &str) {
    let log: &[&str] = if code.is_empty() {
        &[]
    } else {
        &[
            "otad: trial of slot b, boot 1 of 3",
            "health: gateway.service is not active after 60 s",
            "otad: HEALTH_FAILED, back to slot a",
        ]
    };
    let body = json!({
        "device": device, "compatible": "acme", "report_id": format!("{outcome}-{device}"), "outcome": outcome, "release": release,
        "version": "2.0.0", "from_version": "1.0.0", "slot": "b", "boot_id": boot, "code": code, "duration_ms": 95_000,
        "message": if code.is_empty() { "" } else { "gateway.service is not active after 60 s" }, "log": log,
    });
    assert_eq!(post_json(server.address, "/device/v1/reports", &body).status, 204);
}

fn confirm(server: &Server, device: &str, release: &Value) {
    report(server, device, "installed", release, "b1", "");
    report(server, device, "committed", release, "b2", "");
    let release = release.as_str().unwrap();
    check(server, device, &format!("version=2.0.0&sequence=2&release={release}&boot_id=b2&state=idle"));
}

/// A release on its way to everybody, two thirds of it done.
fn healthy() -> Server {
    let policy = json!({ "staging_percent": 20, "promote": false, "max_concurrent": 40 });
    let (server, uploaded) = released(policy, |_| {});
    let release = &uploaded["release"];
    act(&server, "start");
    let mut done = Vec::new();
    for number in 0..FLEET {
        if check(&server, &name(number), OLD) == 200 {
            confirm(&server, &name(number), release);
            done.push(number);
        }
    }
    act(&server, "promote");
    let mut at_it = 0;
    for number in 0..FLEET {
        if done.contains(&number) || check(&server, &name(number), OLD) != 200 {
            continue;
        }
        if number < FLEET * 2 / 3 {
            confirm(&server, &name(number), release);
            continue;
        }
        at_it += 1;
        match at_it {
            1..=4 => {
                let percent = u8::try_from(at_it * 19).unwrap();
                say(&server, &name(number), "writing", percent);
            }
            5..=9 => say(&server, &name(number), "downloading", 35),
            10..=12 => {
                report(&server, &name(number), "installed", release, "b1", "");
                let running = release.as_str().unwrap();
                let trial =
                    format!("version=2.0.0&sequence=2&release={running}&boot_id=b2&state=post-upgrade");
                check(&server, &name(number), &trial);
            }
            _ => {}
        }
    }
    server
}

/// A release that pauses itself, with one device that never came back from its reboot.
fn failing() -> Server {
    let policy = json!({ "staging_percent": 50, "promote": false, "timeouts": { "boot": 1 } });
    let (server, uploaded) = released(policy, |options| options.limits.heartbeat_seconds = 2);
    let release = &uploaded["release"];
    act(&server, "start");
    let mut offered = 0;
    for number in 0..FLEET {
        let device = name(number);
        if check(&server, &device, OLD) != 200 {
            continue;
        }
        offered += 1;
        match offered {
            1..=30 => confirm(&server, &device, release),
            31 => {
                report(&server, &device, "installed", release, "b1", "");
                say(&server, &device, "rebooting", 100);
            }
            32..=38 => {
                report(&server, &device, "installed", release, "b1", "");
                report(&server, &device, "rolled-back", release, "b3", "HEALTH_FAILED");
            }
            39..=40 => report(&server, &device, "failed", release, "b1", "NET_STALLED"),
            41 => report(&server, &device, "failed", release, "b1", "NO_SPACE"),
            _ => {}
        }
    }
    // Three devices stay away until they are lost.
    let begin = Instant::now();
    while get(server.address, "/api/v1/fleet").json()["lost"].as_u64().unwrap() < 3 {
        assert!(begin.elapsed() < Duration::from_secs(60));
        for number in 3..FLEET {
            let known = get(server.address, &format!("/api/v1/devices/{}", name(number))).json();
            // It is still away.
            if known["releases"][0]["standing"]["step"] == "silent" {
                continue;
            }
            let (version, sequence) = (&known["version"], &known["sequence"]);
            let running = known["release"].as_str().unwrap_or_default();
            let version = version.as_str().unwrap();
            check(
                &server,
                &name(number),
                &format!("version={version}&sequence={sequence}&release={running}&boot_id=b9"),
            );
        }
    }
    server
}

fn save(browser: &Browser, name: &str) {
    let path = format!("{DIRECTORY}/{name}.png");
    // 128 colours are enough for a page of a dozen, and make the file a third.
    let reduce = format!("base64 -d | pngquant --speed 1 128 - >{path:?}");
    let mut shell = Command::new("sh").args(["-c", &reduce]).stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(browser.picture().as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success(), "{path}");
}

fn first_pages(browser: &Browser, server: &Server, kind: &str) {
    for (theme, width, height, phone) in [
        ("light", 1280, 900, false),
        ("dark", 1280, 900, false),
        ("light", 375, 812, true),
        ("dark", 375, 812, true),
    ] {
        browser.tell(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] }),
        );
        browser.size(width, height, phone);
        browser.open("about:blank");
        browser.open(&url(server));
        browser.wait(
            "document.querySelector('.tiles') && document.querySelector('#line').dataset.state === 'on'",
        );
        let wide = browser.ask("document.documentElement.scrollWidth - innerWidth");
        assert!(wide.as_i64().unwrap() <= 0, "{kind} {width}: {wide} pixels too wide");
        save(browser, &format!("dashboard-{kind}-{theme}-{width}"));
    }
}

/// Draws them anew; nothing of the first page may be wider than the screen, down to 375 pixels.
#[test]
#[ignore = "writes docs/img, with pngquant; run it by name when the page has changed"]
fn draws_the_pictures_of_the_docs() {
    std::fs::create_dir_all(DIRECTORY).unwrap();
    let browser = Browser::start();
    first_pages(&browser, &Server::start(), "empty");
    first_pages(&browser, &healthy(), "healthy");
    let server = failing();
    first_pages(&browser, &server, "failing");
    let failed = get(server.address, "/api/v1/releases/r/devices?step=rolled-back").json();
    let mut failed = failed["devices"].as_array().unwrap().iter();
    let device = failed.find(|member| member["code"] == "HEALTH_FAILED").unwrap()["device"].as_str().unwrap();
    browser.size(1280, 900, false);
    browser.open(&format!("{}#/device/{device}", url(&server)));
    browser.wait("document.querySelector('pre.log')");
    save(&browser, "dashboard-device-dark-1280");
}
