//! Tests of the test: orders that brick devices, each of which the simulator must notice.
//!
//! Every one is the production code on ports that do something else than they promise, or later, or earlier than asked.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bootenv::{CopyId, Layout, SchemeKind, Store};
use otad::engine::Ports;
use otad::failure::Failure;
use otad::ports::{DeviceId, SlotDevice, SlotDevices, SlotReader, StateFs};
use otad::testing::crash::Effort;
use otad::testing::edges::ENVIRONMENT;
use otad::testing::rig::{Fault, Lasting, Rig, Upset};
use otad::testing::storage::Names;

use crate::board::{BAD, Board, FACTORY, GOOD, NEXT, OLD};
use crate::errno;
use crate::explore::{Bounds, explore};
use crate::scenario::{Mutation, Plan, Scenario, updated};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Slot devices are never flushed: the environment is armed before the slot is durable.
    NoFlush,
    /// The flush that fails is called again and believed.
    FlushRetried,
    /// Heads are written when they should be zeroed.
    HeadsFirst,
    /// Heads are not zeroed.
    HeadsKept,
    /// Heads are not written last in two steps, but as one flush at the end for all of the slot.
    OneFlush,
    /// The environment is disarmed when the first byte is already written.
    DisarmLate,
    /// A new environment replaces the one in use, in place.
    InPlace,
    /// The environment is not flushed.
    EnvironmentNotFlushed,
    /// Names in the data directory are not flushed.
    NoDirectorySync,
    /// The record is not flushed before it gets its name.
    NoFileSync,
    /// The record is written in place.
    RecordInPlace,
    /// The record that says "arming" is written after arming.
    RecordAfterArm,
    /// Reading back is answered from memory, and the device drops a write.
    ReadBackFromMemory,
    /// The running slot is what is written.
    WrongSlot,
    /// A start that finds a slot given up arms it again.
    ArmsAgain,
    /// The memory of releases that did not work is not kept.
    FailuresForgotten,
}

/// Writes that are remembered: offset and bytes.
type Written = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// Shared between the ports of one boot.
#[derive(Default)]
struct Shared {
    /// Writes of the environment that wait.
    held: VecDeque<(CopyId, Vec<u8>)>,
    /// Renames that wait.
    renames: Vec<(String, String)>,
}

impl Mutation for Broken {
    fn wire(&self, board: &Board, rig: &Rig, ports: Ports, store: Box<dyn Store>) -> (Ports, Box<dyn Store>) {
        if *self == Broken::ArmsAgain {
            arm_again(board, rig);
        }
        let shared = Arc::new(Mutex::new(Shared::default()));
        let store = Arc::new(Mutex::new(store));
        let heads = board.releases[GOOD].media.iter().map(|medium| medium.bytes()).collect();
        let devices = Devices {
            broken: *self,
            inner: ports.devices.clone(),
            heads: Arc::new(heads),
            shared: shared.clone(),
            store: store.clone(),
            written: Arc::default(),
        };
        let fs = Fs { broken: *self, inner: ports.fs.clone(), shared: shared.clone() };
        let fs = Arc::new(fs);
        let store = Env { broken: *self, inner: store, shared, rig: rig.clone(), fs: ports.fs.clone() };
        (Ports { devices: Arc::new(devices), fs, ..ports }, Box::new(store))
    }
}

struct Devices {
    broken: Broken,
    inner: Arc<dyn SlotDevices>,
    heads: Arc<Vec<Vec<u8>>>,
    shared: Arc<Mutex<Shared>>,
    store: Arc<Mutex<Box<dyn Store>>>,
    written: Written,
}

impl SlotDevices for Devices {
    fn identify(&self, path: &Path) -> io::Result<DeviceId> {
        self.inner.identify(path)
    }

    fn identify_stack(&self, id: DeviceId) -> Vec<DeviceId> {
        self.inner.identify_stack(id)
    }

    fn open_source(&self, path: &Path) -> io::Result<(Box<dyn SlotReader>, u64)> {
        self.inner.open_source(path)
    }

