//! A store in memory that fails on purpose, for tests and simulators.
//!
//! Operations (reads, writes, marks) are counted from 0. A [`Fault`] at one of them says what reaches the medium and how the
//! operation ends: with an error, with a lie, or with the power gone until [`FaultStore::power_on`].

use std::io;

use crate::format::{CopyId, FLAG_OBSOLETE, FLAGS_OFFSET, FlagScheme, Layout};
use crate::store::Store;

/// What a faulty write leaves on the medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landed {
    /// Nothing: it was lost in a cache.
    Nothing,
    /// The first bytes; behind them is what was there before.
    Prefix(usize),
    /// All but the first bytes.
    Suffix(usize),
    /// Those 512-byte sectors whose bit is set (bit 63 stands for all from 63 on).
    Sectors(u64),
    /// Everything, but the last bytes as zeros.
    ZeroTail(usize),
    /// The first bytes; behind them is neither old nor new.
    Garbage(usize),
    /// Everything.
    All,
}

/// How a faulty operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It reports success.
    Success,
    /// It reports this kind of error.
    Error(io::ErrorKind),
    /// The power goes, and everything fails until it comes back.
    PowerCut,
}

/// A fault at one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// At which operation, counted from 0.
    pub operation: u64,
    /// What reaches the medium if it is a write. A mark lands whole unless this is [`Landed::Nothing`].
    pub landed: Landed,
    /// How it ends.
    pub ending: Ending,
}

/// Size of the sectors of [`Landed::Sectors`] in bytes.
const SECTOR_BYTES: usize = 512;
/// What garbage looks like: neither erased nor zero.
const GARBAGE: u8 = 0xa5;

/// An environment store in memory with a plan of faults.
#[derive(Debug, Clone)]
pub struct FaultStore {
    copies: Vec<Vec<u8>>,
    size: usize,
    scheme: FlagScheme,
    faults: Vec<Fault>,
    operations: u64,
    writes: u64,
    powered: bool,
}

impl FaultStore {
    /// A store of erased copies.
    pub fn erased(layout: Layout, size: usize) -> Self {
        FaultStore::with_copies(layout.copies().iter().map(|_| vec![0xff; size]).collect())
    }

    /// A store that holds these one or two copies.
    pub fn with_copies(copies: Vec<Vec<u8>>) -> Self {
        let size = copies.iter().map(Vec::len).max().unwrap_or(0);
        FaultStore {
            copies,
            size,
            scheme: FlagScheme::Counter,
            faults: Vec::new(),
            operations: 0,
            writes: 0,
            powered: true,
        }
    }

    /// Uses other flags.
    #[must_use]
    pub fn with_flag_scheme(mut self, scheme: FlagScheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// Plans a fault.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// What the medium holds.
    pub fn copies(&self) -> &[Vec<u8>] {
        &self.copies
    }

    /// The medium, to damage it. A copy that is shorter than the size fails to be read.
    pub fn copies_mut(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.copies
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// The power comes back; faults that have not happened are dropped.
    pub fn power_on(&mut self) {
        self.powered = true;
        self.faults.clear();
    }

    /// Counts an operation and finds its fault.
    fn operation(&mut self) -> io::Result<Option<Fault>> {
        if !self.powered {
            return Err(io::Error::other("the power is off"));
        }
        let number = self.operations;
        self.operations += 1;
        Ok(self.faults.iter().find(|fault| fault.operation == number).cloned())
    }

    fn end(&mut self, ending: Ending) -> io::Result<()> {
        match ending {
            Ending::Success => Ok(()),
            Ending::Error(kind) => Err(io::Error::new(kind, "planned fault")),
            Ending::PowerCut => {
                self.powered = false;
                Err(io::Error::other("the power went"))
            }
        }
    }

    fn copy_mut(&mut self, copy: CopyId) -> io::Result<&mut Vec<u8>> {
        self.copies
            .get_mut(copy.index())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such copy"))
    }
}

/// What the medium holds after a write of `new` over `old` of which `landed` arrived.
pub fn land(old: &[u8], new: &[u8], landed: &Landed) -> Vec<u8> {
    let pick = |index: usize, fresh: u8, is_new: bool| {
        if is_new { fresh } else { old.get(index).copied().unwrap_or(0) }
    };
    let mix = |is_new: &dyn Fn(usize) -> bool| -> Vec<u8> {
        new.iter().enumerate().map(|(index, &fresh)| pick(index, fresh, is_new(index))).collect()
    };
    match *landed {
        Landed::Nothing => old.to_vec(),
        Landed::Prefix(len) => mix(&|index| index < len),
        Landed::Suffix(start) => mix(&|index| index >= start),
        Landed::Sectors(mask) => mix(&|index| mask >> (index / SECTOR_BYTES).min(63) & 1 == 1),
        Landed::ZeroTail(len) => {
            let keep = new.len().saturating_sub(len);
            new.iter().enumerate().map(|(index, &fresh)| if index < keep { fresh } else { 0 }).collect()
        }
        Landed::Garbage(len) => {
            new.iter().enumerate().map(|(index, &fresh)| if index < len { fresh } else { GARBAGE }).collect()
        }
        Landed::All => new.to_vec(),
    }
}

impl Store for FaultStore {
    fn layout(&self) -> Layout {
        if self.copies.len() > 1 { Layout::Redundant } else { Layout::Single }
    }

    fn size(&self) -> usize {
        self.size
    }

    fn flag_scheme(&self) -> FlagScheme {
        self.scheme
    }

    fn place(&self, copy: CopyId) -> String {
        format!("{copy} in memory")
    }

    fn read(&mut self, copy: CopyId) -> io::Result<Vec<u8>> {
        let fault = self.operation()?;
        if let Some(fault) = fault {
            self.end(fault.ending)?;
        }
        let size = self.size;
        let bytes = self.copy_mut(copy)?.clone();
        if bytes.len() < size {
            let message = format!("it ends after {} of {size} bytes", bytes.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        Ok(bytes)
    }

    fn write(&mut self, copy: CopyId, bytes: &[u8]) -> io::Result<()> {
        let fault = self.operation()?;
        self.writes += 1;
        let (landed, ending) = match fault {
            Some(fault) => (fault.landed, fault.ending),
            None => (Landed::All, Ending::Success),
        };
        let stored = self.copy_mut(copy)?;
        *stored = land(stored, bytes, &landed);
        self.end(ending)
    }

    fn mark_obsolete(&mut self, copy: CopyId) -> io::Result<()> {
        let fault = self.operation()?;
        let lost = fault.as_ref().is_some_and(|fault| fault.landed == Landed::Nothing);
        if let (false, Some(flags)) = (lost, self.copy_mut(copy)?.get_mut(FLAGS_OFFSET)) {
            *flags = FLAG_OBSOLETE;
        }
        fault.map_or(Ok(()), |fault| self.end(fault.ending))
    }
}
