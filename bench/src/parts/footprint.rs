//! What otad takes when nothing happens: flash, memory, and the time of a look.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Bench;
use crate::board::Board;
use crate::error::Error;
use crate::goods::size;
use crate::meter::{line_kib, middle_of};
use crate::peers::rauc::Rauc;
use crate::peers::{Peer as _, Scene};
use crate::process::{find, run};
use crate::report::{Limit, Report, Table, mib, number};
use crate::slot::Medium;

/// How often the status is asked for, at least.
const LOOKS: usize = 20;
/// How long a daemon is left alone before its memory is looked at.
const REST: Duration = Duration::from_secs(3);

/// Memory of a process at rest.
struct Idle {
    name: &'static str,
    resident_bytes: u64,
    pss_bytes: u64,
}

/// Measures it.
pub(crate) fn measure(bench: &Bench) -> Result<Report, Error> {
    let setting = bench.setting();
    let (a, b) = (bench.slot(Medium::Memory)?, bench.slot(Medium::Memory)?);
    let room = bench.stage.room(Medium::Disk, "footprint")?;
    let mut board = Board::new(&room, [a.device(), b.device()], &bench.goods.root(), &bench.binaries)?;
    board.start()?;
    sleep(REST);
    let mut idle: Vec<Idle> = board.daemons().into_iter().map(|id| at_rest("otad", id)).collect();
    let status_ms = status_ms(&board)?;
    board.kill();
    let (images, goods, binaries) = (&bench.images, &bench.goods, &bench.binaries);
    let room = bench.stage.room(Medium::Disk, "rauc")?;
    let mut not_run = Vec::new();
    match Rauc::new(&Scene { images, goods, binaries, room, running: &a, target: &b }) {
        Ok(mut rauc) => {
            rauc.prepare()?;
            sleep(REST);
            idle.extend(rauc.daemons().into_iter().map(|id| at_rest("rauc service", id)));
            rauc.finish();
        }
        Err(error) => not_run.push(format!("RAUC: {error}")),
    }
    let mut sizes = Table::new("Programs, without the libraries that they load:", &["", "MiB"]);
    let own_bytes = stripped_bytes(&bench.binaries.path("otad"), &bench.stage.on(Medium::Disk))?;
    let line = "otad, which is otactl too, stripped, no libraries but libc";
    sizes.rows.push(vec![line.to_owned(), format!("{:.2}", mib(own_bytes))]);
    for name in ["rauc", "swupdate", "casync"] {
        let Some(path) = find(name) else { continue };
        let (bytes, libraries) = (size(&path)?, libraries(&path)?);
        let line =
            format!("{name} of Debian, with {} libraries of {:.1} MiB beside", libraries.0, mib(libraries.1));
        sizes.rows.push(vec![line, format!("{:.2}", mib(bytes))]);
    }
    let mut rest = Table::new("Daemons at rest:", &["", "resident MiB", "PSS MiB"]);
    for idle in &idle {
        let cells = [mib(idle.resident_bytes), mib(idle.pss_bytes)].map(number);
        rest.rows.push(std::iter::once(idle.name.to_owned()).chain(cells).collect());
    }
    let resident =
        idle.iter().find(|idle| idle.name == "otad").map_or(f64::NAN, |idle| mib(idle.resident_bytes));
    let mut look = Table::new("A look at the device:", &["", "ms"]);
    look.rows.push(vec!["otactl status".to_owned(), number(status_ms)]);
    let figures = json!({
        "stripped_bytes": own_bytes, "status_ms": status_ms,
        "idle": idle.iter().map(|idle| json!({"name": idle.name, "resident": idle.resident_bytes, "pss": idle.pss_bytes})).collect::<Vec<_>>(),
    });
    Ok(Report {
        part: "footprint".to_owned(),
        title: "At rest".to_owned(),
        about: "Sizes of files, and memory of daemons that have started and have nothing to do.".to_owned(),
        setting,
        tables: vec![sizes, rest, look],
        limits: vec![
            Limit::new("otad + otactl, stripped, MiB", 6.0, mib(own_bytes)),
            Limit::new("otad at rest, resident MiB", 8.0, resident),
            Limit::new("otactl status, ms", 30.0, status_ms),
        ],
        not_run,
        figures,
    })
}

fn at_rest(name: &'static str, id: u32) -> Idle {
    Idle {
        name,
        resident_bytes: line_kib(&format!("/proc/{id}/status"), "VmRSS:") << 10,
        pss_bytes: line_kib(&format!("/proc/{id}/smaps_rollup"), "Pss:") << 10,
    }
}

fn status_ms(board: &Board) -> Result<f64, Error> {
    let look = || {
        let started = Instant::now();
        run(&mut board.otactl(&["status"]))?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    };
    Ok(middle_of((0..LOOKS).map(|_| look()).collect::<Result<_, Error>>()?))
}

/// Size of a program once it is stripped, as packages have it.
fn stripped_bytes(program: &Path, dir: &Path) -> Result<u64, Error> {
    let copy = dir.join("stripped");
    run(crate::process::command("strip", &["-o"]).arg(&copy).arg(program))?;
    size(&copy)
}

/// Number and bytes of the shared libraries that a program loads.
fn libraries(program: &Path) -> Result<(usize, u64), Error> {
    let said = run(&mut crate::process::command("ldd", &[program]))?;
    let paths: Vec<PathBuf> = String::from_utf8_lossy(&said)
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from))
        .collect();
    let bytes = paths.iter().map(|path| size(path)).sum::<Result<u64, Error>>()?;
    Ok((paths.len(), bytes))
}
