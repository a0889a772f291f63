//! Which files and ports a process may use, kept by the kernel (landlock(7), linux/landlock.h).
//!
//! Three system calls. The crate of the same name would do, and takes 50 KiB of flash for what is a page here.
#![allow(
    unsafe_code,
    reason = "the C library has no functions for these calls; they are made here and nowhere else"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc::{self, c_int, c_long};

/// `LANDLOCK_ACCESS_FS_READ_FILE` and `LANDLOCK_ACCESS_FS_READ_DIR`.
const READ: u64 = 1 << 2 | 1 << 3;
/// `LANDLOCK_ACCESS_NET_BIND_TCP` and `LANDLOCK_ACCESS_NET_CONNECT_TCP`, since version 4.
const TCP: u64 = 1 << 0 | 1 << 1;
/// `LANDLOCK_CREATE_RULESET_VERSION`
const ASK_VERSION: c_int = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`
const PATH_BENEATH: c_int = 1;

/// `struct landlock_ruleset_attr`, as of version 4.
#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: c_int,
}

/// What a process keeps of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    All,
    None,
}

/// Whether the kernel does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    ByKernel,
    /// It is older than 5.13, or was built without it.
    ByNobody,
}

/// From now on this thread, and what it starts, opens nothing but what lies below these directories, for reading; those that
/// do not exist are left out.
pub(super) fn restrict(readable: &[&str], network: Network) -> io::Result<Kept> {
    // SAFETY: with this flag the kernel takes no pointer.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, ASK_VERSION) };
    // Every right that the version knows is asked for; what is not asked for would stay allowed.
    let (rights, size) = match version {
        ..1 => return Ok(Kept::ByNobody),
        1 => (13, size_of::<u64>()),
        2 => (14, size_of::<u64>()),
        3 => (15, size_of::<u64>()),
        4 => (15, size_of::<Ruleset>()),
        5.. => (16, size_of::<Ruleset>()),
    };
    let ruleset =
        Ruleset { files: (1 << rights) - 1, network: if network == Network::None { TCP } else { 0 } };
    // SAFETY: the structure is valid for the call and at least as long as is said.
    let made = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, size, 0) };
    let made = c_int::try_from(check(made)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    let rules = unsafe { OwnedFd::from_raw_fd(made) };
    for path in readable {
        let Ok(parent) = File::options().read(true).custom_flags(libc::O_PATH).open(path) else { continue };
        let beneath = Beneath { allowed: READ, parent: parent.as_raw_fd() };
        let rules = rules.as_raw_fd();
        // SAFETY: the structure and both descriptors are valid for the call.
        check(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, rules, PATH_BENEATH, &raw const beneath, 0)
        })?;
    }
    // SAFETY: no pointer is passed.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    // SAFETY: the descriptor is valid for the call.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) })?;
    Ok(Kept::ByKernel)
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
