//! What a broken install costs: fetched again after kills, written again when the slot holds the release already.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Bench;
use crate::board::Board;
use crate::error::Error;
use crate::goods::Release;
use crate::meter::Meter;
use crate::process::spawn;
use crate::report::{Limit, Report, Table, megabytes, number};
use crate::slot::{Medium, Slot};
use crate::web::{Line, Traffic, Web};

/// How often otad is killed.
const KILLS: usize = 10;
/// How much of a clean run's bytes the first attempt gets, and each later one, before it is killed: at 90, 90.9, … 98.1 %.
const FIRST_PART: f64 = 0.9;
const LATER_PART: f64 = 0.009;
/// The line, in bytes per second: slow enough for otad to take what arrives, so that what lies in the buffers of a socket when
/// otad dies is what a network would lose too.
const BYTES_PER_SECOND: f64 = 25e6;
/// How often is looked whether it is time to kill.
const LOOK: Duration = Duration::from_millis(1);
/// How long one install may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures it.
pub(crate) fn measure(bench: &Bench) -> Result<Report, Error> {
    let setting = bench.setting();
    let room = bench.stage.room(Medium::Disk, "resume")?;
    let (running, target) = (bench.slot(Medium::Memory)?, bench.slot(Medium::Memory)?);
    let root = bench.goods.root();
    let mut board = Board::new(&room, [running.device(), target.device()], &root, &bench.binaries)?;
    let bundle = bench.goods.bundle(Release::New)?;
    let line = Line { bytes_per_second: Some(BYTES_PER_SECOND), delay: Duration::ZERO };
    let web = Web::start(&room, &root, &bench.binaries, line)?;
    let url = web.offer(&bundle)?;

    eprintln!("resume: a clean run");
    let (clean, written_clean) = install(bench, &mut board, &web, &url, &target, &[])?;
    eprintln!("resume: {KILLS} kills");
    let part = |part: f64| bytes_of(clean.down_bytes, part);
    let mut kills = vec![part(LATER_PART); KILLS];
    if let Some(first) = kills.first_mut() {
        *first = part(FIRST_PART);
    }
    let (killed, written_killed) = install(bench, &mut board, &web, &url, &target, &kills)?;
    eprintln!("resume: the slot holds the release");
    let again = again(bench, &mut board, &bundle.to_string_lossy(), &target)?;

    let mut table = Table::new("Installs of the new image:", &["", "fetched MB", "requests", "written MB"]);
    for (name, traffic, written) in [
        ("without a break", clean, written_clean),
        ("killed 10 times from 90 % on", killed, written_killed),
        ("into a slot that holds it", Traffic::default(), again),
    ] {
        let (fetched, written) = (megabytes(traffic.down_bytes), megabytes(written));
        table.rows.push(vec![
            name.to_owned(),
            format!("{fetched:.2}"),
            traffic.requests.to_string(),
            number(written),
        ]);
    }
    let ratio = megabytes(killed.down_bytes) / megabytes(clean.down_bytes);
    Ok(Report {
        part: "resume".to_owned(),
        title: "Interrupted, and again".to_owned(),
        about: "otad is killed (SIGKILL) when it has fetched 90 % of what a clean run fetches, and started again, and killed again after every \
                further 0.9 %, ten times in all; then it may finish. The line carries 200 Mbit/s. Fetched is everything that the line carries, also what was still on the way \
                when otad died. The slot that holds the release already belongs to a device that knows nothing of it; its \
                bundle comes from a file."
            .to_owned(),
        setting,
        tables: vec![table],
        limits: vec![
            Limit::new("killed 10 times, from 90 % to 98 % fetched: MB fetched, in parts of a clean run's", 1.02, ratio),
            Limit::new("installed again: MB written", 0.0, megabytes(again)),
        ],
        not_run: Vec::new(),
        figures: json!({
            "clean": clean, "killed": killed, "written_clean": written_clean, "written_killed": written_killed,
            "written_again": again,
        }),
    })
}

/// Installs into a slot with noise, killing otad on the way: each time when so many bytes more went over the line.
fn install(
    bench: &Bench,
    board: &mut Board,
    web: &Web,
    url: &str,
    target: &Slot,
    kills: &[u64],
) -> Result<(Traffic, u64), Error> {
    target.fill(&bench.noise()?)?;
    board.reset()?;
    let written = target.written_bytes()?;
    let ((), traffic) = web.during(|| {
        for &bytes in kills {
            board.start()?;
            let before = web.traffic().down_bytes;
            let mut otactl = board.otactl(&["--quiet", "install", url]);
            let mut otactl = spawn(otactl.stderr(Stdio::null()))?;
            let started = Instant::now();
            while web.traffic().down_bytes - before < bytes {
                let ended = otactl.try_wait().map_err(Error::io("wait for", "otactl"))?;
                if ended.is_some() || started.elapsed() > PATIENCE {
                    let got = web.traffic().down_bytes - before;
                    return Err(Error::Setup(format!(
                        "otad was to be killed after {bytes} bytes and fetched {got}"
                    )));
                }
                sleep(LOOK);
            }
            board.kill();
            otactl.wait().map_err(Error::io("wait for", "otactl"))?;
        }
        board.start()?;
        board.install(url)
    })?;
    board.kill();
    let written = target.written_bytes()? - written;
    target.compare(&bench.images.updated())?;
    Ok((traffic, written))
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Below 2^52.
fn bytes_of(all: u64, part: f64) -> u64 {
    (all as f64 * part) as u64
}

/// Installs into a slot that holds the image; returns what was written.
fn again(bench: &Bench, board: &mut Board, bundle: &str, target: &Slot) -> Result<u64, Error> {
    target.fill(&bench.images.updated())?;
    board.reset()?;
    board.start()?;
    let cost = Meter { daemons: board.daemons(), slot: Some(target) }.measure(|| board.install(bundle))?;
    board.kill();
    target.compare(&bench.images.updated())?;
    Ok(cost.written_bytes)
}
