//! Deltas: to the new image, and to the one with a small change. Making them, their size, and installing them.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::Bench;
use crate::board::Board;
use crate::bsdiff::BSDIFF;
use crate::error::Error;
use crate::goods::{Made, Release, once};
use crate::meter::{Cost, Meter, Peak, median, memory};
use crate::peers::missing;
use crate::process::{command, run};
use crate::report::{Limit, Report, Table, megabytes, mib, number};
use crate::slot::Medium;
use crate::web::{Line, Traffic, Web};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(4);
/// What otad may fetch for a small change on top of the best delta of others: manifest and signature, heads of answers, and
/// what the new index needs, in MB.
const SMALL_EXTRA_MB: f64 = 0.024_576;
/// Parts of the best delta of others that otad may fetch for a whole new release.
const NEW_PARTS: f64 = 1.03;
/// Seconds and MiB that making a delta may take.
const ENCODE_LIMITS: (f64, f64) = (180.0, 4096.0);

/// The images that a delta leads to.
const STEPS: [(Release, &str); 2] =
    [(Release::New, "updates and new packages"), (Release::Small, "one package replaced")];

/// One method for one step.
struct Row {
    step: &'static str,
    name: &'static str,
    made: Made,
    traffic: Option<Traffic>,
    costs: Vec<Cost>,
    peak: Peak,
}

/// Measures it.
pub(crate) fn measure(bench: &Bench) -> Result<Report, Error> {
    let setting = bench.setting();
    let mut rows = of_otad(bench)?;
    let mut not_run = Vec::new();
    for other in OTHERS {
        match other.measure(bench) {
            Ok(more) => rows.extend(more),
            Err(error) => not_run.push(format!("{}: {error}", other.name)),
        }
    }
    not_run.push("bsdiff on whole images: wants 17 times the old image in memory, 11 GiB here".to_owned());
    Ok(Report {
        part: "delta".to_owned(),
        title: "Deltas".to_owned(),
        about: "Making a delta is measured once and kept. otad's transfer is everything that the line carries for an install with the \
                delta: heads of answers, manifest, index, delta, and chunks that the delta does not give. The others decode from file to \
                file in memory and verify nothing but their own checksums; of their transfer only the delta is counted."
            .to_owned(),
        setting,
        tables: STEPS.iter().map(|(_, step)| table(step, &rows)).collect(),
        limits: STEPS.iter().flat_map(|(release, step)| limits(*release, step, &rows)).collect(),
        not_run,
        figures: rows.iter().map(figure).collect(),
    })
}

fn of_otad(bench: &Bench) -> Result<Vec<Row>, Error> {
    let room = bench.stage.room(Medium::Disk, "delta")?;
    let (a, b) = (bench.slot(Medium::Memory)?, bench.slot(Medium::Memory)?);
    let root = bench.goods.root();
    let mut board = Board::new(&room, [a.device(), b.device()], &root, &bench.binaries)?;
    let web = Web::start(&room, &root, &bench.binaries, Line::default())?;
    board.updated_to(&bench.goods.bundle(Release::Old)?)?;
    let mut rows = Vec::new();
    for (release, step) in STEPS {
        let (delta, made) = bench.goods.delta(release)?;
        let url = web.offer(&bench.goods.bundle(release)?)?;
        let delta_url = web.offer_delta(&delta)?;
        let mut row =
            Row { step, name: "otad", made, traffic: None, costs: Vec::new(), peak: Peak::default() };
        for round in 0..=bench.rounds {
            eprintln!("delta: round {round} of {}: otad, {step}", bench.rounds);
            a.fill(&bench.noise()?)?;
            board.updated_again()?;
            board.start()?;
            let daemons = board.daemons();
            let install = || board.install_delta(&url, &delta_url);
            if round == 0 {
                row.peak = memory(&daemons, LOOK, install)?;
            } else {
                let meter = Meter { daemons, slot: Some(&a) };
                let (cost, traffic) = web.during(|| meter.measure(install))?;
                row.costs.push(cost);
                row.traffic = Some(traffic);
            }
            board.kill();
            a.compare(&image(bench, release))?;
        }
        // The others take their time: whoever looks at otad alone need not wait for them.
        let (fetched, most) = (megabytes(row.fetched()), mib(row.peak.pss_bytes));
        eprintln!("delta: otad, {step}: {fetched:.3} MB fetched, {most:.1} MiB at most");
        rows.push(row);
    }
    Ok(rows)
}

