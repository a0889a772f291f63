//! The serial console: everything the machine has said, kept, written to a log with times, and waited for.
//!
//! A thread reads; [`Console::wait_for`] looks for the next of some texts behind a cursor that only moves forward, so that
//! a second boot is never taken for the first one. Bytes that are no UTF-8 become replacement characters.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::Error;

/// How much of the end of the console an error shows.
const TAIL_LINES: usize = 25;
/// What the reader takes at once.
const READ_BYTES: usize = 16 * 1024;

/// The end of the cable.
#[derive(Debug)]
pub struct Console {
    shared: Arc<Shared>,
    stream: UnixStream,
    cursor: usize,
    emulator_log: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Heard {
    text: String,
    /// Where each line begins and when its first byte came.
    lines: Vec<(usize, Duration)>,
    ended: bool,
}

/// When a text counts as found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    LineEnds,
    TextIsThere,
}

/// A line that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which of the texts it was.
    pub which: usize,
    /// The line with the text, as far as it had come.
    pub line: String,
    /// When the line began, since the power came on.
    pub at: Duration,
}

impl Console {
    /// Listens on a stream, appending what comes to the log. `emulator_log` is named when the machine ends by itself.
    pub fn listen(stream: UnixStream, log: &Path, emulator_log: &Path) -> Result<Console, Error> {
        let file = File::options().create(true).append(true).open(log).map_err(Error::io("open", log))?;
        let reader = stream.try_clone().map_err(Error::io("share the console of", log))?;
        let shared = Arc::new(Shared::default());
        let heard = shared.clone();
        std::thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || read(reader, file, &heard))
            .map_err(|source| Error::Start { program: "a thread for the console", source })?;
        Ok(Console { shared, stream, cursor: 0, emulator_log: emulator_log.to_owned() })
    }

    /// Waits for the first of these texts behind the last one that was found, and returns its line.
    ///
    /// # Errors
    /// [`Error::Silent`] when it does not come in time, [`Error::Ended`] when it cannot come any more.
    pub fn wait_for(&mut self, texts: &[&str], timeout: Duration) -> Result<Seen, Error> {
        self.wait(texts, timeout, Until::LineEnds)
    }

    /// The same for a text whose line does not end: a prompt.
    pub fn wait_for_prompt(&mut self, text: &str, timeout: Duration) -> Result<Seen, Error> {
        self.wait(&[text], timeout, Until::TextIsThere)
    }

    fn wait(&mut self, texts: &[&str], timeout: Duration, until: Until) -> Result<Seen, Error> {
        let wanted = || texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(" or ");
        let deadline = Instant::now() + timeout;
        let mut heard = self.shared.lock();
        loop {
            if let Some((which, at)) = find(&heard.text, self.cursor, texts) {
                let (line, begin) = heard.line_around(at);
                let has_ended = heard.text.get(at..).is_some_and(|rest| rest.contains('\n'));
                if has_ended || heard.ended || until == Until::TextIsThere {
                    self.cursor = at + texts.get(which).map_or(0, |text| text.len());
                    return Ok(Seen { which, line, at: begin });
                }
            }
            if heard.ended {
                let log = self.emulator_log.clone();
                return Err(Error::Ended { wanted: wanted(), log, tail: tail(&heard.text) });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let seconds = timeout.as_secs();
                return Err(Error::Silent { wanted: wanted(), seconds, tail: tail(&heard.text) });
            }
            heard = self.shared.wait(heard, left);
        }
    }

    /// What came behind the last text that was found, and everything after it.
    pub fn rest(&self) -> String {
        self.shared.lock().text.get(self.cursor..).unwrap_or_default().to_owned()
    }

    /// Everything that was said, with the time of each line.
    pub fn transcript(&self) -> Vec<(Duration, String)> {
        let heard = self.shared.lock();
        let ends = heard.lines.iter().skip(1).map(|(begin, _)| *begin).chain([heard.text.len()]);
        let lines = heard.lines.iter().zip(ends);
        lines
            .map(|((begin, at), end)| {
                (*at, heard.text.get(*begin..end).unwrap_or_default().trim_end().to_owned())
            })
            .collect()
    }

    /// Types text as it is; a line break has to be in it.
    pub fn type_text(&mut self, text: &str) -> Result<(), Error> {
        self.stream
            .write_all(text.as_bytes())
            .map_err(Error::io("type into the console of", &self.emulator_log))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, heard: MutexGuard<'a, Heard>, most: Duration) -> MutexGuard<'a, Heard> {
        let (heard, _) = self.changed.wait_timeout(heard, most).unwrap_or_else(PoisonError::into_inner);
        heard
    }
}

impl Heard {
    /// Takes more text; returns it with the time before each line that begins in it.
    fn take(&mut self, more: &str, at: Duration) -> String {
        let mut logged = String::with_capacity(more.len() + 16);
        for piece in more.split_inclusive('\n') {
            if self.text.is_empty() || self.text.ends_with('\n') {
                self.lines.push((self.text.len(), at));
                logged.push_str(&format!("[{:9.3}] ", at.as_secs_f64()));
            }
            self.text.push_str(piece);
            logged.push_str(piece);
        }
        logged
    }

