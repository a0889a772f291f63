//! A line with a round trip and a rate, between a client and a server: a TCP proxy that delays and counts.
//!
//! All connections share the rate, packet by packet in turn. What the line could have carried while nothing waited for it is
//! lost, as on a real one; so bytes carried over bytes possible is the share of time that it was busy.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How often the line carries something.
const TICK: Duration = Duration::from_millis(5);
/// What a line on a machine that stood still makes up for.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Bytes of a packet.
const PACKET_BYTES: usize = 1448;
/// Bytes that wait before the line, for each connection: the buffer of a router.
const WAITING_BYTES: usize = 256 * 1024;
/// Bytes that a client may leave unread: its receive window.
const UNREAD_BYTES: u64 = 1024 * 1024;

/// Bytes, and the time at which they arrive.
type Packet = (Instant, Vec<u8>);

/// One connection's way down.
struct Flow {
    waiting: Mutex<VecDeque<u8>>,
    room: Condvar,
    /// Bytes on the way that the client has not taken.
    unread: AtomicU64,
    /// Nothing stands for the end.
    out: Mutex<Option<Sender<Packet>>>,
    ended: AtomicBool,
}

struct Shared {
    server: SocketAddr,
    delay: Duration,
    bytes_per_second: f64,
    flows: Mutex<Vec<Arc<Flow>>>,
    /// Bytes that went down, and bytes that could have.
    carried: AtomicU64,
    offered: AtomicU64,
    connections: AtomicU64,
    stop: AtomicBool,
}

/// The proxy; it ends when it is dropped.
pub(super) struct SlowLine {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl SlowLine {
    /// Puts a line before a server.
    pub(super) fn before(server: SocketAddr, round_trip: Duration, bits_per_second: f64) -> SlowLine {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            delay: round_trip / 2,
            bytes_per_second: bits_per_second / 8.0,
            flows: Mutex::default(),
            carried: AtomicU64::new(0),
            offered: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let carrier = Arc::clone(&shared);
        thread::spawn(move || carrier.carry());
        let acceptor = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if acceptor.stop.load(Ordering::SeqCst) {
                    break;
                }
                acceptor.connections.fetch_add(1, Ordering::SeqCst);
                connect(&acceptor, client.unwrap());
            }
        });
        SlowLine { address, shared }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Bytes that went down the line.
    pub(super) fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::SeqCst)
    }

    pub(super) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes that it could have carried. When the machine stood still, so did the line.
    pub(super) fn offered(&self) -> u64 {
        self.shared.offered.load(Ordering::SeqCst)
    }
}

impl Drop for SlowLine {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes `accept`; when this fails the listener is gone already.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// The line itself: one packet of each connection in turn, as many as the time allows.
    fn carry(&self) {
        let (mut last, mut budget) = (Instant::now(), 0.0);
        while !self.stop.load(Ordering::SeqCst) {
            thread::sleep(TICK);
            let now = Instant::now();
            let offer = (now - last).min(CATCH_UP).as_secs_f64() * self.bytes_per_second;
            self.offered.fetch_add(offer as u64, Ordering::SeqCst);
            budget += offer;
            last = now;
            let flows = self.flows.lock().unwrap().clone();
            let mut idle = false;
            while budget > 0.0 && !idle {
                idle = true;
                for flow in &flows {
                    let sent = flow.send_packet(now + self.delay);
                    idle &= sent == 0;
                    budget -= sent as f64;
                    self.carried.fetch_add(sent, Ordering::SeqCst);
                }
            }
            if idle {
                budget = budget.min(0.0);
            }
            self.flows.lock().unwrap().retain(|flow| !flow.retire());
        }
    }
}

impl Flow {
    fn send_packet(&self, due: Instant) -> u64 {
        if self.unread.load(Ordering::SeqCst) >= UNREAD_BYTES {
            return 0;
        }
        let mut waiting = self.waiting.lock().unwrap();
        let length = waiting.len().min(PACKET_BYTES);
        if length == 0 {
            return 0;
        }
        let packet: Vec<u8> = waiting.drain(..length).collect();
        self.room.notify_all();
        self.unread.fetch_add(length as u64, Ordering::SeqCst);
        // Whoever is gone needs no packets.
        self.out.lock().unwrap().as_ref().map(|out| out.send((due, packet)));
        length as u64
    }

    /// Ends a flow whose server has said everything.
    fn retire(&self) -> bool {
        let ended = self.ended.load(Ordering::SeqCst) && self.waiting.lock().unwrap().is_empty();
        if ended {
            *self.out.lock().unwrap() = None;
        }
        ended
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream) {
    let server = TcpStream::connect(shared.server).unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (out, packets) = channel();
    let flow = Arc::new(Flow {
        waiting: Mutex::default(),
        room: Condvar::new(),
        unread: AtomicU64::new(0),
        out: Mutex::new(Some(out)),
        ended: AtomicBool::new(false),
    });
    shared.flows.lock().unwrap().push(Arc::clone(&flow));
    let delay = shared.delay;

    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (asked, requests) = channel();
    thread::spawn(move || {
        // The client's first bytes would have waited for the handshake.
        let mut extra = delay * 2;
        read_all(from, |bytes| {
            let sent = asked.send((Instant::now() + delay + extra, bytes.to_vec()));
            extra = Duration::ZERO;
            sent.is_ok()
        });
    });
    thread::spawn(move || deliver(&requests, to, |_| ()));

    let deliverer = Arc::clone(&flow);
    thread::spawn(move || {
        deliver(&packets, client, |length| {
            deliverer.unread.fetch_sub(length, Ordering::SeqCst);
        });
        deliverer.ended.store(true, Ordering::SeqCst);
        deliverer.waiting.lock().unwrap().clear();
        deliverer.room.notify_all();
    });
    thread::spawn(move || {
        read_all(server, |bytes| {
            let mut waiting = flow.waiting.lock().unwrap();
            while waiting.len() > WAITING_BYTES && !flow.ended.load(Ordering::SeqCst) {
                waiting = flow.room.wait(waiting).unwrap();
            }
            waiting.extend(bytes);
            !flow.ended.load(Ordering::SeqCst)
        });
        flow.ended.store(true, Ordering::SeqCst);
    });
}

/// Reads until the end, or until nobody wants more.
fn read_all(mut from: TcpStream, mut take: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || !take(&buffer[..count]) {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
}

/// Hands out packets when they are due; the end of them ends the connection.
fn deliver(packets: &Receiver<Packet>, mut to: TcpStream, delivered: impl Fn(u64)) {
    while let Ok((due, packet)) = packets.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&packet).is_err() {
            break;
        }
        delivered(packet.len() as u64);
    }
    let _ = to.shutdown(Shutdown::Both);
}
