//! Memory that the daemon shares with a decoder: packed bytes go in at the front, plain ones come out behind them.
#![allow(
    unsafe_code,
    reason = "mmap(2) has no safe wrapper; every use of the mapping is here and nowhere else"
)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Room for packed bytes: the prefix of a piece of a delta (2 MiB), and behind it the largest chunk, or what a batch has, with room to spare.
/// What is not used takes no memory.
pub(super) const IN_BYTES: usize = 4 * 1024 * 1024;
/// Room for plain bytes: the largest chunk, or as much as a batch has.
pub(super) const OUT_BYTES: usize = 2 * 1024 * 1024;
const ALL: NonZeroUsize = NonZeroUsize::MIN.saturating_add(IN_BYTES + OUT_BYTES - 1);

/// A mapping of such memory.
pub(super) struct Shared {
    start: NonNull<u8>,
}

// SAFETY: the mapping belongs to this value alone; who else has it is another process, which no thread rule covers.
unsafe impl Send for Shared {}

impl Shared {
    /// Makes the memory and the file that stands for it; the other side can neither shrink it under our feet nor grow it.
    pub(super) fn new() -> io::Result<(Shared, File)> {
        let file = File::from(memfd_create(c"otad", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
        file.set_len(ALL.get() as u64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
        Ok((Shared::of(&file)?, file))
    }

    /// Maps memory that somebody else made.
    pub(super) fn of(file: &File) -> io::Result<Shared> {
        if file.metadata()?.len() != ALL.get() as u64 {
            return Err(io::Error::other("the shared memory has not the length it should have"));
        }
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses; the file is at least as long and cannot become shorter.
        let start = unsafe { mmap(None, ALL, access, flags, file, 0) }?;
        Ok(Shared { start: start.cast() })
    }

    /// Copies bytes in; false when they do not fit.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= ALL.get());
        if fits {
            // SAFETY: both ranges are valid for their length and do not overlap: `bytes` is memory of this process. A decoder that
            // writes at the same time spoils its own input.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len());
            }
        }
        fits
    }

    /// Copies bytes out; false when there are not so many.
    pub(super) fn take(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= ALL.get());
        if fits {
            // SAFETY: as in `put`. What a decoder changes meanwhile is seen or not: the copy is verified, not the original.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    self.start.as_ptr().add(offset),
                    bytes.as_mut_ptr(),
                    bytes.len(),
                );
            }
        }
        fits
    }

    /// Both parts, for the decoder itself: the daemon waits until it has answered.
    pub(super) fn parts(&mut self) -> (&[u8], &mut [u8]) {
        // SAFETY: the mapping lives as long as the borrow, and the daemon leaves it alone until it gets its answer.
        let all = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), ALL.get()) };
        let (packed, plain) = all.split_at_mut(IN_BYTES);
        (packed, plain)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: nobody holds a reference into it: `parts` borrows the value.
        let unmapped = unsafe { munmap(self.start.cast(), ALL.get()) };
        if let Err(error) = unmapped {
            log::warn!("shared memory stays mapped: {error}");
        }
    }
}
