//! Energy that flowed without a session, over the last 24 hours, for the alarm.

use crate::core::time::Uptime;

const HOURS: usize = 24;
const HOUR_MS: u64 = 3_600_000;

/// The last 24 hours, hour by hour of the boot clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Loose {
    energy_wh: [i64; HOURS],
    hour: u64,
    noticed: bool,
}

impl Loose {
    /// Takes energy in. The sum, where it went above `alarm_wh` just now.
    pub(super) fn add(&mut self, energy_wh: i64, alarm_wh: i64, now: Uptime) -> Option<i64> {
        let hour = now.0 / HOUR_MS;
        for passed in (self.hour + 1..=hour).take(HOURS) {
            self.energy_wh[passed as usize % HOURS] = 0;
        }
        self.hour = self.hour.max(hour);
        self.energy_wh[self.hour as usize % HOURS] += energy_wh.max(0);
        let sum = self.energy_wh.iter().sum();
        let alarming = sum > alarm_wh;
        let news = alarming && !self.noticed;
        self.noticed = alarming;
        news.then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(hour: u64) -> Uptime {
        Uptime(hour * HOUR_MS)
    }

    #[test]
    fn alarms_once_when_the_last_day_exceeds_the_limit() {
        let mut loose = Loose::default();
        assert_eq!(loose.add(30, 50, hour(20)), None);
        assert_eq!(loose.add(30, 50, hour(28)), Some(60), "whatever the calendar says");
        assert_eq!(loose.add(30, 50, hour(29)), None);
    }

    #[test]
    fn forgets_what_is_older_than_a_day_and_alarms_again() {
        let mut loose = Loose::default();
        assert_eq!(loose.add(60, 50, hour(1)), Some(60));
        assert_eq!(loose.add(0, 50, hour(26)), None);
        assert_eq!(loose.add(51, 50, hour(300)), Some(51));
    }
}
