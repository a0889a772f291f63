//! How the story looks: headings, sentences, command lines with their real output, a table at the end.
//!
//! Made for 80 columns. Colours only on a terminal, and never when `NO_COLOR` is set.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use otad_demo::Error;

/// Columns that are used.
const WIDTH: usize = 79;

/// A blank where no line breaks.
const NO_BREAK: char = '\u{a0}';

#[derive(Debug, Clone, Copy)]
enum Tone {
    Heading,
    Command,
    Faint,
    Good,
}

/// A line of the table at the end.
#[derive(Debug)]
struct Row {
    step: usize,
    what: String,
    evidence: String,
}

/// Tells the story.
#[derive(Debug)]
pub(super) struct Voice {
    colours: bool,
    step: usize,
    rows: Vec<Row>,
}

impl Voice {
    pub(super) fn new() -> Voice {
        let colours =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        Voice { colours, step: 0, rows: Vec::new() }
    }

    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// Begins the next step.
    pub(super) fn heading(&mut self, text: &str) {
        self.step += 1;
        let heading = format!("{}. {text}", self.step);
        println!("\n{}", self.paint(Tone::Heading, &heading));
    }

    /// Says something, wrapped.
    pub(super) fn say(&self, text: &str) {
        for line in wrap(text, WIDTH) {
            println!("{line}");
        }
    }

    /// Shows lines that a program wrote.
    pub(super) fn quote<'a>(&self, lines: impl IntoIterator<Item = &'a str>) {
        for line in lines {
            for part in wrap(line, WIDTH - 4) {
                println!("{}", self.paint(Tone::Faint, &format!("  | {part}")));
            }
        }
    }

    /// Notes what a step came to.
    pub(super) fn note(&mut self, what: &str, evidence: impl Into<String>) {
        self.rows.push(Row { step: self.step, what: what.to_owned(), evidence: evidence.into() });
    }

    /// Shows a command line and runs it, with its output where this program's goes.
    pub(super) fn run(&self, command: &mut Command) -> Result<ExitStatus, Error> {
        self.show(command);
        command.stdin(Stdio::null()).status().map_err(|error| cannot_start(command, &error))
    }

    /// Shows a command line and runs it, and returns its standard output.
    pub(super) fn ask(&self, command: &mut Command) -> Result<(ExitStatus, Vec<u8>), Error> {
        self.show(command);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| cannot_start(command, &error))?;
        Ok((output.status, output.stdout))
    }

    fn show(&self, command: &Command) {
        let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
        let words = std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy);
        self.command(&with_values(words));
    }

    /// Shows a command line.
    pub(super) fn command(&self, text: &str) {
        let lines = wrap(text, WIDTH - 6).join(" \\\n    ");
        println!("{}", self.paint(Tone::Command, &format!("$ {}", lines.replace(NO_BREAK, " "))));
        // What the program writes must come after it.
        let _ = std::io::stdout().flush();
    }

    /// The table of everything that happened.
    pub(super) fn table(&self) {
        let what = self.rows.iter().map(|row| row.what.len()).max().unwrap_or_default();
        println!(
            "{}",
            self.paint(Tone::Heading, &format!("{:>4}  {:what$}  EVIDENCE", "STEP", "WHAT HAPPENED"))
        );
        for row in &self.rows {
            let room = WIDTH.saturating_sub(what + 8).max(20);
            let mut lines = wrap(&row.evidence, room).into_iter();
            let first = lines.next().unwrap_or_default();
            println!("{:>4}  {:what$}  {}", row.step, row.what, self.paint(Tone::Good, &first));
            for line in lines {
                println!("{:4}  {:what$}  {}", "", "", self.paint(Tone::Good, &line));
            }
        }
    }

    fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Heading => "1",
            Tone::Command => "36",
            Tone::Faint => "2",
            Tone::Good => "32",
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn cannot_start(command: &Command, error: &std::io::Error) -> Error {
    Error::Setup(format!("cannot start {}: {error}", command.get_program().to_string_lossy()))
}

/// Joins the words of a command line, so that no line breaks between an option and its value.
fn with_values<'a>(words: impl Iterator<Item = std::borrow::Cow<'a, str>>) -> String {
    let mut line = String::new();
    let mut after_option = false;
    for word in words {
        let is_option = word.starts_with('-');
        if !line.is_empty() {
            line.push(if after_option && !is_option { NO_BREAK } else { ' ' });
        }
        line.push_str(&word);
        after_option = is_option;
    }
    line
}

/// Breaks a text at blanks; a word that is too long gets a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{NO_BREAK, with_values, wrap};

    #[test]
    fn options_stay_with_their_values() {
        let words = ["otactl", "create", "--key", "k", "-q", "-o", "x", "y"].map(std::borrow::Cow::from);
        let expected = format!("otactl create --key{NO_BREAK}k -q -o{NO_BREAK}x y");
        assert_eq!(with_values(words.into_iter()), expected);
    }

    #[test]
    fn texts_break_at_blanks_only() {
        for (text, width, lines) in [
            ("one two three", 7, vec!["one two", "three"]),
            ("one two three", 80, vec!["one two three"]),
            ("a-very-long-word b", 5, vec!["a-very-long-word", "b"]),
            ("", 5, vec![""]),
        ] {
            assert_eq!(wrap(text, width), lines, "{text:?} in {width}");
        }
    }
}
