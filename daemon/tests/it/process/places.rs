//! Where an install makes its system calls, and the devices on which they are interrupted.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::board::{Board, Goods};
use super::tracer::Tracer;

/// When the tracer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// With the start of otad.
    Start,
    /// In the middle of writing: what is counted is what comes after.
    Halfway,
}

/// Which files are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// The target's block device.
    Target,
    /// The boot environment.
    Environment,
    /// The record in all its generations, and the data directory itself.
    Record,
    /// The kept chunk index.
    Index,
}

impl Files {
    fn paths(self, board: &Board) -> Vec<PathBuf> {
        let data = |names: &[&str]| names.iter().map(|name| board.path("data").join(name)).collect();
        match self {
            Files::Target => vec![board.target()],
            Files::Environment => vec![board.path("disk/uboot.env")],
            Files::Record => {
                let mut paths: Vec<_> = data(&["record.json", "record.new", "record.old", "index"]);
                paths.push(board.path("data"));
                paths
            }
            Files::Index => data(&[&Goods::get().index]),
        }
    }
}

/// One kind of system call on one kind of file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) moment: Moment,
    pub(super) files: Files,
    pub(super) call: &'static str,
}

impl Place {
    pub(super) fn tracer(&self, board: &Board, act: &str, when: &str) -> Tracer {
        Tracer::new(&board.path("strace.log"), self.call, &self.files.paths(board), act, when)
    }
}

/// `rename` is `renameat` or `renameat2` on newer architectures.
pub(super) const RENAME: &str = "?rename,?renameat,?renameat2";

/// Devices that work at the same time; the tests run on small machines.
const BOARDS: usize = 2;

/// Takes every item to one of a few boards, each of which is used by one item at a time.
pub(super) fn on_boards<T: Sync>(items: &[T], work: impl Fn(&mut Board, &T) + Sync) {
    let next = AtomicUsize::new(0);
    let first_panic = Mutex::new(None);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..BOARDS)
            .map(|_| {
                scope.spawn(|| {
                    let mut board = Board::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(number) else { break };
                        work(&mut board, item);
                    }
                })
            })
            .collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                first_panic.lock().unwrap().get_or_insert(panic);
            }
        }
    });
    if let Some(panic) = first_panic.into_inner().unwrap() {
        std::panic::resume_unwind(panic);
    }
}
