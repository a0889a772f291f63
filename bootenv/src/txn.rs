//! One change of the environment: complete, durable and verified, or not at all.
//!
//! The order of a [`BootEnv::commit`]:
//!
//! 1. Read both copies from the medium. A copy that cannot be read is a bad copy. The current one is the one U-Boot would
//!    use; without any, nothing is written ([`Error::Lost`]).
//! 2. Apply the changes in memory. If they do not fit, nothing is written.
//! 3. Write the copy that is *not* current, with flags that make it current, and flush it. The result of the flush counts.
//! 4. Read it back through a fresh descriptor and compare every byte. One difference is written once more; a second
//!    one, or any error, ends the act, and the error says which copy is still good.
//! 5. Only on NOR: mark the superseded copy.
//!
//! A power cut anywhere leaves the old or the new environment. When nothing changes and both copies are valid, nothing is
//! written; when one is bad, the write in step 3 is what repairs it.

use std::io;

use crate::env::{self, Changes, Environment};
use crate::format::{self, Bad, ByteOrder, Copy, CopyId, FLAG_OBSOLETE, FLAGS_OFFSET, FlagScheme, Layout};
use crate::lock::EnvLock;
use crate::store::Store;

/// What padding is written with: what U-Boot itself writes. (Old heap contents, as from some tools, would leak.)
const PADDING: u8 = 0;
/// The counter of the first copy ever written, as mkenvimage and U-Boot write it.
const FIRST_FLAGS: u8 = 1;
/// How often a copy that reads back differently is written: flash forgets the end of a write now and then, and a copy
/// that fails twice will fail again.
const WRITE_ATTEMPTS: u32 = 2;

/// Why an environment was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No copy is valid. Nothing was written: `init` does that, on request only.
    #[error("no valid environment: {health}; nothing was written, {}", advice(.health))]
    Lost {
        /// What is wrong with each copy.
        health: Health,
    },
    /// The changes cannot be stored.
    #[error(transparent)]
    Environment(#[from] env::Error),
    /// The copy could not be written or flushed.
    #[error("cannot write {copy} ({place}): {source}; {}", fallback(.good))]
    Write {
        /// The copy that was being written and is to be taken as damaged.
        copy: CopyId,
        /// Its device and offset.
        place: String,
        /// The copy that still holds the old environment, if there is one.
        good: Option<CopyId>,
        /// Why.
        source: io::Error,
    },
    /// The copy was written but could not be read back.
    #[error("cannot read {copy} ({place}) back: {source}; {}", fallback(.good))]
    ReadBack {
        /// The copy that was written.
        copy: CopyId,
        /// Its device and offset.
        place: String,
        /// The copy that still holds the old environment, if there is one.
        good: Option<CopyId>,
        /// Why.
        source: io::Error,
    },
    /// The medium holds something else than was written, also at the second try.
    #[error("{copy} ({place}) holds other bytes than were written, {differing} of {size}, the first at 0x{offset:x}; {}", fallback(.good))]
    Verify {
        /// The copy that was written.
        copy: CopyId,
        /// Its device and offset.
        place: String,
        /// The copy that still holds the old environment, if there is one.
        good: Option<CopyId>,
        /// First differing byte, counted from the start of the copy.
        offset: usize,
        /// How many bytes differ.
        differing: usize,
        /// Size of the copy in bytes.
        size: usize,
    },
    /// The new copy is complete, but the superseded one could not be marked. U-Boot may use either.
    #[error("{copy} is written and verified, but {} cannot be marked obsolete: {source}; set any variable to try again", copy.other())]
    MarkObsolete {
        /// The new copy.
        copy: CopyId,
        /// Why the other one could not be marked.
        source: io::Error,
    },
}

fn advice(health: &Health) -> &'static str {
    if health.is_unreadable() {
        "check the device, the configuration and the permissions"
    } else if health.suggests_wrong_config() {
        "correct the configuration"
    } else {
        "`bootenv init` writes a new one"
    }
}

fn fallback(good: &Option<CopyId>) -> String {
    match good {
        Some(copy) => format!("{copy} still holds the environment as it was, try again"),
        None => "there is no other valid copy: try again before the next reboot".to_owned(),
    }
}

impl Error {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            // Nothing is known to be lost when nothing could be read.
            Error::Lost { health } if health.is_unreadable() => "ENV_IO",
            Error::Lost { health } if health.suggests_wrong_config() => "ENV_CONFIG_MISMATCH",
            Error::Lost { .. } => "ENV_LOST",
            Error::Environment(error) => error.code(),
            Error::Write { .. }
            | Error::ReadBack { .. }
            | Error::Verify { .. }
            | Error::MarkObsolete { .. } => "ENV_IO",
        }
    }
}

/// What one copy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyState {
    /// The checksum fits.
    Valid {
        /// The flags byte (0 in the single layout).
        flags: u8,
    },
    /// It cannot be used.
    Bad(Bad),
}

