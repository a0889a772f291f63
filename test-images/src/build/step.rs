//! Running the programs of a step, and telling how long steps take.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::error::Error;

/// Enough of a compiler's or package manager's last words to see the reason.
const TAIL_LINES: usize = 20;

/// Says what a step does, does it, and says how long it took.
pub(crate) fn timed<T>(what: &str, act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    println!("{what} …");
    let begin = Instant::now();
    let made = act()?;
    println!("{what}: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(made)
}

/// Makes a command without input and with messages in English, whatever the person's language.
pub(crate) fn command<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    command
}

/// Runs a command to its end and returns what it wrote to standard output.
pub(crate) fn run(step: &str, command: &mut Command, advice: &'static str) -> Result<String, Error> {
    let output = command.output().map_err(|source| Error::Start {
        step: step.to_owned(),
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let all = said + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = all.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n");
    Err(Error::Program {
        step: step.to_owned(),
        command: shown(command),
        status: output.status.to_string(),
        tail,
        advice,
    })
}

/// Copies a directory as it is: owners, modes, links and devices.
pub(crate) fn copy_tree(step: &str, from: &Path, to: &Path, links: Links) -> Result<(), Error> {
    let how = match links {
        Links::Copy => "-a",
        Links::Hard => "-al",
    };
    let mut contents = from.as_os_str().to_owned();
    contents.push("/.");
    std::fs::create_dir_all(to).map_err(Error::io("create", to))?;
    let mut copy = command("cp", [OsStr::new(how), &contents, to.as_os_str()]);
    run(step, &mut copy, "is the disk full?").map(drop)
}

/// What becomes of the files of a copied tree.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Links {
    /// Files of their own, which may be changed.
    Copy,
    /// The same files under a second name, which may only be replaced.
    Hard,
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_step_the_command_the_end_and_the_advice() {
        let script = "for n in $(seq 50); do echo line $n; done; echo why >&2; exit 3";
        let error = run("the test", &mut command("sh", ["-c", script]), "do better").unwrap_err().to_string();
        assert!(error.starts_with("the test: `sh -c for n"), "{error}");
        assert!(error.contains("exit status: 3") && error.ends_with("line 50\nwhy\ndo better"), "{error}");
        assert!(!error.contains("line 31\n"), "{error}");
    }
}
