//! The edges of the daemon: everything that touches a device, a file, the network, the clock or the machine.
//!
//! The traits sit low on purpose. What is above them (the order of writes and flushes, the record's rename dance, the
//! decision what a boot meant) is the code that bricks devices when it is wrong, so it has to run unmodified over a
//! simulated disk. Real adapters are thin ([`crate::adapters`]); they retry interrupted and short calls and nothing else.
//!
//! The boot environment's port is [`bootenv::Store`], in the crate that owns the format.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use otad_bundle::{DeviceKey, Expand, Expander, Input};

use crate::failure::{Code, Failure};

/// Who a device or image file is, whatever name it was found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceId {
    /// A block device, by its device number.
    Block(u64),
    /// A regular file, by file system and inode.
    File {
        /// Device number of the file system.
        device: u64,
        /// Inode number.
        inode: u64,
    },
}

/// A partition's place on its disk, in sectors of 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The first one.
    pub start: u64,
    /// How many.
    pub sectors: u64,
    /// Another partition, by its kernel name, that has some of them, too.
    pub overlaps: Option<String>,
}

/// Finds and opens slot devices.
pub trait SlotDevices: Send + Sync {
    /// Tells who is behind a path, following links, without opening it.
    fn identify(&self, path: &Path) -> io::Result<DeviceId>;

    /// The devices that this one is stacked on (device mapper, loop), itself included.
    fn identify_stack(&self, id: DeviceId) -> Vec<DeviceId>;

    /// Where a device lies on its disk, if it is a partition.
    fn partition(&self, id: DeviceId) -> Option<Partition> {
        let _ = id;
        None
    }

    /// Opens a target exclusively for reading and writing; fails when anybody has it mounted or claimed.
    fn open_target(&self, path: &Path) -> Result<Box<dyn SlotDevice>, Failure>;

    /// Opens a device that may be mounted, for reading only; with its size in bytes.
    fn open_source(&self, path: &Path) -> io::Result<(Box<dyn SlotReader>, u64)>;
}

/// One open slot device. Offsets and lengths are bytes; every call does all of it or fails.
pub trait SlotDevice: Send + Sync {
    /// Who it is; does not change while it is open.
    fn id(&self) -> DeviceId;
    /// Capacity in bytes.
    fn size(&self) -> u64;
    /// One more way to read it, for a thread of its own. It reads what is on the device when it is made: it is made anew after
    /// writes and after [`SlotDevice::drop_caches`].
    fn reader(&self) -> io::Result<Box<dyn SlotReader>>;
    /// Writes all of `data` at `offset`; durable only after [`SlotDevice::flush`].
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes a range read as zeros; durable only after [`SlotDevice::flush`].
    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()>;
    /// Makes everything written so far durable. After an error nothing that was written may be trusted: the kernel
    /// forgets the failed pages, so a second flush would succeed without meaning anything.
    fn flush(&mut self) -> io::Result<()>;
    /// Makes later reads come from the device and not from memory.
    fn drop_caches(&mut self) -> io::Result<()>;
}

