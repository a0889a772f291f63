//! How `otactl` shows things to people: tables, sizes, durations, times, colours.
//!
//! Owns: pure functions from values to text. They print nothing, ask no terminal and read no environment except where a
//! name says so ([`Style::of_stdout`]). Text that came from outside (a message, a description, a version) goes through
//! [`printable`] first, so that nothing on the device can steer the terminal of the person who looks at it.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::time::Duration;

/// Columns of a table stand this far apart.
const COLUMN_GAP: &str = "  ";

/// Whether text may carry colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// No escape sequences: a pipe, a file, or `NO_COLOR`.
    Plain,
    /// Escape sequences for colours.
    Colour,
}

/// What a colour says; which one it is stays in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// On its way, or worth a look.
    Attention,
    /// Not as it should be.
    Bad,
    /// A heading.
    Heading,
    /// Less important than its surroundings.
    Faint,
}

impl Tone {
    /// The parameter of the "select graphic rendition" sequence (ECMA-48, 8.3.117).
    const fn rendition(self) -> &'static str {
        match self {
            Tone::Good => "32",
            Tone::Attention => "33",
            Tone::Bad => "31",
            Tone::Heading => "1",
            Tone::Faint => "2",
        }
    }
}

impl Style {
    /// Decides for a stream: colours only on a terminal, and only if `NO_COLOR` is unset or empty (no-color.org).
    pub fn decide(is_terminal: bool, no_color: Option<&OsStr>) -> Style {
        match no_color {
            Some(value) if !value.is_empty() => Style::Plain,
            _ if is_terminal => Style::Colour,
            _ => Style::Plain,
        }
    }

    /// The style of standard output.
    pub fn of_stdout() -> Style {
        Style::decide(std::io::stdout().is_terminal(), std::env::var_os("NO_COLOR").as_deref())
    }

    /// The style of standard error.
    pub fn of_stderr() -> Style {
        Style::decide(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref())
    }

    /// Wraps `text` in a colour where colours are allowed.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        match self {
            Style::Plain => text.to_owned(),
            Style::Colour if text.is_empty() => String::new(),
            Style::Colour => format!("\x1b[{}m{text}\x1b[0m", tone.rendition()),
        }
    }
}

/// Aligns rows into columns, left-justified, one line per row, no blanks at line ends.
///
/// Rows may have different lengths. The width of a cell is its number of characters without colour sequences.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(visible_width(cell));
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(visible_width(cell))));
            line.push_str(COLUMN_GAP);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Counts the characters that take a place on the terminal.
///
/// Colour sequences (`ESC [ … m`) take none. Every other character counts as one column: names, versions and codes are
/// ASCII, and free text stands in the last column, where its width does not matter.
fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut in_sequence = false;
    for character in text.chars() {
        match character {
            '\x1b' => in_sequence = true,
            'm' if in_sequence => in_sequence = false,
            _ if in_sequence => {}
            _ => width += 1,
        }
    }
    width
}

/// Replaces control characters, so that text from elsewhere stays text on a terminal and one line in a log.
pub fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// Writes a number of bytes with a binary unit and three significant digits, for example `1.50 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Hundredths of the unit in u128: exact, and no float that rounds 1023.999 up to "1024 KiB".
    let mut scale: u128 = 1024;
    let bytes = u128::from(bytes);
    for (position, unit) in UNITS.iter().enumerate() {
        let is_last = position + 1 == UNITS.len();
        if bytes < scale * 1024 || is_last {
            let hundredths = bytes * 100 / scale;
            let (whole, rest) = (hundredths / 100, hundredths % 100);
            return match whole {
                0..10 => format!("{whole}.{rest:02} {unit}"),
                10..100 => format!("{whole}.{} {unit}", rest / 10),
                _ => format!("{whole} {unit}"),
            };
        }
        scale *= 1024;
    }
    format!("{bytes} B")
}

/// Writes a duration as people say it: `8 s`, `2 min 05 s`, `3 h 07 min`, `2 d 04 h`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {:02} s", seconds % 60),
        (0, _, _) => format!("{hours} h {:02} min", minutes % 60),
        (_, _, _) => format!("{days} d {:02} h", hours % 24),
    }
}

/// Writes seconds since 1970 as `2026-11-22 16:45:42Z`; `-` for 0, which stands for "the clock was not set".
///
/// The calendar is the proleptic Gregorian one, computed with Euclid's affine functions for eras of 400 years that
/// begin on the first of March, so that a leap day is the last day of its year.
pub fn utc_time(seconds_since_1970: u64) -> String {
    if seconds_since_1970 == 0 {
        return "-".to_owned();
    }
    let (days, in_day) = (seconds_since_1970 / 86400, seconds_since_1970 % 86400);
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) =
        if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
    let year = era * 400 + year_of_era + next_year;
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Shortens a digest to what people compare by eye; `-` when there is none.
pub fn short_digest(digest: &str) -> String {
    /// 48 bits: no two releases of one product share them by accident.
    const SHOWN_DIGITS: usize = 12;
    if digest.is_empty() { "-".to_owned() } else { digest.chars().take(SHOWN_DIGITS).collect() }
}

/// The text itself, or `-` where there is none, so that no cell of a table is empty.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units_and_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024 + 512, "10.5 KiB"),
            (1024 * 1024 - 1, "1023 KiB"),
            (1024 * 1024, "1.00 MiB"),
            (512 * 1024 * 1024, "512 MiB"),
            (5 << 30, "5.00 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn durations_grow_into_larger_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 00 s"),
            (125, "2 min 05 s"),
            (3600, "1 h 00 min"),
            (11_220, "3 h 07 min"),
            (187_200, "2 d 04 h"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    /// The expected values are what `date -u -d @SECONDS` prints.
    #[test]
    fn times_agree_with_date() {
        for (seconds, text) in [
            (0, "-"),
            (1, "1970-01-01 00:00:01Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_709_164_800, "2024-02-29 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
            (1_795_365_942, "2026-11-22 16:45:42Z"),
            (4_107_542_399, "2100-02-28 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc_time(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn tables_align_with_and_without_colours() {
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
        let plain =
            table(&[row(&["SLOT", "STATE", "VERSION"]), row(&["a", "confirmed", "2.0.0"]), row(&["bb"])]);
        assert_eq!(plain, "SLOT  STATE      VERSION\na     confirmed  2.0.0\nbb\n");
        let green = Style::Colour.paint(Tone::Good, "ok");
        let coloured = table(&[row(&["x", &green, "y"]), row(&["x", "long", "y"])]);
        assert_eq!(coloured, "x  \x1b[32mok\x1b[0m    y\nx  long  y\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn colours_need_a_terminal_and_no_objection() {
        assert_eq!(Style::decide(true, None), Style::Colour);
        assert_eq!(Style::decide(true, Some(OsStr::new(""))), Style::Colour);
        assert_eq!(Style::decide(true, Some(OsStr::new("1"))), Style::Plain);
        assert_eq!(Style::decide(false, None), Style::Plain);
        assert_eq!(Style::Plain.paint(Tone::Bad, "x"), "x");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc\u{9b}1m"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}1m");
        assert_eq!(or_dash(""), "-");
    }

    #[test]
    fn digests_are_cut_to_twelve_digits() {
        assert_eq!(short_digest(&"0123456789abcdef".repeat(4)), "0123456789ab");
        assert_eq!(short_digest(""), "-");
    }
}
