//! When guests may be rebooted: `Sat 02:00-04:00`, every day `02:00-04:00`, in the time of the machine.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Time, Weekday};
use jiff::{Timestamp, ToSpan as _, ZonedDateTime, tz::TimeZone};

/// A span of time that comes again each week, or each day. It is open from its first minute to the one before its last; one
/// that ends before it begins goes on into the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The day on which it begins; none for each.
    day: Option<Weekday>,
    from: Time,
    to: Time,
}

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// A text that is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write it as `Sat 02:00-04:00`, or `02:00-04:00` for each day")]
pub struct InvalidWindow;

impl FromStr for Window {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let (day, span) = match text.trim().split_once(' ') {
            Some((word, span)) => {
                let day = DAYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).ok_or(InvalidWindow)?;
                (Some(day.1), span.trim())
            }
            None => (None, text.trim()),
        };
        let (from, to) = span.split_once('-').ok_or(InvalidWindow)?;
        let (from, to) = (time(from)?, time(to)?);
        // A whole day ends where it begins as well.
        if from == to && span != "00:00-24:00" { Err(InvalidWindow) } else { Ok(Self { day, from, to }) }
    }
}

/// `02:00`; `24:00` is the end of the day.
fn time(text: &str) -> Result<Time, InvalidWindow> {
    let (hour, minute) = text.split_once(':').ok_or(InvalidWindow)?;
    let number = |text: &str| {
        let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_plain { text.parse::<i8>().map_err(|_| InvalidWindow) } else { Err(InvalidWindow) }
    };
    match (number(hour)?, number(minute)?) {
        (24, 0) => Ok(Time::midnight()),
        (hour, minute) => Time::new(hour, minute, 0, 0).map_err(|_| InvalidWindow),
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = DAYS.iter().find(|(_, day)| Some(*day) == self.day) {
            write!(f, "{name} ")?;
        }
        let to = if self.to == Time::midnight() { "24:00".into() } else { self.to.strftime("%H:%M").to_string() };
        write!(f, "{}-{to}", self.from.strftime("%H:%M"))
    }
}

impl Window {
    /// Whether it is open at this time.
    pub fn is_open(&self, at: &ZonedDateTime) -> bool {
        let (time, today) = (at.time(), at.weekday());
        let began_on = |day: Weekday| self.day.is_none_or(|its| its == day);
        if self.from < self.to {
            return began_on(today) && (self.from..self.to).contains(&time);
        }
        (began_on(today) && time >= self.from) || (began_on(today.previous()) && time < self.to)
    }

    /// When it opens next after this time; none beyond the year 9999.
    pub fn next_open(&self, at: &ZonedDateTime) -> Option<ZonedDateTime> {
        // In a week it is the same day again.
        (0..=7).find_map(|days| {
            let date = at.date().checked_add(days.days()).ok()?;
            let its = self.day.is_none_or(|day| day == date.weekday()).then_some(date)?;
            let opens = its.to_datetime(self.from).to_zoned_datetime(at.time_zone().clone()).ok()?;
            (opens > *at).then_some(opens)
        })
    }
}

/// The time of day on this machine, where `unix` is that in seconds since 1970 (UTC); none beyond the year 9999.
pub fn local(unix: u64) -> Option<ZonedDateTime> {
    let at = i64::try_from(unix).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.map(|at| at.to_zoned_datetime(TimeZone::system()))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn windows_open_and_close() {
        for (window, at, open) in [
            ("Sat 02:00-04:00", "2026-11-28T01:59:59", false),
            ("Sat 02:00-04:00", "2026-11-28T02:00:00", true),
            ("Sat 02:00-04:00", "2026-11-28T03:59:59", true),
            ("Sat 02:00-04:00", "2026-11-28T04:00:00", false),
            ("Sat 02:00-04:00", "2026-11-27T03:00:00", false),
            ("02:00-04:00", "2026-11-27T03:00:00", true),
            ("sun 22:00-02:00", "2026-11-29T23:00:00", true),
            ("Sun 22:00-02:00", "2026-11-30T01:59:00", true),
            ("Sun 22:00-02:00", "2026-11-29T01:00:00", false),
            ("Sun 22:00-24:00", "2026-11-29T23:59:59", true),
            ("Sun 22:00-24:00", "2026-11-30T00:00:00", false),
            ("Sun 00:00-24:00", "2026-11-29T00:00:00", true),
            ("Sun 00:00-24:00", "2026-11-29T23:59:59", true),
            ("Sun 00:00-24:00", "2026-11-30T00:00:00", false),
            ("Sun 00:00-24:00", "2026-11-28T23:59:59", false),
        ] {
            let parsed: Window = window.parse().expect(window);
            let at: ZonedDateTime = format!("{at}[UTC]").parse().expect("a time");
            assert_eq!(parsed.is_open(&at), open, "{window} at {at}");
        }
    }

    #[test]
    fn it_is_known_when_they_open_next() {
        for (window, at, opens) in [
            ("02:00-04:00", "2026-11-27T01:00:00[UTC]", "2026-11-27T02:00:00[UTC]"),
            ("02:00-04:00", "2026-11-27T02:00:00[UTC]", "2026-11-28T02:00:00[UTC]"),
            ("Sat 02:00-04:00", "2026-11-27T03:00:00[UTC]", "2026-11-28T02:00:00[UTC]"),
            ("Sat 02:00-04:00", "2026-11-28T01:59:59[UTC]", "2026-11-28T02:00:00[UTC]"),
            ("Sat 02:00-04:00", "2026-11-28T03:00:00[UTC]", "2026-12-05T02:00:00[UTC]"),
            ("Thu 22:00-02:00", "2026-12-31T23:00:00[UTC]", "2027-01-07T22:00:00[UTC]"),
            ("Sun 00:00-24:00", "2026-11-28T12:00:00[UTC]", "2026-11-29T00:00:00[UTC]"),
        ] {
            let parsed: Window = window.parse().expect(window);
            let [at, opens]: [ZonedDateTime; 2] = [at, opens].map(|time| time.parse().expect("a time"));
            assert_eq!(parsed.next_open(&at), Some(opens), "{window} after {at}");
        }
        // Where the clock is put forward from 2 to 3, and where it is put back from 3 to 2: the first time counts.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a time zone");
        let window: Window = "Sun 02:30-04:00".parse().expect("a window");
        for (day, opens) in [((2026, 3, 28), "2026-03-29T01:30:00Z"), ((2026, 10, 24), "2026-10-25T00:30:00Z")] {
            let at = date(day.0, day.1, day.2).at(12, 0, 0, 0).to_zoned_datetime(zone.clone()).expect("a time");
            assert_eq!(window.next_open(&at).expect("it opens").timestamp().to_string(), opens);
        }
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "Sat",
            "Sat 2:00-4:00",
            "Caturday 02:00-04:00",
            "02:00",
            "02:00-02:00",
            "00:00-00:00",
            "02:00-25:00",
            "+2:00-04:00",
        ] {
            assert_eq!(text.parse::<Window>(), Err(InvalidWindow), "{text}");
        }
        for (text, shown) in [("sat 02:00-04:00", "Sat 02:00-04:00"), ("00:00-24:00", "00:00-24:00")] {
            assert_eq!(text.parse::<Window>().expect("a window").to_string(), shown);
        }
    }
}
