//! What is asked of a bus, by urgency. Nobody ever waits to ask.
//!
//! Bounded by construction: a station has at most one job of each kind here. A newer one takes the
//! older one's place, so opening a switch cancels closing it, and the other way round.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::event::Pace;
use crate::core::ids::StationId;

/// Something to do at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Open(StationId),
    Close(StationId),
    ReadSwitch(StationId),
    ReadMeter(StationId),
    ReadRegister(StationId),
    /// Read the contactor feedback of a switch on another bus, found in this position.
    Feedback {
        station: StationId,
        closed: bool,
    },
    Lamp {
        station: StationId,
        on: bool,
    },
}

/// What a job is about: one of each kind per station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Switch,
    ReadSwitch,
    ReadMeter,
    Feedback,
    Lamp,
}

impl Job {
    pub(super) fn station(&self) -> &StationId {
        match self {
            Job::Open(station)
            | Job::Close(station)
            | Job::ReadSwitch(station)
            | Job::ReadMeter(station)
            | Job::ReadRegister(station)
            | Job::Feedback { station, .. }
            | Job::Lamp { station, .. } => station,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Job::Open(_) | Job::Close(_) => Kind::Switch,
            Job::ReadSwitch(_) => Kind::ReadSwitch,
            Job::ReadMeter(_) | Job::ReadRegister(_) => Kind::ReadMeter,
            Job::Feedback { .. } => Kind::Feedback,
            Job::Lamp { .. } => Kind::Lamp,
        }
    }

    /// Opening before closing before reading before lamps.
    fn lane(&self) -> usize {
        match self {
            Job::Open(_) => 0,
            Job::Close(_) => 1,
            Job::ReadSwitch(_)
            | Job::ReadMeter(_)
            | Job::ReadRegister(_)
            | Job::Feedback { .. } => 2,
            Job::Lamp { .. } => 3,
        }
    }
}

/// The orders of one bus.
#[derive(Debug, Default)]
pub(super) struct Orders {
    lanes: [VecDeque<Job>; 4],
    /// Changed paces that the bus has not taken over yet.
    pub(super) paces: BTreeMap<StationId, Pace>,
    /// The buttons to watch from now on, where that changed.
    pub(super) buttons: Option<Vec<StationId>>,
    /// A tap is being decided: no polls until then, unless its switch was written.
    pub(super) hold_until: Option<Instant>,
    /// Nobody will ask any more.
    pub(super) closed: bool,
}

impl Orders {
    /// Adds a job; the same one keeps its turn, another of its kind for the station is replaced.
    pub(super) fn push(&mut self, job: Job) {
        if self.lanes[job.lane()].contains(&job) {
            return;
        }
        for lane in &mut self.lanes {
            lane.retain(|old| old.kind() != job.kind() || old.station() != job.station());
        }
        self.lanes[job.lane()].push_back(job);
    }

    /// Whether a switch order for this station waits.
    pub(super) fn switches(&self, station: &StationId) -> bool {
        let mut jobs = self.lanes.iter().flatten();
        jobs.any(|job| job.kind() == Kind::Switch && job.station() == station)
    }

    /// Whether any job waits.
    pub(super) fn wait(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.is_empty())
    }

    /// The most urgent job.
    pub(super) fn pop(&mut self) -> Option<Job> {
        self.lanes.iter_mut().find_map(VecDeque::pop_front)
    }
}

/// Orders and the bell that wakes the bus for them.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    orders: Mutex<Orders>,
    bell: Notify,
}

impl Inbox {
    /// Changes the orders and wakes the bus.
    pub(super) fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders());
        self.bell.notify_one();
    }

    /// The orders, for the bus itself.
    pub(super) fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("nobody panics while holding the orders")
    }

    /// Until the next change.
    pub(super) async fn changed(&self) {
        self.bell.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(orders: &mut Orders) -> Vec<Job> {
        std::iter::from_fn(|| orders.pop()).collect()
    }

    #[test]
    fn opening_goes_before_closing_and_both_before_reading() {
        let (one, two) = (StationId::from("one"), StationId::from("two"));
        let mut orders = Orders::default();
        for job in [
            Job::Lamp { station: one.clone(), on: true },
            Job::ReadMeter(one.clone()),
            Job::Close(one.clone()),
            Job::Open(two.clone()),
            Job::ReadMeter(two.clone()),
        ] {
            orders.push(job);
        }

        assert_eq!(
            popped(&mut orders),
            [
                Job::Open(two.clone()),
                Job::Close(one.clone()),
                Job::ReadMeter(one.clone()),
                Job::ReadMeter(two),
                Job::Lamp { station: one, on: true },
            ]
        );
    }

    #[test]
    fn a_later_order_for_a_switch_cancels_the_earlier_one() {
        let one = StationId::from("one");
        let mut orders = Orders::default();
        orders.push(Job::Close(one.clone()));
        orders.push(Job::Open(one.clone()));
        assert_eq!(popped(&mut orders), [Job::Open(one.clone())]);

        orders.push(Job::Open(one.clone()));
        orders.push(Job::Close(one.clone()));
        assert_eq!(popped(&mut orders), [Job::Close(one)]);
    }

    #[test]
    fn a_station_never_holds_more_than_one_job_of_a_kind() {
        let one = StationId::from("one");
        let mut orders = Orders::default();
        for turn in 0..1_000 {
            orders.push(if turn % 2 == 0 {
                Job::Open(one.clone())
            } else {
                Job::Close(one.clone())
            });
            orders.push(Job::ReadMeter(one.clone()));
            orders.push(Job::Lamp { station: one.clone(), on: turn % 2 == 0 });
        }
        assert_eq!(popped(&mut orders).len(), 3);
    }
}
