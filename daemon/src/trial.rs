//! Telling the boot loader: disarm, arm, commit, roll back. Each is one verified transaction on the boot environment.
//!
//! [`BootControl::arm`] takes a [`SyncedSlot`], so that nothing unverified can ever be armed. The variables of each act
//! are the boot environment crate's business ([`bootenv::Scheme`]).

use std::fmt::Display;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bootenv::{BootEnv, Changes, EnvLock, Environment, LockDirs, Scheme, Store, Trial, txn};

use crate::config::SlotName;
use crate::failure::{Code, Failure};
use crate::install::readback::SyncedSlot;
use crate::lifecycle::recover::{Standing, Standings};
use crate::ports::Machine;

/// How long another program may hold the environment before an act is given up; `fw_setenv` takes well under a second.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The boot environment and what otad says in it.
pub struct BootControl {
    env: Mutex<BootEnv<Box<dyn Store>>>,
    /// Whether this boot's boot loader found its environment where it was stored.
    loader: AtomicU8,
    scheme: Scheme,
    locks: LockDirs,
}

/// What the boot loader adds to the command line when it runs on its built-in environment.
const BUILT_IN: &str = "otad.env=default";

/// Where the boot loader of this boot had its environment from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loader {
    /// Nobody has said.
    Unknown,
    /// From where it is stored.
    Stored,
    /// From itself, because what is stored was not valid.
    BuiltIn,
}

/// What the environment says, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The slot that the boot loader tries first.
    pub primary: Option<SlotName>,
    /// What it says of the running slot and the other one.
    pub standings: Standings,
    /// Whether one of the two copies is bad.
    pub degraded: bool,
}

impl BootControl {
    /// Takes the environment's store, the scheme and the lock directories.
    pub fn new(store: Box<dyn Store>, scheme: Scheme, locks: LockDirs) -> Self {
        let loader = AtomicU8::new(Loader::Unknown as u8);
        BootControl { env: Mutex::new(BootEnv::new(store)), loader, scheme, locks }
    }

    /// Learns from the command line whether the boot loader ran on its built-in environment: only then are copies that
    /// cannot be read here really lost. Otherwise the boot loader has a good environment, and otad looks for it in the wrong
    /// place or with the wrong size; writing there would destroy it (E5).
    pub fn note_command_line(&self, command_line: &str) {
        let default = command_line.split_ascii_whitespace().any(|word| word == BUILT_IN);
        let loader = if default { Loader::BuiltIn } else { Loader::Stored };
        self.loader.store(loader as u8, Ordering::Relaxed);
    }

