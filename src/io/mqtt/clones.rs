//! Notices that another client uses this gateway's id, such as a copy of its card.
//!
//! MQTT 3.1.1 has no word for it: the broker closes the older connection of an id and says nothing.
//! A broker that restarts closes connections as well, but then it is away for a moment, and does
//! not do it again and again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many closures are no chance.
const CLOSURES: usize = 2;
/// How long a closure counts. Two clones throw each other out for ever, within the longest backoff.
pub(super) const WITHIN: Duration = Duration::from_secs(10 * 60);

/// The broker's closures of sound connections after which it took the gateway back at once.
#[derive(Debug, Default)]
pub(super) struct Closures {
    /// The last connection was closed so, and no attempt failed since.
    last: bool,
    times: VecDeque<Instant>,
}

impl Closures {
    /// A connection ended.
    pub(super) fn on_lost(&mut self, closed_by_broker: bool) {
        self.last = closed_by_broker;
    }

    /// The broker could not be reached, or refused the gateway: it was its own trouble.
    pub(super) fn on_failed(&mut self) {
        self.last = false;
    }

    /// The broker took the gateway back; how many closures there were where they are too many.
    pub(super) fn on_connected(&mut self, now: Instant) -> Option<usize> {
        if !std::mem::take(&mut self.last) {
            return None;
        }
        self.times.retain(|time| now.saturating_duration_since(*time) < WITHIN);
        self.times.push_back(now);
        (self.times.len() >= CLOSURES).then_some(self.times.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspects_a_clone_where_the_broker_closes_again_and_again() {
        let (mut closures, now) = (Closures::default(), Instant::now());
        assert_eq!(closures.on_connected(now), None, "the first connection");
        closures.on_lost(true);
        assert_eq!(closures.on_connected(now), None);
        closures.on_lost(true);
        assert_eq!(closures.on_connected(now + Duration::from_secs(5)), Some(2));
    }

    #[test]
    fn a_broker_that_restarts_or_a_bad_line_is_no_clone() {
        let (mut closures, now) = (Closures::default(), Instant::now());
        for _ in 0..5 {
            closures.on_lost(true);
            closures.on_failed();
            assert_eq!(closures.on_connected(now), None);
            closures.on_lost(false);
            assert_eq!(closures.on_connected(now), None);
        }
        closures.on_lost(true);
        assert_eq!(closures.on_connected(now), None);
        closures.on_lost(true);
        assert_eq!(closures.on_connected(now + WITHIN), None, "the first is long ago");
    }
}