impl CopyState {
    /// The flags of a valid copy.
    pub fn flags(&self) -> Option<u8> {
        match self {
            CopyState::Valid { flags } => Some(*flags),
            CopyState::Bad(_) => None,
        }
    }
}

/// The state of every copy, and which one U-Boot uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// State of the first copy.
    pub first: CopyState,
    /// State of the second copy; `None` if there is only one.
    pub second: Option<CopyState>,
    /// The copy in use; `None` if every copy is bad.
    pub current: Option<CopyId>,
}

impl Health {
    /// The copies and their states.
    pub fn copies(&self) -> impl Iterator<Item = (CopyId, &CopyState)> {
        std::iter::once((CopyId::First, &self.first))
            .chain(self.second.iter().map(|state| (CopyId::Second, state)))
    }

    /// Tells whether every copy is valid.
    pub fn is_healthy(&self) -> bool {
        self.copies().all(|(_, state)| state.flags().is_some())
    }

    /// Tells whether one copy is valid and another is not: the next commit repairs that.
    pub fn is_degraded(&self) -> bool {
        self.current.is_some() && !self.is_healthy()
    }

    /// Tells whether not a single copy could be read: the device is missing or failing, or this process may not read it.
    pub fn is_unreadable(&self) -> bool {
        self.copies().all(|(_, state)| matches!(state, CopyState::Bad(Bad::Unreadable(_))))
    }

    /// Tells whether a bad copy would be valid under another size, layout or byte order.
    pub fn suggests_wrong_config(&self) -> bool {
        self.copies().any(|(_, state)| matches!(state, CopyState::Bad(bad) if bad.hint().is_some()))
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (copy, state)) in self.copies().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            match state {
                CopyState::Valid { flags } => write!(f, "{separator}{copy} is valid (flags {flags})")?,
                CopyState::Bad(bad) => write!(f, "{separator}{copy}: {bad}")?,
            }
        }
        Ok(())
    }
}

/// An environment as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The variables of the current copy.
    pub environment: Environment,
    /// The state of the copies.
    pub health: Health,
    /// The current copy.
    pub current: CopyId,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The variables as they are stored now.
    pub environment: Environment,
    /// The copy that was written; `None` if there was nothing to do.
    pub written: Option<CopyId>,
    /// The copy was bad before and is valid now.
    pub repaired: bool,
    /// The first write read back differently and was repeated: a sign of a failing device.
    pub rewritten: bool,
}

/// The boot environment in a store.
#[derive(Debug)]
pub struct BootEnv<S> {
    store: S,
    order: ByteOrder,
}

/// Both copies as they were read.
struct Snapshot {
    health: Health,
    first: Option<Copy>,
    second: Option<Copy>,
}

impl Snapshot {
    fn copy(&self, id: CopyId) -> Option<&Copy> {
        match id {
            CopyId::First => self.first.as_ref(),
            CopyId::Second => self.second.as_ref(),
        }
    }
}

/// A new copy on its way to the store.
struct Write<'a> {
    target: CopyId,
    bytes: &'a [u8],
    /// Which copy stays valid whatever happens to the target.
    good: Option<CopyId>,
}

impl<S: Store> BootEnv<S> {
    /// Takes a store, in the byte order of this machine.
    pub fn new(store: S) -> Self {
        BootEnv { store, order: ByteOrder::NATIVE }
    }

