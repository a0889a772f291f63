//! The ports on top of a [`Rig`].

use std::collections::VecDeque;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bootenv::{CopyId, Layout, Store};
use otad_bundle::{DeviceKey, Input, X25519Key};

use super::medium::Data;
use super::rig::Rig;
use super::storage::{Content, Inode, Pending};
use crate::engine::{Audience, Message, Notice, Ports, Status, Task, Tasks};
use crate::failure::{Code, Failure};
use crate::ports::{
    Answer, Clock, DeviceId, Fetch, HealthChecks, Here, Kernel, Machine, Question, Receipt, SlotDevice,
    SlotDevices, SlotReader, StateFs, Stop, Trail,
};

/// The medium with the boot environment.
pub const ENVIRONMENT: usize = 0;
/// Where the second copy begins.
pub const SECOND_COPY: u64 = 4096;

/// Every port on one rig.
pub fn ports(rig: &Rig) -> Ports {
    let edge = Arc::new(Edge(rig.clone()));
    Ports {
        fs: edge.clone(),
        devices: edge.clone(),
        fetch: edge.clone(),
        decoders: Arc::new(Here),
        clock: edge.clone(),
        machine: edge.clone(),
        health: edge.clone(),
        trail: edge,
        lanes: 0,
    }
}

struct Edge(Rig);

fn write(medium: usize, offset: u64, mut bytes: Vec<u8>, half: bool) -> Pending {
    if half {
        bytes.truncate(bytes.len() / 2);
    }
    Pending::Write { medium, offset, data: Data::new(bytes) }
}

fn incomplete() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "only half of it was done")
}

impl SlotDevices for Edge {
    fn identify(&self, path: &Path) -> io::Result<DeviceId> {
        let (inner, _) = self.0.look("identify")?;
        let number = inner.paths.iter().position(|known| known.as_deref() == Some(path));
        number
            .map(|number| DeviceId::Block(number as u64))
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn identify_stack(&self, id: DeviceId) -> Vec<DeviceId> {
        vec![id]
    }

    fn open_target(&self, path: &Path) -> Result<Box<dyn SlotDevice>, Failure> {
        let fail = |error: io::Error| {
            crate::failure::from_slot(crate::failure::Act::Open, &path.display().to_string(), &error)
        };
        let DeviceId::Block(number) = self.identify(path).map_err(fail)? else {
            return Err(fail(io::Error::from(io::ErrorKind::NotFound)));
        };
        Ok(Box::new(Device { rig: self.0.clone(), medium: number as usize }))
    }

    fn open_source(&self, path: &Path) -> io::Result<(Box<dyn SlotReader>, u64)> {
        let DeviceId::Block(number) = self.identify(path)? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let device = Device { rig: self.0.clone(), medium: number as usize };
        let size = device.size();
        Ok((Box::new(device), size))
    }
}

/// An open slot device.
#[derive(Clone)]
struct Device {
    rig: Rig,
    medium: usize,
}

impl SlotDevice for Device {
    fn id(&self) -> DeviceId {
        DeviceId::Block(self.medium as u64)
    }

    fn size(&self) -> u64 {
        self.rig.inner().storage.live.medium(self.medium).size()
    }

    fn reader(&self) -> io::Result<Box<dyn SlotReader>> {
        Ok(Box::new(self.clone()))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let half = self.rig.act("write slot", |_, half| write(self.medium, offset, data.to_vec(), half))?;
        if half { Err(incomplete()) } else { Ok(()) }
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let half = self
            .rig
            .act("zero slot", |_, half| write(self.medium, offset, vec![0; length as usize], half))?;
        if half { Err(incomplete()) } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let number = self.medium;
        self.rig.settle("flush slot", |storage| storage.flush(number), |storage| storage.lose(number))
    }

    fn drop_caches(&mut self) -> io::Result<()> {
        let (mut inner, _) = self.rig.look("drop caches")?;
        inner.storage.drop_caches(self.medium);
        Ok(())
    }
}

impl SlotReader for Device {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (inner, half) = self.rig.look("read slot")?;
        inner.storage.live.medium(self.medium).read(offset, buffer);
        if half { Err(incomplete()) } else { Ok(()) }
    }
}

