//! What all fakes of one boot share: the storage, the count of operations, and what goes wrong at one of them.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::storage::{Inode, Pending, Storage};
use crate::ports::DeviceId;

/// What goes wrong at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upset {
    /// The power goes before it, and everything after it fails.
    PowerBefore,
    /// The power goes while it is being done.
    PowerDuring,
    /// The power goes when it is done.
    PowerAfter,
    /// It fails with this errno, half done where it can be.
    Errno(i32),
    /// It does half of what it should and says so, where a call may do that; elsewhere it fails.
    Short,
}

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// At that operation only.
    Once,
    /// At that one and at every later one.
    ForEver,
}

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Number of the operation, counted from 0.
    pub at: u64,
    /// What goes wrong.
    pub upset: Upset,
    /// How often.
    pub lasting: Lasting,
}

/// The storage at the moment before an operation, and what the operation was going to do.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Number of the operation.
    pub operation: u64,
    /// Its name.
    pub name: &'static str,
    /// Everything before it.
    pub storage: Storage,
    /// What it adds; `None` for a flush, which only moves what is pending.
    pub hit: Option<Pending>,
}

/// What the fakes of one boot share.
#[derive(Debug)]
pub struct Inner {
    /// Everything that outlives a power cut.
    pub storage: Storage,
    /// Devices of the running slot: a write to one is a violation of I2.
    pub running: Vec<usize>,
    /// What the devices are known by: the path of each medium, if it has one.
    pub paths: Vec<Option<std::path::PathBuf>>,
    /// The kernel command line.
    pub command_line: String,
    /// Where `/` is.
    pub root: DeviceId,
    /// Id of this boot.
    pub boot_id: String,
    /// What the running image says of itself.
    pub image_info: String,
    /// Whether the running system passes its health checks.
    pub healthy: bool,
    /// The private X25519 key that opens encrypted bundles, if the device has one.
    pub device_key: Option<[u8; 32]>,
    /// What a lost environment is rebuilt from.
    pub default_environment: Vec<u8>,
    /// Whether anything may be fetched: recovery needs no network (I7).
    pub network: bool,
    /// Somebody asked for a reboot.
    pub reboot: bool,
    /// Rules of the ports that were broken.
    pub violations: Vec<String>,
    /// Every moment at which something changes, when they are wanted.
    pub moments: Option<Vec<Moment>>,
    /// What goes wrong.
    pub fault: Option<Fault>,
    /// Operations so far.
    pub operations: u64,
    /// The moment at which the power went.
    pub cut: Option<Moment>,
    /// The clock.
    pub time: Duration,
}

/// A handle to what the fakes share.
#[derive(Debug, Clone)]
pub struct Rig(Arc<Mutex<Inner>>);

/// The state, and what goes wrong at this operation.
type Begun<'a> = (MutexGuard<'a, Inner>, Option<Upset>);

impl Rig {
    /// A rig for a boot that has not begun.
    pub fn new(storage: Storage, paths: Vec<Option<std::path::PathBuf>>) -> Rig {
        Rig(Arc::new(Mutex::new(Inner {
            storage,
            running: Vec::new(),
            paths,
            command_line: String::new(),
            root: DeviceId::Block(0),
            boot_id: String::new(),
            image_info: String::new(),
            healthy: true,
            device_key: None,
            default_environment: Vec::new(),
            network: false,
            reboot: false,
            violations: Vec::new(),
            moments: None,
            fault: None,
            operations: 0,
            cut: None,
            time: Duration::ZERO,
        })))
    }

