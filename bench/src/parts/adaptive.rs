//! An update over HTTP of a device that runs the old image: what is fetched, beside other methods that reuse what is there.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::Bench;
use crate::blocks::fetched;
use crate::board::Board;
use crate::error::Error;
use crate::goods::{once, size};
use crate::meter::{Cost, Meter, Peak, median, memory};
use crate::peers::missing;
use crate::process::{command, run};
use crate::report::{Limit, Report, Table, megabytes, mib, number};
use crate::slot::{Medium, Slot};
use crate::web::{Line, Traffic, Web};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(4);
/// Data blocks of RAUC's squashfs: smaller ones suit this method, the larger are the default of mksquashfs.
const SQUASHFS_KIB: [usize; 2] = [64, 128];

/// Two images of which the second replaces the first.
struct Pair {
    name: &'static str,
    old: PathBuf,
    new: PathBuf,
}

/// What one method did.
struct Row {
    name: String,
    fetched_bytes: u64,
    traffic: Option<Traffic>,
    costs: Vec<Cost>,
    peak: Option<Peak>,
}

/// Measures it.
pub(crate) fn measure(bench: &Bench) -> Result<Report, Error> {
    let setting = bench.setting();
    let (old, new) = (bench.images.old(), bench.images.updated());
    let pairs = [
        Pair { name: "squashfs", old: bench.images.squashfs(&old)?, new: bench.images.squashfs(&new)? },
        Pair { name: "ext4", old, new },
    ];
    let (mut tables, mut limits, mut not_run, mut figures) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for pair in pairs.iter().rev() {
        let mut rows = of_otad(bench, pair)?;
        let own = rows.len();
        rows.extend(of_rauc(pair)?);
        match of_casync(bench, pair) {
            Ok(row) => rows.push(row),
            Err(error) => not_run.push(format!("casync on {}: {error}", pair.name)),
        }
        match of_zchunk(bench, pair) {
            Ok(row) => rows.push(row),
            Err(error) => not_run.push(format!("zchunk on {}: {error}", pair.name)),
        }
        tables.push(table(pair, &rows));
        limits.extend(limits_of(pair, &rows, own));
        figures.extend(rows.iter().map(|row| figure(pair, row)));
    }
    not_run.push("Rugix, desync: not in Debian 12".to_owned());
    Ok(Report {
        part: "adaptive".to_owned(),
        title: "Adaptive update over HTTP".to_owned(),
        about: "The device runs the old image and installs the new one from otaserver on this machine, into a slot that holds noise. \
                Fetched is everything that the line carries to the device: heads of answers, manifest, index, chunks. RAUC's figure is \
                computed (data blocks of the squashfs and index); those of casync and zchunk are of their own files, without heads of \
                answers. casync's time is from a store in the page cache with the old image as seed, into a file."
            .to_owned(),
        setting,
        tables,
        limits,
        not_run,
        figures: Value::Array(figures),
    })
}

/// A device that otad updated before, and one that it did not.
fn of_otad(bench: &Bench, pair: &Pair) -> Result<Vec<Row>, Error> {
    let room = bench.stage.room(Medium::Disk, "adaptive")?;
    let (a, b) = (bench.slot(Medium::Memory)?, bench.slot(Medium::Memory)?);
    let root = bench.goods.root();
    let mut board = Board::new(&room, [a.device(), b.device()], &root, &bench.binaries)?;
    let old = bench.goods.bundle_of(&pair.old, "1.0.0", 1)?;
    let new = bench.goods.bundle_of(&pair.new, "2.0.0", 2)?;
    let web = Web::start(&room, &root, &bench.binaries, Line::default())?;
    let url = web.offer(&new)?;
    let mut updated = row("otad, device updated by otad before");
    let mut factory = row("otad, device from the factory");
    // Slot b stays as it is while the other is written.
    board.updated_to(&old)?;
    let again: fn(&mut Board) -> Result<(), Error> = Board::updated_again;
    for round in 0..=bench.rounds {
        one(bench, pair, &mut board, &web, &url, &a, again, &mut updated, round)?;
    }
    // An image that is shorter than the slot would leave the end of what was there before.
    a.fill(&bench.noise()?)?;
    a.fill(&pair.old)?;
    let reset: fn(&mut Board) -> Result<(), Error> = Board::reset;
    board.reset()?;
    for round in 0..=bench.rounds {
        one(bench, pair, &mut board, &web, &url, &b, reset, &mut factory, round)?;
    }
    Ok(vec![updated, factory])
}

