//! What an operator asks of a server: JSON over HTTP, patient with a server that is away for a moment.

use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;

/// How long an operator waits for an answer, and how long for a server that is away.
const EXCHANGE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A request was refused, or nobody answered.
#[derive(Debug, thiserror::Error)]
#[error("{method} {target}: {what}")]
pub struct OperatorError {
    method: &'static str,
    target: String,
    what: String,
}

/// Somebody who looks after releases.
#[derive(Debug, Clone)]
pub struct Operator {
    url: String,
    agent: Agent,
}

impl Operator {
    /// An operator of the server at a URL, who needs no token: on the server's own machine.
    pub fn new(url: &str) -> Operator {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(EXCHANGE))
            // A killed server takes its connections along; a fresh one each time says nothing wrong about that.
            .max_idle_connections(0)
            .build();
        Operator { url: url.to_owned(), agent: Agent::new_with_config(config) }
    }

    /// Reads something.
    ///
    /// # Errors
    /// Anything but success.
    pub fn get(&self, target: &str) -> Result<Value, OperatorError> {
        let begin = Instant::now();
        loop {
            let answer = self.agent.get(format!("{}{target}", self.url)).call();
            match self.read("GET", target, answer) {
                // Asking again changes nothing.
                Err(Trouble::Nobody(_)) if begin.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                other => return other.map_err(Trouble::into_error),
            }
        }
    }

    /// Reads one of the server's metrics; `None` when there is no such number.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn metric(&self, name: &str) -> Result<Option<u64>, OperatorError> {
        let target = "/api/v1/metrics";
        let failed = |error: ureq::Error| OperatorError {
            method: "GET",
            target: target.to_owned(),
            what: error.to_string(),
        };
        let mut answer = self.agent.get(format!("{}{target}", self.url)).call().map_err(failed)?;
        let text = answer.body_mut().read_to_string().map_err(failed)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.and_then(|value| value.parse().ok()))
    }

    /// Changes something.
    ///
    /// # Errors
    /// Anything but success.
    pub fn post(&self, target: &str, body: &Value) -> Result<Value, OperatorError> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(target, &bytes, "application/json")
    }

    /// Uploads a bundle.
    ///
    /// # Errors
    /// Anything but success.
    pub fn upload(&self, bundle: &[u8]) -> Result<Value, OperatorError> {
        self.send("/api/v1/artifacts", bundle, "application/octet-stream")
    }

    fn send(&self, target: &str, body: &[u8], kind: &str) -> Result<Value, OperatorError> {
        let request = self.agent.post(format!("{}{target}", self.url)).header("content-type", kind);
        self.read("POST", target, request.send(body)).map_err(Trouble::into_error)
    }

    fn read(
        &self,
        method: &'static str,
        target: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, Trouble> {
        let error = |what: String| OperatorError { method, target: target.to_owned(), what };
        let mut answer = answer.map_err(|failure| Trouble::Nobody(error(failure.to_string())))?;
        let text = answer.body_mut().read_to_string();
        let text = text.map_err(|failure| Trouble::Nobody(error(failure.to_string())))?;
        if !answer.status().is_success() {
            return Err(Trouble::Refused(error(format!("{} {text}", answer.status()))));
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|failure| Trouble::Refused(error(failure.to_string())))
    }
}

/// Whether it helps to ask again.
enum Trouble {
    Nobody(OperatorError),
    Refused(OperatorError),
}

impl Trouble {
    fn into_error(self) -> OperatorError {
        match self {
            Trouble::Nobody(error) | Trouble::Refused(error) => error,
        }
    }
}
