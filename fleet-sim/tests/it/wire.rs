//! The devices of a load speak what otad speaks.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use otad::adapters::http::HttpFetch;
use otad::ports::{Fetch, Question};
use otad_fleet_sim::load::wire::{Caller, RUNS};

/// What a client writes; it is answered, and the connection left open.
fn hear(listener: &TcpListener) -> (String, TcpStream) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    while !bytes[..length].ends_with(b"\r\n\r\n") && !bytes[..length].ends_with(b"}") {
        let count = stream.read(&mut bytes[length..]).unwrap();
        assert!(count > 0, "the client went away after {:?}", String::from_utf8_lossy(&bytes[..length]));
        length += count;
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    (String::from_utf8(bytes[..length].to_vec()).unwrap(), stream)
}

/// Long enough for a client to close what it does not want to keep.
const A_MOMENT: Duration = Duration::from_millis(300);

/// Request line and headers, in any order.
fn parts(request: &str) -> Vec<&str> {
    let mut lines: Vec<_> = request.split("\r\n").collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_load_speaks_what_otads_client_speaks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let caller = Caller::new("load", 7);
    let (version, sequence) = RUNS;
    let fetch = HttpFetch::new(Some(&format!("http://{server}")), "otad").unwrap();
    fetch.introduce(&format!("otad/{} ({}; {version})", env!("CARGO_PKG_VERSION"), caller.compatible));
    let question = Question {
        device: caller.device.clone(),
        compatible: caller.compatible.to_owned(),
        version: version.to_owned(),
        sequence,
        release: None,
        boot_id: caller.boot_id.clone(),
        state: caller.state.to_owned(),
    };
    let (heard, mut stream) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| fetch.check(&question));
        let heard = hear(&listener);
        asking.join().unwrap().unwrap();
        heard
    });
    assert_eq!(parts(&heard), parts(&String::from_utf8(caller.check(server)).unwrap()));
    // As `Afterwards::Keep` has it: a device does not close a connection that the server leaves open.
    stream.set_read_timeout(Some(A_MOMENT)).unwrap();
    let kept = stream.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(kept, Err(std::io::ErrorKind::WouldBlock));
}
