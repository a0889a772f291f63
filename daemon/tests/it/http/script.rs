//! A server that says exactly what a test tells it to, also what no HTTP server would say.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Number of the connection it came on, from 0.
    pub(super) connection: usize,
    pub(super) method: String,
    pub(super) target: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// A header's value; it panics when there are two.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} was sent twice");
        value
    }

    /// Both ends of the range asked for, inclusive; of several, the first and the last byte.
    pub(super) fn range(&self) -> Option<(usize, usize)> {
        let ranges = self.ranges()?;
        Some((ranges.first()?.0, ranges.last()?.1))
    }

    /// Both ends, inclusive, of each range asked for.
    pub(super) fn ranges(&self) -> Option<Vec<(usize, usize)>> {
        let ranges = self.header("range")?.strip_prefix("bytes=")?.split(',');
        ranges
            .map(|range| {
                let (first, last) = range.split_once('-')?;
                Some((first.parse().unwrap(), last.parse().unwrap()))
            })
            .collect()
    }
}

/// An answer that a test can spoil before it is sent.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: &str, body: &[u8]) -> Answer {
        let answer = Answer { status: status.to_owned(), headers: Vec::new(), body: body.to_vec() };
        answer.set("Content-Length", &body.len().to_string())
    }

    /// Sets a header in place of any that has this name.
    pub(super) fn set(self, name: &str, value: &str) -> Answer {
        self.without(name).add(name, value)
    }

    /// Adds a header, whether or not there is one already.
    pub(super) fn add(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn without(mut self, name: &str) -> Answer {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self
    }

    pub(super) fn head(&self) -> String {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("HTTP/1.1 {}\r\n{lines}\r\n", self.status)
    }

    /// All of it, as it goes over the wire.
    pub(super) fn bytes(&self) -> Vec<u8> {
        [self.head().as_bytes(), &self.body].concat()
    }
}

/// What happens to the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It waits for another request.
    Keep,
    /// It is closed with an orderly end.
    Close,
    /// It is reset: the client gets an error and not an end.
    Reset,
}

/// The server's side of a connection, while it answers.
pub(super) struct Wire<'a>(&'a TcpStream);

impl Wire<'_> {
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub(super) fn send(&mut self, answer: &Answer) -> io::Result<After> {
        self.raw(&answer.bytes())?;
        Ok(After::Keep)
    }

    /// Sends no more than `count` bytes of the answer's body.
    pub(super) fn send_part(&mut self, answer: &Answer, count: usize, after: After) -> io::Result<After> {
        self.raw(answer.head().as_bytes())?;
        self.raw(&answer.body[..count.min(answer.body.len())])?;
        Ok(after)
    }

    /// Says nothing until the client goes away.
    pub(super) fn hold(&mut self) -> io::Result<After> {
        let mut rest = [0; 64];
        while self.0.read(&mut rest)? > 0 {}
        Ok(After::Close)
    }
}

/// What a server does with its n-th request (from 0).
type Script = dyn Fn(usize, &Request, &mut Wire<'_>) -> io::Result<After> + Send + Sync;

struct Shared {
    script: Box<Script>,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    stop: AtomicBool,
}

/// A scripted server; it ends when it is dropped.
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(
        script: impl Fn(usize, &Request, &mut Wire<'_>) -> io::Result<After> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: Mutex::new(Vec::new()),
            connections: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let seen = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming() {
                if seen.stop.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&seen);
                // A client that goes away in the middle is part of the game, so errors end the connection and no more.
                thread::spawn(move || stream.and_then(|stream| serve(&shared, &stream)));
            }
        });
        Server { address, shared, acceptor: Some(acceptor) }
    }

    /// A server that gives every request the same answer.
    pub(super) fn always(answer: Answer) -> Server {
        Server::start(move |_, _, wire| wire.send(&answer))
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes `accept`; when this fails the listener is gone already.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }
}

fn serve(shared: &Shared, stream: &TcpStream) -> io::Result<()> {
    let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
    stream.set_nodelay(true)?;
    while let Some(request) = read_request(&mut &*stream, connection)? {
        let number = {
            let mut requests = shared.requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        match (shared.script)(number, &request, &mut Wire(stream))? {
            After::Keep => {
                if request.body.is_empty() {
                    let mut stream = stream;
                    stream.read_exact(&mut [0])?;
                }
            }
            After::Close => {
                let mut stream = stream;
                stream.read_exact(&mut [0])?;
                break;
            }
            // Closing a socket with unread input (the last byte of the request) sends a reset.
            After::Reset => break,
        }
    }
    Ok(())
}

/// Reads a request, but leaves the last byte of one without a body on the socket.
pub(super) fn read_request(stream: &mut impl Read, connection: usize) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut request = Request { connection, method, target, headers, body: Vec::new() };
    if let Some(length) = request.header("content-length").map(|text| text.parse::<usize>().unwrap()) {
        stream.read_exact(&mut byte)?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        request.body = body;
    }
    Ok(Some(request))
}

/// What separates the parts of several ranges.
pub(super) const BOUNDARY: &str = "THIS_IS_A_BOUNDARY";

/// A file with an ETag, served as HTTP asks for.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) bytes: Vec<u8>,
    pub(super) tag: Option<&'static str>,
}

impl Served {
    /// Bytes that differ at every offset that a test could mix up.
    pub(super) fn new(length: usize) -> Served {
        let bytes = (0..length).map(|i| ((i * 31) ^ (i >> 8) ^ (i >> 15)).to_le_bytes()[0]).collect();
        Served { bytes, tag: Some("\"v1\"") }
    }

    fn tagged(&self, answer: Answer) -> Answer {
        match self.tag {
            Some(tag) => answer.set("ETag", tag),
            None => answer,
        }
    }

    /// The whole file.
    pub(super) fn whole(&self) -> Answer {
        self.tagged(Answer::new("200 OK", &self.bytes))
    }

    /// The right answer to a request.
    pub(super) fn answer(&self, request: &Request) -> Answer {
        let total = self.bytes.len();
        let condition_holds = request.header("if-range").is_none_or(|tag| Some(tag) == self.tag);
        let Some(ranges) = request.ranges().filter(|_| condition_holds) else { return self.whole() };
        let &[(first, last)] = ranges.as_slice() else { return self.several(&ranges) };
        if first >= total {
            let refusal = Answer::new("416 Range Not Satisfiable", b"");
            return refusal.set("Content-Range", &format!("bytes */{total}"));
        }
        let last = last.min(total - 1);
        let answer = Answer::new("206 Partial Content", &self.bytes[first..=last]);
        self.tagged(answer.set("Content-Range", &format!("bytes {first}-{last}/{total}")))
    }

    /// The right answer to a request for several ranges.
    pub(super) fn several(&self, ranges: &[(usize, usize)]) -> Answer {
        let mut body = Vec::new();
        for (first, last) in ranges {
            let range = format!("Content-Range: bytes {first}-{last}/{}", self.bytes.len());
            body.extend(
                format!("\r\n--{BOUNDARY}\r\nContent-Type: text/plain\r\n{range}\r\n\r\n").as_bytes(),
            );
            body.extend(&self.bytes[*first..=*last]);
        }
        body.extend(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/byteranges; boundary={BOUNDARY}");
        self.tagged(Answer::new("206 Partial Content", &body).set("Content-Type", &kind))
    }
}
