//! The block device ioctls that have no safe wrapper anywhere else.
#![allow(unsafe_code, reason = "ioctl(2) is unsafe by nature; every call is wrapped here and nowhere else")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// linux/fs.h: `_IO(0x12, 127)`.
const BLKZEROOUT: nix::libc::Ioctl = 0x127f;
/// linux/fs.h: `_IO(0x12, 97)`.
const BLKFLSBUF: nix::libc::Ioctl = 0x1261;
/// linux/fs.h: `_IOR(0x12, 114, size_t)`.
const BLKGETSIZE64: nix::libc::Ioctl = nix::request_code_read!(0x12, 114, size_of::<usize>());

/// Size of a block device in bytes.
pub(super) fn size(device: &File) -> io::Result<u64> {
    let mut size = 0u64;
    // SAFETY: the kernel writes one u64 through the pointer, which is valid for the call.
    check(unsafe { nix::libc::ioctl(device.as_raw_fd(), BLKGETSIZE64, &raw mut size) })?;
    Ok(size)
}

/// Makes a range of a block device read as zeros; both ends must lie on a sector.
pub(super) fn zero_out(device: &File, offset: u64, length: u64) -> io::Result<()> {
    let range = [offset, length];
    // SAFETY: the kernel reads two u64 through the pointer, which is valid for the call.
    check(unsafe { nix::libc::ioctl(device.as_raw_fd(), BLKZEROOUT, range.as_ptr()) })
}

/// Writes out and drops the device's cached blocks.
pub(super) fn flush_buffers(device: &File) -> io::Result<()> {
    // SAFETY: takes no argument.
    check(unsafe { nix::libc::ioctl(device.as_raw_fd(), BLKFLSBUF, 0) })
}

fn check(result: nix::libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