    fn line_around(&self, at: usize) -> (String, Duration) {
        let index = self.lines.partition_point(|(begin, _)| *begin <= at).saturating_sub(1);
        let (begin, when) = self.lines.get(index).copied().unwrap_or_default();
        let line = self.text.get(begin..).unwrap_or_default();
        let line = line.split('\n').next().unwrap_or_default();
        (line.trim_end().to_owned(), when)
    }
}

fn read(mut stream: UnixStream, mut log: File, shared: &Shared) {
    let power_on = Instant::now();
    let mut buffer = vec![0; READ_BYTES];
    let mut kept = Vec::new();
    loop {
        // An error here is the emulator's end, as an end of file is.
        let count = stream.read(&mut buffer).unwrap_or_default();
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let text = take_text(&mut kept, count == 0);
        let logged = {
            let mut heard = shared.lock();
            heard.ended = count == 0;
            heard.take(&text, power_on.elapsed())
        };
        shared.changed.notify_all();
        // The log is for people; a full disk must not stop the machine.
        let _ = log.write_all(logged.as_bytes());
        if count == 0 {
            return;
        }
    }
}

/// Takes what is text out of the buffer; the beginning of a character that is not there yet stays. Carriage returns go.
fn take_text(kept: &mut Vec<u8>, at_end: bool) -> String {
    const LONGEST_CHARACTER_BYTES: usize = 4;
    let whole = match std::str::from_utf8(kept) {
        Err(error) if error.error_len().is_none() && !at_end => error.valid_up_to(),
        _ => kept.len(),
    };
    debug_assert!(kept.len() - whole < LONGEST_CHARACTER_BYTES);
    let bytes: Vec<u8> = kept.drain(..whole).collect();
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

/// The earliest of the texts at or behind a place.
fn find(text: &str, from: usize, texts: &[&str]) -> Option<(usize, usize)> {
    let rest = text.get(from..)?;
    let places = texts.iter().enumerate().filter_map(|(which, text)| Some((which, from + rest.find(text)?)));
    places.min_by_key(|(_, at)| *at)
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines
        .get(from..)
        .unwrap_or_default()
        .iter()
        .map(|line| format!("  | {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::{Console, Error, take_text};

    const SOON: Duration = Duration::from_secs(5);

    fn console(dir: &std::path::Path) -> (UnixStream, Console) {
        let (machine, here) = UnixStream::pair().unwrap();
        let console = Console::listen(here, &dir.join("console.log"), &dir.join("qemu.log")).unwrap();
        (machine, console)
    }

    #[test]
    fn finds_each_line_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (mut machine, mut console) = console(dir.path());
        machine.write_all(b"U-Boot 2023\r\nnothing\r\nKernel otad.slot=a\r\n").unwrap();
        let first = console.wait_for(&["otad.slot=", "U-Boot 20"], SOON).unwrap();
        assert_eq!((first.which, first.line.as_str()), (1, "U-Boot 2023"));
        let second = console.wait_for(&["otad.slot="], SOON).unwrap();
        assert_eq!(second.line, "Kernel otad.slot=a");
        assert!(matches!(
            console.wait_for(&["otad.slot="], Duration::from_millis(20)),
            Err(Error::Silent { .. })
        ));
        machine.write_all(b"U-Boot 2023\nKernel otad.slot=b\n").unwrap();
        assert_eq!(console.wait_for(&["otad.slot="], SOON).unwrap().line, "Kernel otad.slot=b");
        drop(machine);
        let Err(Error::Ended { tail, .. }) = console.wait_for(&["more"], SOON) else { panic!("no end") };
        assert!(tail.ends_with("  | Kernel otad.slot=b"), "{tail}");
        let lines: Vec<String> = console.transcript().into_iter().map(|(_, line)| line).collect();
        assert_eq!(
            lines,
            ["U-Boot 2023", "nothing", "Kernel otad.slot=a", "U-Boot 2023", "Kernel otad.slot=b"]
        );
        let log = std::fs::read_to_string(dir.path().join("console.log")).unwrap();
        assert_eq!(log.lines().count(), 5);
        assert!(log.lines().all(|line| line.starts_with("[    0.")), "{log}");
    }

    #[test]
    fn a_line_is_only_found_whole_and_a_prompt_without_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (mut machine, mut console) = console(dir.path());
        machine.write_all(b"version=1.").unwrap();
        assert!(console.wait_for(&["version="], Duration::from_millis(20)).is_err());
        machine.write_all(b"0\n=> ").unwrap();
        assert_eq!(console.wait_for(&["version="], SOON).unwrap().line, "version=1.0");
        assert!(console.wait_for(&["=> "], Duration::from_millis(20)).is_err());
        assert_eq!(console.wait_for_prompt("=> ", SOON).unwrap().line, "=>");
    }

    #[test]
    fn characters_that_come_in_pieces_are_put_together() {
        let mut kept = "1 …".as_bytes().get(..3).unwrap().to_vec();
        assert_eq!(take_text(&mut kept, false), "1 ");
        kept.extend_from_slice(&"…".as_bytes()[1..]);
        assert_eq!(take_text(&mut kept, false), "…");
        kept.extend_from_slice(b"\xff\xe2");
        assert_eq!(take_text(&mut kept, true), "\u{fffd}\u{fffd}");
    }
}
