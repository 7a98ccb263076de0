//! How long to wait before the next connection.

use std::time::Duration;

/// The first waits are drawn below this.
const FIRST: Duration = Duration::from_secs(1);
/// No wait is longer.
const MAX: Duration = Duration::from_secs(120);
/// A connection that held for this long was a good one; a shorter one may have met a message that
/// breaks every connection anew.
const GOOD: Duration = Duration::from_secs(30);

/// Reconnect backoff with full jitter: a fleet does not come back in step.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A connection was attempted and, where it came up, held for `held`; the wait before the next.
    pub(super) fn after(&mut self, held: Option<Duration>, jitter: f64) -> Duration {
        if held.is_some_and(|held| held >= GOOD) {
            self.failures = 0;
        }
        let most = FIRST.saturating_mul(1 << self.failures.min(16)).min(MAX);
        self.failures = self.failures.saturating_add(1);
        most.mul_f64(jitter.clamp(0.0, 1.0))
    }
}

/// A number in `0..1`, another one each time.
pub(super) fn jitter() -> f64 {
    // The last 32 bits of a version 4 UUID are random.
    let bits = uuid::Uuid::new_v4().as_u128() as u32;
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_two_minutes_and_start_anew_after_a_good_connection() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.after(None, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 120, 120]);

        assert_eq!(backoff.after(Some(Duration::from_secs(29)), 1.0).as_secs(), 120);
        assert_eq!(backoff.after(Some(Duration::from_secs(30)), 1.0).as_secs(), 1);
    }

    #[test]
    fn jitter_spreads_over_the_whole_wait() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after(None, 0.0), Duration::ZERO);
        let drawn: Vec<f64> = (0..1000).map(|_| jitter()).collect();
        assert!(drawn.iter().all(|j| (0.0..1.0).contains(j)));
        assert!(drawn.iter().any(|j| *j < 0.1) && drawn.iter().any(|j| *j > 0.9));
    }
}
