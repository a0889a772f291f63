//! What it costs that otad fetches and decompresses in processes of their own: the same install, with and without.

use serde_json::json;

use super::Bench;
use crate::board::Board;
use crate::error::Error;
use crate::goods::Release;
use crate::meter::{Cost, Meter, Peak, median, memory};
use crate::parts::full::LOOK;
use crate::report::{Limit, Report, Table, mib, number};
use crate::slot::Medium;
use crate::web::{Line, Web};

/// Wall time that separation may take, in parts of what one process takes.
const MOST: f64 = 1.10;

/// One way to install.
struct Row {
    source: &'static str,
    together: bool,
    costs: Vec<Cost>,
    peak: Peak,
}

/// Measures it.
pub(crate) fn measure(bench: &Bench) -> Result<Report, Error> {
    let setting = bench.setting();
    let room = bench.stage.room(Medium::Disk, "apart")?;
    let (running, target) = (bench.slot(Medium::Memory)?, bench.slot(Medium::Memory)?);
    let root = bench.goods.root();
    let bundle = bench.goods.bundle(Release::New)?;
    let web = Web::start(&room, &root, &bench.binaries, Line::default())?;
    // Not through the line: it would take more of the processors than the fetcher.
    let sources = [("file", bundle.to_string_lossy().into_owned()), ("URL", web.offer_directly(&bundle)?)];
    let mut board = Board::new(&room, [running.device(), target.device()], &root, &bench.binaries)?;
    // What the running slot held would not be fetched.
    running.fill(&bench.noise()?)?;
    let mut rows = Vec::new();
    for (source, _) in &sources {
        for together in [false, true] {
            rows.push(Row { source, together, costs: Vec::new(), peak: Peak::default() });
        }
    }
    for round in 0..=bench.rounds {
        for row in &mut rows {
            eprintln!("apart: round {round} of {}: {}", bench.rounds, row.name());
            let url = sources.iter().find(|(source, _)| *source == row.source);
            let url = url.map(|(_, url)| url.as_str()).unwrap_or_default();
            target.fill(&bench.noise()?)?;
            board.together(row.together);
            board.reset()?;
            board.start()?;
            // In round 0 memory is looked at instead of time.
            if round == 0 {
                row.peak = memory(&board.daemons(), LOOK, || board.install(url))?;
            } else {
                let meter = Meter { daemons: board.daemons(), slot: None };
                row.costs.push(meter.measure(|| board.install(url))?);
            }
            board.kill();
            target.compare(&bench.images.updated())?;
        }
    }
    let figures = rows.iter().map(
        |row| json!({"source": row.source, "together": row.together, "runs": row.costs, "peak": row.peak}),
    );
    Ok(Report {
        part: "apart".to_owned(),
        title: "What separate processes cost".to_owned(),
        about: "A full install into a slot in memory that holds noise; runs are interleaved, figures are medians; memory is that of the \
                daemon with its fetcher and decoders, from a run of its own. By URL from otaserver on this machine, whose processor time \
                is not counted; the running slot holds nothing of use. *In one process* is `otad --together`, which exists for this."
            .to_owned(),
        setting,
        tables: vec![table(&rows)],
        limits: sources.iter().map(|(source, _)| limit(&rows, source)).collect(),
        not_run: Vec::new(),
        figures: figures.collect(),
    })
}

impl Row {
    fn name(&self) -> String {
        let how = if self.together { "in one process" } else { "in separate processes" };
        format!("from a {}, {how}", self.source)
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new("", &["", "wall s", "cpu s", "memory MiB"]);
    for row in rows {
        let cost = median(&row.costs);
        let own = row.peak.pss_bytes_of.get("otad").copied().unwrap_or(0);
        table.rows.push(vec![
            row.name(),
            format!("{:.2}", cost.wall_s),
            format!("{:.2}", cost.cpu_s),
            number(mib(own)),
        ]);
    }
    table
}

fn limit(rows: &[Row], source: &str) -> Limit {
    let wall = |together| {
        let row = rows.iter().find(|row| row.source == source && row.together == together);
        row.map_or(f64::NAN, |row| median(&row.costs).wall_s)
    };
    let what = format!("install from a {source}: wall time, in parts of the same in one process");
    Limit::new(what, MOST, wall(false) / wall(true))
}
