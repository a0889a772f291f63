//! What the devices of a load do.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use otad::testing::medium::mix;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::wire::{Answer, Caller, connect, exchange};
use super::{Afterwards, COMPATIBLE, COMPATIBLE_UPDATING, Load, Samples};

/// After so long a question counts as not answered; otad would wait twice as long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Devices that are introduced at the same time.
const INTRODUCED_AT_ONCE: usize = 64;
/// Time between two words of a device at an update, as otad has it.
const TELL_EVERY_MS: u64 = 2000;
/// What such a device takes of the bundle meanwhile.
const PART_BYTES: u64 = 64 * 1024;

/// Makes every device known, and has those that update begin, many at a time.
pub(super) async fn introduce(load: &Load) -> io::Result<()> {
    let local = tokio::task::LocalSet::new();
    let shares: Vec<_> = (0..INTRODUCED_AT_ONCE)
        .map(|share| {
            let load = load.clone();
            local.spawn_local(async move {
                for number in (share..load.devices).step_by(INTRODUCED_AT_ONCE) {
                    expect(204, &ask_once(&load, number).await?.1)?;
                }
                for number in (share..load.updating).step_by(INTRODUCED_AT_ONCE) {
                    let caller = Caller::new(COMPATIBLE_UPDATING, number);
                    let mut line = connect(load.server, number).await?;
                    expect(200, &exchange(&mut line, &caller.check(load.server)).await?)?;
                    expect(204, &exchange(&mut line, &caller.progress(load.server, 0)).await?)?;
                }
                Ok::<(), io::Error>(())
            })
        })
        .collect();
    local
        .run_until(async {
            for share in shares {
                share.await.map_err(io::Error::other)??;
            }
            Ok(())
        })
        .await
}

fn expect(status: u16, answer: &Answer) -> io::Result<()> {
    if answer.status == status {
        return Ok(());
    }
    Err(io::Error::other(format!("a device is answered with {}, not {status}", answer.status)))
}

/// Every device asks once per interval, at a time of its own. Returns when the last answer is there.
pub(super) async fn ask_on_schedule(load: &Load, start: Instant, checks: &Rc<Samples>) {
    let millis = u64::try_from(load.interval.as_millis()).unwrap_or(u64::MAX);
    let phase = |number: usize| mix(1, number as u64).checked_rem(millis).unwrap_or(0);
    let mut order: Vec<_> = (0..load.devices).map(|number| (phase(number), number)).collect();
    order.sort_unstable();
    let mut asking = Vec::new();
    'load: for round in 0_u32.. {
        for (phase, number) in &order {
            let due = start + load.interval * round + Duration::from_millis(*phase);
            if due > start + load.lasts {
                break 'load;
            }
            sleep_until(due).await;
            let (load, number, checks) = (load.clone(), *number, checks.clone());
            asking.push(tokio::task::spawn_local(async move { ask(&load, number, due, &checks).await }));
        }
        if order.is_empty() {
            sleep_until(start + load.lasts).await;
            break;
        }
    }
    for asking in asking {
        // What it came to is in the samples.
        drop(timeout(PATIENCE, asking).await);
    }
}

async fn ask(load: &Load, number: usize, due: Instant, checks: &Samples) {
    let answered = timeout(PATIENCE, ask_once(load, number)).await;
    let took = due.elapsed();
    let stream = match answered {
        Ok(Ok((stream, answer))) if answer.status == 204 => stream,
        Ok(_) | Err(_) => return checks.add(took, false),
    };
    checks.add(took, true);
    if load.afterwards == Afterwards::Keep {
        let until = (due + load.interval).min(Instant::now() + load.lasts);
        tokio::task::spawn_local(keep(stream, until));
    }
}

async fn ask_once(load: &Load, number: usize) -> io::Result<(TcpStream, Answer)> {
    let mut stream = connect(load.server, number).await?;
    let answer = exchange(&mut stream, &Caller::new(COMPATIBLE, number).check(load.server)).await?;
    Ok((stream, answer))
}

/// Keeps a connection that nobody needs until the server closes it.
async fn keep(mut stream: TcpStream, until: Instant) {
    let mut byte = [0];
    tokio::select! {
        _ = stream.read(&mut byte) => {}
        () = sleep_until(until) => {}
    }
}

/// A device that is at an update until `end`: one connection for what it says, one for what it fetches.
pub(super) async fn update(
    load: &Load,
    number: usize,
    end: Instant,
    progress: &Samples,
    fetched: &Cell<u64>,
) {
    let caller = Caller::new(COMPATIBLE_UPDATING, number);
    let offset = mix(2, number as u64).checked_rem(TELL_EVERY_MS).unwrap_or(0);
    let mut due = Instant::now() + Duration::from_millis(offset);
    let mut lines: [Option<TcpStream>; 2] = [None, None];
    let mut url = None;
    for percent in 1.. {
        sleep_until(due).await;
        if due >= end {
            return;
        }
        let said = timeout(PATIENCE, say(load, number, &caller, percent, &mut url, &mut lines)).await;
        let bytes = said.ok().and_then(Result::ok);
        progress.add(due.elapsed(), bytes.is_some());
        if bytes.is_none() {
            lines = [None, None];
        }
        fetched.set(fetched.get() + bytes.unwrap_or(0));
        due += Duration::from_millis(TELL_EVERY_MS);
    }
}

/// One word of progress and one part of the bundle, whose length is returned.
async fn say(
    load: &Load,
    number: usize,
    caller: &Caller,
    percent: u64,
    url: &mut Option<String>,
    lines: &mut [Option<TcpStream>; 2],
) -> io::Result<u64> {
    let [words, bytes] = lines;
    let words = open(words, load, number).await?;
    let target = match url {
        Some(target) => target.clone(),
        None => {
            let answer = exchange(words, &caller.check(load.server)).await?;
            let offer: serde_json::Value = serde_json::from_slice(&answer.body).map_err(io::Error::other)?;
            let target = offer.get("url").and_then(|url| url.as_str()).unwrap_or_default().to_owned();
            url.insert(target).clone()
        }
    };
    let answer = exchange(words, &caller.progress(load.server, percent.min(99))).await?;
    expect(204, &answer)?;
    let part = caller.range(load.server, &target, 0, PART_BYTES - 1);
    let answer = exchange(open(bytes, load, number).await?, &part).await?;
    expect(206, &answer)?;
    Ok(answer.body.len() as u64)
}

async fn open<'a>(
    line: &'a mut Option<TcpStream>,
    load: &Load,
    number: usize,
) -> io::Result<&'a mut TcpStream> {
    let stream = match line.take() {
        Some(stream) => stream,
        None => connect(load.server, number).await?,
    };
    Ok(line.insert(stream))
}
