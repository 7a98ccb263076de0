//! Time as the ledger sees it: durations from the boot clock, wall time with its trustworthiness.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Milliseconds of CLOCK_BOOTTIME: never jumps, counts suspended time, starts at kernel boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Uptime(pub u64);

impl Uptime {
    /// How long ago `earlier` was; zero where it is not in the past.
    pub fn since(self, earlier: Uptime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Uptime {
    type Output = Uptime;

    fn add(self, span: Duration) -> Uptime {
        Uptime(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds of UTC since 1970-01-01, as an RFC 3339 string on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Wall(pub i64);

impl Wall {
    /// The start of the UTC slot of `length` in which this moment lies.
    pub fn slot_start(self, length: Duration) -> Wall {
        let length = length.as_millis() as i64;
        Wall(self.0.div_euclid(length) * length)
    }

    /// Reads RFC 3339, and nothing that jiff understands beyond it.
    pub fn parse(text: &str) -> Option<Wall> {
        let shape: String =
            text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        let rest = shape.strip_prefix("0000-00-00T00:00:00")?;
        let zone = rest.strip_prefix('.').map_or(rest, |rest| rest.trim_start_matches('0'));
        let timestamp: Timestamp =
            matches!(zone, "Z" | "+00:00" | "-00:00").then(|| text.parse().ok()).flatten()?;
        Some(Wall(timestamp.as_millisecond()))
    }

    /// As jiff's timestamp; what lies outside its years is clamped.
    pub fn timestamp(self) -> Timestamp {
        let bound = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_millisecond(self.0).unwrap_or(bound)
    }
}

impl Add<Duration> for Wall {
    type Output = Wall;

    fn add(self, span: Duration) -> Wall {
        Wall(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Wall> for Wall {
    type Output = Duration;

    fn sub(self, earlier: Wall) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.timestamp())
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Wall {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wall {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Wall::parse(&text).ok_or_else(|| {
            serde::de::Error::custom("a time is RFC 3339, such as 2026-11-22T10:00:00Z")
        })
    }
}

/// One moment, with everything that is known about it. Goes into every record as `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stamp {
    /// Counts kernel boots of this gateway.
    pub boot: u32,
    /// CLOCK_BOOTTIME within that boot.
    #[serde(rename = "uptime_ms")]
    pub uptime: Uptime,
    /// The wall clock, right or wrong.
    pub wall: Wall,
    /// Whether the wall clock is trustworthy: synchronised at least once in this boot.
    pub synced: bool,
}

impl Stamp {
    /// Whether a message that claims to be issued at `issued_at` contradicts this clock. While the
    /// clock is not trustworthy nothing does.
    pub fn contradicts(&self, issued_at: Wall) -> bool {
        self.synced && issued_at > self.wall + MOST_AHEAD
    }
}

/// A message issued further ahead of a trustworthy clock than this is a mistake or an attack: once
/// believed, every honest later one would count as outdated.
const MOST_AHEAD: Duration = Duration::from_secs(24 * 3_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_read_what_they_write() {
        let stamp = Stamp {
            boot: 31,
            uptime: Uptime(86_400_123),
            wall: Wall(1_795_341_662_345),
            synced: true,
        };

        let text = serde_json::to_string(&stamp).expect("a stamp is plain JSON");

        assert_eq!(
            text,
            r#"{"boot":31,"uptime_ms":86400123,"wall":"2026-11-22T10:01:02.345Z","synced":true}"#
        );
        assert_eq!(serde_json::from_str::<Stamp>(&text).expect("it was just written"), stamp);
    }

    #[test]
    fn only_a_trustworthy_clock_contradicts_a_message_from_the_future() {
        let now = Stamp { boot: 1, uptime: Uptime(0), wall: Wall(0), synced: true };
        let day = Duration::from_secs(24 * 3_600);
        assert!(!now.contradicts(Wall(0) + day));
        assert!(now.contradicts(Wall(1) + day));
        assert!(!Stamp { synced: false, ..now }.contradicts(Wall(i64::MAX)));
    }

    #[test]
    fn slots_start_at_quarter_hours_of_utc() {
        let quarter = Duration::from_secs(15 * 60);
        assert_eq!(
            Wall(1_795_341_662_345).slot_start(quarter).to_string(),
            "2026-11-22T10:00:00.000Z"
        );
        assert_eq!(Wall(-1).slot_start(quarter).to_string(), "1969-12-31T23:45:00.000Z");
    }
}
