//! What a part of the benchmark found: kept as JSON, shown as Markdown.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;

/// Above this load at the start, something else ran.
const QUIET_LOAD: f64 = 1.0;
/// The line of a document below which results are published.
const PUBLISHED_BELOW: &str = "<!-- results of make bench -->\n";

/// Everything that one part found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Its name, also of its file.
    pub(crate) part: String,
    /// A heading.
    pub(crate) title: String,
    /// When and on what.
    pub(crate) setting: Setting,
    /// What was done.
    pub(crate) about: String,
    /// For people.
    pub(crate) tables: Vec<Table>,
    /// What must hold.
    pub(crate) limits: Vec<Limit>,
    /// What could not be measured, and why.
    pub(crate) not_run: Vec<String>,
    /// Every single figure.
    pub(crate) figures: Value,
}

/// When and on what something was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// Which images: `debian` or `quick`.
    pub(crate) images: String,
    /// Rounds that the medians are of.
    pub(crate) rounds: usize,
    /// The machine in one line.
    pub(crate) machine: String,
    /// What else the machine did: its load when the part began.
    pub(crate) load: f64,
}

/// A table.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Table {
    /// What it shows.
    pub(crate) caption: String,
    /// The first row.
    pub(crate) head: Vec<String>,
    /// The other rows.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub(crate) fn new(caption: &str, head: &[&str]) -> Table {
        let head = head.iter().map(|&word| word.to_owned()).collect();
        Table { caption: caption.to_owned(), head, rows: Vec::new() }
    }
}

/// A figure that must not be above a limit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Limit {
    /// What is measured, with its unit.
    pub(crate) what: String,
    /// What it must not exceed.
    pub(crate) at_most: f64,
    /// What it is.
    pub(crate) measured: f64,
}

impl Limit {
    /// A limit and what was measured.
    pub(crate) fn new(what: impl Into<String>, at_most: f64, measured: f64) -> Limit {
        Limit { what: what.into(), at_most, measured }
    }

    /// Whether it is kept.
    pub(crate) fn holds(&self) -> bool {
        self.measured <= self.at_most
    }
}

impl Setting {
    /// This machine, now.
    pub(crate) fn here(images: &str, rounds: usize) -> Setting {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let field = |key: &str| {
            let line = info.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let cores = info.lines().filter(|line| line.starts_with("processor")).count();
        let sha = if field("flags").contains("sha_ni") { " with SHA instructions" } else { "" };
        let memory = crate::meter::line_kib("/proc/meminfo", "MemTotal:") >> 20;
        let kernel = read("/proc/sys/kernel/osrelease");
        let system = read("/etc/os-release");
        let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
        let model = field("model name");
        let machine = format!(
            "{cores} processors ({model}{sha}), {memory} GiB of memory, {}, kernel {}",
            system.trim_matches('"'),
            kernel.trim()
        );
        let load = read("/proc/loadavg").split_whitespace().next().and_then(|word| word.parse().ok());
        Setting { images: images.to_owned(), rounds, machine, load: load.unwrap_or(0.0) }
    }
}

impl Report {
    /// Writes `dir/PART.json`.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(format!("{}.json", self.part));
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::Setup(error.to_string()))?;
        fs::write(&path, text).map_err(Error::io("write", &path))
    }

    /// It as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n", self.title, self.about);
        let Setting { images, rounds, machine, load } = &self.setting;
        // Writing into a String cannot fail.
        let _ =
            writeln!(text, "\nImages: {images}; rounds: {rounds}; {machine}; load at the start {load:.1}.");
        if *load > QUIET_LOAD {
            text.push_str(
                "\n**The machine was busy with something else: compare processor time, not wall time.**\n",
            );
        }
        for table in &self.tables {
            let _ = write!(text, "\n{}\n\n{}", table.caption, markdown_table(&table.head, &table.rows));
        }
        for line in &self.not_run {
            let _ = writeln!(text, "\nNot run: {line}.");
        }
        text
    }
}

fn markdown_table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> =
        head.iter().enumerate().map(|(at, _)| if at == 0 { "---" } else { "---:" }.to_owned()).collect();
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{}{rows}", line(head), line(&rule))
}

/// Everything that was found, these reports one after the other; and its first section, what must hold.
fn results(reports: &[Report]) -> (String, String) {
    let limits = reports.iter().flat_map(|report| &report.limits);
    let rows: Vec<Vec<String>> = limits
        .map(|limit| {
            let verdict = if limit.holds() { "yes" } else { "**no**" };
            vec![limit.what.clone(), number(limit.at_most), number(limit.measured), verdict.to_owned()]
        })
        .collect();
    let head = ["what", "at most", "measured", "kept"].map(str::to_owned);
    let summary = format!("## What must hold\n\n{}\n", markdown_table(&head, &rows));
    let parts: Vec<String> = reports.iter().map(Report::markdown).collect();
    (format!("{summary}{}", parts.join("\n")), summary)
}

/// Writes `dir/results.md` from these reports; returns what must hold.
pub(crate) fn write_results(dir: &Path, reports: &[Report]) -> Result<String, Error> {
    let (text, summary) = results(reports);
    let path = dir.join("results.md");
    fs::write(&path, format!("# Results of `make bench`\n\n{text}")).map_err(Error::io("write", &path))?;
    Ok(summary)
}

/// Puts these reports into a document, in place of everything below its line for them.
pub(crate) fn publish(document: &Path, reports: &[Report]) -> Result<(), Error> {
    let text = fs::read_to_string(document).map_err(Error::io("read", document))?;
    let Some((before, _)) = text.split_once(PUBLISHED_BELOW) else {
        let line = PUBLISHED_BELOW.trim_end();
        return Err(Error::Setup(format!("{} has no line `{line}`", document.display())));
    };
    let text = format!("{before}{PUBLISHED_BELOW}\n{}", results(reports).0);
    fs::write(document, text).map_err(Error::io("write", document))
}

/// A number with as many digits as are worth reading.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// Bytes as MiB.
#[allow(clippy::cast_precision_loss)] // Far below 2^52.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Bytes as MB, as transfers are counted.
#[allow(clippy::cast_precision_loss)] // Far below 2^52.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_reached_is_kept() {
        assert!(Limit::new("x", 1.2, 1.2).holds());
        assert!(!Limit::new("x", 1.2, 1.201).holds());
        // What could not be measured is not kept.
        assert!(!Limit::new("x", 1.2, f64::NAN).holds());
    }

    #[test]
    fn tables_are_markdown() {
        let mut table = Table::new("c", &["a", "b"]);
        table.rows.push(vec!["1".to_owned(), "2".to_owned()]);
        assert_eq!(markdown_table(&table.head, &table.rows), "| a | b |\n| --- | ---: |\n| 1 | 2 |\n");
        assert_eq!(
            [number(0.0), number(0.51234), number(12.34), number(640.0)],
            ["0", "0.512", "12.3", "640"]
        );
    }
}
