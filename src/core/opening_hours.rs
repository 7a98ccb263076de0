//! When a station may be started, in the building's local time.
//!
//! A window is open at an instant when the local clock reads a time inside it. So nothing special
//! happens when clocks change: an hour that is skipped is never open, an hour that is repeated is
//! open twice, and the time left until closing is real elapsed time.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Weekly windows such as `Mon-Sat 07:00-22:00`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpeningHours {
    windows: Vec<Window>,
}

/// Minutes of one weekday; what reaches past midnight ends above [`DAY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    /// Monday is 0.
    weekday: u16,
    opens: u16,
    closes: u16,
}

/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// Minutes of a week.
const WEEK: u16 = 7 * DAY;

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

const FORM: &str = "opening hours look like `Mon-Sat 07:00-22:00` or `Mon,Wed 08:00-12:00`";

impl OpeningHours {
    /// Windows as the config writes them: days, a space, times; a window may pass midnight.
    pub fn parse<S: AsRef<str>>(lines: &[S]) -> Result<OpeningHours, String> {
        let mut windows = Vec::new();
        for line in lines {
            parse_line(line.as_ref(), &mut windows)?;
        }
        if windows.is_empty() {
            return Err(FORM.into());
        }
        Ok(OpeningHours { windows })
    }

    /// Whether a session may start at `at`: the station is open and stays so for `last_start`.
    pub fn allow_start(&self, at: Timestamp, zone: &TimeZone, last_start: Duration) -> bool {
        let Ok(last_start) = SignedDuration::try_from(last_start) else { return false };
        let mut open_until = at;
        loop {
            let Some(left) = self.left_on_the_clock(zone.to_datetime(open_until)) else {
                return false;
            };
            let Ok(closing) = open_until.checked_add(left) else { return false };
            // The clock's reading holds until the next change of the offset, no further.
            let change = zone.following(open_until).next().map(|change| change.timestamp());
            open_until = change.map_or(closing, |change| change.min(closing));
            if open_until.duration_since(at) >= last_start {
                return true;
            }
        }
    }

    /// What a local clock that shows `local` counts until closing; `None` when closed. More than
    /// zero, else.
    fn left_on_the_clock(&self, local: DateTime) -> Option<SignedDuration> {
        let into_day = local.duration_since(local.date().at(0, 0, 0, 0));
        let weekday = local.date().weekday().to_monday_zero_offset().unsigned_abs();
        let now = SignedDuration::from_mins(i64::from(u16::from(weekday) * DAY)) + into_day;
        self.windows.iter().filter_map(|window| window.left_at(now)).max()
    }
}

impl Window {
    /// What is left of the window at this time of the week.
    fn left_at(self, now: SignedDuration) -> Option<SignedDuration> {
        let minutes = |minutes: u16| SignedDuration::from_mins(i64::from(minutes));
        let opens = minutes(self.weekday * DAY + self.opens);
        let closes = minutes(self.weekday * DAY + self.closes);
        // A window of Sunday night reaches into the next week.
        [now, now + minutes(WEEK)]
            .into_iter()
            .find(|now| (opens..closes).contains(now))
            .map(|now| closes - now)
    }
}

fn parse_line(line: &str, windows: &mut Vec<Window>) -> Result<(), String> {
    let (days, times) = line.trim().split_once(char::is_whitespace).ok_or(FORM)?;
    let weekdays = parse_days(days)?;
    for span in times.split(',') {
        let (opens, closes) = parse_times(span.trim())?;
        windows.extend(weekdays.iter().map(|&weekday| Window { weekday, opens, closes }));
    }
    Ok(())
}

/// `Mon`, `Mon-Sat`, `Sat-Mon`, `Mon,Wed` or a mixture.
fn parse_days(text: &str) -> Result<Vec<u16>, String> {
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (parse_day(first)?, parse_day(last)?);
        let length = (last + 7 - first) % 7;
        days.extend((0..=length).map(|offset| (first + offset) % 7));
    }
    days.sort_unstable();
    days.dedup();
    Ok(days)
}

