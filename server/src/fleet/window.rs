//! Maintenance windows: the hours of a week in which a release may be offered.

use serde::{Deserialize, Serialize};

const DAY_MINUTES: i64 = 24 * 60;
const WEEK_MINUTES: i64 = 7 * DAY_MINUTES;
/// 1970-01-01 was a Thursday; a week begins on Monday.
const EPOCH_MINUTES: i64 = 3 * DAY_MINUTES;

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the days of the week")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    const ALL: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];

    const fn number(self) -> i64 {
        self as i64
    }
}

/// A span of hours on some days. One that ends before it begins goes over midnight, and belongs to the day it begins on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The days it begins on; none means all.
    #[serde(default)]
    pub days: Vec<Day>,
    /// When it begins.
    pub from: Time,
    /// When it ends: the first minute that is no longer in it.
    pub to: Time,
}

/// A time of day, `HH:MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(i64);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Time, String> {
        let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        let number = |part: &str| digits(part).then(|| part.parse::<i64>().ok()).flatten();
        let parts = text.split_once(':').map(|(hour, minute)| (number(hour), number(minute)));
        match parts {
            Some((Some(hour @ 0..=23), Some(minute @ 0..=59))) => Ok(Time(hour * 60 + minute)),
            _ => Err("a time of day is HH:MM, from 00:00 to 23:59".into()),
        }
    }
}

impl From<Time> for String {
    fn from(Time(minutes): Time) -> String {
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// Whether `now` (Unix seconds) is in one of the windows, by clocks that are `offset_minutes` ahead of UTC. No window at all is always.
pub fn is_open(windows: &[Window], offset_minutes: i16, now: i64) -> bool {
    let minute = (now.div_euclid(60) + i64::from(offset_minutes) + EPOCH_MINUTES).rem_euclid(WEEK_MINUTES);
    windows.is_empty() || windows.iter().any(|window| window.holds(minute))
}

impl Window {
    fn holds(&self, minute_of_week: i64) -> bool {
        let length = match self.to.0 - self.from.0 {
            0 => DAY_MINUTES,
            length => length.rem_euclid(DAY_MINUTES),
        };
        let days = if self.days.is_empty() { &Day::ALL } else { self.days.as_slice() };
        days.iter().any(|day| {
            let begin = day.number() * DAY_MINUTES + self.from.0;
            (minute_of_week - begin).rem_euclid(WEEK_MINUTES) < length
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[Day], from: &str, to: &str) -> Window {
        let time = |text: &str| Time::try_from(text.to_owned()).unwrap();
        Window { days: days.to_vec(), from: time(from), to: time(to) }
    }

    #[test]
    fn table() {
        // `date -u -d 'Mon 2026-11-23 02:00' +%s`
        let monday_2am = 1_795_399_200;
        let hour = 3600;
        let night = window(&[], "22:00", "04:00");
        let sunday = window(&[Day::Sun], "22:00", "04:00");
        let saturday = window(&[Day::Sat], "22:00", "04:00");
        for (windows, offset, now, expected) in [
            (vec![], 0, monday_2am, true),
            (vec![night.clone()], 0, monday_2am, true),
            (vec![night.clone()], 0, monday_2am + 2 * hour - 1, true),
            (vec![night.clone()], 0, monday_2am + 2 * hour, false),
            (vec![night.clone()], 0, monday_2am + 20 * hour - 1, false),
            (vec![night.clone()], 0, monday_2am + 20 * hour, true),
            (vec![night], 120, monday_2am, false),
            (vec![sunday.clone()], 0, monday_2am, true),
            (vec![sunday], 0, monday_2am + 24 * hour, false),
            (vec![saturday.clone()], 0, monday_2am, false),
            (vec![saturday, window(&[Day::Mon], "02:00", "02:01")], 0, monday_2am, true),
            (vec![window(&[Day::Mon], "00:00", "00:00")], 0, monday_2am, true),
            (vec![window(&[Day::Tue], "00:00", "00:00")], 0, monday_2am, false),
        ] {
            assert_eq!(is_open(&windows, offset, now), expected, "{windows:?} {offset} {now}");
        }
    }

    #[test]
    fn times_are_strict() {
        for bad in ["", "1:00", "24:00", "12:60", "12", "12:3", "+1:00", "12:00:00"] {
            assert!(Time::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
