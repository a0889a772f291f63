//! Memory for large images: the new image made longer by a hole.

use std::fs::File;
use std::time::Duration;

use serde_json::json;

use super::Bench;
use crate::board::Board;
use crate::error::Error;
use crate::meter::memory;
use crate::process::{command, run};
use crate::report::{Limit, Report, Table, mib, number};
use crate::slot::{Medium, Slot};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// GiB of the image, and MiB that otad may take for it.
const SIZES: [(u64, f64); 2] = [(2, 16.0), (16, 32.0)];

/// Measures it.
pub(crate) fn measure(bench: &Bench) -> Result<Report, Error> {
    let setting = bench.setting();
    let mut table =
        Table::new("A full install from a file:", &["image GiB", "otad PSS MiB", "largest process MiB"]);
    let (mut limits, mut figures) = (Vec::new(), Vec::new());
    for (gib, at_most) in SIZES {
        eprintln!("large: an image of {gib} GiB");
        let room = bench.stage.room(Medium::Disk, "large")?;
        let bytes = gib << 30;
        let image = room.join(format!("large-{gib}.img"));
        run(command("cp", &["--sparse=always"]).arg(bench.images.updated()).arg(&image))?;
        let file = File::options().write(true).open(&image).map_err(Error::io("open", &image))?;
        file.set_len(bytes).map_err(Error::io("size", &image))?;
        let bundle = bench.goods.bundle_of(&image, "2.0.0", 2)?;
        let slot = || Slot::make(&bench.stage.on(Medium::Disk), Medium::Disk, bytes);
        let (running, target) = (slot()?, slot()?);
        let slots = [running.device(), target.device()];
        let mut board = Board::new(&room, slots, &bench.goods.root(), &bench.binaries)?;
        board.start()?;
        let peak = memory(&board.daemons(), LOOK, || board.install(&bundle.to_string_lossy()))?;
        board.kill();
        target.compare(&image)?;
        let own = mib(peak.pss_bytes_of.get("otad").copied().unwrap_or(0));
        table.rows.push(vec![gib.to_string(), number(own), number(mib(peak.largest_bytes))]);
        limits.push(Limit::new(format!("image of {gib} GiB: peak memory of otad, MiB"), at_most, own));
        figures.push(json!({ "gib": gib, "peak": peak }));
    }
    Ok(Report {
        part: "large".to_owned(),
        title: "Large images".to_owned(),
        about: "The new image, made longer by a hole; the slots are on disk, because a tmpfs takes memory for zeros too. Measured once."
            .to_owned(),
        setting,
        tables: vec![table],
        limits,
        not_run: Vec::new(),
        figures: figures.into(),
    })
}
