//! The network adapter against servers that misbehave. Each test names the row of the fault matrix that it keeps.

mod busy;
mod hostile;
mod papers;
mod polling;
mod refusals;
mod scattered;
mod script;
mod secured;
mod slow_line;
mod sparing;
mod transfers;

use std::time::{Duration, Instant};

use otad::adapters::http::{HttpFetch, Limits};
use otad::failure::failure_of;
use otad::failure::{Code, Failure};
use otad::ports::{Fetch, Stop};
use otad_bundle::Input;

use self::script::Server;

const AGENT: &str = "otad/0.1.0 (acme-gateway; 1.2.3)";

/// Limits that fail fast. The idle time leaves room for a machine that has other things to do.
fn quick() -> Limits {
    Limits {
        resolve: Duration::from_secs(2),
        connect: Duration::from_secs(2),
        send: Duration::from_secs(2),
        answer: Duration::from_secs(2),
        idle: Duration::from_secs(2),
        exchange: Duration::from_secs(2),
        tries: 3,
        backoff_first: Duration::from_millis(10),
        backoff_longest: Duration::from_millis(40),
        busy_wait: Duration::from_millis(1500),
        window: Duration::from_secs(2),
        window_bytes: 512,
        opening: 8 * 1024,
        first_span: 8 * 1024,
        longest_span: 64 * 1024,
        skip: 4 * 1024,
        ahead: 48 * 1024,
    }
}

fn fetcher(limits: Limits) -> HttpFetch {
    HttpFetch::with_limits(None, AGENT, limits).unwrap()
}

fn open(url: &str, limits: Limits) -> Result<Box<dyn Input + Send>, Failure> {
    fetcher(limits).open(url, &Stop::default())
}

/// Reads the rest of an input; an error must carry a failure.
fn rest(input: &mut dyn Input) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    match input.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(failure_of(&error).unwrap_or_else(|| panic!("no failure in {error:?}")).clone()),
    }
}

/// Opens a file and reads all of it.
fn read_all(server: &Server, limits: Limits) -> Result<Vec<u8>, Failure> {
    let mut input = open(&server.url("/x.otab"), limits)?;
    rest(&mut *input)
}

/// Reads a file that cannot be had and returns why.
fn refusal(server: &Server) -> Failure {
    read_all(server, quick()).unwrap_err()
}

#[track_caller]
fn assert_code(failure: &Failure, code: Code, part: &str) {
    assert_eq!(failure.code, code, "{failure}");
    assert!(failure.message.contains(part), "{part:?} is not in {failure}");
}

/// Runs an act that must not take longer than `limit`.
#[track_caller]
fn within<T>(limit: Duration, act: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = act();
    assert!(started.elapsed() < limit, "took {:?}", started.elapsed());
    result
}
