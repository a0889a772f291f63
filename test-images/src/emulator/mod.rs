//! Starts, watches and kills the emulated machine.
//!
//! Everything here looks at the board from outside, as somebody with a serial cable and a power switch would: the
//! [`console`], what its text says of the [`boots`], the [`card`] with the boot environment while the power is off, and a
//! shell over the network in [`guest`]. [`qmp`] does to the hardware what a hand would do: pull a cable, pull a disk.
//! [`firmware`] asks U-Boot itself what its environment is. Nothing here decides what ought to happen; that is
//! [`crate::scenario`].

pub mod boots;
pub mod card;
pub mod console;
mod error;
pub mod firmware;
pub mod guest;
pub mod machine;
pub mod qmp;

pub use boots::Boot;
pub use card::Card;
pub use console::Console;
pub use error::Error;
pub use guest::Guest;
pub use machine::{Drive, Keeping, Machine, Power};
