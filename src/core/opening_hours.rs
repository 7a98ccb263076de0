//! When a station may be started, in the building's local time.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Weekly windows such as `Mon-Sat 07:00-22:00`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpeningHours {
    windows: Vec<Window>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {}

impl OpeningHours {
    /// Whether a session may start at `at`: the station is open and stays so for `last_start`.
    pub fn allow_start(&self, _at: Timestamp, _zone: &TimeZone, _last_start: Duration) -> bool {
        !self.windows.is_empty()
    }
}

impl FromStr for OpeningHours {
    type Err = String;

    fn from_str(_text: &str) -> Result<Self, Self::Err> {
        Err("to come".into())
    }
}