    fn open_target(&self, path: &Path) -> Result<Box<dyn SlotDevice>, Failure> {
        let really = match self.broken {
            Broken::WrongSlot => Path::new("/dev/rootfs-a"),
            _ => path,
        };
        let inner = self.inner.open_target(really)?;
        let id =
            if self.broken == Broken::WrongSlot { self.inner.identify(path).unwrap() } else { inner.id() };
        Ok(Box::new(Device {
            broken: self.broken,
            inner,
            id,
            heads: self.heads.clone(),
            shared: self.shared.clone(),
            store: self.store.clone(),
            written: self.written.clone(),
            flushes: 0,
        }))
    }
}

struct Device {
    broken: Broken,
    inner: Box<dyn SlotDevice>,
    id: DeviceId,
    heads: Arc<Vec<Vec<u8>>>,
    shared: Arc<Mutex<Shared>>,
    store: Arc<Mutex<Box<dyn Store>>>,
    written: Written,
    flushes: u32,
}

impl SlotDevice for Device {
    fn id(&self) -> DeviceId {
        self.id
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn reader(&self) -> io::Result<Box<dyn SlotReader>> {
        let written = (self.broken == Broken::ReadBackFromMemory).then(|| self.written.clone());
        Ok(Box::new(Memory { inner: self.inner.reader()?, written: written.unwrap_or_default() }))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.broken == Broken::ReadBackFromMemory {
            let mut written = self.written.lock().unwrap();
            written.push((offset, data.to_vec()));
            if written.len() == 1 {
                return Ok(());
            }
        }
        self.inner.write_at(offset, data)?;
        // What had to come first.
        while let Some((copy, bytes)) = { self.shared.lock().unwrap().held.pop_front() } {
            self.store.lock().unwrap().write(copy, &bytes)?;
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let head = offset < 128 * 1024;
        match self.broken {
            Broken::HeadsKept if head => Ok(()),
            Broken::HeadsFirst if head => {
                let (from, to) = (offset as usize, (offset + length) as usize);
                self.inner.write_at(offset, &self.heads[0][from..to])
            }
            _ => self.inner.zero(offset, length),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes += 1;
        match self.broken {
            Broken::NoFlush => Ok(()),
            // Front, rest of the head, body, rest of the head: only the last flush is done.
            Broken::OneFlush if self.flushes < 5 => Ok(()),
            Broken::FlushRetried => self.inner.flush().or_else(|_| self.inner.flush()),
            _ => self.inner.flush(),
        }
    }

    fn drop_caches(&mut self) -> io::Result<()> {
        // Without this a failed flush shows at the read-back.
        if self.broken == Broken::FlushRetried { Ok(()) } else { self.inner.drop_caches() }
    }
}

/// Answers from what was written, not from what is there.
struct Memory {
    inner: Box<dyn SlotReader>,
    written: Written,
}

impl SlotReader for Memory {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)?;
        for (at, data) in self.written.lock().unwrap().iter() {
            let (from, to) = ((*at).max(offset), (at + data.len() as u64).min(offset + buffer.len() as u64));
            if from < to {
                buffer[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&data[(from - at) as usize..(to - at) as usize]);
            }
        }
        Ok(())
    }
}

struct Env {
    broken: Broken,
    inner: Arc<Mutex<Box<dyn Store>>>,
    shared: Arc<Mutex<Shared>>,
    rig: Rig,
    fs: Arc<dyn StateFs>,
}

impl Env {
    fn unflushed(&self, copy: CopyId, bytes: &[u8]) {
        let data = otad::testing::medium::Data::new(bytes.to_vec());
        let offset = otad::testing::edges::copy_offset(copy);
        let write = otad::testing::storage::Pending::Write { medium: ENVIRONMENT, offset, data };
        self.rig.inner().storage.act(write);
    }
}

/// Arms what was given up, before the daemon looks.
fn arm_again(board: &Board, rig: &Rig) {
    let mut env = bootenv::BootEnv::new(otad::testing::edges::RigStore::new(rig, crate::board::ENV_BYTES));
    let Ok(loaded) = env.load() else { return };
    if board.scheme.rolled_back(&loaded.environment) == Some("b") {
        let changes = board.scheme.arm(&loaded.environment, "b").unwrap();
        drop(env.commit(&bootenv::EnvLock::of_nothing(), &changes));
    }
}

impl Store for Env {
    fn layout(&self) -> Layout {
        self.inner.lock().unwrap().layout()
    }

