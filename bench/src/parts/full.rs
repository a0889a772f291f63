//! A full install of the new image into a slot that holds something else, beside other updaters and the plain tools.

use std::time::Duration;

use serde_json::json;

use super::Bench;
use crate::error::Error;
use crate::meter::{Cost, Meter, Peak, median, memory};
use crate::peers::otad::Otad;
use crate::peers::rauc::Rauc;
use crate::peers::swupdate::SwUpdate;
use crate::peers::tools::{DD_READ, DD_WRITE, OPENSSL, SHA256SUM, Tool, ZSTD};
use crate::peers::{Peer, Scene};
use crate::report::{Limit, Report, Table, mib, number};
use crate::slot::{Medium, Slot};

/// How often memory is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(4);
/// Peak memory of otad that must not be exceeded for images up to 2 GiB, in MiB.
const PEAK_MIB: f64 = 16.0;

/// What one peer did.
struct Row {
    name: &'static str,
    on: &'static str,
    updater: bool,
    costs: Vec<Cost>,
    peak: Peak,
}

/// A peer that is ready to be measured.
struct Entry<'a> {
    peer: Box<dyn Peer + 'a>,
    updater: bool,
}

/// Measures it.
pub(crate) fn measure(bench: &Bench) -> Result<Report, Error> {
    let setting = bench.setting();
    let mut rows = Vec::new();
    let mut not_run = Vec::new();
    for medium in [Medium::Memory, Medium::Disk] {
        let target = bench.slot(medium)?;
        // The running slot is only read where a bundle comes from a network.
        let running = bench.slot(Medium::Memory)?;
        rows.extend(on_medium(bench, medium, &running, &target, &mut not_run)?);
    }
    let limits = limits(&rows);
    let figures =
        rows.iter().map(|row| json!({"name": row.name, "on": row.on, "runs": row.costs, "peak": row.peak}));
    Ok(Report {
        part: "full".to_owned(),
        title: "Full install".to_owned(),
        about: "The new image goes into a slot that holds noise; bundles come from files in the page cache. otad verifies its \
                signature and every chunk, and reads the slot back; no other does. Runs are interleaved, figures are medians; \
                memory is from a run of its own. The daemons of otad and RAUC run already, SWUpdate starts in the time that is \
                measured. Processor time is that of the programs; the machine's includes the kernel's threads for loop devices."
            .to_owned(),
        setting,
        tables: [Medium::Memory, Medium::Disk].iter().map(|medium| table(&rows, medium.word())).collect(),
        limits,
        not_run,
        figures: figures.collect(),
    })
}

fn on_medium(
    bench: &Bench,
    medium: Medium,
    running: &Slot,
    target: &Slot,
    not_run: &mut Vec<String>,
) -> Result<Vec<Row>, Error> {
    let scene = |name: &str| -> Result<Scene<'_>, Error> {
        let room = bench.stage.room(Medium::Disk, name)?;
        let (images, goods, binaries) = (&bench.images, &bench.goods, &bench.binaries);
        Ok(Scene { images, goods, binaries, room, running, target })
    };
    let updater = |peer: Box<dyn Peer>| Entry { peer, updater: true };
    let tool = |tool: Tool| Entry { peer: Box::new(tool), updater: false };
    let mut entries = vec![updater(Box::new(Otad::new(&scene("otad")?)?))];
    match Rauc::new(&scene("rauc")?) {
        Ok(rauc) => entries.push(updater(Box::new(rauc))),
        Err(error) => not_run.push(format!("RAUC on {}: {error}", medium.word())),
    }
    match SwUpdate::new(&scene("swupdate")?) {
        Ok(swupdate) => entries.push(updater(Box::new(swupdate))),
        Err(error) => not_run.push(format!("SWUpdate on {}: {error}", medium.word())),
    }
    let tools = scene("tools")?;
    entries.extend(Tool::on_slot(&tools)?.into_iter().map(tool));
    if medium == Medium::Memory {
        entries.extend(Tool::off_slot(&tools)?.into_iter().map(tool));
    }
    let mut rows: Vec<Row> = entries
        .iter()
        .map(|entry| Row {
            name: entry.peer.name(),
            on: medium.word(),
            updater: entry.updater,
            costs: Vec::new(),
            peak: Peak::default(),
        })
        .collect();
    for round in 1..=bench.rounds {
        for (entry, row) in entries.iter_mut().zip(&mut rows) {
            eprintln!("full: round {round} of {}: {} on {}", bench.rounds, row.name, row.on);
            row.costs.push(run(bench, entry, target, |peer, target| {
                let slot = Some(target);
                Meter { daemons: peer.daemons(), slot }.measure(|| peer.install())
            })?);
        }
    }
    for (entry, row) in entries.iter_mut().zip(&mut rows) {
        row.peak = run(bench, entry, target, |peer, _| memory(&peer.daemons(), LOOK, || peer.install()))?;
    }
    Ok(rows)
}

