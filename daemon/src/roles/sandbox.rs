//! What a role takes from itself before it reads its first byte: files by Landlock ([`super::landlock`]), system calls by seccomp ([`super::calls`]).
//!
//! Both are for this process for good, whatever runs in it later. A kernel without Landlock (before 5.13, or built without it) is named in
//! the log; seccomp has to be there.

use std::io;

use nix::libc;

use super::Role;
use super::calls::{Filter, Others};
use super::landlock::{Kept, Network, restrict};

/// What a fetcher may read: what the C library looks names up with.
const READABLE: [&str; 6] = ["/etc", "/run", "/usr", "/lib", "/lib32", "/lib64"];

/// Gives up every right that the role does not need.
pub(super) fn enter(role: Role) -> io::Result<()> {
    let kept = match role {
        Role::Fetcher => restrict(&READABLE, Network::All)?,
        Role::Decoder => restrict(&[], Network::None)?,
    };
    if kept == Kept::ByNobody {
        log::info!("this kernel has no Landlock; seccomp and the unit alone confine the {}", role.name());
    }
    match role {
        Role::Fetcher => fetcher(),
        Role::Decoder => decoder(),
    }
    .apply()
}

/// All that a decoder needs: its socket, memory that cannot be executed, and an end.
fn decoder() -> Filter {
    let mut filter = Filter::new(Others::Refused);
    for call in [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_close,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ] {
        filter.list(call);
    }
    #[cfg(target_pointer_width = "32")]
    for call in [libc::SYS_clock_gettime64, libc::SYS_futex_time64] {
        filter.list(call);
    }
    #[cfg(target_pointer_width = "64")]
    let map = libc::SYS_mmap;
    #[cfg(target_pointer_width = "32")]
    let map = libc::SYS_mmap2;
    filter.refuse_bits(map, 2, libc::PROT_EXEC);
    // The arena of the C library makes memory usable piece by piece.
    filter.refuse_bits(libc::SYS_mprotect, 2, libc::PROT_EXEC);
    filter
}

/// Everything but what a fetcher has no use for, and whoever takes it over would have.
fn fetcher() -> Filter {
    let mut filter = Filter::new(Others::Allowed);
    for call in [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_kill,
        libc::SYS_pidfd_send_signal,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mknodat,
        libc::SYS_open_by_handle_at,
        // Its flags lie in memory, where a filter cannot see them; nothing in use calls it.
        libc::SYS_openat2,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_add_key,
        libc::SYS_keyctl,
        // A ring opens files behind the filter's back.
        libc::SYS_io_uring_setup,
    ] {
        filter.list(call);
    }
    let writing = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
    {
        filter.refuse_bits(libc::SYS_open, 1, writing);
        filter.list(libc::SYS_creat);
        filter.list(libc::SYS_mknod);
    }
    filter.refuse_bits(libc::SYS_openat, 2, writing);
    filter
}
