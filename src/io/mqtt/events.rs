//! Events that wait for the broker: bounded, rate-limited, oldest dropped first, and counted.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::core::access::Denial;
use crate::core::time::Stamp;
use crate::protocol::cloud::{EventBody, EventKind, EventMessage};

/// Events kept while the broker is away: an evening's worth of denials, some 64 KiB.
pub(super) const MAX_WAITING: usize = 256;
/// Events of one kind (denials: of one reason) within [`PERIOD`].
const MAX_PER_PERIOD: u32 = 30;
/// Over which the rate is limited.
const PERIOD: Duration = Duration::from_secs(60);

/// The waiting events.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    waiting: VecDeque<EventMessage>,
    /// One entry a kind and reason: bounded by the number of these.
    rates: BTreeMap<(EventKind, Option<Denial>), Rate>,
    /// Dropped since that was last told.
    untold: u64,
    /// Dropped since the start.
    dropped: u64,
}

#[derive(Debug)]
struct Rate {
    since: Instant,
    admitted: u32,
    left_out: u64,
}

impl EventQueue {
    /// Takes an event unless there were too many of its kind; false where it was left out.
    pub(super) fn push(&mut self, mut event: EventMessage, now: Instant) -> bool {
        let rate = self.rates.entry(key(&event.body)).or_insert(Rate {
            since: now,
            admitted: 0,
            left_out: 0,
        });
        if now.saturating_duration_since(rate.since) >= PERIOD {
            rate.since = now;
            rate.admitted = 0;
        }
        if rate.admitted >= MAX_PER_PERIOD {
            rate.left_out += 1;
            return false;
        }
        rate.admitted += 1;
        event.left_out += std::mem::take(&mut rate.left_out);
        self.waiting.push_back(event);
        self.drop_oldest();
        true
    }

    /// The next event to publish: first how many were dropped, then the oldest.
    pub(super) fn pop(&mut self, now: impl FnOnce() -> Stamp) -> Option<EventMessage> {
        if self.untold > 0 {
            let count = std::mem::take(&mut self.untold);
            return Some(EventMessage::new(now(), EventBody::EventsDropped { count }));
        }
        self.waiting.pop_front()
    }

    /// Takes events back, oldest first, that went to a broker which never confirmed them.
    pub(super) fn put_back(&mut self, events: impl DoubleEndedIterator<Item = EventMessage>) {
        for event in events.rev() {
            if let EventBody::EventsDropped { count } = event.body {
                self.untold += count;
            } else {
                self.waiting.push_front(event);
            }
        }
        self.drop_oldest();
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_oldest(&mut self) {
        while self.waiting.len() > MAX_WAITING {
            if let Some(event) = self.waiting.pop_front() {
                let lost = 1 + event.left_out;
                self.untold += lost;
                self.dropped += lost;
            }
        }
    }
}

fn key(body: &EventBody) -> (EventKind, Option<Denial>) {
    let reason = if let EventBody::Denied { reason, .. } = body { Some(*reason) } else { None };
    (body.kind(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::badge::Technology;

    fn denial(reason: Denial) -> EventMessage {
        let body = EventBody::Denied {
            reader: "door".into(),
            station: None,
            reason,
            technology: Some(Technology::Other),
            badge: None,
            uid: None,
        };
        EventMessage::new(stamp(), body)
    }

    fn stamp() -> Stamp {
        let (uptime, wall) = Default::default();
        Stamp { boot: 1, uptime, wall, synced: false }
    }

    fn drain(queue: &mut EventQueue) -> Vec<EventMessage> {
        std::iter::from_fn(|| queue.pop(stamp)).collect()
    }

    #[test]
    fn limits_each_reason_to_thirty_a_minute_and_counts_the_rest() {
        let start = Instant::now();
        let mut queue = EventQueue::default();
        for _ in 0..40 {
            queue.push(denial(Denial::UnknownBadge), start);
        }
        assert!(queue.push(denial(Denial::Occupied), start), "another reason has its own limit");
        assert_eq!(drain(&mut queue).len(), 31);

        assert!(!queue.push(denial(Denial::UnknownBadge), start + PERIOD / 2));
        assert!(queue.push(denial(Denial::UnknownBadge), start + PERIOD));
        assert_eq!(drain(&mut queue)[0].left_out, 11);
    }

    #[test]
    fn drops_the_oldest_and_says_how_many() {
        let start = Instant::now();
        let mut queue = EventQueue::default();
        for i in 0..MAX_WAITING + 5 {
            queue.push(denial(Denial::Expired), start + PERIOD * u32::try_from(i).expect("small"));
        }

        let drained = drain(&mut queue);

        assert_eq!(drained[0].body, EventBody::EventsDropped { count: 5 });
        assert_eq!(drained.len(), 1 + MAX_WAITING);
        assert_eq!(queue.dropped(), 5);
    }

    #[test]
    fn events_that_were_never_confirmed_go_again_in_their_order() {
        let now = Instant::now();
        let mut queue = EventQueue::default();
        queue.push(denial(Denial::Expired), now);
        queue.push(denial(Denial::Closed), now);
        queue.push(denial(Denial::Occupied), now);
        let first = [queue.pop(stamp), queue.pop(stamp)].map(|event| event.expect("three"));

        queue.put_back(first.into_iter());

        let again = drain(&mut queue);
        let order = [Denial::Expired, Denial::Closed, Denial::Occupied].map(denial);
        assert_eq!(again, order);
    }
}