    /// Uses the byte order of another machine, for images made or read elsewhere.
    #[must_use]
    pub fn with_byte_order(mut self, order: ByteOrder) -> Self {
        self.order = order;
        self
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, for tests that damage it.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Bytes that variables may take, with their terminators.
    pub fn capacity(&self) -> usize {
        self.store.size().saturating_sub(self.store.layout().header_bytes())
    }

    /// Reads the environment and the state of its copies. An unreadable copy is a bad copy; only when every copy is bad
    /// this fails. Without the lock, a write of another program at this moment makes a copy look bad.
    pub fn load(&mut self) -> Result<Loaded, Error> {
        let snapshot = self.snapshot();
        let health = snapshot.health.clone();
        match health.current.and_then(|id| Some((id, snapshot.copy(id)?))) {
            Some((current, copy)) => {
                Ok(Loaded { environment: Environment::parse(&copy.data), health, current })
            }
            None => Err(Error::Lost { health }),
        }
    }

    /// Reads the state of the copies only. Never fails.
    pub fn health(&mut self) -> Health {
        self.snapshot().health
    }

    /// Applies changes as one transaction; see the module for its order. The lock is proof that nobody else writes, and
    /// must have been held since the caller read what the changes depend on.
    pub fn commit(&mut self, _lock: &EnvLock, changes: &Changes) -> Result<Committed, Error> {
        let snapshot = self.snapshot();
        let health = &snapshot.health;
        let Some((current, copy)) = health.current.and_then(|id| Some((id, snapshot.copy(id)?))) else {
            return Err(Error::Lost { health: snapshot.health });
        };
        let before = Environment::parse(&copy.data);
        let mut environment = before.clone();
        environment.apply(changes)?;
        if environment == before && health.is_healthy() {
            return Ok(Committed { environment, written: None, repaired: false, rewritten: false });
        }
        let repaired = health.is_degraded();
        let (target, rewritten) = self.write(&environment, Some((current, copy.flags)))?;
        Ok(Committed { environment, written: Some(target), repaired, rewritten })
    }

    /// Replaces the whole environment, in every copy, whatever was stored before. One copy after the other, so that with
    /// two copies one is valid at every moment if one was before.
    pub fn init(&mut self, _lock: &EnvLock, environment: &Environment) -> Result<(), Error> {
        for _ in self.store.layout().copies() {
            let snapshot = self.snapshot();
            let current = snapshot.health.current.and_then(|id| Some((id, snapshot.copy(id)?.flags)));
            self.write(environment, current)?;
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Snapshot {
        let (first, first_state) = self.read(CopyId::First);
        let (second, second_state) = match self.store.layout() {
            Layout::Single => (None, None),
            Layout::Redundant => {
                let (copy, state) = self.read(CopyId::Second);
                (copy, Some(state))
            }
        };
        let second_flags = second.as_ref().map(|copy| copy.flags);
        let current =
            format::choose(first.as_ref().map(|copy| copy.flags), second_flags, self.store.flag_scheme());
        Snapshot { health: Health { first: first_state, second: second_state, current }, first, second }
    }

    fn read(&mut self, id: CopyId) -> (Option<Copy>, CopyState) {
        let decoded = match self.store.read(id) {
            Ok(bytes) => Copy::decode(&bytes, self.store.layout(), self.order),
            Err(error) => Err(Bad::Unreadable(format!("{}: {error}", self.store.place(id)))),
        };
        match decoded {
            Ok(copy) => {
                let state = CopyState::Valid { flags: copy.flags };
                (Some(copy), state)
            }
            Err(bad) => (None, CopyState::Bad(bad)),
        }
    }

    /// Steps 2 to 5 for a whole environment. Returns the copy written and whether it took a second attempt.
    fn write(
        &mut self,
        environment: &Environment,
        current: Option<(CopyId, u8)>,
    ) -> Result<(CopyId, bool), Error> {
        let layout = self.store.layout();
        let scheme = self.store.flag_scheme();
        let data = environment.serialise(self.capacity(), PADDING)?;
        let flags = match (layout, current) {
            (Layout::Single, _) => 0,
            (Layout::Redundant, None) => FIRST_FLAGS,
            (Layout::Redundant, Some((_, flags))) => format::next_flags(flags, scheme),
        };
        let bytes = Copy { flags, data }.encode(layout, self.order);
        let (target, good) = match (layout, current) {
            (Layout::Redundant, Some((id, _))) => (id.other(), Some(id)),
            (Layout::Redundant | Layout::Single, _) => (CopyId::First, None),
        };
        let rewritten = self.write_verified(&Write { target, bytes: &bytes, good })?;
        if let (FlagScheme::Boolean, Some(superseded)) = (scheme, good) {
            self.supersede(superseded)?;
        }
        Ok((target, rewritten))
    }

    fn write_verified(&mut self, write: &Write<'_>) -> Result<bool, Error> {
        let mut attempt = 1;
        loop {
            self.store.write(write.target, write.bytes).map_err(|source| Error::Write {
                copy: write.target,
                place: self.store.place(write.target),
                good: write.good,
                source,
            })?;
            match self.compare(write) {
                Ok(()) => return Ok(attempt > 1),
                Err(Error::Verify { .. }) if attempt < WRITE_ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn compare(&mut self, write: &Write<'_>) -> Result<(), Error> {
        let place = self.store.place(write.target);
        let found = match self.store.read(write.target) {
            Ok(found) => found,
            Err(source) => {
                return Err(Error::ReadBack { copy: write.target, place, good: write.good, source });
            }
        };
        if found == write.bytes {
            return Ok(());
        }
        let mut differences = write.bytes.iter().zip(&found).enumerate().filter(|(_, (a, b))| a != b);
        let offset = differences.next().map_or(found.len().min(write.bytes.len()), |(offset, _)| offset);
        let differing = 1 + differences.count();
        let size = write.bytes.len();
        Err(Error::Verify { copy: write.target, place, good: write.good, offset, differing, size })
    }

    /// Marks the old copy on a device with boolean flags, and checks that the mark is there.
    fn supersede(&mut self, superseded: CopyId) -> Result<(), Error> {
        let marked = self.store.mark_obsolete(superseded).and_then(|()| self.store.read(superseded));
        let failed = |source| Error::MarkObsolete { copy: superseded.other(), source };
        let flags = marked.map_err(failed)?.get(FLAGS_OFFSET).copied();
        if flags == Some(FLAG_OBSOLETE) {
            return Ok(());
        }
        Err(failed(io::Error::other(format!("its flags read back as {flags:02x?}"))))
    }
}
