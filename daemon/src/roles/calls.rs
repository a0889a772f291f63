//! Filters of system calls, as programs for the kernel (seccomp(2), linux/seccomp.h and linux/filter.h).
//!
//! A filter is a list of numbers and what becomes of them. The crate `seccompiler` would do, but knows no 32-bit ARM, where many
//! devices are.
#![allow(unsafe_code, reason = "prctl(2) takes the program by a pointer; it is called here and nowhere else")]

use std::io;

use nix::libc::{
    self, BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, c_int, c_long,
    sock_filter, sock_fprog,
};

/// Offsets in `struct seccomp_data`, in bytes.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// How the kernel calls this architecture (linux/audit.h).
const THIS_ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else if cfg!(target_arch = "arm") {
    0x4000_0028
} else if cfg!(target_arch = "riscv64") {
    0xc000_00f3
} else if cfg!(target_arch = "x86") {
    0x4000_0003
} else {
    // Equal to none: every call is refused, and a role says that it cannot start.
    0
};

/// On x86-64, numbers from here on are those of another ABI (x32), which would go round the filter.
const X32_NUMBERS: u32 = 0x4000_0000;

/// What becomes of calls that are not listed; those that are meet the opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    Allowed,
    Refused,
}

/// A program for the kernel.
pub(super) struct Filter {
    others: Others,
    program: Vec<sock_filter>,
}

impl Filter {
    pub(super) fn new(others: Others) -> Filter {
        let mut filter = Filter { others, program: Vec::new() };
        filter.push(BPF_LD | BPF_W | BPF_ABS, ARCHITECTURE, 0, 0);
        filter.push(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCHITECTURE, 1, 0);
        filter.end(libc::SECCOMP_RET_KILL_PROCESS);
        filter.push(BPF_LD | BPF_W | BPF_ABS, NUMBER, 0, 0);
        filter.push(BPF_JMP | BPF_JGE | BPF_K, X32_NUMBERS, 0, 1);
        filter.end(REFUSED);
        filter
    }

    /// Lists a call.
    pub(super) fn list(&mut self, call: c_long) {
        self.push(BPF_JMP | BPF_JEQ | BPF_K, number(call), 0, 1);
        self.end(if self.others == Others::Allowed { REFUSED } else { libc::SECCOMP_RET_ALLOW });
    }

    /// Refuses a call when its argument of that place (from 0) has one of these bits, and allows it otherwise.
    pub(super) fn refuse_bits(&mut self, call: c_long, argument: u32, bits: c_int) {
        let low_half = if cfg!(target_endian = "little") { 0 } else { 4 };
        self.push(BPF_JMP | BPF_JEQ | BPF_K, number(call), 0, 4);
        self.push(BPF_LD | BPF_W | BPF_ABS, ARGUMENTS + 8 * argument + low_half, 0, 0);
        self.push(BPF_JMP | BPF_JSET | BPF_K, bits.cast_unsigned(), 0, 1);
        self.end(REFUSED);
        self.end(libc::SECCOMP_RET_ALLOW);
    }

    /// Puts this process under the filter, for good, with every thread and child it will have.
    pub(super) fn apply(mut self) -> io::Result<()> {
        self.end(if self.others == Others::Allowed { libc::SECCOMP_RET_ALLOW } else { REFUSED });
        let length = u16::try_from(self.program.len()).map_err(io::Error::other)?;
        let program = sock_fprog { len: length, filter: self.program.as_mut_ptr() };
        // SAFETY: no pointer is passed.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        // SAFETY: the program is valid for the call, and the kernel copies it.
        check(unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
        })
    }

    fn end(&mut self, action: u32) {
        self.push(BPF_RET | BPF_K, action, 0, 0);
    }

    fn push(&mut self, code: u32, k: u32, jt: u8, jf: u8) {
        self.program.push(sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k });
    }
}

/// `EPERM`, as if rights were missing.
const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();

fn number(call: c_long) -> u32 {
    // No number is negative, nor nearly as large.
    u32::try_from(call).unwrap_or(u32::MAX)
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
