//! What a bus and its units have done: requests, errors, latencies, and how busy the line is.

use std::time::Duration;

use tokio::time::Instant;

/// Upper bounds of the latency classes in milliseconds, each some 1.4 times the one before; the
/// last class is open.
const BOUNDS_MS: [u32; 24] = [
    1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1_024, 1_448,
    2_048, 4_096, 10_000,
];

/// At this many samples all are halved, so that what is shown follows what changes.
const SAMPLES_MAX: u32 = 4_096;

/// Utilisation is over this many seconds.
const WINDOW_S: usize = 60;

/// Requests, errors and latencies since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) requests: u64,
    /// Requests without a usable answer.
    pub(super) errors: u64,
    classes: [u32; BOUNDS_MS.len()],
}

impl Tally {
    /// One more request; `latency` of an answer.
    pub(super) fn count(&mut self, failed: bool, latency: Option<Duration>) {
        self.requests += 1;
        self.errors += u64::from(failed);
        let Some(latency) = latency else { return };
        let ms = u32::try_from(latency.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX);
        let class = BOUNDS_MS.iter().position(|bound| ms <= *bound);
        self.classes[class.unwrap_or(BOUNDS_MS.len() - 1)] += 1;
        if self.classes.iter().sum::<u32>() >= SAMPLES_MAX {
            self.classes.iter_mut().for_each(|samples| *samples /= 2);
        }
    }

    /// At most this many milliseconds in `percent` of a hundred answers.
    pub(super) fn percentile_ms(&self, percent: u32) -> Option<u32> {
        let samples: u32 = self.classes.iter().sum();
        let rank = (u64::from(samples) * u64::from(percent)).div_ceil(100);
        let mut seen = 0;
        let class = self.classes.iter().position(|samples| {
            seen += u64::from(*samples);
            seen > 0 && seen >= rank
        })?;
        Some(BOUNDS_MS[class])
    }
}

/// How much of the last minute a line was in use.
#[derive(Clone, Debug)]
pub(super) struct Utilisation {
    start: Instant,
    /// Milliseconds in use in each second, as a ring.
    seconds: [u32; WINDOW_S],
    /// The second that was last written.
    last: u64,
}

impl Utilisation {
    pub(super) fn new(start: Instant) -> Utilisation {
        Utilisation { start, seconds: [0; WINDOW_S], last: 0 }
    }

    /// The line was in use between these moments.
    pub(super) fn add(&mut self, begun: Instant, ended: Instant) {
        self.forget(ended);
        let ms = ended.saturating_duration_since(begun).as_millis();
        self.seconds[self.last as usize % WINDOW_S] += u32::try_from(ms).unwrap_or(u32::MAX);
    }

    /// Of the last minute, or of the time since the start; a request counts when it ends.
    pub(super) fn percent(&mut self, now: Instant) -> u8 {
        self.forget(now);
        let busy: u64 = self.seconds.iter().map(|ms| u64::from(*ms)).sum();
        let window = now.saturating_duration_since(self.start);
        let window = window.min(Duration::from_secs(WINDOW_S as u64)).as_millis().max(1) as u64;
        (100 * busy / window).min(100) as u8
    }

    fn forget(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        for passed in (self.last + 1..=second).take(WINDOW_S) {
            self.seconds[passed as usize % WINDOW_S] = 0;
        }
        self.last = self.last.max(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn percentiles_are_upper_bounds_of_what_was_measured() {
        let mut tally = Tally::default();
        assert_eq!(tally.percentile_ms(50), None);
        for _ in 0..98 {
            tally.count(false, Some(20 * MS));
        }
        for _ in 0..2 {
            tally.count(false, Some(300 * MS));
        }
        tally.count(true, None);

        assert_eq!((tally.percentile_ms(50), tally.percentile_ms(99)), (Some(23), Some(362)));
        assert_eq!((tally.requests, tally.errors), (101, 1));
    }

    #[test]
    fn old_latencies_fade_and_counters_do_not() {
        let mut tally = Tally::default();
        for _ in 0..10_000 {
            tally.count(false, Some(MS));
        }
        for _ in 0..5_000 {
            tally.count(false, Some(60_000 * MS));
        }
        assert_eq!(tally.percentile_ms(50), Some(10_000));
        assert_eq!(tally.requests, 15_000);
    }

    #[test]
    fn utilisation_is_of_the_last_minute() {
        let start = Instant::now();
        let mut line = Utilisation::new(start);
        for second in 0..30 {
            let begun = start + second * 1_000 * MS;
            line.add(begun, begun + 500 * MS);
        }
        assert_eq!(line.percent(start + 30_000 * MS), 50);
        assert_eq!(line.percent(start + 59_000 * MS), 25);
        assert_eq!(line.percent(start + 300_000 * MS), 0);
    }
}
