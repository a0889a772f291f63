//! What one act costs: time, processor time, memory, and what it writes to a slot.
//!
//! Time and memory are never taken in the same run: looking at a process's memory stops it for a moment. Processor time is
//! that of every program that the act starts (as the kernel accounts it to whoever waited for them) and of the daemons
//! that work for it. The kernel's own threads, which do the work of loop devices, belong to nobody; they are only in
//! the time of the whole machine, which is worth something when the machine does nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::process::{Seen, children, reap};
use crate::slot::Slot;

/// What one run cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Seconds from start to end.
    pub(crate) wall_s: f64,
    /// Processor seconds of the programs and daemons.
    pub(crate) cpu_s: f64,
    /// Processor seconds of the whole machine.
    pub(crate) machine_s: f64,
    /// Bytes that reached the slot's device, zeroed ranges included.
    pub(crate) written_bytes: u64,
}

/// What is looked at.
#[derive(Default)]
pub(crate) struct Meter<'a> {
    /// Daemons that work for the act.
    pub(crate) daemons: Vec<u32>,
    /// The slot that is written.
    pub(crate) slot: Option<&'a Slot>,
}

struct Counters {
    cpu_s: f64,
    machine_s: f64,
    written_bytes: u64,
}

impl Meter<'_> {
    /// Does it once.
    pub(crate) fn measure(&self, act: impl FnOnce() -> Result<(), Error>) -> Result<Cost, Error> {
        let known = children();
        let before = self.counters()?;
        let started = Instant::now();
        act()?;
        let wall_s = started.elapsed().as_secs_f64();
        reap(&known);
        let after = self.counters()?;
        Ok(Cost {
            wall_s,
            cpu_s: after.cpu_s - before.cpu_s,
            machine_s: after.machine_s - before.machine_s,
            written_bytes: after.written_bytes - before.written_bytes,
        })
    }

    fn counters(&self) -> Result<Counters, Error> {
        let used = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|error| Error::Io {
            act: "ask for",
            path: "getrusage".into(),
            source: error.into(),
        })?;
        let seconds = |time: nix::sys::time::TimeVal| {
            Duration::new(
                u64::try_from(time.tv_sec()).unwrap_or(0),
                u32::try_from(time.tv_usec()).unwrap_or(0) * 1000,
            )
            .as_secs_f64()
        };
        let ticks: u64 = self.daemons.iter().filter_map(|&id| Seen::look(id)).map(|seen| seen.ticks).sum();
        Ok(Counters {
            cpu_s: seconds(used.user_time()) + seconds(used.system_time()) + tick_seconds(ticks),
            machine_s: tick_seconds(busy_ticks()),
            written_bytes: self.slot.map_or(Ok(0), Slot::written_bytes)?,
        })
    }
}

#[allow(clippy::cast_precision_loss)] // Ticks of a benchmark stay far below 2^52.
fn tick_seconds(ticks: u64) -> f64 {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    ticks as f64 / per_second as f64
}

/// Ticks that all processors together were not idle.
fn busy_ticks() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let idle = [3, 4];
    let busy = fields.take(8).enumerate().filter(|(at, _)| !idle.contains(at));
    busy.filter_map(|(_, field)| field.parse::<u64>().ok()).sum()
}

/// The most memory that was in use at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peak {
    /// Bytes of all processes together, shared pages divided by how many share them.
    pub(crate) pss_bytes: u64,
    /// The same of all processes of a name.
    pub(crate) pss_bytes_of: BTreeMap<String, u64>,
    /// Resident bytes of the largest process, as the kernel remembers them: nothing can be missed between two looks.
    pub(crate) largest_bytes: u64,
}