/// One run; in round 0 memory is looked at instead of time.
#[allow(clippy::too_many_arguments)]
fn one(
    bench: &Bench,
    pair: &Pair,
    board: &mut Board,
    web: &Web,
    url: &str,
    target: &Slot,
    reset: fn(&mut Board) -> Result<(), Error>,
    row: &mut Row,
    round: usize,
) -> Result<(), Error> {
    eprintln!("adaptive: round {round} of {}: {} on {}", bench.rounds, row.name, pair.name);
    target.fill(&bench.noise()?)?;
    reset(board)?;
    board.start()?;
    let daemons = board.daemons();
    if round == 0 {
        row.peak = Some(memory(&daemons, LOOK, || board.install(url))?);
    } else {
        let meter = Meter { daemons, slot: Some(target) };
        let (cost, traffic) = web.during(|| meter.measure(|| board.install(url)))?;
        row.costs.push(cost);
        row.fetched_bytes = row.fetched_bytes.max(traffic.down_bytes);
        row.traffic = Some(traffic);
    }
    board.kill();
    target.compare(&pair.new)
}

fn of_rauc(pair: &Pair) -> Result<Vec<Row>, Error> {
    SQUASHFS_KIB
        .iter()
        .map(|kib| {
            let fetched = fetched(&pair.old, &pair.new, kib << 10)?;
            let mut row = row(&format!("RAUC block-hash-index, squashfs blocks of {kib} KiB, computed"));
            row.fetched_bytes = fetched.data_bytes + fetched.index_bytes;
            Ok(row)
        })
        .collect()
}

fn of_casync(bench: &Bench, pair: &Pair) -> Result<Row, Error> {
    if let Some(missing) = missing(&["casync"]) {
        return Err(Error::Setup(missing));
    }
    let pack = |image: &Path, version: &str| -> Result<(PathBuf, PathBuf), Error> {
        let dir = bench.goods.other(&format!("casync-{}-{version}", pair.name));
        let (index, store) = (dir.join("image.caibx"), dir.join("image.castr"));
        once(&dir, || {
            fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
            let mut make = command("casync", &["make", "--compression=zstd", "--chunk-size=65536"]);
            run(make.arg(format!("--store={}", store.display())).arg(&index).arg(image)).map(drop)
        })?;
        Ok((index, store))
    };
    let (_, old) = pack(&pair.old, "old")?;
    let (index, new) = pack(&pair.new, "new")?;
    let (held, all) = (files(&old)?, files(&new)?);
    let needed: Vec<u64> =
        all.iter().filter(|(name, _)| !held.contains_key(*name)).map(|(_, &bytes)| bytes).collect();
    let mut row = row(&format!("casync, chunks of 64 KiB, zstd ({} chunks)", needed.len()));
    row.fetched_bytes = needed.iter().sum::<u64>() + size(&index)?;
    let room = bench.stage.room(Medium::Memory, "casync")?;
    let out = room.join("image");
    let extract = || {
        let mut extract = command("casync", &["extract"]);
        extract.arg(format!("--store={}", new.display())).arg(format!("--seed={}", pair.old.display()));
        run(extract.arg(&index).arg(&out)).map(drop)
    };
    for round in 0..=bench.rounds {
        eprintln!("adaptive: round {round} of {}: casync on {}", bench.rounds, pair.name);
        let _ = fs::remove_file(&out);
        if round == 0 {
            row.peak = Some(memory(&[], LOOK, extract)?);
        } else {
            row.costs.push(Meter::default().measure(extract)?);
        }
        run(command("cmp", &[&pair.new]).arg(&out))?;
    }
    fs::remove_dir_all(&room).map_err(Error::io("remove", &room))?;
    Ok(row)
}

/// Names and sizes of all files below a directory.
fn files(dir: &Path) -> Result<HashMap<PathBuf, u64>, Error> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.insert(entry.file_name().into(), size(&path)?);
        }
    }
    Ok(found)
}