impl StateFs for Edge {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let (inner, _) = self.0.look("read file")?;
        Ok(inner.storage.live.file(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>> {
        self.0.act("create file", |storage, _| storage.creation(name).1)?;
        let inode = self.0.inode(name)?;
        Ok(Box::new(OpenFile { rig: self.0.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let (inner, _) = self.0.look("open file")?;
        let bytes = inner.storage.live.file(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Box::new(Reading { rig: self.0.clone(), bytes: Cursor::new(Arc::from(bytes)) }))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let inode = self.0.inode(name)?;
        self.0.settle(
            "sync file",
            |storage| storage.sync(inode),
            |storage| {
                storage
                    .pending
                    .retain(|act| !matches!(act, Pending::Fill { inode: file, .. } if *file == inode));
            },
        )
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.0.inode(from)?;
        let act = Pending::Rename { inode, from: from.to_owned(), to: to.to_owned() };
        self.0.act("rename file", |_, _| act.clone()).map(drop)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.0.settle("sync directory", super::storage::Storage::sync_directory, |_| {})
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let Ok(inode) = self.0.inode(name) else { return Ok(()) };
        self.0.act("remove file", |_, _| Pending::Unlink { inode, name: name.to_owned() }).map(drop)
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let (inner, _) = self.0.look("list files")?;
        Ok(inner.storage.live.names().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    fn free(&self) -> io::Result<u64> {
        self.0.look("free space").map(|_| 1 << 30)
    }
}

/// A file that is being written.
struct OpenFile {
    rig: Rig,
    inode: Inode,
}

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let part = |half| if half { bytes.len().div_ceil(2) } else { bytes.len() };
        let half =
            self.rig.act("write file", |storage, half| storage.append(self.inode, &bytes[..part(half)]))?;
        Ok(part(half))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that are read in calls that may fail or come short.
struct Reading {
    rig: Rig,
    bytes: Cursor<Arc<[u8]>>,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let half = self.rig.look("read")?.1;
        let length = if half { buffer.len().div_ceil(2) } else { buffer.len() };
        self.bytes.read(&mut buffer[..length])
    }
}

/// A bundle in memory.
pub struct MemoryInput(Reading);

impl MemoryInput {
    /// Reads these bytes, each call an operation of the rig.
    pub fn new(rig: &Rig, bytes: Arc<[u8]>) -> MemoryInput {
        MemoryInput(Reading { rig: rig.clone(), bytes: Cursor::new(bytes) })
    }
}

impl Read for MemoryInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.0.rig.inner().network {
            let what = "I7: something is fetched without a request";
            self.0.rig.inner().violations.push(what.to_owned());
        }
        self.0.read(buffer)
    }
}

impl Input for MemoryInput {
    fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        self.0.bytes.set_position(offset);
        Ok(())
    }

    fn random_access(&self) -> bool {
        true
    }
}

impl Fetch for Edge {
    fn open(&self, url: &str, _stop: &Stop) -> Result<Box<dyn Input + Send>, Failure> {
        let what = format!("I7: {url} is fetched without a request");
        self.0.inner().violations.push(what.clone());
        Err(Failure::new(Code::Internal, what))
    }

    fn check(&self, _question: &Question) -> Result<Answer, Failure> {
        Ok(Answer::Nothing)
    }

    fn report(&self, _body: &str) -> Result<Receipt, Failure> {
        Ok(Receipt::Taken)
    }

    fn introduce(&self, _user_agent: &str) {}
}

impl Clock for Edge {
    fn monotonic(&self) -> Duration {
        self.0.inner().time
    }

    fn wall_seconds(&self) -> u64 {
        1_700_000_000
    }

    fn sleep(&self, time: Duration) {
        self.0.inner().time += time;
    }
}

impl Machine for Edge {
    fn command_line(&self) -> io::Result<String> {
        Ok(self.0.look("read the command line")?.0.command_line.clone())
    }

    fn root_device(&self) -> io::Result<DeviceId> {
        Ok(self.0.look("find the device of /")?.0.root)
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(self.0.look("read the boot id")?.0.boot_id.clone())
    }

    fn device_id(&self) -> io::Result<String> {
        Ok("simulated".to_owned())
    }

    fn reboot(&self) -> io::Result<()> {
        self.0.look("reboot")?.0.reboot = true;
        Ok(())
    }

    fn image_info(&self) -> io::Result<Option<String>> {
        Ok(Some(self.0.look("read image.toml")?.0.image_info.clone()))
    }

    fn kernel(&self) -> Kernel {
        Kernel::default()
    }

    fn device_key(&self) -> Result<Option<Box<dyn DeviceKey>>, Failure> {
        let key = self.0.inner().device_key.map(X25519Key::from_bytes).transpose();
        let key = key.map_err(|error| crate::failure::from_bundle(&error))?;
        Ok(key.map(|key| Box::new(key) as Box<dyn DeviceKey>))
    }

    fn default_environment(&self) -> io::Result<Vec<u8>> {
        Ok(self.0.look("read the default environment")?.0.default_environment.clone())
    }
}

impl HealthChecks for Edge {
    fn run(&self, _limit: Duration) -> Result<(), Failure> {
        if self.0.inner().healthy {
            Ok(())
        } else {
            Err(Failure::new(Code::HealthFailed, "the check says no"))
        }
    }

    fn pre_run(&self, _image: &Path) -> Result<(), Failure> {
        Ok(())
    }
}

impl Trail for Edge {
    fn follow(&self) {}
    fn end(&self) {}
    fn clear(&self) {}
    fn last(&self, _count: usize) -> Vec<String> {
        Vec::new()
    }
}

/// The boot environment: two copies on [`ENVIRONMENT`].
#[derive(Debug)]
pub struct RigStore {
    rig: Rig,
    size: usize,
}

impl RigStore {
    /// A store of two copies of `size` bytes, which is at most [`SECOND_COPY`].
    pub fn new(rig: &Rig, size: usize) -> RigStore {
        RigStore { rig: rig.clone(), size }
    }
}

/// Where a copy begins.
pub fn copy_offset(copy: CopyId) -> u64 {
    match copy {
        CopyId::First => 0,
        CopyId::Second => SECOND_COPY,
    }
}

impl Store for RigStore {
    fn layout(&self) -> Layout {
        Layout::Redundant
    }

    fn size(&self) -> usize {
        self.size
    }

    fn place(&self, copy: CopyId) -> String {
        format!("simulated device at {}", copy_offset(copy))
    }

    fn read(&mut self, copy: CopyId) -> io::Result<Vec<u8>> {
        let (mut inner, half) = self.rig.look("read environment")?;
        // As promised: from the medium, past the page cache.
        inner.storage.drop_caches(ENVIRONMENT);
        let mut bytes = vec![0; self.size];
        inner.storage.live.medium(ENVIRONMENT).read(copy_offset(copy), &mut bytes);
        if half { Err(incomplete()) } else { Ok(bytes) }
    }

    fn write(&mut self, copy: CopyId, bytes: &[u8]) -> io::Result<()> {
        let at = copy_offset(copy);
        if self.rig.act("write environment", |_, half| write(ENVIRONMENT, at, bytes.to_vec(), half))? {
            return Err(incomplete());
        }
        self.rig.settle(
            "flush environment",
            |storage| storage.flush(ENVIRONMENT),
            |storage| storage.lose(ENVIRONMENT),
        )
    }
}

/// Tasks that wait until the driver runs them.
#[derive(Clone, Default)]
pub struct InlineTasks(Arc<Mutex<VecDeque<(String, Task)>>>);

impl InlineTasks {
    /// Runs the oldest task.
    pub fn run_next(&self) -> Option<Message> {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        next.map(|(_, task)| task())
    }
}

impl Tasks for InlineTasks {
    fn start(&self, name: &str, task: Task) -> Result<(), Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((name.to_owned(), task));
        Ok(())
    }
}

/// An audience that keeps the last status and every notice.
#[derive(Clone, Default)]
pub struct Watcher(Arc<Mutex<(Option<Status>, Vec<Notice>)>>);

impl Watcher {
    /// The last status.
    pub fn status(&self) -> Option<Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Takes the notices.
    pub fn notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

impl Audience for Watcher {
    fn status(&self, status: Status) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(status);
    }

    fn notice(&self, notice: Notice) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(notice);
    }
}

/// Makes a file durable at once, for setting up a device.
pub fn put_file(storage: &mut super::storage::Storage, name: &str, bytes: Vec<u8>) {
    let (inode, act) = storage.creation(name);
    storage.act(act);
    storage.act(Pending::Fill { inode, content: Content::new(bytes) });
    storage.sync_all();
}
