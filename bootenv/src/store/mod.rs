//! Where copies are stored: the port below the transactions.
//!
//! A [`Store`] moves whole copies and knows nothing of their meaning. What it promises is what power-cut safety rests
//! on: a write that returned is on the medium, and a read tells what the medium holds. [`FileStore`] does this for block
//! devices and regular files; the trait also fits flash with erase blocks and UBI volumes.

mod direct;
mod file;
mod force_ro;

use std::io;

use crate::format::{CopyId, FlagScheme, Layout};

pub use file::{Error, FileStore};
pub use force_ro::SYSFS_BLOCK;

/// Reads and writes whole copies of one environment.
pub trait Store: Send {
    /// One copy or two.
    fn layout(&self) -> Layout;

    /// Size of one copy in bytes, with its header.
    fn size(&self) -> usize;

    /// What the flags of redundant copies mean on this device.
    fn flag_scheme(&self) -> FlagScheme {
        FlagScheme::Counter
    }

    /// Where a copy is, for messages: device and offset.
    fn place(&self, copy: CopyId) -> String;

    /// Reads a copy as the *medium* holds it: through a descriptor of its own, past the page cache where the system
    /// allows. Returns exactly [`size`](Store::size) bytes or an error.
    fn read(&mut self, copy: CopyId) -> io::Result<Vec<u8>>;

    /// Writes a copy. When it returns without an error the bytes were flushed, and the flush said so. An error leaves
    /// the copy in any state; the other copy is not touched.
    fn write(&mut self, copy: CopyId, bytes: &[u8]) -> io::Result<()>;

    /// Clears the flags of a superseded copy, durably. Called only when [`flag_scheme`](Store::flag_scheme) is
    /// [`FlagScheme::Boolean`].
    fn mark_obsolete(&mut self, copy: CopyId) -> io::Result<()> {
        let place = self.place(copy);
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{place} counts generations, it has no obsolete mark"),
        ))
    }

    /// Tells whether a power cut during a write of the *only* copy leaves the old or the new one. Of no interest with
    /// two copies.
    fn replaces_atomically(&self) -> bool {
        false
    }
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn layout(&self) -> Layout {
        (**self).layout()
    }
    fn size(&self) -> usize {
        (**self).size()
    }
    fn flag_scheme(&self) -> FlagScheme {
        (**self).flag_scheme()
    }
    fn place(&self, copy: CopyId) -> String {
        (**self).place(copy)
    }
    fn read(&mut self, copy: CopyId) -> io::Result<Vec<u8>> {
        (**self).read(copy)
    }
    fn write(&mut self, copy: CopyId, bytes: &[u8]) -> io::Result<()> {
        (**self).write(copy, bytes)
    }
    fn mark_obsolete(&mut self, copy: CopyId) -> io::Result<()> {
        (**self).mark_obsolete(copy)
    }
    fn replaces_atomically(&self) -> bool {
        (**self).replaces_atomically()
    }
}