fn image(bench: &Bench, release: Release) -> PathBuf {
    match release {
        Release::Old => bench.images.old(),
        Release::New => bench.images.updated(),
        Release::Small => bench.images.small(),
    }
}

/// A tool that makes deltas: command lines with OLD, NEW and DELTA.
struct Other {
    name: &'static str,
    file: &'static str,
    encode: &'static [&'static str],
    /// Empty where nothing decodes it.
    decode: &'static [&'static str],
    /// Whether it stands for the best there is: what otad is held against.
    best: bool,
}

const OTHERS: [Other; 5] = [
    Other {
        name: "block map + bsdiff algorithm + zstd -19",
        file: "bsdiff",
        encode: &["BENCH", BSDIFF, "OLD", "NEW", "DELTA"],
        decode: &[],
        best: true,
    },
    Other {
        name: "zstd -19 --patch-from --long=31",
        file: "zstd-19",
        encode: &["zstd", "-q", "-19", "--long=31", "-T1", "--patch-from=OLD", "NEW", "-o", "DELTA"],
        decode: &["zstd", "-q", "-d", "-f", "--long=31", "--patch-from=OLD", "DELTA", "-o", "NEW"],
        best: true,
    },
    Other {
        name: "zstd -3 --patch-from --long=31",
        file: "zstd-3",
        encode: &["zstd", "-q", "-3", "--long=31", "-T1", "--patch-from=OLD", "NEW", "-o", "DELTA"],
        decode: &["zstd", "-q", "-d", "-f", "--long=31", "--patch-from=OLD", "DELTA", "-o", "NEW"],
        best: false,
    },
    Other {
        name: "xdelta3 -9 -B 1G, lzma",
        file: "xdelta3-1G",
        encode: &["xdelta3", "-e", "-9", "-S", "lzma", "-B", "1073741824", "-s", "OLD", "NEW", "DELTA"],
        decode: &["xdelta3", "-d", "-f", "-B", "1073741824", "-s", "OLD", "DELTA", "NEW"],
        best: true,
    },
    Other {
        name: "xdelta3 -9",
        file: "xdelta3",
        encode: &["xdelta3", "-e", "-9", "-s", "OLD", "NEW", "DELTA"],
        decode: &["xdelta3", "-d", "-f", "-s", "OLD", "DELTA", "NEW"],
        best: false,
    },
];

impl Other {
    fn measure(&self, bench: &Bench) -> Result<Vec<Row>, Error> {
        let program = self.encode.first().filter(|program| **program != "BENCH");
        if let Some(missing) = program.and_then(|program| missing(&[program])) {
            return Err(Error::Setup(missing));
        }
        STEPS.iter().map(|&(release, step)| self.step(bench, release, step)).collect()
    }

    fn step(&self, bench: &Bench, release: Release, step: &'static str) -> Result<Row, Error> {
        let (old, new) = (bench.images.old(), image(bench, release));
        let kind = if release == Release::Small { "small" } else { "new" };
        let delta = bench.goods.other(&format!("{kind}.{}", self.file));
        let made = once(&delta, || self.run(self.encode, &old, &new, &delta))?;
        let out = bench.stage.room(Medium::Memory, "decoded")?.join("image");
        let (mut costs, mut peak) = (Vec::new(), Peak::default());
        if self.decode.is_empty() {
            return Ok(Row { step, name: self.name, made, traffic: None, costs, peak });
        }
        for round in 0..=bench.rounds {
            eprintln!("delta: round {round} of {}: {}, {step}", bench.rounds, self.name);
            let _ = std::fs::remove_file(&out);
            let decode = || self.run(self.decode, &old, &out, &delta);
            if round == 0 {
                peak = memory(&[], LOOK, decode)?;
            } else {
                costs.push(Meter::default().measure(decode)?);
            }
            run(command("cmp", &[&new]).arg(&out))?;
        }
        std::fs::remove_file(&out).map_err(Error::io("remove", &out))?;
        Ok(Row { step, name: self.name, made, traffic: None, costs, peak })
    }