fn of_zchunk(bench: &Bench, pair: &Pair) -> Result<Row, Error> {
    if let Some(missing) = missing(&["zck", "zck_delta_size"]) {
        return Err(Error::Setup(missing));
    }
    let pack = |image: &Path, version: &str| -> Result<PathBuf, Error> {
        let packed = bench.goods.other(&format!("{}-{version}.zck", pair.name));
        once(&packed, || run(command("zck", &["-o"]).arg(&packed).arg(image)).map(drop))?;
        Ok(packed)
    };
    let (old, new) = (pack(&pair.old, "old")?, pack(&pair.new, "new")?);
    let said = run(&mut command("zck_delta_size", &[&old, &new]))?;
    let said = String::from_utf8_lossy(&said);
    // "Would download 123 of 456 bytes" and "Matched 7 of 8 chunks", in the words of its version 1.
    let number = |text: &str| text.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).next();
    let line = said.lines().find(|line| line.contains("download"));
    let bytes = line.and_then(number);
    let unknown = || Error::Setup(format!("zck_delta_size says something new: {said}"));
    let mut row = row("zchunk, default chunks, zstd");
    row.fetched_bytes = bytes.ok_or_else(unknown)?;
    Ok(row)
}

fn row(name: &str) -> Row {
    Row { name: name.to_owned(), fetched_bytes: 0, traffic: None, costs: Vec::new(), peak: None }
}

fn table(pair: &Pair, rows: &[Row]) -> Table {
    let head = ["", "fetched MB", "requests", "connections", "wall s", "cpu s", "memory MiB"];
    let caption = format!(
        "{}: {:.1} MiB, replacing {:.1} MiB:",
        pair.name,
        size(&pair.new).map_or(0.0, mib),
        size(&pair.old).map_or(0.0, mib)
    );
    let mut table = Table::new(&caption, &head);
    let dash = || "–".to_owned();
    for row in rows {
        let cost = median(&row.costs);
        let timed = |value: f64| if row.costs.is_empty() { dash() } else { format!("{value:.2}") };
        let count = |of: fn(&Traffic) -> u64| {
            row.traffic.as_ref().map_or_else(dash, |traffic| of(traffic).to_string())
        };
        table.rows.push(vec![
            row.name.clone(),
            format!("{:.2}", megabytes(row.fetched_bytes)),
            count(|traffic| traffic.requests),
            count(|traffic| traffic.connections),
            timed(cost.wall_s),
            timed(cost.cpu_s),
            row.peak.as_ref().map_or_else(dash, |peak| number(mib(peak.pss_bytes))),
        ]);
    }
    table
}

/// The first `own` rows are otad's; the device that otad updated before comes first.
fn limits_of(pair: &Pair, rows: &[Row], own: usize) -> Vec<Limit> {
    let (ours, others) = rows.split_at(own.min(rows.len()));
    let Some(first) = ours.first() else { return Vec::new() };
    let least = |name: &str| {
        let named = others.iter().filter(|row| row.name.starts_with(name));
        named.map(|row| row.fetched_bytes).min().map_or(f64::NAN, megabytes)
    };
    let most = |of: fn(&Row) -> f64| ours.iter().map(of).fold(0.0, f64::max);
    let what = |rest: &str| format!("adaptive, {}: {rest}", pair.name);
    let mut limits: Vec<Limit> = ["RAUC", "casync", "zchunk"]
        .iter()
        .map(|name| {
            Limit::new(
                what(&format!("MB fetched, beside {name}")),
                least(name),
                megabytes(first.fetched_bytes),
            )
        })
        .collect();
    #[allow(clippy::cast_precision_loss)] // Counts of some hundreds.
    let count =
        |of: fn(&Traffic) -> u64| first.traffic.as_ref().map_or(f64::NAN, |traffic| of(traffic) as f64);
    limits.push(Limit::new(what("requests"), 200.0, count(|traffic| traffic.requests)));
    limits.push(Limit::new(what("connections"), 2.0, count(|traffic| traffic.connections)));
    let peak = most(|row| {
        row.peak.as_ref().and_then(|peak| peak.pss_bytes_of.get("otad")).map_or(0.0, |&bytes| mib(bytes))
    });
    limits.push(Limit::new(what("peak memory of otad, MiB"), 16.0, peak));
    limits
}

fn figure(pair: &Pair, row: &Row) -> Value {
    json!({
        "pair": pair.name, "name": row.name, "fetched_bytes": row.fetched_bytes, "traffic": row.traffic,
        "runs": row.costs, "peak": row.peak,
    })
}
