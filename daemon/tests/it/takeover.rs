//! Whoever takes over a process can make it do any system call: that is what this does to one, with ptrace(2).
//!
//! For x86-64 alone, where the tests run; the sandbox is the same on every architecture.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{c_long, user_regs_struct};
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Below the stack pointer nobody may rely on what is further away than this (the red zone of the ABI).
const BELOW_STACK: u64 = 4096;

/// An argument of a system call.
pub(crate) enum Argument<'a> {
    Number(i32),
    Text(&'a str),
}

/// A process that does what we say, until this is dropped.
pub(crate) struct Captive {
    process: Pid,
    before: user_regs_struct,
}

impl Captive {
    /// Stops the process, which waits in a system call.
    pub(crate) fn take(process: i32) -> Captive {
        let process = Pid::from_raw(process);
        ptrace::attach(process).unwrap();
        assert!(matches!(waitpid(process, None).unwrap(), WaitStatus::Stopped(..)));
        let before = ptrace::getregs(process).unwrap();
        Captive { process, before }
    }

    /// Makes it do a system call.
    pub(crate) fn call(&self, number: c_long, arguments: &[Argument<'_>]) -> Result<u64, Errno> {
        let mut registers = self.before;
        // It stands behind the `syscall` instruction that it waits in.
        registers.rip -= 2;
        registers.rax = number.cast_unsigned();
        // Nothing is begun again.
        registers.orig_rax = u64::MAX;
        let mut place = self.before.rsp - BELOW_STACK;
        let mut values = [0; 6];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Argument::Number(number) => i64::from(*number).cast_unsigned(),
                Argument::Text(text) => {
                    place -= 256;
                    self.write(place, text);
                    place
                }
            };
        }
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = values;
        ptrace::setregs(self.process, registers).unwrap();
        ptrace::step(self.process, None).unwrap();
        assert!(matches!(waitpid(self.process, None).unwrap(), WaitStatus::Stopped(..)));
        let result = ptrace::getregs(self.process).unwrap().rax.cast_signed();
        match u64::try_from(result) {
            Ok(value) => Ok(value),
            Err(_) => Err(Errno::from_raw(i32::try_from(-result).unwrap())),
        }
    }

    fn write(&self, place: u64, text: &str) {
        let bytes = [text.as_bytes(), &[0; 8]].concat();
        for (at, word) in (place..).step_by(8).zip(bytes.as_chunks::<8>().0) {
            let at = usize::try_from(at).unwrap() as ptrace::AddressType;
            ptrace::write(self.process, at, i64::from_le_bytes(*word)).unwrap();
        }
    }

    /// Tries to open a file.
    pub(crate) fn open(&self, path: &Path, flags: i32) -> Result<u64, Errno> {
        use nix::libc::{AT_FDCWD, SYS_openat};
        let path = Argument::Text(path.to_str().unwrap());
        self.call(SYS_openat, &[Argument::Number(AT_FDCWD), path, Argument::Number(flags)])
    }

    /// Tries to get a socket.
    pub(crate) fn socket(&self, family: i32) -> Result<u64, Errno> {
        use nix::libc::{SOCK_STREAM, SYS_socket};
        self.call(SYS_socket, &[family, SOCK_STREAM, 0].map(Argument::Number))
    }
}

impl Drop for Captive {
    fn drop(&mut self) {
        // When the test failed, the process may be gone.
        let _ = ptrace::setregs(self.process, self.before);
        let _ = ptrace::detach(self.process, None);
    }
}

/// The children of a process that are one of otad's roles.
pub(crate) fn roles(parent: i32, role: &str) -> Vec<i32> {
    let command = format!("otad\0--role\0{role}\0");
    let numbers =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_one = |process: &i32| {
        let read = |name| fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
        read("cmdline") == command && read("status").lines().any(|line| line == format!("PPid:\t{parent}"))
    };
    numbers.filter(is_one).collect()
}
