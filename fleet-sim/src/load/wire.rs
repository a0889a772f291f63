//! The bytes that a device and a server exchange, as otad writes them.

use std::io;
use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Largest head and body of an answer that is not a bundle.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Addresses of this machine that devices come from: each has only so many ports, and a port rests for a minute.
const SOURCES: usize = 16;

/// A device as it shows itself.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its id.
    pub device: String,
    /// Its model.
    pub compatible: &'static str,
    /// Its boot.
    pub boot_id: String,
    /// What it is about.
    pub state: &'static str,
}

/// The release that all callers run.
pub const RUNS: (&str, u64) = ("1.0.0", 1);

impl Caller {
    /// The caller with a number.
    pub fn new(compatible: &'static str, number: usize) -> Caller {
        let device = format!("{compatible}-{number:06}");
        Caller { boot_id: format!("boot-of-{device}"), device, compatible, state: "idle" }
    }

    /// The question for an update, as otad puts it.
    pub fn check(&self, server: SocketAddr) -> Vec<u8> {
        let Caller { device, compatible, boot_id, state } = self;
        let (version, sequence) = RUNS;
        let target = format!(
            "/device/v1/update?device={device}&compatible={compatible}&version={version}&sequence={sequence}\
             &boot_id={boot_id}&state={state}"
        );
        self.request("GET", &target, server, "").into_bytes()
    }

    /// A word about how far an install is.
    pub fn progress(&self, server: SocketAddr, percent: u64) -> Vec<u8> {
        let Caller { device, boot_id, .. } = self;
        let body = json!({ "device": device, "phase": "writing", "percent": percent, "boot_id": boot_id })
            .to_string();
        let more = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        (self.request("POST", "/device/v1/progress", server, &more) + &body).into_bytes()
    }

    /// A part of a file.
    pub fn range(&self, server: SocketAddr, target: &str, first: u64, last: u64) -> Vec<u8> {
        let more = format!("range: bytes={first}-{last}\r\n");
        self.request("GET", target, server, &more).into_bytes()
    }

    fn request(&self, method: &str, target: &str, server: SocketAddr, more: &str) -> String {
        let (otad, (version, _)) = (env!("CARGO_PKG_VERSION"), RUNS);
        format!(
            "{method} {target} HTTP/1.1\r\nhost: {server}\r\naccept-encoding: identity\r\n\
             user-agent: otad/{otad} ({}; {version})\r\naccept: */*\r\n{more}\r\n",
            self.compatible
        )
    }
}

/// An answer to a small request.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Connects from one of the addresses of this machine, if the server is on it too.
pub async fn connect(server: SocketAddr, number: usize) -> io::Result<TcpStream> {
    if !server.ip().is_loopback() || server.is_ipv6() {
        return TcpStream::connect(server).await;
    }
    let socket = TcpSocket::new_v4()?;
    let last = u8::try_from(number % SOURCES).unwrap_or_default() + 1;
    socket.bind(SocketAddr::from(([127, 0, 1, last], 0)))?;
    socket.connect(server).await
}

/// Sends a request and reads the whole answer.
pub async fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<Answer> {
    stream.write_all(request).await?;
    let mut bytes = Vec::with_capacity(1024);
    let (head, length) = loop {
        if let Some(found) = head(&bytes)? {
            break found;
        }
        more(stream, &mut bytes).await?;
    };
    while bytes.len() < head.end + length {
        more(stream, &mut bytes).await?;
    }
    let body = bytes.get(head.end..head.end + length).unwrap_or_default().to_vec();
    Ok(Answer { status: head.status, body })
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    if bytes.len() > 2 * MAX_ANSWER_BYTES {
        return Err(io::Error::other("an answer of this length is not expected"));
    }
    match stream.read_buf(bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

pub(super) struct Head {
    pub(super) status: u16,
    /// Where the body begins.
    pub(super) end: usize,
}

/// Reads the head of an answer and the length of its body; `None` when it is not all there yet.
pub(super) fn head(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let bad = || io::Error::other("the answer is not HTTP");
    let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).map_err(|_| bad())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|word| word.parse().ok());
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok());
    Ok(Some((Head { status: status.ok_or_else(bad)?, end: end + 4 }, length.unwrap_or(0))))
}