/// One run: the slot before, the peer, the slot after.
fn run<T>(
    bench: &Bench,
    entry: &mut Entry<'_>,
    target: &Slot,
    act: impl FnOnce(&mut dyn Peer, &Slot) -> Result<T, Error>,
) -> Result<T, Error> {
    let fills = entry.peer.fills_slot();
    if fills {
        target.fill(&bench.noise()?)?;
    }
    entry.peer.prepare()?;
    let found = act(entry.peer.as_mut(), target);
    entry.peer.finish();
    let found = found?;
    if fills {
        target.compare(&bench.images.updated())?;
    }
    Ok(found)
}

fn table(rows: &[Row], on: &str) -> Table {
    let head =
        ["", "wall s", "cpu s", "machine s", "memory MiB", "largest process MiB", "written MiB", "wall : dd"];
    let mut table = Table::new(&format!("Loop device on {on}:"), &head);
    let dd = cost(rows, on, DD_WRITE).map_or(f64::NAN, |cost| cost.wall_s);
    for row in rows.iter().filter(|row| row.on == on) {
        let cost = median(&row.costs);
        table.rows.push(vec![
            row.name.to_owned(),
            format!("{:.2}", cost.wall_s),
            format!("{:.2}", cost.cpu_s),
            format!("{:.2}", cost.machine_s),
            format!("{:.1}", mib(row.peak.pss_bytes)),
            format!("{:.1}", mib(row.peak.largest_bytes)),
            number(mib(cost.written_bytes).round()),
            format!("{:.2}", cost.wall_s / dd),
        ]);
    }
    table
}

fn cost(rows: &[Row], on: &str, name: &str) -> Option<Cost> {
    let row = rows.iter().find(|row| row.on == on && row.name == name)?;
    Some(median(&row.costs))
}

/// What must hold, as far as the peers ran.
fn limits(rows: &[Row]) -> Vec<Limit> {
    let (tmpfs, disk) = (Medium::Memory.word(), Medium::Disk.word());
    let wall = |on, name| cost(rows, on, name).map_or(f64::NAN, |cost| cost.wall_s);
    let cpu = |name| cost(rows, tmpfs, name).map_or(f64::NAN, |cost| cost.cpu_s);
    let mut updaters = rows.iter().filter(|row| row.updater);
    let Some(own) = updaters.next() else { return Vec::new() };
    let (own_tmpfs, own_disk) = (cost(rows, tmpfs, own.name), cost(rows, disk, own.name));
    let (Some(own_tmpfs), Some(own_disk)) = (own_tmpfs, own_disk) else { return Vec::new() };
    let others = updaters.filter(|row| row.on == tmpfs && row.name != own.name);
    let fastest = others.map(|row| median(&row.costs).wall_s).fold(f64::NAN, f64::min);
    let floor = |hash| cpu(ZSTD) + 2.0 * cpu(hash) + cpu(DD_WRITE);
    let both = wall(disk, DD_WRITE) + wall(disk, DD_READ);
    let peaks = rows.iter().filter(|row| row.name == own.name);
    let peak = peaks.filter_map(|row| row.peak.pss_bytes_of.get("otad")).copied().max().unwrap_or(0);
    vec![
        Limit::new(
            "full install, tmpfs: wall time, in parts of the fastest other updater's",
            0.6,
            own_tmpfs.wall_s / fastest,
        ),
        Limit::new(
            "full install, tmpfs: CPU time, in parts of zstd -d + 2 openssl sha256 + dd",
            1.2,
            own_tmpfs.cpu_s / floor(OPENSSL),
        ),
        Limit::new(
            "full install, tmpfs: CPU time, in parts of zstd -d + 2 sha256sum + dd",
            1.2,
            own_tmpfs.cpu_s / floor(SHA256SUM),
        ),
        Limit::new(
            "full install, disk: wall time, in parts of dd write + dd read, or of the CPU floor",
            1.3,
            own_disk.wall_s / both.max(floor(OPENSSL)),
        ),
        Limit::new("full install: peak memory of otad, MiB", PEAK_MIB, mib(peak)),
    ]
}
