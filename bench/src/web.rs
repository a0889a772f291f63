//! The update server and the line to it: a relay in front of `otaserver` that counts, and can be as slow as a mobile network.
//!
//! It relays bytes and understands nothing but the end of a request's head; devices send no bodies for what they fetch.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use otad_demo::{Binaries, Server};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::process::run;

/// What is relayed at a time.
const PIECE_BYTES: usize = 16 << 10;
/// Pieces on a delayed line: 16 MiB, more than any line here holds.
const PIECES_ON_THE_WAY: usize = 1024;
/// What a socket may hold that the device has not been sent yet. By default that is megabytes, which on a real line would still be
/// with the server and not count as delivered; the kernel doubles it for its own purposes.
const UNSENT_BYTES: usize = 32 << 10;

/// What a line is like.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Line {
    /// Bytes that go down per second, in all connections together; none for as fast as it goes.
    pub(crate) bytes_per_second: Option<f64>,
    /// How long each way takes.
    pub(crate) delay: Duration,
}

/// What went over the line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Bytes to the device, heads of answers included.
    pub(crate) down_bytes: u64,
    /// Requests.
    pub(crate) requests: u64,
    /// Connections.
    pub(crate) connections: u64,
}

#[derive(Debug)]
struct Relay {
    server: SocketAddr,
    line: Line,
    down_bytes: AtomicU64,
    requests: AtomicU64,
    connections: AtomicU64,
    /// When how many bytes were through.
    log: Mutex<Vec<(Instant, u64)>>,
    /// When the line has sent everything that it was given.
    free: Mutex<Instant>,
}

/// The server behind its line.
#[derive(Debug)]
pub(crate) struct Web {
    server: Server,
    relay: Arc<Relay>,
    address: SocketAddr,
}

impl Web {
    /// Starts it with its data in `dir`.
    pub(crate) fn start(dir: &Path, root: &Path, binaries: &Binaries, line: Line) -> Result<Web, Error> {
        let server = Server::start(&dir.join("server"), root, binaries)?;
        let address = server.url().trim_start_matches("http://");
        let behind = address.parse().map_err(|error| Error::Setup(format!("{address}: {error}")))?;
        let listener = TcpListener::bind("127.0.0.1:0").map_err(Error::io("listen on", "127.0.0.1"))?;
        let address = listener.local_addr().map_err(Error::io("listen on", "127.0.0.1"))?;
        let relay = Arc::new(Relay {
            server: behind,
            line,
            down_bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            log: Mutex::new(Vec::new()),
            free: Mutex::new(Instant::now()),
        });
        let accepting = relay.clone();
        // It ends with this program.
        std::thread::spawn(move || accepting.accept(&listener));
        Ok(Web { server, relay, address })
    }

    /// Uploads a bundle and returns its URL, through the line.
    pub(crate) fn offer(&self, bundle: &Path) -> Result<String, Error> {
        let artifact = self.server.upload(bundle)?;
        Ok(format!("http://{}{}", self.address, artifact.url))
    }

    /// Uploads a bundle and returns its URL, past the line.
    pub(crate) fn offer_directly(&self, bundle: &Path) -> Result<String, Error> {
        let artifact = self.server.upload(bundle)?;
        Ok(self.server.artifact_url(&artifact))
    }

    /// Uploads a delta and returns its URL, through the line.
    pub(crate) fn offer_delta(&self, delta: &Path) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Offered {
            url: String,
        }
        let mut upload = Command::new("curl");
        upload.args(["--silent", "--show-error", "--fail-with-body", "-X", "POST", "-T"]).arg(delta);
        let answer = run(upload.arg(format!("{}/api/v1/deltas", self.server.url())))?;
        let offered: Offered = serde_json::from_slice(&answer)
            .map_err(|error| Error::Setup(format!("the answer to a delta is not understood: {error}")))?;
        Ok(format!("http://{}{}", self.address, offered.url))
    }

    /// What went over the line so far.
    pub(crate) fn traffic(&self) -> Traffic {
        let relay = &self.relay;
        Traffic {
            down_bytes: relay.down_bytes.load(Ordering::Relaxed),
            requests: relay.requests.load(Ordering::Relaxed),
            connections: relay.connections.load(Ordering::Relaxed),
        }
    }

    /// Bytes per second between two moments: when these parts of everything were through that came after `before`.
    #[allow(clippy::cast_precision_loss)] // Far below 2^52.
    pub(crate) fn rate_between(&self, before: u64, [from, to]: [f64; 2]) -> f64 {
        let log = self.relay.log.lock().unwrap_or_else(PoisonError::into_inner);
        let all = log.last().map_or(0, |(_, through)| through - before) as f64;
        let when =
            |part: f64| log.iter().find(|(_, through)| through.saturating_sub(before) as f64 >= part * all);
        match (when(from), when(to)) {
            (Some((first, start)), Some((last, end))) => {
                (end - start) as f64 / last.duration_since(*first).as_secs_f64()
            }
            _ => f64::NAN,
        }
    }

    /// What goes over the line during an act.
    pub(crate) fn during<T>(&self, act: impl FnOnce() -> Result<T, Error>) -> Result<(T, Traffic), Error> {
        let before = self.traffic();
        let done = act()?;
        let after = self.traffic();
        let traffic = Traffic {
            down_bytes: after.down_bytes - before.down_bytes,
            requests: after.requests - before.requests,
            connections: after.connections - before.connections,
        };
        Ok((done, traffic))
    }
}