    /// What is shared.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation; fails when the power is off.
    fn begin(&self) -> io::Result<Begun<'_>> {
        let mut inner = self.inner();
        if inner.cut.is_some() {
            return Err(io::Error::other("the power is off"));
        }
        let number = inner.operations;
        inner.operations += 1;
        let upset = inner.fault.filter(|fault| match fault.lasting {
            Lasting::Once => fault.at == number,
            Lasting::ForEver => fault.at <= number,
        });
        Ok((inner, upset.map(|fault| fault.upset)))
    }

    /// An operation that changes nothing; whether it is to do half of what it should.
    pub(super) fn look(&self, name: &'static str) -> io::Result<(MutexGuard<'_, Inner>, bool)> {
        let (mut inner, upset) = self.begin()?;
        match upset {
            None => Ok((inner, false)),
            Some(Upset::Short) => Ok((inner, true)),
            Some(Upset::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Upset::PowerBefore | Upset::PowerDuring | Upset::PowerAfter) => {
                Err(inner.power_off(name, None))
            }
        }
    }

    /// An operation that adds something pending; whether it did only half of it.
    pub(super) fn act(
        &self,
        name: &'static str,
        act: impl Fn(&mut Storage, bool) -> Pending,
    ) -> io::Result<bool> {
        let (mut inner, upset) = self.begin()?;
        let interrupted = upset == Some(Upset::Errno(nix::errno::Errno::EINTR as i32));
        let half = matches!(upset, Some(Upset::Short | Upset::Errno(_))) && !interrupted;
        let hit = act(&mut inner.storage, half);
        inner.watch(&hit);
        inner.record(name, Some(&hit));
        match upset {
            Some(Upset::PowerBefore) => return Err(inner.power_off(name, None)),
            Some(Upset::PowerDuring) => return Err(inner.power_off(name, Some(hit))),
            // A name changes or does not, and an interrupted call did nothing; what can be half done was made half.
            Some(Upset::Errno(errno)) if interrupted || hit.is_name() => {
                return Err(io::Error::from_raw_os_error(errno));
            }
            None | Some(Upset::PowerAfter | Upset::Errno(_) | Upset::Short) => inner.storage.act(hit),
        }
        match upset {
            Some(Upset::PowerAfter) => Err(inner.power_off(name, None)),
            Some(Upset::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Upset::PowerBefore | Upset::PowerDuring) | None => Ok(false),
            Some(Upset::Short) => Ok(true),
        }
    }

    /// An operation that makes something durable.
    pub(super) fn settle(
        &self,
        name: &'static str,
        settle: impl FnOnce(&mut Storage),
        lose: impl FnOnce(&mut Storage),
    ) -> io::Result<()> {
        let (mut inner, upset) = self.begin()?;
        inner.record(name, None);
        match upset {
            Some(Upset::PowerBefore | Upset::PowerDuring) => return Err(inner.power_off(name, None)),
            Some(Upset::Errno(errno)) => {
                lose(&mut inner.storage);
                return Err(io::Error::from_raw_os_error(errno));
            }
            None | Some(Upset::PowerAfter | Upset::Short) => settle(&mut inner.storage),
        }
        match upset {
            Some(Upset::PowerAfter) => Err(inner.power_off(name, None)),
            _ => Ok(()),
        }
    }

    /// The file of a name.
    pub(super) fn inode(&self, name: &str) -> io::Result<Inode> {
        self.inner().storage.live.inode(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Inner {
    fn record(&mut self, name: &'static str, hit: Option<&Pending>) {
        let Inner { moments, storage, operations, .. } = self;
        if let Some(moments) = moments {
            let storage = storage.clone();
            moments.push(Moment { operation: *operations - 1, name, storage, hit: hit.cloned() });
        }
    }

    /// I2: nothing is written to the running slot.
    fn watch(&mut self, hit: &Pending) {
        if let Pending::Write { medium, offset, data } = hit
            && self.running.contains(medium)
        {
            let what = format!("I2: {} bytes written at {offset} of the running slot", data.bytes().len());
            self.violations.push(what);
        }
    }

    fn power_off(&mut self, name: &'static str, hit: Option<Pending>) -> io::Error {
        let (storage, operation) = (self.storage.clone(), self.operations - 1);
        self.cut = Some(Moment { operation, name, storage, hit });
        io::Error::other("the power went")
    }
}