    fn size(&self) -> usize {
        self.inner.lock().unwrap().size()
    }

    fn place(&self, copy: CopyId) -> String {
        self.inner.lock().unwrap().place(copy)
    }

    fn read(&mut self, copy: CopyId) -> io::Result<Vec<u8>> {
        // Whoever reads back what waits finds it.
        let held = self.shared.lock().unwrap().held.iter().rev().find(|(held, _)| *held == copy).cloned();
        held.map_or_else(|| self.inner.lock().unwrap().read(copy), |(_, bytes)| Ok(bytes))
    }

    fn write(&mut self, copy: CopyId, bytes: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        match self.broken {
            Broken::DisarmLate if text.contains("otad_slot=b") && text.contains("otad_a_ok=0") => {
                self.shared.lock().unwrap().held.push_back((copy, bytes.to_vec()));
                Ok(())
            }
            Broken::InPlace => {
                // Both at once, as a tool does that wants them to be the same.
                self.unflushed(copy.other(), bytes);
                self.inner.lock().unwrap().write(copy, bytes)
            }
            Broken::EnvironmentNotFlushed => {
                self.unflushed(copy, bytes);
                Ok(())
            }
            _ => {
                self.inner.lock().unwrap().write(copy, bytes)?;
                let renames = std::mem::take(&mut self.shared.lock().unwrap().renames);
                for (from, to) in renames {
                    self.fs.rename(&from, &to)?;
                }
                Ok(())
            }
        }
    }
}

struct Fs {
    broken: Broken,
    inner: Arc<dyn StateFs>,
    shared: Arc<Mutex<Shared>>,
}

impl Fs {
    fn says(&self, name: &str, what: &str) -> io::Result<bool> {
        Ok(self.inner.read(name)?.is_some_and(|bytes| String::from_utf8_lossy(&bytes).contains(what)))
    }
}

impl StateFs for Fs {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let bytes = self.inner.read(name)?;
        if self.broken == Broken::FailuresForgotten {
            return Ok(bytes.map(|bytes| without_failures(&bytes)));
        }
        Ok(bytes)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>> {
        match (self.broken, name) {
            (Broken::RecordInPlace, "record.new") => self.inner.create("record.json"),
            _ => self.inner.create(name),
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        self.inner.open(name)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        match (self.broken, name) {
            (Broken::NoFileSync, "record.new") => Ok(()),
            (Broken::RecordInPlace, "record.new") => self.inner.sync("record.json"),
            _ => self.inner.sync(name),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match self.broken {
            Broken::RecordInPlace if from.starts_with("record.") => Ok(()),
            Broken::RecordAfterArm if to == "record.json" && self.says(from, "\"arming\"")? => {
                self.shared.lock().unwrap().renames.push((from.to_owned(), to.to_owned()));
                Ok(())
            }
            _ => self.inner.rename(from, to),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        if self.broken == Broken::NoDirectorySync { Ok(()) } else { self.inner.sync_directory() }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        self.inner.list(prefix)
    }

    fn free(&self) -> io::Result<u64> {
        self.inner.free()
    }
}

/// A record that remembers no failed release.
fn without_failures(record: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(record);
    let Some((_, body)) = text.split_once('\n') else { return record.to_vec() };
    let Ok(mut value) = serde_json::from_str::<serde_json::Value>(body) else { return record.to_vec() };
    value["failed"] = serde_json::Value::Array(Vec::new());
    let body = value.to_string();
    format!("otad-record 1 {:08x}\n{body}", crc32fast::hash(body.as_bytes())).into_bytes()
}

const EFFORT: Effort = Effort { exhaustive: 5, random: 24, sectors: 8, bytes: 4 };

/// What is done to a device that has this broken order.
fn scenario(broken: Option<Broken>) -> Scenario {
    let board = Board::new(SchemeKind::Bootcount, &["rootfs"]);
    let factory = board.factory("a", FACTORY, Some(OLD), Names::AnyOrder);
    let (start, plan) = match broken {
        Some(Broken::ArmsAgain) => (factory, Plan::Install(BAD)),
        Some(Broken::FailuresForgotten) => (factory, Plan::Offered(BAD)),
        // What has to be disarmed is confirmed, and the floor is above that of the factory.
        Some(
            Broken::DisarmLate
            | Broken::InPlace
            | Broken::EnvironmentNotFlushed
            | Broken::NoFileSync
            | Broken::RecordInPlace,
        ) => (updated(&board, factory, GOOD), Plan::Install(NEXT)),
        _ => (factory, Plan::Install(GOOD)),
    };
    let mut scenario = Scenario::new(&format!("{broken:?}"), &board, start, plan);
    scenario.mutation = broken.map(|broken| Arc::new(broken) as Arc<dyn Mutation>);
    scenario
}

fn cut_everywhere(scenario: &Scenario) -> Result<(), String> {
    explore(scenario, Bounds { first: EFFORT, second: None, boots: 0 }).map(drop)
}

/// The same devices and bounds without anything broken: what is noticed below is noticed because it is broken.
#[test]
fn the_right_order_is_not_taken_for_a_broken_one() {
    for like in [None, Some(Broken::ArmsAgain), Some(Broken::FailuresForgotten), Some(Broken::InPlace)] {
        let mut scenario = scenario(like);
        scenario.mutation = None;
        cut_everywhere(&scenario).unwrap();
    }
}

#[test]
fn every_broken_order_is_noticed() {
    let all = [
        Broken::NoFlush,
        Broken::HeadsFirst,
        Broken::HeadsKept,
        Broken::OneFlush,
        Broken::DisarmLate,
        Broken::InPlace,
        Broken::EnvironmentNotFlushed,
        Broken::NoDirectorySync,
        Broken::NoFileSync,
        Broken::RecordInPlace,
        Broken::ReadBackFromMemory,
        Broken::WrongSlot,
        Broken::FailuresForgotten,
    ];
    let mut missed = Vec::new();
    for broken in all {
        match cut_everywhere(&scenario(Some(broken))) {
            Ok(()) => missed.push(broken),
            Err(what) => println!("{broken:?}: {}", what.lines().next().unwrap_or_default()),
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

/// Two orders that ought to be wrong and are mended by recovery, because the environment is the truth about booting.
#[test]
fn what_recovery_mends_is_not_noticed() {
    for broken in [Broken::RecordAfterArm, Broken::ArmsAgain] {
        cut_everywhere(&scenario(Some(broken))).unwrap();
    }
}

/// S3: the device says that it flushed, and a cut after arming loses what it had. The kernel of the torn slot does not
/// come up, the boot counter goes back, and the update can be repeated.
#[test]
fn a_device_that_lies_about_flushes_costs_an_attempt_and_nothing_else() {
    let scenario = scenario(Some(Broken::NoFlush));
    let start = scenario.board.factory("a", FACTORY, None, Names::AnyOrder);
    let scenario = Scenario { lying: true, start, ..scenario };
    cut_everywhere(&scenario).unwrap();
}

/// S7: a flush that failed is repeated, succeeds, and means nothing.
#[test]
fn a_flush_that_is_repeated_is_noticed() {
    let eio = |at| Fault { at, upset: Upset::Errno(nix::errno::Errno::EIO as i32), lasting: Lasting::Once };
    let noticed =
        |scenario: &Scenario| (0..400).filter(|at| errno::with_fault(scenario, eio(*at)).is_err()).count();
    assert_eq!(noticed(&scenario(None)), 0);
    assert!(noticed(&scenario(Some(Broken::FlushRetried))) > 0);
}
