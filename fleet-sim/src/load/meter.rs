//! What a server costs while it is asked: memory, processor time, and what it writes to the disk, as the kernel counts it.

use std::fs;
use std::time::Instant;

use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

/// The kernel does not say.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {0} of process {1}: is it still there?")]
pub struct MeterError(&'static str, u32);

/// Looks at a process and those it started.
#[derive(Debug)]
pub struct Meter {
    pids: Vec<u32>,
    since: Instant,
    cpu_ticks: u64,
    written_bytes: u64,
}

/// What it cost since the meter was made.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Processor seconds.
    pub cpu_s: f64,
    /// Wall seconds.
    pub wall_s: f64,
    /// Most memory that was resident at any time since it started, in bytes.
    pub peak_bytes: u64,
    /// Bytes it caused to be written to disks.
    pub written_bytes: u64,
}

impl Meter {
    /// Begins to look at processes.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn start(pids: Vec<u32>) -> Result<Meter, MeterError> {
        let mut meter = Meter { pids, since: Instant::now(), cpu_ticks: 0, written_bytes: 0 };
        meter.cpu_ticks = meter.sum(cpu_ticks)?;
        meter.written_bytes = meter.sum(written_bytes)?;
        Ok(meter)
    }

    /// What they cost so far.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn read(&self) -> Result<Cost, MeterError> {
        let ticks = self.sum(cpu_ticks)?.saturating_sub(self.cpu_ticks);
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        Ok(Cost {
            cpu_s: ticks as f64 / per_second as f64,
            wall_s: self.since.elapsed().as_secs_f64(),
            peak_bytes: self.sum(peak_bytes)?,
            written_bytes: self.sum(written_bytes)?.saturating_sub(self.written_bytes),
        })
    }

    fn sum(&self, of: impl Fn(u32) -> Result<u64, MeterError>) -> Result<u64, MeterError> {
        self.pids.iter().map(|pid| of(*pid)).sum()
    }
}

/// User and system time; fields 14 and 15 of `stat` (proc(5)), counted behind the name, which may hold spaces.
fn cpu_ticks(pid: u32) -> Result<u64, MeterError> {
    let wrong = MeterError("stat", pid);
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Err(wrong) };
    let Some((_, rest)) = text.rsplit_once(')') else { return Err(wrong) };
    let ticks: Vec<u64> =
        rest.split_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    if ticks.len() == 2 { Ok(ticks.iter().sum()) } else { Err(wrong) }
}

fn peak_bytes(pid: u32) -> Result<u64, MeterError> {
    field(pid, "status", "VmHWM:").map(|kibibytes| kibibytes * 1024)
}

fn written_bytes(pid: u32) -> Result<u64, MeterError> {
    field(pid, "io", "write_bytes:")
}

fn field(pid: u32, file: &'static str, name: &str) -> Result<u64, MeterError> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok());
    number.ok_or(MeterError(file, pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_of_this_process_are_seen() {
        let meter = Meter::start(vec![std::process::id()]).unwrap();
        let begin = Instant::now();
        let mut sum = 0_u64;
        while begin.elapsed().as_millis() < 200 {
            sum = std::hint::black_box(sum.wrapping_mul(3).wrapping_add(1));
        }
        let cost = meter.read().unwrap();
        assert!(cost.cpu_s > 0.02 && cost.peak_bytes > 1 << 20, "{cost:?}");
        assert!(Meter::start(vec![u32::MAX]).is_err());
    }
}