    fn run(
        &self,
        words: &[&str],
        old: &std::path::Path,
        new: &std::path::Path,
        delta: &std::path::Path,
    ) -> Result<(), Error> {
        let path = |word: &&str| match *word {
            "OLD" => old.display().to_string(),
            "NEW" => new.display().to_string(),
            "DELTA" => delta.display().to_string(),
            word => word.replace("OLD", &old.display().to_string()),
        };
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        let own = std::env::current_exe().map_err(Error::io("find", "this program"))?;
        let program = if *program == "BENCH" { own } else { PathBuf::from(program) };
        run(&mut command(&program.to_string_lossy(), &arguments.iter().map(path).collect::<Vec<_>>()))
            .map(drop)
    }
}

impl Row {
    /// What travels.
    fn fetched(&self) -> u64 {
        self.traffic.map_or(self.made.bytes, |traffic| traffic.down_bytes)
    }
}

fn table(step: &str, rows: &[Row]) -> Table {
    let head = [
        "",
        "delta MB",
        "fetched MB",
        "made in s",
        "cpu s",
        "memory MiB",
        "installed in s",
        "cpu s",
        "memory MiB",
    ];
    let mut table = Table::new(&format!("A release with {step}:"), &head);
    for row in rows.iter().filter(|row| row.step == step) {
        let cost = median(&row.costs);
        let timed = |cell: String| if row.costs.is_empty() { "–".to_owned() } else { cell };
        table.rows.push(vec![
            row.name.to_owned(),
            format!("{:.3}", megabytes(row.made.bytes)),
            format!("{:.3}", megabytes(row.fetched())),
            number(row.made.wall_s),
            number(row.made.cpu_s),
            number(mib(row.made.peak.largest_bytes).round()),
            timed(format!("{:.2}", cost.wall_s)),
            timed(format!("{:.2}", cost.cpu_s)),
            timed(number(mib(row.peak.pss_bytes))),
        ]);
    }
    table
}

fn limits(release: Release, step: &str, rows: &[Row]) -> Vec<Limit> {
    let of_step = || rows.iter().filter(|row| row.step == step);
    let Some(own) = of_step().find(|row| row.name == "otad") else { return Vec::new() };
    let strong = |row: &&Row| OTHERS.iter().any(|other| other.best && other.name == row.name);
    let best = of_step().filter(strong).map(|row| row.made.bytes).min().map_or(f64::NAN, megabytes);
    let what = |rest: &str| format!("delta, {step}: {rest}");
    let at_most = match release {
        Release::Small => best + SMALL_EXTRA_MB,
        Release::Old | Release::New => best * NEW_PARTS,
    };
    let (seconds, memory) = ENCODE_LIMITS;
    let peak = own.peak.pss_bytes_of.get("otad").copied().unwrap_or(0);
    vec![
        Limit::new(what("MB fetched, beside the best other delta"), at_most, megabytes(own.fetched())),
        Limit::new(what("seconds to make it"), seconds, own.made.wall_s),
        Limit::new(what("memory to make it, MiB"), memory, mib(own.made.peak.largest_bytes)),
        Limit::new(what("peak memory of otad, MiB"), 16.0, mib(peak)),
    ]
}

fn figure(row: &Row) -> Value {
    json!({
        "step": row.step, "name": row.name, "made": row.made, "traffic": row.traffic, "runs": row.costs,
        "peak": row.peak,
    })
}
