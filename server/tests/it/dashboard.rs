//! The operators' page in a real browser, against a real server.

mod browser;
mod pictures;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::{act, check, released, step};
use crate::http::{get, post_json, send};
use crate::progress::upgrade;
use crate::rig::Server;
use browser::Browser;

const OLD: &str = "version=1.0.0&sequence=1&boot_id=b1&state=idle";
const CARD: &str = "document.querySelector('article.release')?.dataset.status";

fn url(server: &Server) -> String {
    format!("http://{}/", server.address)
}

fn status(server: &Server) -> Value {
    get(server.address, "/api/v1/releases/r").json()["status"].clone()
}

fn say(server: &Server, device: &str, phase: &str, percent: u8) {
    let body = json!({ "device": device, "phase": phase, "percent": percent, "boot_id": "b1" });
    assert_eq!(post_json(server.address, "/device/v1/progress", &body).status, 204);
}

/// A click on pause stops the fleet: the API says so, the next device gets nothing, and the page shows it; resume comes from the
/// keyboard, what a device says comes through the WebSocket, abort asks first.
#[test]
fn a_click_on_pause_stops_the_fleet() {
    let (server, _) = released(json!({ "staging_percent": 100, "promote": false }), |_| {});
    act(&server, "start");
    for number in 0..20 {
        assert_eq!(check(&server, &format!("gw-{number:02}"), OLD), 200);
    }
    let browser = Browser::start();
    browser.open(&url(&server));
    browser.wait(&format!("{CARD} === 'staging'"));
    browser.wait("document.querySelector('#line').dataset.state === 'on'");

    browser.click("button[data-turn=pause]");
    browser.wait(&format!("{CARD} === 'paused'"));
    assert_eq!(status(&server), "paused");
    assert_eq!(check(&server, "late", OLD), 204, "nobody begins");
    browser.wait("document.querySelector('.attention').innerText.includes('is paused: by this machine')");

    browser.keys("button[data-turn=resume]", "\u{e007}");
    browser.wait(&format!("{CARD} === 'staging'"));
    assert_eq!((status(&server), check(&server, "late", OLD)), (json!("staging"), 200));
    assert_eq!(browser.ask("document.activeElement.dataset.turn"), "pause", "the focus stays where it was");

    // Sooner than the page asks by itself: it was told.
    let begin = Instant::now();
    say(&server, "gw-07", "writing", 41);
    browser.wait("document.querySelector('[aria-label=\"Right now\"]')?.innerText.includes('41 %')");
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert_eq!(step(&server, "gw-07"), "installing");

    browser.click("button[data-turn=abort]");
    browser.wait("document.querySelector('#sure').open");
    browser.click("button[data-act=unsure]");
    assert_eq!(status(&server), "staging", "asked first");
    browser.click("button[data-turn=abort]");
    browser.click("button[data-act=sure]");
    browser.wait(&format!("{CARD} === 'aborted'"));
    assert_eq!(status(&server), "aborted");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Without the WebSocket the page asks by itself, and it listens again as soon as it may.
#[test]
fn a_broken_line_is_polled_and_comes_back() {
    let (server, _) = released(json!({}), |options| options.limits.max_listeners = 1);
    act(&server, "start");
    let (place, head) = upgrade(&server, "/api/v1/progress", "");
    assert!(head.contains("101"), "{head}");
    let browser = Browser::start();
    browser.open(&url(&server));
    browser.wait("document.querySelector('#line').dataset.state === 'poll'");
    browser.wait(&format!("{CARD} === 'staging'"));
    assert_eq!(act(&server, "pause").status, 200);
    browser.wait(&format!("{CARD} === 'paused'"));
    assert_eq!(browser.ask("document.querySelector('#line').innerText"), "every 10 s");
    drop(place);
    browser.wait("document.querySelector('#line').dataset.state === 'on'");
}

/// W10: what devices say is shown as text on every page, whatever it looks like; and a device's page says why it gets nothing.
#[test]
fn w10_markup_of_devices_stays_text() {
    const MARKUP: &str =
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    let (server, uploaded) = released(json!({ "staging_percent": 100, "promote": false }), |_| {});
    act(&server, "start");
    assert_eq!(check(&server, "evil", OLD), 200);
    let report = json!({
        "device": "evil", "compatible": "acme", "report_id": "1", "outcome": "failed", "release": uploaded["release"],
        "version": "2.0.0", "phase": "writing", "code": "HEALTH_FAILED", "message": MARKUP, "log": ["first line", MARKUP],
    });
    assert_eq!(post_json(server.address, "/device/v1/reports", &report).status, 204);
    let attributes = json!({ "site": MARKUP }).to_string();
    let set = send(server.address, "PUT", "/api/v1/devices/evil/attributes", &[], attributes.as_bytes());
    assert_eq!(set.status, 204);

    let browser = Browser::start();
    let clean = |page: &str| {
        assert_eq!(
            browser.ask("document.querySelectorAll('main img, main script, main iframe').length"),
            0,
            "{page}"
        );
        assert!(browser.ask("document.title").as_str().unwrap().ends_with("otad fleet"), "{page}");
    };
    browser.open(&url(&server));
    browser.wait("document.querySelector('[aria-label=Errors] a')");
    clean("overview");
    // From the kind of error down to the device and its log.
    browser.click("[aria-label=Errors] a");
    browser.wait("document.querySelector('h1')?.innerText === 'Errors: health'");
    browser.wait("document.querySelector('tbody')?.innerText.includes('<img src=x')");
    clean("errors");
    browser.click("tbody th a");
    browser.wait("document.querySelector('pre.log')?.innerText.includes('first line')");
    let shown = browser.ask("document.querySelector('main').innerText");
    let shown = shown.as_str().unwrap();
    assert!(shown.matches("<img src=x onerror=").count() >= 3, "{shown}");
    assert!(shown.contains("Why it gets no update") && shown.contains("HEALTH_FAILED"), "{shown}");
    clean("device");
    browser.open(&format!("{}#/release/r", url(&server)));
    browser.wait("document.querySelector('tbody')?.innerText.includes('<img src=x')");
    clean("release");
    browser.open(&format!("{}#/devices", url(&server)));
    browser.wait("document.querySelector('tbody')?.innerText.includes('evil')");
    clean("devices");
    // Even code of the page itself cannot make HTML of text.
    let refused =
        "(() => { try { document.body.innerHTML = '<b>x</b>'; return false } catch { return true } })()";
    assert_eq!(browser.ask(refused), true);
}

/// With tokens the page asks for one, keeps it in the tab alone, listens with it, and shows a viewer no button.
#[test]
fn a_viewer_signs_in_and_only_looks() {
    // As `openssl rand -base64` makes them: with letters that no protocol of a WebSocket has.
    const TOKEN: &str = "0123456789/bcdef+123456789abcde=";
    let server = Server::with(|options| options.token = Some(TOKEN.into()));
    let authorization = format!("Bearer {TOKEN}");
    let as_admin = |target: &str, body: &Value| {
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        send(server.address, "POST", target, &headers, body.to_string().as_bytes())
    };
    let bundle = crate::rig::Spec { random_bytes: 1000, ..crate::rig::Spec::default() }.bundle();
    let uploaded =
        send(server.address, "POST", "/api/v1/artifacts", &[("Authorization", &authorization)], &bundle)
            .json();
    let made = as_admin("/api/v1/releases", &json!({ "name": "r", "artifact": uploaded["sha256"] }));
    assert_eq!(made.status, 201);
    let viewer = as_admin("/api/v1/operators", &json!({ "name": "v", "role": "viewer" })).json();

    let browser = Browser::start();
    browser.open(&url(&server));
    browser.wait("document.querySelector('#token').open");
    browser.keys("#token-field", "not the token of anybody\u{e007}");
    browser.wait("document.querySelector('#token-why').innerText.includes('did not take')");
    browser.keys("#token-field", &format!("{}\u{e007}", viewer["token"].as_str().unwrap()));
    browser.wait(&format!("{CARD} === 'draft'"));
    browser.wait("document.querySelector('#line').dataset.state === 'on'");
    assert_eq!(browser.ask("document.querySelectorAll('[data-act=turn]').length"), 0);
    assert_eq!(browser.ask("document.querySelector('#who').innerText"), "v (viewer)");
    assert_eq!(browser.ask("[localStorage.length, document.cookie]"), json!([0, ""]));

    // An operator of the same page sees them.
    browser.click("#forget");
    browser.wait("document.querySelector('#token').open");
    browser.keys("#token-field", &format!("{TOKEN}\u{e007}"));
    browser.wait("document.querySelectorAll('[data-act=turn]').length === 2");
    browser.wait("document.querySelector('#line').dataset.state === 'on'");
}

/// The files of the page are open to all, hold no inline code or style, and may do nothing but what they need.
#[test]
fn w10_the_page_is_public_and_confined() {
    let server = Server::with(|options| options.token = Some("0123456789abcdef0123456789abcdef".into()));
    let page = get(server.address, "/");
    let text = String::from_utf8(page.body.clone()).unwrap();
    for inline in [" style=", "<style", "onclick", "javascript:"] {
        assert!(!text.contains(inline), "{inline}");
    }
    let mut paths: Vec<&str> = text.split('"').filter(|part| part.starts_with("/web/")).collect();
    paths.extend(["/", "/web/api.js", "/web/charts.js", "/web/device.js", "/web/dom.js"]);
    paths.extend(["/web/lists.js", "/web/overview.js", "/web/release.js", "/web/words.js"]);
    for path in paths {
        let answer = get(server.address, path);
        assert_eq!(answer.status, 200, "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let text = String::from_utf8(answer.body).unwrap();
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!text.contains(sink), "{path}: {sink}");
        }
    }
    for path in ["/web/", "/web/../Cargo.toml", "/web/none.js", "/index.html"] {
        assert_eq!(get(server.address, path).status, 404, "{path}");
    }
    assert_eq!(send(server.address, "POST", "/", &[], b"").status, 405);
    assert_eq!(get(server.address, "/api/v1/fleet").status, 401, "the data is not public");
}