/// Reads an open slot device.
pub trait SlotReader: Send {
    /// Fills `buffer` from `offset`.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// The data directory, in the primitive acts whose order decides what survives a power cut.
///
/// Names are relative, without `..`; the first component may be a subdirectory that exists.
pub trait StateFs: Send + Sync {
    /// Reads a whole small file; `None` when there is none.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Creates or empties a file and returns it for writing; nothing is durable yet.
    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>>;
    /// Opens a file for reading from its start.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;
    /// Makes a file's content durable.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Replaces `to` by `from`, atomically; durable after [`StateFs::sync_directory`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes renames and removals in the data directory durable.
    fn sync_directory(&self) -> io::Result<()>;
    /// Removes a file; no error when there is none.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names of the files whose names start with `prefix`.
    fn list(&self, prefix: &str) -> io::Result<Vec<String>>;
    /// Bytes that can still be written.
    fn free(&self) -> io::Result<u64>;
}

/// Replaces a file of the data directory, by way of another name: a power cut at any point leaves the old one or the new one.
pub fn replace(fs: &dyn StateFs, (name, new): (&str, &str), bytes: &[u8]) -> Result<(), Failure> {
    let at =
        |act: &'static str| move |error: io::Error| crate::failure::from_state(act, Path::new(name), &error);
    let mut file = fs.create(new).map_err(at("write"))?;
    file.write_all(bytes).and_then(|()| file.flush()).map_err(at("write"))?;
    drop(file);
    fs.sync(new).map_err(at("flush"))?;
    fs.rename(new, name).map_err(at("rename"))?;
    fs.sync_directory().map_err(at("flush the directory of"))
}

/// Where URLs are read.
pub trait Fetch: Send + Sync {
    /// Opens a bundle for reading with ranges; reconnects and resumes by itself within its limits.
    fn open(&self, url: &str, stop: &Stop) -> Result<Box<dyn Input + Send>, Failure>;
    /// Asks the server for an update.
    fn check(&self, question: &Question) -> Result<Answer, Failure>;
    /// Asks the server for the channel document of a model; `None` when it has none.
    fn channel(&self, compatible: &str) -> Result<Option<Vec<u8>>, Failure> {
        let _ = compatible;
        Ok(None)
    }
    /// Whether what this device needs to be updated with is in order, as far as it can tell by itself: the files of `[server]`.
    fn ready(&self) -> Result<(), Failure> {
        Ok(())
    }
    /// Hands a report (JSON) to the server.
    fn report(&self, body: &str) -> Result<Receipt, Failure>;
    /// Tells the server how far an install is (JSON); what it says about it hardly matters.
    fn progress(&self, body: &str) -> Result<Receipt, Failure> {
        let _ = body;
        Ok(Receipt::Refused("this server is not told".to_owned()))
    }
    /// When the server wants to be asked again, if it said so with its last answer.
    fn interval(&self) -> Option<Duration> {
        None
    }
    /// Says from now on with every request who asks: the `User-Agent`, which names the running version.
    fn introduce(&self, user_agent: &str);
}

/// Where chunks are decompressed.
pub trait Decoders: Send + Sync {
    /// Gets one more that decompresses, for a thread of its own.
    fn start(&self) -> Result<Box<dyn Expand>, Failure>;
    /// Whether one would work.
    fn ready(&self) -> Result<(), Failure> {
        self.start().map(drop)
    }
}

/// Decompression in this very process: for a simulator, and for tools that have no device to protect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Here;

impl Decoders for Here {
    fn start(&self) -> Result<Box<dyn Expand>, Failure> {
        let fail = |error| Failure::new(Code::Resource, format!("no memory for the decoder: {error}"));
        Ok(Box::new(Expander::new().map_err(fail)?))
    }
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// The server has it.
    Taken,
    /// The server understood and will never want it; the reason is for the log.
    Refused(String),
}

/// What otad tells the server when it asks for an update.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Stable, anonymous id of the device.
    pub device: String,
    /// The hardware.
    pub compatible: String,
    /// Running version; empty when unknown.
    pub version: String,
    /// Running sequence; 0 when unknown.
    pub sequence: u64,
    /// Running release, where otad installed it: a server may have a delta from it.
    pub release: Option<otad_bundle::Digest>,
    /// The boot that asks; empty when unknown. With the state it tells the server that what runs is confirmed.
    pub boot_id: String,
    /// The word for what otad is about; empty when not told.
    pub state: String,
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There is nothing newer.
    Nothing,
    /// There is a release to install.
    Offer(Offer),
}

/// A release the server offers; nothing in it is trusted, it only says where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Digest of the manifest, as the server says.
    pub release: otad_bundle::Digest,
    /// Version, for people.
    pub version: String,
    /// Absolute URL of the bundle.
    pub url: String,
    /// Absolute URL of a delta from the release that runs, if the server has one.
    pub delta: Option<String>,
}

/// A flag that asks a running job to stop; every stage looks at it once per chunk.
#[derive(Debug, Clone, Default)]
pub struct Stop(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Stop {
    /// Asks the job to stop.
    pub fn request(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Acquire)
    }
}

/// Time.
pub trait Clock: Send + Sync {
    /// Time since some fixed point, never going back.
    fn monotonic(&self) -> Duration;
    /// Seconds since 1970 as the device believes; for people only, nothing is decided by it.
    fn wall_seconds(&self) -> u64;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// A kernel, by both its names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` has it; empty when it cannot be told.
    pub release: String,
    /// In hexadecimal, where it has one and shows it.
    pub build_id: Option<String>,
}

/// The machine otad runs on.
pub trait Machine: Send + Sync {
    /// The kernel command line.
    fn command_line(&self) -> io::Result<String>;
    /// The device `/` is on.
    fn root_device(&self) -> io::Result<DeviceId>;
    /// An id that is new at every boot.
    fn boot_id(&self) -> io::Result<String>;
    /// A stable id of this device that does not reveal its machine id.
    fn device_id(&self) -> io::Result<String>;
    /// Asks for a reboot; returns before it happens.
    fn reboot(&self) -> io::Result<()>;
    /// The image's own account of what it is (`/usr/lib/otad/image.toml`); `None` when it has none.
    fn image_info(&self) -> io::Result<Option<String>>;
    /// The kernel that runs.
    fn kernel(&self) -> Kernel;
    /// What this machine reads encrypted bundles with; `None` when it takes none.
    fn device_key(&self) -> Result<Option<Box<dyn DeviceKey>>, Failure> {
        Ok(None)
    }
    /// The text that a lost boot environment is rebuilt from.
    fn default_environment(&self) -> io::Result<Vec<u8>>;
}

/// The log lines of a trial, kept where the system that it may be rolled back to can read them.
pub trait Trail: Send + Sync {
    /// From now on lines are kept, after those of earlier boots of the same trial.
    fn follow(&self);
    /// Stops keeping lines.
    fn end(&self);
    /// Forgets what was kept.
    fn clear(&self);
    /// The last lines that were kept, at most so many.
    fn last(&self, count: usize) -> Vec<String>;
}

/// The device's own health checks.
pub trait HealthChecks: Send + Sync {
    /// Runs every check once, each for at most `limit`; an error says which failed and how.
    fn run(&self, limit: Duration) -> Result<(), Failure>;
    /// Runs the self-test of the system that an image holds, without booting it: read-only, apart from this system and the
    /// network. An error says what it said.
    fn pre_run(&self, image: &Path) -> Result<(), Failure>;
}
