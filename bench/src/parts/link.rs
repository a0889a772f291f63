//! A full install over a slow line with a long way: how much of the time the line carries something.

use std::time::Duration;

use serde_json::json;

use super::Bench;
use crate::board::Board;
use crate::error::Error;
use crate::goods::Release;
use crate::meter::Meter;
use crate::report::{Limit, Report, Table, megabytes, number};
use crate::slot::Medium;
use crate::web::{Line, Web};

/// 20 Mbit/s.
const BYTES_PER_SECOND: f64 = 2.5e6;
/// Half of a round trip of 100 ms.
const DELAY: Duration = Duration::from_millis(50);
/// From where to where it is looked at, in parts of all bytes: manifest and index come before, with a scan of the target behind
/// them, for which nothing can be fetched.
const WINDOW: [f64; 2] = [0.02, 0.995];

/// Measures it.
pub(crate) fn measure(bench: &Bench) -> Result<Report, Error> {
    let setting = bench.setting();
    let room = bench.stage.room(Medium::Disk, "link")?;
    let (running, target) = (bench.slot(Medium::Memory)?, bench.slot(Medium::Memory)?);
    let root = bench.goods.root();
    let mut board = Board::new(&room, [running.device(), target.device()], &root, &bench.binaries)?;
    let line = Line { bytes_per_second: Some(BYTES_PER_SECOND), delay: DELAY };
    let web = Web::start(&room, &root, &bench.binaries, line)?;
    let url = web.offer(&bench.goods.bundle(Release::New)?)?;
    target.fill(&bench.noise()?)?;
    board.start()?;
    eprintln!("link: 20 Mbit/s and 100 ms");
    let meter = Meter { daemons: board.daemons(), slot: Some(&target) };
    let before = web.traffic().down_bytes;
    let (cost, traffic) = web.during(|| meter.measure(|| board.install(&url)))?;
    let busy = web.rate_between(before, WINDOW) / BYTES_PER_SECOND * 100.0;
    board.kill();
    target.compare(&bench.images.updated())?;
    let mut table =
        Table::new("A full install:", &["fetched MB", "requests", "connections", "wall s", "line busy %"]);
    table.rows.push(vec![
        format!("{:.2}", megabytes(traffic.down_bytes)),
        traffic.requests.to_string(),
        traffic.connections.to_string(),
        number(cost.wall_s),
        format!("{busy:.1}"),
    ]);
    Ok(Report {
        part: "link".to_owned(),
        title: "A slow line".to_owned(),
        about: "The line carries 20 Mbit/s and takes 50 ms each way, by a relay that delays and paces what TCP has delivered to it; the \
                running slot is empty. Measured once."
            .to_owned(),
        setting,
        tables: vec![table],
        // As a limit that must not be exceeded: the time in which nothing comes.
        limits: vec![Limit::new("20 Mbit/s, 100 ms: line idle while fetching, %", 5.0, 100.0 - busy)],
        not_run: Vec::new(),
        figures: json!({ "cost": cost, "traffic": traffic, "busy_percent": busy }),
    })
}
