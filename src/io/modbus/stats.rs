//! What a bus and its units have done: requests, errors, latencies, and how busy the line is.

use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::figures::Figures;

/// Upper bounds of the latency classes in milliseconds, each some 1.4 times the one before; the
/// last class is open.
const BOUNDS_MS: [u32; 24] = [
    1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1_024, 1_448,
    2_048, 4_096, 10_000,
];

/// At this many samples all are halved, so that what is shown follows what changes.
const SAMPLES_MAX: u32 = 4_096;

/// Rates are over this many seconds: 480 bytes a unit.
const WINDOW_S: usize = 60;

/// The account of a bus or of a unit, from the start.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    requests: u64,
    /// Requests without a usable answer.
    errors: u64,
    classes: [u32; BOUNDS_MS.len()],
    window: Window,
}

impl Tally {
    pub(super) fn new(start: Instant) -> Tally {
        let window = Window { start, seconds: [Second::default(); WINDOW_S], last: 0 };
        Tally { requests: 0, errors: 0, classes: [0; BOUNDS_MS.len()], window }
    }

    /// One more request between two moments, and whether the unit answered anything at all: only
    /// then is the time between them a latency.
    pub(super) fn count(
        &mut self,
        (begun, ended): (Instant, Instant),
        failed: bool,
        answered: bool,
    ) {
        let took = ended.saturating_duration_since(begun);
        self.requests += 1;
        self.errors += u64::from(failed);
        self.window.add(ended, took, failed);
        if answered {
            self.classify(took);
        }
    }

    pub(super) fn figures(&self, now: Instant) -> Figures {
        let (error_rate_permille, utilisation_percent) = self.window.rates(now);
        Figures {
            requests: self.requests,
            errors: self.errors,
            error_rate_permille,
            latency_p50_ms: self.percentile_ms(50),
            latency_p99_ms: self.percentile_ms(99),
            utilisation_percent,
        }
    }

    fn classify(&mut self, latency: Duration) {
        let ms = u32::try_from(latency.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX);
        let class = BOUNDS_MS.iter().position(|bound| ms <= *bound);
        self.classes[class.unwrap_or(BOUNDS_MS.len() - 1)] += 1;
        if self.classes.iter().sum::<u32>() >= SAMPLES_MAX {
            self.classes.iter_mut().for_each(|samples| *samples /= 2);
        }
    }

    /// At most this many milliseconds in `percent` of a hundred answers.
    fn percentile_ms(&self, percent: u32) -> Option<u32> {
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

/// The last minute, second by second, as a ring.
#[derive(Clone, Debug)]
struct Window {
    start: Instant,
    seconds: [Second; WINDOW_S],
    /// The second that was last written.
    last: u64,
}

/// One second of a line; a request counts in the one in which it ends.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    busy_us: u32,
    requests: u16,
    errors: u16,
}

impl Window {
    fn add(&mut self, ended: Instant, took: Duration, failed: bool) {
        let now = self.second(ended);
        for passed in (self.last + 1..=now).take(WINDOW_S) {
            self.seconds[passed as usize % WINDOW_S] = Second::default();
        }
        self.last = self.last.max(now);
        let second = &mut self.seconds[self.last as usize % WINDOW_S];
        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        second.busy_us = second.busy_us.saturating_add(took_us);
        second.requests = second.requests.saturating_add(1);
        second.errors = second.errors.saturating_add(u16::from(failed));
    }

    /// Errors of a thousand requests, and of a hundred parts of the time how many in use: of the
    /// last minute, or of the time since the start.
    fn rates(&self, now: Instant) -> (Option<u16>, u8) {
        let second = self.second(now);
        let oldest = second.saturating_sub(WINDOW_S as u64 - 1);
        let written = oldest..=self.last;
        let kept = written.map(|second| self.seconds[second as usize % WINDOW_S]);
        let (mut busy_us, mut requests, mut errors) = (0_u64, 0_u64, 0_u64);
        for second in kept {
            busy_us += u64::from(second.busy_us);
            requests += u64::from(second.requests);
            errors += u64::from(second.errors);
        }
        let begun = self.start + Duration::from_secs(oldest);
        let span_us = now.saturating_duration_since(begun).as_micros().max(1) as u64;
        // One error in ten thousand is not none.
        let rate =
            (1_000 * errors).checked_div(requests).map(|rate| rate.max(errors.min(1)) as u16);
        (rate, (100 * busy_us / span_us).min(100) as u8)
    }

    fn second(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A tally, and a request of so many milliseconds that begins after so many.
    fn tally(requests: impl Iterator<Item = (u32, u32, bool)>) -> (Tally, Instant) {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        for (at, took, failed) in requests {
            let begun = start + at * MS;
            tally.count((begun, begun + took * MS), failed, !failed);
        }
        (tally, start)
    }

    #[test]
    fn percentiles_are_upper_bounds_of_what_was_measured() {
        assert_eq!(tally(std::iter::empty()).0.percentile_ms(50), None);
        let quick = (0..98).map(|at| (at, 20, false));
        let slow = (98..100).map(|at| (at, 300, false));

        let (tally, start) = tally(quick.chain(slow).chain([(100, 1_000, true)]));

        let figures = tally.figures(start + 2_000 * MS);
        let (p50, p99) = (figures.latency_p50_ms, figures.latency_p99_ms);
        assert_eq!((p50, p99), (Some(23), Some(362)));
        assert_eq!((figures.requests, figures.errors), (101, 1));
    }

    #[test]
    fn old_latencies_fade_and_counters_do_not() {
        let quick = (0..10_000).map(|at| (at, 1, false));
        let (tally, start) = tally(quick.chain((0..5_000).map(|at| (10_000 + at, 60_000, false))));

        let figures = tally.figures(start);
        assert_eq!((figures.latency_p50_ms, figures.requests), (Some(10_000), 15_000));
    }

    #[test]
    fn utilisation_is_of_the_last_minute() {
        let (tally, start) = tally((0..30).map(|second| (second * 1_000, 500, false)));

        let percent = |ms: u32| tally.figures(start + ms * MS).utilisation_percent;
        assert_eq!((percent(30_000), percent(60_000)), (50, 24));
        assert_eq!((percent(75_000), percent(300_000)), (11, 0));
    }

    #[test]
    fn utilisation_counts_requests_far_below_a_millisecond() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        for request in 0..5_000 {
            let begun = start + request * MS;
            tally.count((begun, begun + MS * 2 / 5), false, true);
        }
        assert_eq!(tally.figures(start + 5_000 * MS).utilisation_percent, 40);
    }

    #[test]
    fn the_error_rate_is_of_the_last_minute_too() {
        let (tally, start) = tally((0..100).map(|at| (at * 100, 10, at % 50 == 0)));

        let rate =
            |second: u64| tally.figures(start + Duration::from_secs(second)).error_rate_permille;
        assert_eq!((rate(10), rate(61), rate(200)), (Some(20), Some(12), None));
        assert_eq!(tally.figures(start + Duration::from_secs(200)).errors, 2);
    }
}
