//! Points in time as documents spell them (RFC 3339), in seconds since 1970.
//!
//! Nothing here asks a clock.

use toml::value::{Datetime, Offset};

/// Seconds of a day.
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Seconds since 1970 of a date and time with offset; `None` when a part is missing or it lies before 1970.
pub(crate) fn seconds(instant: &Datetime) -> Option<u64> {
    let (date, time, offset) = (instant.date?, instant.time?, instant.offset?);
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_from_civil(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let of_day =
        i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    u64::try_from(days * DAY_SECONDS + of_day - minutes * 60).ok()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The RFC 3339 form, in UTC, of seconds since 1970.
pub(crate) fn text(seconds: u64) -> String {
    let (days, of_day) = (seconds / DAY_SECONDS.unsigned_abs(), seconds % DAY_SECONDS.unsigned_abs());
    // The same algorithm the other way round; days count from 0000-03-01 here.
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected numbers are those of `date -u -d … +%s`.
    #[test]
    fn dates_are_those_of_everybody_else() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:34:56Z", Some(951_827_696)),
            ("2026-11-22T23:59:59Z", Some(1_795_391_999)),
            ("2026-11-22T23:59:59+02:00", Some(1_795_384_799)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-11-22", None),
            ("2026-11-22T23:59:59", None),
        ] {
            assert_eq!(seconds(&text.parse().unwrap()), expected, "{text}");
            if let Some(expected) = expected.filter(|_| text.ends_with('Z')) {
                assert_eq!(super::text(expected), text);
            }
        }
    }
}
