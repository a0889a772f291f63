//! The update check under load, by the number of devices.

use std::fmt::Write as _;

use super::{BenchError, Options, address, fresh_otaserver, mib, offer, runtime};
use crate::load::{self, Afterwards, COMPATIBLE, COMPATIBLE_UPDATING, Cost, Figures, Load, Meter};
use crate::operator::Operator;
use crate::server::{Server, Setup};

/// What keeps the heartbeats.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Otaserver,
    NaiveFull,
    NaiveNormal,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Kind::Otaserver => "otaserver",
            Kind::NaiveFull => "a write each, `synchronous=FULL`",
            Kind::NaiveNormal => "a write each, `synchronous=NORMAL`",
        }
    }
}

/// Measures otaserver with every size of the fleet, and returns the table.
///
/// # Errors
/// The server does not start or refuses to be set up; devices that get no answer are figures, no errors.
pub fn curve(options: &Options) -> Result<String, BenchError> {
    table(options, &[Kind::Otaserver])
}

/// The same with a write for every heartbeat.
///
/// # Errors
/// As [`curve`].
pub fn naive(options: &Options) -> Result<String, BenchError> {
    table(options, &[Kind::NaiveFull, Kind::NaiveNormal])
}

fn table(options: &Options, kinds: &[Kind]) -> Result<String, BenchError> {
    let mut table = String::from(
        "| devices | heartbeats kept by | checks/s | p50 ms | p99 ms | max ms | not answered | memory MiB | processor, % of a core | database writes/s | written KiB/s |\n\
         |---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for devices in &options.devices {
        for kind in kinds {
            let (figures, cost, writes) = measure(options, *devices, *kind)?;
            let line = row(*kind, &figures, &cost, writes);
            eprint!("{line}");
            table += &line;
        }
    }
    Ok(table)
}

fn row(kind: Kind, figures: &Figures, cost: &Cost, writes: f64) -> String {
    let Figures { devices, updating, checks, .. } = figures;
    let rate = checks.count as f64 / figures.lasted_s.max(1) as f64;
    let (cpu, written) = (100.0 * cost.cpu_s / cost.wall_s, cost.written_bytes as f64 / 1024.0 / cost.wall_s);
    let updating = if *updating > 0 { format!(" + {updating} updating") } else { String::new() };
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        line,
        "| {devices}{updating} | {} | {rate:.0} | {:.1} | {:.1} | {:.0} | {} | {:.0} | {cpu:.0} | {writes:.1} | {written:.0} |",
        kind.words(),
        checks.p50_ms,
        checks.p99_ms,
        checks.max_ms,
        checks.failed + figures.progress.failed,
        mib(cost.peak_bytes),
    );
    line
}

/// The figures, what they cost the server, and how many transactions it began per second in order to write.
fn measure(options: &Options, devices: usize, kind: Kind) -> Result<(Figures, Cost, f64), BenchError> {
    let (server, _data) = start(options, kind)?;
    // What keeps heartbeats and nothing else has nothing to offer.
    let updating = if matches!(kind, Kind::Otaserver) { options.updating } else { 0 };
    if updating > 0 {
        // The release that the others run already, so that an answer has to be looked for.
        offer(&server, COMPATIBLE, "1.0.0", 1, devices)?;
        offer(&server, COMPATIBLE_UPDATING, "2.0.0", 2, updating)?;
    }
    let load = Load {
        server: address(&server)?,
        devices,
        updating,
        interval: options.interval,
        lasts: options.lasts,
        afterwards: Afterwards::Keep,
    };
    let runtime = runtime()?;
    runtime.block_on(load::introduce(&load)).map_err(BenchError::io("devices cannot be introduced"))?;
    let operator = Operator::new(&server.url());
    let written = || operator.metric("otaserver_database_writes_total").map(Option::unwrap_or_default);
    let before = if matches!(kind, Kind::Otaserver) { written()? } else { 0 };
    let meter = Meter::start(vec![server.pid()])?;
    let figures = runtime.block_on(load::run(&load));
    let cost = meter.read()?;
    // Every answer of the other kind is one.
    let writes = if matches!(kind, Kind::Otaserver) { written()? - before } else { figures.checks.count };
    Ok((figures, cost, writes as f64 / cost.wall_s))
}

fn start(options: &Options, kind: Kind) -> Result<(Server, tempfile::TempDir), BenchError> {
    let durability = match kind {
        Kind::Otaserver => return fresh_otaserver(options),
        Kind::NaiveFull => "full",
        Kind::NaiveNormal => "normal",
    };
    let data = tempfile::tempdir_in(&options.dir).map_err(BenchError::io("cannot make a directory"))?;
    let program = std::env::current_exe().map_err(BenchError::io("cannot find this program"))?;
    let words = ["naive", "--synchronous", durability, "--dir"].map(str::to_owned);
    let arguments = words.into_iter().chain([data.path().display().to_string()]).collect();
    Ok((Server::start(Setup { program, arguments })?, data))
}
