//! A headless Chromium, driven through chromedriver (W3C WebDriver) over plain HTTP.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest time that a page may need for something on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

pub(super) struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
}

impl Browser {
    /// Starts one with a profile of its own. Without Chromium the test fails: a page that nobody looked at is not tested.
    pub(super) fn start() -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect(
                "chromedriver starts (Debian: chromium chromium-driver; `scripts/need test` installs them)",
            );
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                Some(port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver names its port");
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE * 2))
            .build()
            .new_agent();
        let mut browser = Browser { driver, session: format!("http://127.0.0.1:{port}/session"), agent };
        let options = json!({ "capabilities": { "alwaysMatch": {
            "goog:loggingPrefs": { "browser": "ALL" },
            // Root may not use Chromium's sandbox; the only pages here are our own.
            "goog:chromeOptions": { "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"] },
        } } });
        let made = browser.command("", &options);
        browser.session = format!("{}/{}", browser.session, made["sessionId"].as_str().expect("a session"));
        browser.size(1280, 900, false);
        browser
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        let answer = self.agent.post(format!("{}{path}", self.session)).send(body.to_string());
        let text = answer.expect("chromedriver answers").body_mut().read_to_string().expect("text");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{path} {body}: {}", answer["value"]["message"]);
        answer["value"].clone()
    }

    /// Says something to Chromium itself.
    pub(super) fn tell(&self, command: &str, parameters: &Value) -> Value {
        self.command("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    pub(super) fn size(&self, width: u32, height: u32, phone: bool) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.tell("Emulation.setDeviceMetricsOverride", &metrics);
        self.tell("Emulation.setScrollbarsHidden", &json!({ "hidden": true }));
    }

    pub(super) fn open(&self, url: &str) {
        self.command("/url", &json!({ "url": url }));
    }

    /// What a piece of JavaScript in the page comes to.
    pub(super) fn ask(&self, expression: &str) -> Value {
        self.command("/execute/sync", &json!({ "script": format!("return {expression}"), "args": [] }))
    }

    /// Waits until it comes to true.
    pub(super) fn wait(&self, expression: &str) {
        let begin = Instant::now();
        while self.ask(&format!("Boolean({expression})")) != json!(true) {
            assert!(
                begin.elapsed() < PATIENCE,
                "{expression} never came true; the page says: {} and the console {:?}",
                self.ask("document.body.innerText"),
                self.complaints()
            );
            std::thread::sleep(POLL);
        }
    }

    fn element(&self, selector: &str) -> String {
        self.wait(&format!("document.querySelector({selector:?})"));
        let found = self.command("/element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        format!("/element/{}", id.expect("an element"))
    }

    /// Clicks as a person would: the element must be there, in view, and not covered.
    pub(super) fn click(&self, selector: &str) {
        self.command(&(self.element(selector) + "/click"), &json!({}));
    }

    /// Types into an element; `\u{e007}` is Enter.
    pub(super) fn keys(&self, selector: &str, text: &str) {
        self.command(&(self.element(selector) + "/value"), &json!({ "text": text }));
    }

    /// What the console holds since the last time that is worse than a word: refused code, exceptions, failed requests.
    pub(super) fn complaints(&self) -> Vec<String> {
        let lines = self.command("/se/log", &json!({ "type": "browser" }));
        let bad = lines.as_array().unwrap().iter().filter(|line| line["level"] == "SEVERE");
        bad.map(|line| line["message"].to_string()).collect()
    }

    /// The whole page as a PNG, in base64.
    pub(super) fn picture(&self) -> String {
        let shot = self.tell("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        shot["data"].as_str().expect("a picture").to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium goes with its session; chromedriver alone would leave it behind.
        drop(self.agent.delete(&self.session).call());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
