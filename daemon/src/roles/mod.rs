//! Processes of otad's own with fewer rights than the daemon.
//!
//! | role | talks to | can |
//! |---|---|---|
//! | fetcher (`fetch.rs`) | the network, and the daemon through one socket | no device, no file to write, no key of this device but that for TLS |
//! | decoder (`expand.rs`) | the daemon through one socket and shared memory | compute; it has neither files nor network |
//! | the daemon itself | D-Bus, devices, the boot environment | no network, where its unit says so |
//!
//! The daemon verifies the signature, the index and every chunk itself, before and after decompression, and believes nothing that a
//! role says: one that was taken over can only make an install fail. A role is this very program, executed again as `otad --role NAME`
//! with its end of a socket as standard input; it puts itself into its sandbox (`sandbox.rs`) before it reads a byte. The fetcher can be a
//! unit of systemd's instead (`otad-fetch.socket`), which is how a daemon without network has one.

mod calls;
mod expand;
mod expander;
mod fetch;
mod fetcher;
mod frame;
#[cfg(feature = "testing")]
pub mod hostile;
mod input;
mod landlock;
mod memory;
mod process;
mod sandbox;

use std::process::ExitCode;

pub use expander::Processes;
pub use fetcher::{Place, SeparateFetch};

/// What a process of otad's can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Talks HTTP.
    Fetcher,
    /// Decompresses.
    Decoder,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 2] = [Role::Fetcher, Role::Decoder];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Fetcher => "fetcher",
            Role::Decoder => "decoder",
        }
    }

    /// Is that role, until whoever started it closes the socket.
    pub fn run(self) -> ExitCode {
        // `top` and the journal show it; the program's own name would be `exe`.
        let shown = match self {
            Role::Fetcher => c"otad-fetcher",
            Role::Decoder => c"otad-decoder",
        };
        if let Err(errno) = nix::sys::prctl::set_name(shown) {
            log::debug!("no name for the {}: {errno}", self.name());
        }
        let serve = || match self {
            Role::Fetcher => {
                sandbox::enter(self)?;
                fetch::serve()
            }
            Role::Decoder => {
                let station = expand::Station::take()?;
                sandbox::enter(self)?;
                station.serve()
            }
        };
        match serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log::error!("{}: {error}", self.name());
                ExitCode::FAILURE
            }
        }
    }
}