    /// What the environment says of the running slot and the other one; `None` when both copies are lost.
    pub fn view(&self, booted: &str, other: &str) -> Result<Option<View>, Failure> {
        let loaded = match self.load(&mut self.env()) {
            Ok(loaded) => loaded,
            // A lost environment is a fact to go by. Copies that would fit another size or layout are not lost:
            // somebody's configuration is wrong, and that is an error (E5).
            Err(failure) if failure.code == Code::EnvLost => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let env = &loaded.environment;
        let primary = self.scheme.primary(env);
        let mut standings =
            Standings { booted: self.standing(env, booted)?, other: self.standing(env, other)? };
        // Where trials are not recorded, the order tells: a slot that does not run and is tried before one that may
        // run is armed. When the running one has used up its attempts the other is merely next.
        let both = Standings { booted: Standing::Bootable, other: Standing::Bootable };
        if standings == both && primary == Some(other) {
            standings.other = Standing::Armed;
        }
        Ok(Some(View {
            primary: primary.map(str::to_owned),
            standings,
            degraded: loaded.health.is_degraded(),
        }))
    }

    fn standing(&self, env: &Environment, slot: &str) -> Result<Standing, Failure> {
        let ok = self.scheme.slot_ok(env, slot).map_err(|error| coded(error.code(), error))?;
        let given_up = self.scheme.rolled_back(env) == Some(slot);
        Ok(match self.scheme.trial(env) {
            Trial::Slot(trial) if trial == slot => Standing::Armed,
            Trial::Slot(_) | Trial::None if ok => Standing::Confirmed,
            Trial::NotRecorded if ok => Standing::Bootable,
            Trial::Slot(_) | Trial::None | Trial::NotRecorded if given_up => Standing::GivenUp,
            Trial::Slot(_) | Trial::None | Trial::NotRecorded => Standing::Disarmed,
        })
    }

    /// Makes a slot not bootable, before its first byte changes.
    pub fn disarm(&self, slot: &str) -> Result<(), Failure> {
        self.change(|scheme, env| scheme.disarm(env, slot))
    }

    /// Makes the next boot a trial of this slot. The only commit point of an update.
    pub fn arm(&self, slot: &SyncedSlot) -> Result<(), Failure> {
        self.change(|scheme, env| scheme.arm(env, slot.name()))
    }

    /// Takes a slot back that was armed as it stood, to go back to it: it stays what can be gone back to.
    pub fn take_back(&self, slot: &str) -> Result<(), Failure> {
        self.change(|scheme, env| scheme.take_back(env, slot))
    }

    /// Sets counters right that the boot loader would take for "for ever" (E7).
    pub fn repair(&self) -> Result<(), Failure> {
        self.change(|scheme, env| Ok(scheme.repair(env)))
    }

    /// Confirms the running slot. A lost environment is rebuilt first: the system has just been found healthy.
    pub fn commit(&self, slot: &str, machine: &dyn Machine) -> Result<(), Failure> {
        match self.change(|scheme, env| scheme.commit(env, slot)) {
            Err(failure) if failure.code == Code::EnvLost => self.rebuild(slot, machine),
            result => result,
        }
    }

    /// Gives up a slot on trial: the next boot starts the other one.
    pub fn roll_back(&self, slot: &str) -> Result<(), Failure> {
        self.change(|scheme, env| scheme.rollback(env, slot))
    }

    /// Writes both copies anew from the configured defaults, with `slot` as the one good slot (E2).
    fn rebuild(&self, slot: &str, machine: &dyn Machine) -> Result<(), Failure> {
        let lost = |what: String| {
            let what = format!("both copies of the boot environment are lost and cannot be rebuilt: {what}");
            Failure::new(Code::EnvLost, format!("{what}; check default-env in otad.toml"))
        };
        let text = machine.default_environment().map_err(|error| lost(error.to_string()))?;
        let mut environment =
            bootenv::script::parse_environment(&text).map_err(|error| lost(error.to_string()))?;
        let factory = self.scheme.factory(slot).map_err(|error| coded(error.code(), error))?;
        environment.apply(&factory).map_err(|error| coded(error.code(), error))?;
        let lock = self.lock()?;
        self.env().init(&lock, &environment).map_err(from_txn)?;
        log::warn!(
            "ENV_LOST: both copies of the boot environment were lost; rebuilt with slot {slot} as the good one"
        );
        Ok(())
    }

    /// One transaction: read, decide, write the copy that is not in use, flush, read back.
    fn change(
        &self,
        act: impl FnOnce(&Scheme, &Environment) -> Result<Changes, bootenv::scheme::Error>,
    ) -> Result<(), Failure> {
        let lock = self.lock()?;
        let mut env = self.env();
        let loaded = self.load(&mut env)?;
        let changes = act(&self.scheme, &loaded.environment).map_err(|error| coded(error.code(), error))?;
        let committed = env.commit(&lock, &changes).map_err(from_txn)?;
        if committed.repaired {
            log::warn!("one copy of the boot environment was bad; repaired");
        }
        Ok(())
    }

    /// Reads the environment. What U-Boot saved from its built-in default after both copies were lost is not ours: it
    /// names no slot, and the board's own variables are missing from it.
    fn load(&self, env: &mut BootEnv<Box<dyn Store>>) -> Result<txn::Loaded, Failure> {
        let loaded = env.load().map_err(from_txn).map_err(|failure| self.explain_loss(failure))?;
        if self.scheme.is_default(&loaded.environment) {
            let what =
                "the boot loader runs on its built-in environment, because both stored copies were lost";
            return Err(Failure::new(Code::EnvLost, what));
        }
        Ok(loaded)
    }

    /// A loss that the boot loader has not noticed is none.
    fn explain_loss(&self, failure: Failure) -> Failure {
        if failure.code != Code::EnvLost || self.loader.load(Ordering::Relaxed) != Loader::Stored as u8 {
            return failure;
        }
        let what = format!("{}; but the boot loader started from a stored environment", failure.message);
        let next = "compare env-config with the boot loader's own place and size, or reboot if the copies were damaged since";
        Failure::new(Code::EnvConfigMismatch, format!("{what}: {next}"))
    }

    fn lock(&self) -> Result<EnvLock, Failure> {
        EnvLock::acquire(&self.locks, LOCK_TIMEOUT).map_err(|error| coded(error.code(), error))
    }

    fn env(&self) -> MutexGuard<'_, BootEnv<Box<dyn Store>>> {
        self.env.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn from_txn(error: txn::Error) -> Failure {
    coded(error.code(), error)
}

fn coded(code: &str, error: impl Display) -> Failure {
    Failure::new(Code::from_text(code).unwrap_or(Code::Internal), error.to_string())
}
