//! Many slow clients that fetch a large file by ranges, each at a rate of its own, so that together they fill a link.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use otad::testing::medium::mix;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::wire::{Caller, connect, head};
use super::{COMPATIBLE, wire};

/// What one request asks for.
const RANGE_BYTES: u64 = 4 << 20;
/// What a client takes at a time; it then waits until its rate allows for more.
const SIP_BYTES: usize = 64 * 1024;

/// A number of slow clients.
#[derive(Debug, Clone)]
pub struct Downloads {
    /// The server.
    pub server: SocketAddr,
    /// Path of the file.
    pub target: String,
    /// Its length.
    pub size: u64,
    /// How many clients.
    pub clients: usize,
    /// What each of them takes, in bytes per second.
    pub bytes_per_s: u64,
    /// How long.
    pub lasts: Duration,
}

/// What they got.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Download {
    /// Bytes in all.
    pub bytes: u64,
    /// Seconds it took.
    pub wall_s: f64,
    /// Clients that did not get on: refused, cut off, or answered wrongly.
    pub failed: usize,
}

/// Fetches until the time is over.
pub async fn download(downloads: &Downloads) -> Download {
    let bytes = Rc::new(Cell::new(0_u64));
    let start = Instant::now();
    let local = tokio::task::LocalSet::new();
    let clients: Vec<_> = (0..downloads.clients)
        .map(|number| {
            let (downloads, bytes) = (downloads.clone(), bytes.clone());
            local.spawn_local(async move { fetch(&downloads, number, start, &bytes).await })
        })
        .collect();
    let failed = local
        .run_until(async {
            let mut failed = 0;
            for client in clients {
                failed += usize::from(!matches!(client.await, Ok(Ok(()))));
            }
            failed
        })
        .await;
    Download { bytes: bytes.get(), wall_s: start.elapsed().as_secs_f64(), failed }
}

async fn fetch(downloads: &Downloads, number: usize, start: Instant, all: &Cell<u64>) -> io::Result<()> {
    let Downloads { server, size, lasts, .. } = downloads;
    let mut stream = connect(*server, number).await?;
    let mut taken = 0_u64;
    let starts = size.saturating_sub(RANGE_BYTES).max(1);
    for round in 0.. {
        let first = mix(number as u64, round).checked_rem(starts).unwrap_or(0);
        let last = (first + RANGE_BYTES - 1).min(size.saturating_sub(1));
        let question = Caller::new(COMPATIBLE, number).range(*server, &downloads.target, first, last);
        stream.write_all(&question).await?;
        let mut left = begin(&mut stream, last - first + 1, &mut taken, all).await?;
        let mut sip = vec![0; SIP_BYTES];
        while left > 0 {
            let due = start + Duration::from_secs_f64(taken as f64 / downloads.bytes_per_s as f64);
            if due.max(Instant::now()) >= start + *lasts {
                return Ok(());
            }
            sleep_until(due).await;
            let most = usize::try_from(left).unwrap_or(SIP_BYTES).min(SIP_BYTES);
            let count = stream.read(sip.get_mut(..most).unwrap_or_default()).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (left, taken) = (left - count as u64, taken + count as u64);
            all.set(all.get() + count as u64);
        }
    }
    Ok(())
}

/// Reads the head of the answer, and returns how much of the range is still to come.
async fn begin(stream: &mut TcpStream, length: u64, taken: &mut u64, all: &Cell<u64>) -> io::Result<u64> {
    let mut bytes = Vec::with_capacity(SIP_BYTES);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((wire::Head { status, end }, told)) = head(&bytes)? else { continue };
        if status != 206 || told as u64 != length {
            return Err(io::Error::other(format!("a range is answered with {status} and {told} bytes")));
        }
        let count = bytes.len().saturating_sub(end) as u64;
        *taken += count;
        all.set(all.get() + count);
        return Ok(length.saturating_sub(count));
    }
}
