//! How the threads of this module are told to end, and how long they rest after a failure.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A request to end, which also ends every rest at once.
#[derive(Debug, Default)]
pub(super) struct Stop {
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(super) fn request(&self) {
        *self.requested.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(super) fn is_requested(&self) -> bool {
        *self.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rests for `duration`, or until the end is requested: then true.
    pub(super) fn rest(&self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        let mut requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        while !*requested {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            requested = self
                .changed
                .wait_timeout(requested, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

/// Ever longer rests between attempts that fail.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// A restarting pcscd is back within a second; never less than 250 ms, so nothing spins.
    const FIRST: Duration = Duration::from_millis(500);
    /// A technician who starts pcscd by hand sees readers come back while still looking.
    const LONGEST: Duration = Duration::from_secs(10);

    pub(super) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// How long to rest after this failure.
    pub(super) fn after_failure(&mut self) -> Duration {
        let rest = self.next;
        self.next = (rest * 2).min(Self::LONGEST);
        rest
    }

    pub(super) fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_ten_seconds_and_start_over_after_success() {
        let mut backoff = Backoff::new();
        let rests: Vec<u64> = (0..7).map(|_| backoff.after_failure().as_millis() as u64).collect();
        assert_eq!(rests, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);

        backoff.reset();
        assert_eq!(backoff.after_failure(), Duration::from_millis(500));
    }

    #[test]
    fn a_requested_stop_ends_every_rest_at_once() {
        let stop = Stop::default();
        assert!(!stop.rest(Duration::from_millis(1)));
        stop.request();
        assert!(stop.rest(Duration::from_secs(3600)));
        assert!(stop.is_requested());
    }
}