/// Does something and watches the memory of everything that it starts, and of `daemons`.
pub(crate) fn memory(
    daemons: &[u32],
    look: Duration,
    act: impl FnOnce() -> Result<(), Error>,
) -> Result<Peak, Error> {
    let mut others: BTreeSet<u32> = Seen::all().into_iter().map(|process| process.id).collect();
    others.retain(|id| !daemons.contains(id));
    let known = children();
    let done = AtomicBool::new(false);
    let (acted, peak) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = Peak::default();
            while !done.load(Ordering::Relaxed) {
                peak.look(&others);
                std::thread::sleep(look);
            }
            peak
        });
        let acted = act();
        done.store(true, Ordering::Relaxed);
        (acted, watcher.join())
    });
    reap(&known);
    acted?;
    peak.map_err(|_| Error::Setup("the thread that watches the memory panicked".to_owned()))
}

impl Peak {
    fn look(&mut self, others: &BTreeSet<u32>) {
        let mut now = BTreeMap::<String, u64>::new();
        let own = fs::read("/proc/self/cmdline").ok();
        for process in Seen::all().into_iter().filter(|process| !others.contains(&process.id)) {
            let id = process.id;
            // A child that has not yet become its program shares this one's memory.
            if fs::read(format!("/proc/{id}/cmdline")).ok() == own {
                continue;
            }
            let pss = line_kib(&format!("/proc/{id}/smaps_rollup"), "Pss:");
            // otad's fetcher and decoders are otad.
            let name = if process.name.starts_with("otad-") { "otad".to_owned() } else { process.name };
            *now.entry(name).or_default() += pss << 10;
            let largest = line_kib(&format!("/proc/{id}/status"), "VmHWM:") << 10;
            self.largest_bytes = self.largest_bytes.max(largest);
        }
        self.pss_bytes = self.pss_bytes.max(now.values().sum());
        for (name, bytes) in now {
            let most = self.pss_bytes_of.entry(name).or_default();
            *most = bytes.max(*most);
        }
    }
}

/// The number of KiB after `key` in a file of `/proc`; 0 when the process is gone.
pub(crate) fn line_kib(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
}

/// What several runs cost: the middle one of each figure.
pub(crate) fn median(costs: &[Cost]) -> Cost {
    let middle = |figure: fn(&Cost) -> f64| middle_of(costs.iter().map(figure).collect());
    let mut written: Vec<u64> = costs.iter().map(|cost| cost.written_bytes).collect();
    written.sort_unstable();
    Cost {
        wall_s: middle(|cost| cost.wall_s),
        cpu_s: middle(|cost| cost.cpu_s),
        machine_s: middle(|cost| cost.machine_s),
        written_bytes: written.get(written.len() / 2).copied().unwrap_or(0),
    }
}

/// The middle of some numbers, the upper one of two; 0 of none.
pub(crate) fn middle_of(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{command, run};

    #[test]
    fn the_median_takes_each_figure_by_itself() {
        let cost =
            |wall_s: f64, cpu_s: f64, written_bytes| Cost { wall_s, cpu_s, machine_s: 0.0, written_bytes };
        let costs = [cost(3.0, 1.0, 5), cost(1.0, 9.0, 5), cost(2.0, 2.0, 7)];
        assert_eq!(median(&costs), cost(2.0, 2.0, 5));
        assert_eq!(middle_of(Vec::new()), 0.0);
    }

    /// One test, because what is measured is all children of this process, and ends those that it does not know.
    #[test]
    fn time_and_memory_of_children_are_seen() {
        let shell = |script: &str| run(&mut command("sh", &["-c", script])).map(drop);
        let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let cost = Meter::default().measure(|| shell(burn)).unwrap();
        assert!(cost.cpu_s > 0.02 && cost.wall_s > 0.02, "{cost:?}");
        let fill = "x=$(head -c 8000000 /dev/zero | tr '\\0' x); sleep 0.3";
        let peak = memory(&[], Duration::from_millis(5), || shell(fill)).unwrap();
        assert!(peak.largest_bytes > 8_000_000 && peak.pss_bytes > 8_000_000, "{peak:?}");
        assert!(peak.pss_bytes_of.get("sh").is_some_and(|&bytes| bytes > 8_000_000), "{peak:?}");
    }
}