impl Relay {
    fn accept(self: Arc<Relay>, listener: &TcpListener) {
        for device in listener.incoming().flatten() {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let relay = self.clone();
            std::thread::spawn(move || {
                // A connection that breaks is for the device to notice.
                let _ = relay.connection(device);
            });
        }
    }

    fn connection(self: Arc<Relay>, device: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.server)?;
        device.set_nodelay(true)?;
        setsockopt(&device, sockopt::SndBuf, &UNSENT_BYTES)?;
        server.set_nodelay(true)?;
        let (up_from, up_to) = (device.try_clone()?, server.try_clone()?);
        let up = self.clone();
        std::thread::spawn(move || {
            let _ = up.upwards(up_from, up_to);
        });
        self.downwards(server, device)
    }

    fn upwards(&self, mut device: TcpStream, mut server: TcpStream) -> io::Result<()> {
        let mut piece = [0; PIECE_BYTES];
        let mut ends = HeadEnds::default();
        loop {
            let count = device.read(&mut piece)?;
            let got = piece.get(..count).unwrap_or_default();
            if got.is_empty() {
                return server.shutdown(Shutdown::Write);
            }
            self.requests.fetch_add(ends.count(got), Ordering::Relaxed);
            std::thread::sleep(self.line.delay);
            server.write_all(got)?;
        }
    }

    fn downwards(&self, mut server: TcpStream, mut device: TcpStream) -> io::Result<()> {
        let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(PIECES_ON_THE_WAY);
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                for (due, piece) in receiver {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    device.write_all(&piece)?;
                    let bytes = piece.len() as u64;
                    let through = self.down_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
                    self.log.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), through));
                }
                device.shutdown(Shutdown::Write)
            });
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                let waits = !is_readable(&server);
                let Ok(count @ 1..) = server.read(&mut piece) else { break };
                let due = self.send(count, waits) + self.line.delay;
                let got = piece.get(..count).unwrap_or_default().to_vec();
                if sender.send((due, got)).is_err() {
                    break;
                }
            }
            let _ = server.shutdown(Shutdown::Both);
            drop(sender);
            writer.join().unwrap_or(Ok(()))
        })
    }

    /// Takes the line for so many bytes; returns when they are through. The line was idle before only if it was waited for the
    /// bytes: those that lay ready follow the ones before without a gap, however late this thread awoke.
    #[allow(clippy::cast_precision_loss)] // A piece is 16 KiB.
    fn send(&self, bytes: usize, waited: bool) -> Instant {
        let Some(rate) = self.line.bytes_per_second else { return Instant::now() };
        let through = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            if waited {
                *free = (*free).max(Instant::now());
            }
            *free += Duration::from_secs_f64(bytes as f64 / rate);
            *free
        };
        std::thread::sleep(through.saturating_duration_since(Instant::now()));
        through
    }
}

/// Whether there is something to be read at once.
fn is_readable(stream: &TcpStream) -> bool {
    let mut ready = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut ready, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Counts the empty lines that end heads, also where one comes in two pieces.
#[derive(Debug, Default)]
struct HeadEnds {
    matched: usize,
}

impl HeadEnds {
    fn count(&mut self, piece: &[u8]) -> u64 {
        const END: &[u8] = b"\r\n\r\n";
        let mut found = 0;
        for &byte in piece {
            self.matched = match END.get(self.matched) {
                Some(&wanted) if wanted == byte => self.matched + 1,
                _ => usize::from(byte == b'\r'),
            };
            if self.matched == END.len() {
                found += 1;
                self.matched = 0;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted_wherever_they_are_cut() {
        let text = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n";
        for cut in 0..text.len() {
            let mut ends = HeadEnds::default();
            let (first, second) = text.split_at(cut);
            assert_eq!(ends.count(first) + ends.count(second), 2, "cut at {cut}");
        }
    }
}
