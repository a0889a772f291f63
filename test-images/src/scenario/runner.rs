//! Runs scenarios, some at once, each in a directory of its own, and ends with a table.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::failure::Failure;
use super::stage::{Bench, Stage};
use super::{Group, Scenario, all};

/// Runs whose logs are kept, the newest.
const RUNS_KEPT: usize = 5;

/// How one scenario ended.
struct Outcome {
    scenario: Scenario,
    failure: Option<Failure>,
    boots: usize,
    took: Duration,
    evidence: Vec<String>,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// All up to this group.
    Group(Group),
    /// These.
    Names(Vec<String>),
}

/// Runs what was chosen, so many at once; `true` if all of it went well. A name that does not exist is an error with the
/// names there are.
pub fn main_run(workspace: &Path, choice: &Choice, at_once: usize) -> Result<bool, String> {
    let chosen = choose(choice)?;
    let bench = Bench::new(workspace);
    let schemes: Vec<_> = chosen.iter().map(|scenario| scenario.scheme).collect();
    bench.prepare(&schemes).map_err(|failure| failure.to_string())?;
    let directory = run_directory(&bench.directory().join("runs")).map_err(|error| error.to_string())?;
    println!("{} scenarios, {at_once} at once; logs are in {}", chosen.len(), directory.display());
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(scenario) = chosen.get(number) else { break };
                    let outcome = run(&bench, *scenario, &directory.join(scenario.name));
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((number, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(number, _)| *number);
    let outcomes: Vec<Outcome> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let text = table(&outcomes, began.elapsed());
    print!("\n{text}");
    // Also for whoever was not there.
    let _ = fs::write(directory.join("summary.txt"), &text);
    Ok(outcomes.len() == chosen.len() && outcomes.iter().all(|outcome| outcome.failure.is_none()))
}

/// Prints the scenarios there are.
pub fn main_list() {
    for scenario in all() {
        let group = format!("{:?}", scenario.group).to_lowercase();
        println!("{:18} {group:6} {}", scenario.name, scenario.story);
    }
}

fn choose(choice: &Choice) -> Result<Vec<Scenario>, String> {
    let all = all();
    match choice {
        Choice::Group(group) => Ok(all.into_iter().filter(|scenario| scenario.group <= *group).collect()),
        Choice::Names(names) => names
            .iter()
            .map(|name| {
                let found = all.iter().find(|scenario| scenario.name == name.as_str()).copied();
                found.ok_or_else(|| {
                    let names: Vec<&str> = all.iter().map(|scenario| scenario.name).collect();
                    format!("no scenario `{name}`; there are: {}", names.join(" "))
                })
            })
            .collect(),
    }
}

fn run(bench: &Bench, scenario: Scenario, directory: &Path) -> Outcome {
    println!("{:17} {}", scenario.name, scenario.story);
    let began = Instant::now();
    let mut boots = 0;
    let mut evidence = Vec::new();
    let result = Stage::set(bench, scenario.scheme, directory).and_then(|mut stage| {
        let told = (scenario.tell)(&mut stage);
        if told.is_err() {
            stage.last_words();
        }
        boots = stage.boots_ever();
        stage.power_off();
        evidence.append(&mut stage.evidence);
        told
    });
    let failure = result.err();
    match &failure {
        None => tidy(directory),
        Some(failure) => println!("{:17} FAILED: {failure}", scenario.name),
    }
    Outcome { scenario, failure, boots, took: began.elapsed(), evidence }
}

/// The media of a scenario that went well tell nothing more, and are large.
fn tidy(directory: &Path) {
    for name in ["disk.img", "card.img"] {
        let _ = fs::remove_file(directory.join(name));
    }
    for name in ["otaserver", "guide", "fleet"] {
        let _ = fs::remove_dir_all(directory.join(name));
    }
}

fn table(outcomes: &[Outcome], took: Duration) -> String {
    let mut text = format!("{:18} {:6} {:>5} {:>7}  EVIDENCE\n", "SCENARIO", "RESULT", "BOOTS", "SECONDS");
    for outcome in outcomes {
        let result = if outcome.failure.is_none() { "good" } else { "FAILED" };
        let seconds = outcome.took.as_secs();
        let failure = outcome.failure.as_ref().map(|failure| {
            let text = failure.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        });
        let mut lines = failure.into_iter().chain(outcome.evidence.iter().cloned());
        let first = lines.next().unwrap_or_default();
        let name = outcome.scenario.name;
        text.push_str(&format!("{name:18} {result:6} {:>5} {seconds:>7}  {first}\n", outcome.boots));
        for line in lines {
            text.push_str(&format!("{:41}{line}\n", ""));
        }
    }
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    let boots: usize = outcomes.iter().map(|outcome| outcome.boots).sum();
    text.push_str(&format!(
        "{} scenarios, {failed} failed, {boots} boots, {} s\n",
        outcomes.len(),
        took.as_secs()
    ));
    text
}

/// Makes the directory of a run, named by its time, and removes those of runs long ago.
fn run_directory(runs: &Path) -> std::io::Result<PathBuf> {
    fs::create_dir_all(runs)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let directory = runs.join(now.to_string());
    fs::create_dir_all(&directory)?;
    let mut older: Vec<PathBuf> = fs::read_dir(runs)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    older.sort();
    let surplus = older.len().saturating_sub(RUNS_KEPT);
    older.into_iter().take(surplus).try_for_each(fs::remove_dir_all)?;
    Ok(directory)
}
