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
