//! The boot loader as a pure function: what U-Boot and the project's boot scripts do at one power-on.
//!
//! Simulators, the `file` back end of the daemon and the demo boot through this; real boards run the scripts of
//! `docs/boot-integration.md`, which say the same in U-Boot's shell. One call is one power-on, up to "the kernel was
//! started" or "reset": the caller loops. It follows, rule by rule,
//!
//! - which copy is used: `env_check_redund` of U-Boot's `env/common.c` (see [`mod@crate::format`]);
//! - both copies lost: the built-in default environment;
//! - what U-Boot reads from the stored strings: `lib/hashtable.c` (see `session.rs`);
//! - what it saves: sorted, zero-padded, to the copy that is not in use;
//! - boot counting: `drivers/bootcount/bootcount_env.c`, `common/autoboot.c` (see `bootcount.rs`);
//! - RAUC's contract of `BOOT_ORDER` and `BOOT_x_LEFT` (see `boot_order.rs`).
//!
//! ```
//! use bootenv::model::{BootLoader, Outcome};
//! use bootenv::{ByteOrder, Layout, Scheme, SchemeKind};
//!
//! let scheme = Scheme::new(SchemeKind::Bootcount, ["a", "b"], 3)?;
//! let loader = BootLoader::new(scheme, Layout::Redundant, ByteOrder::Little);
//! // Both copies are blank, and slot a was being written when they were lost: its kernel cannot be loaded.
//! let blank = vec![vec![0xff; 0x1000], vec![0xff; 0x1000]];
//! let boot = loader.power_on(&blank, &|slot| slot == "b");
//! let Outcome::Started { slot, command_line } = boot.outcome else { panic!() };
//! assert_eq!(slot, "b");
//! assert_eq!(command_line, "otad.slot=b otad.bootcount=1 otad.env=default");
//! # Ok::<(), bootenv::scheme::Error>(())
//! ```

mod boot_order;
mod bootcount;
mod session;

use crate::env::Environment;
use crate::format::{ByteOrder, CopyId, Layout};
use crate::scheme::{Scheme, SchemeKind};

use session::Session;

/// A boot loader as it was built: everything that is not in the stored environment.
#[derive(Debug, Clone)]
pub struct BootLoader {
    scheme: Scheme,
    layout: Layout,
    order: ByteOrder,
    default_environment: Environment,
}

/// How a power-on ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A kernel runs.
    Started {
        /// The slot it was loaded from.
        slot: String,
        /// What the boot loader appended to the kernel command line.
        command_line: String,
    },
    /// The boot loader reset the machine; the next power-on follows.
    Reset {
        /// Why, as on the console.
        reason: String,
    },
}

/// One save of the environment, for simulators that cut power in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    /// The copy that was written.
    pub copy: CopyId,
    /// What was written, the whole copy.
    pub bytes: Vec<u8>,
}

/// Everything one power-on did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootResult {
    /// How it ended.
    pub outcome: Outcome,
    /// The copies after all saves.
    pub copies: Vec<Vec<u8>>,
    /// The saves, in order.
    pub saves: Vec<Save>,
    /// What the console showed.
    pub console: Vec<String>,
}

impl BootLoader {
    /// Makes a boot loader whose built-in environment is that of the scheme ([`Scheme::built_in`]).
    pub fn new(scheme: Scheme, layout: Layout, order: ByteOrder) -> Self {
        let mut default_environment = Environment::new();
        let built_in = default_environment.apply(&scheme.built_in());
        debug_assert!(built_in.is_ok(), "the names and values of a scheme can be stored");
        BootLoader { scheme, layout, order, default_environment }
    }

    /// Uses another built-in environment.
    #[must_use]
    pub fn with_default_environment(mut self, environment: Environment) -> Self {
        self.default_environment = environment;
        self
    }

    /// One power-on. `copies` are the stored bytes, all of one size, one or two as the layout says; a copy that is missing
    /// or has another size cannot be read. `loadable` tells whether a kernel can be loaded from a slot.
    pub fn power_on(&self, copies: &[Vec<u8>], loadable: &dyn Fn(&str) -> bool) -> BootResult {
        let mut session = Session::start(self, copies);
        let outcome = match self.scheme.kind() {
            SchemeKind::Bootcount => bootcount::run(&mut session, &self.scheme, loadable),
            SchemeKind::BootOrder => boot_order::run(&mut session, &self.scheme, loadable),
        };
        session.finish(outcome)
    }
}

#[cfg(test)]
mod tests;
