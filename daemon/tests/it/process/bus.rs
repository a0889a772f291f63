//! A message bus that goes away.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::board::{Board, Goods, Halfway, PATIENCE};

/// A bus at a known place, so that another one can follow it there.
struct Bus(Child);

impl Bus {
    fn start(socket: &Path) -> Bus {
        let _ = std::fs::remove_file(socket);
        let mut command = Command::new("dbus-daemon");
        command.args(["--session", "--nofork", "--nopidfile", "--nosyslog"]);
        command.arg(format!("--address=unix:path={}", socket.display()));
        let spawned = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let bus =
            Bus(spawned.expect("cannot start dbus-daemon; `scripts/need test` installs what the tests use"));
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(started.elapsed() < PATIENCE, "no bus");
            std::thread::sleep(Duration::from_millis(5));
        }
        bus
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// D9: the bus goes away in the middle of an install. The install goes on to its end; then otad ends with a failure, so
/// that systemd starts it on the new bus, where everything is there to be read.
#[test]
fn an_install_outlives_the_bus() {
    let mut board = Board::new();
    board.reset(["a", "b"], &Goods::get().old);
    let socket = board.path("other-bus");
    board.use_bus(&format!("unix:path={}", socket.display()));
    let bus = Bus::start(&socket);
    let mut otad = board.start();
    let halfway = Halfway::start(&board);
    drop(bus);
    // Nothing ends because of it: the rest of the bundle has yet to come.
    std::thread::sleep(Duration::from_millis(300));
    assert!(otad.runs(), "otad ended in the middle of an install:\n{}", board.log());
    drop(halfway.finish());
    assert_eq!(otad.ended().code(), Some(1), "{}", board.log());
    assert!(board.log().contains("the message bus is gone"), "{}", board.log());
    assert_eq!(board.next_boot(), "b", "{}", board.log());

    let _bus = Bus::start(&socket);
    let _otad = board.start();
    board.assert_installed("after the bus came back");
}

/// Calls of a flood; none waits for the answer to another.
const CALLS: usize = 5_000;
/// What otad may hold beyond what it held before: 4 KiB for each call that waits for its refusal to be sent, and one that is too long, twice:
/// as it came and as it is read.
const MOST_MORE_KIB: u64 = 4 * CALLS as u64 + 2 * LONG_CALL_BYTES as u64 / 1024;
/// Far beyond what a call may have. The bus daemon, not otad, decides how long a message may be at all.
const LONG_CALL_BYTES: usize = 4 * 1024 * 1024;

/// D5: a program that may call otad floods it with acts, subscriptions and a call that is too long, in the middle of an install. The install goes
/// on, others get their answers, and what is too much has a code of its own.
#[test]
fn d5_a_flood_of_calls_harms_nobody() {
    let mut board = Board::new();
    board.reset(["a", "b"], &Goods::get().old);
    let otad = board.start();
    let halfway = Halfway::start(&board);
    let before = peak_kib(otad.id());
    let address = board.bus().to_owned();
    let flood = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(flood(&address))
    });
    let mut slowest = Duration::ZERO;
    while !flood.is_finished() {
        let asked = Instant::now();
        assert!(board.otactl(&["status"]).status.success(), "nobody else is answered:\n{}", board.log());
        slowest = slowest.max(asked.elapsed());
    }
    let (acts, refused) = flood.join().unwrap();
    let more = peak_kib(otad.id()) - before;
    println!("{acts} acts answered, {refused} refused; status within {slowest:?}; {more} KiB more");
    assert!(slowest < PATIENCE / 2, "{slowest:?}");
    assert!(acts > 0 && refused > 0 && acts + refused == CALLS, "{acts} and {refused}");
    assert!(more < MOST_MORE_KIB, "{more} KiB more than before");
    let output = halfway.finish();
    assert!(output.status.success(), "{output:?}\n{}", board.log());
    board.assert_installed("after a flood");
}

/// Calls otad as fast as the bus takes it; how many acts were tried, and how many refused because there were too many.
async fn flood(address: &str) -> (usize, usize) {
    use zbus::message::Type;
    let connection = zbus::connection::Builder::address(address).build().await.unwrap();
    let bus = zbus::fdo::DBusProxy::new(&connection).await.unwrap();
    for number in 0..1000 {
        let rule = format!("type='signal',sender='org.otad1',arg0='{number}'");
        bus.add_match_rule(rule.as_str().try_into().unwrap()).await.unwrap();
    }
    let call = |method: &'static str| {
        zbus::Message::method_call("/org/otad1", method)
            .destination("org.otad1")
            .interface("org.otad1.Manager")
    };
    let long = "x".repeat(LONG_CALL_BYTES);
    let options = std::collections::HashMap::<&str, zbus::Variant<'_>>::new();
    connection.send(&call("Install").build(&(&long, &options)).unwrap()).await.unwrap();
    let messages = zbus::MessageStream::from(&connection);
    let calls = connection.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..CALLS {
            calls.send(&call("Commit").build(&()).unwrap()).await.unwrap();
        }
    });
    let (mut acts, mut refused, mut messages) = (0, 0, std::pin::pin!(messages));
    while acts + refused < CALLS {
        let next = std::future::poll_fn(|context| {
            zbus::export::futures_core::Stream::poll_next(messages.as_mut(), context)
        });
        let message = tokio::time::timeout(PATIENCE, next).await.expect("an answer").unwrap().unwrap();
        let header = message.header();
        if message.message_type() != Type::Error {
            continue;
        }
        match header.error_name().map(|name| name.as_str()) {
            Some("org.otad1.Error.LimitsExceeded") => refused += 1,
            Some("org.otad1.Error.WrongState" | "org.otad1.Error.Busy") => acts += 1,
            // The long one.
            Some("org.otad1.Error.NotAuthorized") => {}
            other => panic!("{other:?}: {message:?}"),
        }
    }
    sending.await.unwrap();
    (acts, refused)
}

/// The most that a process has held at any time.
fn peak_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