fn parse_day(text: &str) -> Result<u16, String> {
    let position = WEEKDAYS.iter().position(|day| text.eq_ignore_ascii_case(day));
    position
        .and_then(|day| u16::try_from(day).ok())
        .ok_or_else(|| format!("`{text}` is no weekday; write Mon, Tue, Wed, Thu, Fri, Sat or Sun"))
}

/// `07:00-22:00`; `22:00-06:00` ends on the next day.
fn parse_times(text: &str) -> Result<(u16, u16), String> {
    let (opens, closes) = text.split_once('-').ok_or(FORM)?;
    let (opens, closes) = (parse_time(opens)?, parse_time(closes)?);
    if opens == DAY {
        return Err("a window opens at 00:00 at the earliest and 23:59 at the latest".into());
    }
    match closes {
        same if same == opens => Err(format!("`{text}` is empty; the whole day is 00:00-24:00")),
        later if later > opens => Ok((opens, later)),
        earlier => Ok((opens, earlier + DAY)),
    }
}

fn parse_time(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{text}` is no time of day; write 07:00, 24:00 is the end of a day");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let number = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (Some(hours), Some(minutes)) = (number(hours), number(minutes)) else {
        return Err(wrong());
    };
    let time = hours * 60 + minutes;
    if minutes < 60 && time <= DAY { Ok(time) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn hours(lines: &[&str]) -> OpeningHours {
        OpeningHours::parse(lines).expect("valid opening hours")
    }

    fn zurich() -> TimeZone {
        TimeZone::get("Europe/Zurich").expect("tzdata is installed")
    }

    /// Whether `hours` allow a start at an RFC 3339 time in Zurich.
    fn allows(hours: &OpeningHours, at: &str, last_start: Duration) -> bool {
        hours.allow_start(at.parse().expect("a timestamp"), &zurich(), last_start)
    }

    #[test]
    fn opens_and_closes_on_the_minute() {
        let laundry = hours(&["Mon-Sat 07:00-22:00", "Sun 09:00-18:00"]);
        for (at, open) in [
            ("2026-11-21T06:59:59.999+01:00", false), // a Saturday
            ("2026-11-21T07:00:00+01:00", true),
            ("2026-11-21T21:59:59.999+01:00", true),
            ("2026-11-21T22:00:00+01:00", false),
            ("2026-11-22T08:59:59+01:00", false), // a Sunday
            ("2026-11-22T09:00:00+01:00", true),
            ("2026-11-22T18:00:00+01:00", false),
        ] {
            assert_eq!(allows(&laundry, at, Duration::ZERO), open, "{at}");
        }
    }

    #[test]
    fn refuses_what_starts_too_late() {
        let laundry = hours(&["Mon-Sun 07:00-22:00"]);
        assert!(allows(&laundry, "2026-11-21T21:00:00+01:00", HOUR));
        assert!(!allows(&laundry, "2026-11-21T21:00:00.001+01:00", HOUR));
    }

    #[test]
    fn passes_midnight_and_the_end_of_the_week() {
        let night = hours(&["Fri,Sun 22:00-06:00"]);
        assert!(allows(&night, "2026-11-20T23:00:00+01:00", 7 * HOUR));
        assert!(!allows(&night, "2026-11-20T23:00:00+01:00", 7 * HOUR + MINUTE));
        assert!(allows(&night, "2026-11-21T05:59:00+01:00", MINUTE));
        assert!(!allows(&night, "2026-11-21T22:30:00+01:00", Duration::ZERO));
        assert!(allows(&night, "2026-11-23T05:00:00+01:00", HOUR), "Sunday night into Monday");
        assert!(!allows(&night, "2026-11-23T06:00:00+01:00", Duration::ZERO));
    }

    #[test]
    fn adjoining_windows_are_one() {
        let always = hours(&["Mon-Sun 00:00-24:00"]);
        assert!(allows(&always, "2026-11-22T23:59:00+01:00", 200 * HOUR));
        let split = hours(&["Sat 12:00-24:00", "Sun 00:00-02:00,02:00-03:00"]);
        assert!(allows(&split, "2026-11-21T23:00:00+01:00", 4 * HOUR));
        assert!(!allows(&split, "2026-11-21T23:00:00+01:00", 4 * HOUR + MINUTE));
        let overlapping = hours(&["Sat 07:00-12:00", "Sat 10:00-18:00"]);
        assert!(allows(&overlapping, "2026-11-21T08:00:00+01:00", 10 * HOUR));
    }

    #[test]
    fn a_skipped_hour_shortens_the_night() {
        // On 2026-03-29 clocks in Zurich go from 02:00 to 03:00.
        let night = hours(&["Sat 22:00-04:00"]);
        assert!(allows(&night, "2026-03-29T01:00:00+01:00", 2 * HOUR));
        assert!(!allows(&night, "2026-03-29T01:00:00+01:00", 2 * HOUR + MINUTE));
        let inside_the_gap = hours(&["Sun 02:10-02:50"]);
        for at in ["2026-03-29T01:59:59+01:00", "2026-03-29T03:00:00+02:00"] {
            assert!(!allows(&inside_the_gap, at, Duration::ZERO), "{at}");
        }
        let into_the_gap = hours(&["Sun 01:00-02:30"]);
        assert!(allows(&into_the_gap, "2026-03-29T01:30:00+01:00", HOUR / 2));
        assert!(!allows(&into_the_gap, "2026-03-29T01:30:00+01:00", HOUR / 2 + MINUTE));
    }

    #[test]
    fn a_repeated_hour_lengthens_the_night() {
        // On 2026-10-25 clocks in Zurich go from 03:00 back to 02:00.
        let night = hours(&["Sat 22:00-04:00"]);
        assert!(allows(&night, "2026-10-25T01:00:00+02:00", 4 * HOUR));
        assert!(!allows(&night, "2026-10-25T01:00:00+02:00", 4 * HOUR + MINUTE));
        let inside_the_fold = hours(&["Sun 02:10-02:50"]);
        for (at, open) in [
            ("2026-10-25T02:20:00+02:00", true),
            ("2026-10-25T02:55:00+02:00", false),
            ("2026-10-25T02:20:00+01:00", true),
            ("2026-10-25T02:50:00+01:00", false),
        ] {
            assert_eq!(allows(&inside_the_fold, at, Duration::ZERO), open, "{at}");
        }
        assert!(!allows(&inside_the_fold, "2026-10-25T02:20:00+02:00", HOUR));
        let ends_in_the_fold = hours(&["Sun 01:00-03:00"]);
        assert!(allows(&ends_in_the_fold, "2026-10-25T02:30:00+02:00", HOUR + HOUR / 2));
        assert!(!allows(&ends_in_the_fold, "2026-10-25T02:30:00+02:00", 2 * HOUR));
    }

    #[test]
    fn reads_every_way_to_write_days() {
        let sat_to_mon = hours(&["sat-MON 08:00-09:00"]);
        assert_eq!(sat_to_mon, hours(&["Mon,Sat-Sun 08:00-09:00"]));
        assert_eq!(hours(&["Fri 22:00-00:00"]), hours(&["Fri 22:00-24:00"]));
    }

    #[test]
    fn refuses_what_is_no_opening_hours() {
        for wrong in [
            "",
            "Mon-Sat",
            "07:00-22:00",
            "Mon 7:00-22:00",
            "Mon 07:00",
            "Mon 07:00-07:00",
            "Mon 24:00-06:00",
            "Mon 07:60-22:00",
            "Mon 07:00-24:01",
            "Mon 07:00-22:00,",
            "Mon- 07:00-22:00",
            "Monday 07:00-22:00",
            "Mon 07:00–22:00",
            "Mon +7:00-22:00",
        ] {
            assert!(OpeningHours::parse(&[wrong]).is_err(), "{wrong}");
        }
        assert!(OpeningHours::parse::<&str>(&[]).is_err());
    }
}
