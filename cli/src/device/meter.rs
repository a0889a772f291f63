//! Shows how far a job is: a bar on a terminal, a line now and then in a pipe, an object per change for programs.
//!
//! What cannot be shown never stops an install: errors of standard error are ignored (the SSH session may be gone),
//! errors of standard output end otactl, and the install goes on in otad.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::model::Job;
use super::pace::Pace;
use super::trouble::Trouble;
use super::voice::{Report, Voice};
use crate::show::{human_bytes, human_duration, printable};

/// In a pipe a line appears at least this often: enough for a log, not enough to drown it.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// The bar's width in characters; the text beside it needs the rest of 80 columns.
const BAR_TEMPLATE: &str = "[{bar:24}] {percent:>3} %  {msg}";

/// Shows one job after the other.
pub(super) struct Meter {
    face: Face,
    begun: Instant,
    pace: Pace,
}

enum Face {
    Quiet,
    Json { last: Option<Job> },
    Lines(LinePolicy),
    Bar(ProgressBar),
}

/// When a line is due in a pipe.
#[derive(Debug, Default)]
struct LinePolicy {
    phase: Option<String>,
    printed: Duration,
}

impl LinePolicy {
    fn is_due(&mut self, now: Duration, phase: &str) -> bool {
        let due = self.phase.as_deref() != Some(phase) || now.saturating_sub(self.printed) >= LINE_INTERVAL;
        if due {
            self.phase = Some(phase.to_owned());
            self.printed = now;
        }
        due
    }
}

impl Meter {
    /// A meter in the form that fits the output and the terminal.
    pub(super) fn new(voice: Voice) -> Meter {
        let face = match voice {
            Voice::Quiet => Face::Quiet,
            Voice::Json => Face::Json { last: None },
            Voice::Text if io::stderr().is_terminal() => Face::Bar(bar()),
            Voice::Text => Face::Lines(LinePolicy::default()),
        };
        Meter { face, begun: Instant::now(), pace: Pace::default() }
    }

    /// Shows the job as it is now. To be called at every change, and once a second when nothing changes.
    pub(super) fn show(&mut self, job: &Job) -> Result<(), Trouble> {
        let now = self.begun.elapsed();
        self.pace.observe(now, &job.phase, job.bytes_done);
        match &mut self.face {
            Face::Quiet => {}
            Face::Json { last } => {
                if last.as_ref() != Some(job) && !job.phase.is_empty() {
                    *last = Some(job.clone());
                    Voice::Json.report(&Report::progress(job))?;
                }
            }
            Face::Lines(policy) => {
                if !job.phase.is_empty() && policy.is_due(now, &job.phase) {
                    whisper(&format!("{:>3} %  {}", job.progress, describe(job, &self.pace)));
                }
            }
            Face::Bar(bar) => {
                bar.set_position(u64::from(job.progress));
                bar.set_message(describe(job, &self.pace));
            }
        }
        Ok(())
    }

    /// Says something beside the progress, to people only.
    pub(super) fn note(&self, text: &str) {
        match &self.face {
            Face::Quiet | Face::Json { .. } => {}
            Face::Lines(_) => whisper(text),
            Face::Bar(bar) => bar.suspend(|| whisper(text)),
        }
    }

    /// Takes the bar off the terminal; a later [`Meter::show`] begins a new one.
    pub(super) fn clear(&mut self) {
        if let Face::Bar(old) = &self.face {
            old.finish_and_clear();
            self.face = Face::Bar(bar());
        }
        self.pace = Pace::default();
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
    // The template is a constant; should indicatif ever refuse it, its default bar still shows the percentage.
    if let Ok(style) = ProgressStyle::with_template(BAR_TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// A line on standard error, if it can still be written.
fn whisper(text: &str) {
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// What stands beside the percentage: phase, bytes, speed, time left, as far as they are known.
fn describe(job: &Job, pace: &Pace) -> String {
    let mut text = if job.phase.is_empty() { "starting".to_owned() } else { printable(&job.phase) };
    if !job.version.is_empty() {
        text.push(' ');
        text.push_str(&printable(&job.version));
    }
    match (job.bytes_done, job.bytes_total) {
        (0, 0) => return text,
        (done, 0) => text.push_str(&format!(", {}", human_bytes(done))),
        (done, total) => text.push_str(&format!(", {} of {}", human_bytes(done), human_bytes(total))),
    }
    if let Some(speed) = pace.speed() {
        text.push_str(&format!(", {}/s", human_bytes(speed)));
    }
    if let Some(left) = pace.time_left(job.bytes_done, job.bytes_total) {
        text.push_str(&format!(", {} left", human_duration(left)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_holds_what_is_known() {
        let mut job = Job::new("/org/otad1/job/1");
        let mut pace = Pace::default();
        assert_eq!(describe(&job, &pace), "starting");
        job.phase = "writing".to_owned();
        job.version = "2.1.0".to_owned();
        job.bytes_total = 100 << 20;
        pace.observe(Duration::ZERO, "writing", 0);
        pace.observe(Duration::from_secs(1), "writing", 10 << 20);
        job.bytes_done = 10 << 20;
        assert_eq!(describe(&job, &pace), "writing 2.1.0, 10.0 MiB of 100 MiB, 10.0 MiB/s, 9 s left");
        job.bytes_total = 0;
        assert_eq!(describe(&job, &pace), "writing 2.1.0, 10.0 MiB, 10.0 MiB/s");
    }

    #[test]
    fn lines_come_with_phases_and_every_ten_seconds() {
        let mut policy = LinePolicy::default();
        let due: Vec<bool> =
            [(0, "opening"), (1, "opening"), (2, "writing"), (11, "writing"), (12, "writing")]
                .into_iter()
                .map(|(second, phase)| policy.is_due(Duration::from_secs(second), phase))
                .collect();
        assert_eq!(due, [true, false, true, false, true]);
    }
}
