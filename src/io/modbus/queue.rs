//! What is asked of a bus, by urgency. Nobody ever waits to ask.
//!
//! Bounded by construction: a station has at most one job of each kind here. A newer one takes the
//! older one's place, so opening a switch cancels closing it, and the other way round. What a
//! technician asks for by hand comes last and is bounded by [`VISITS_MAX`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::error::BusError;
use super::link::{Answer, Request};
use crate::core::event::Pace;
use crate::core::ids::StationId;

/// Requests by hand that wait at once: one command asks one at a time, so these are eight people.
const VISITS_MAX: usize = 8;

/// Lanes of orders that give or take power.
pub(super) const SWITCHING: usize = 2;
/// All lanes.
pub(super) const LANES: usize = 4;

/// Something to do at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Open(StationId),
    Close(StationId),
    /// Read back a switch that was written, or write it again where it was not.
    Confirm {
        station: StationId,
        closed: bool,
        written: bool,
        attempts: u32,
    },
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
            | Job::Confirm { station, .. }
            | Job::Feedback { station, .. }
            | Job::Lamp { station, .. } => station,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Job::Open(_) | Job::Close(_) | Job::Confirm { .. } => Kind::Switch,
            Job::ReadSwitch(_) => Kind::ReadSwitch,
            Job::ReadMeter(_) | Job::ReadRegister(_) => Kind::ReadMeter,
            Job::Feedback { .. } => Kind::Feedback,
            Job::Lamp { .. } => Kind::Lamp,
        }
    }

    /// Opening before closing before reading (also reading back) before lamps.
    pub(super) fn lane(&self) -> usize {
        match self {
            Job::Open(_) | Job::Confirm { written: false, closed: false, .. } => 0,
            Job::Close(_) | Job::Confirm { written: false, closed: true, .. } => 1,
            Job::Confirm { written: true, .. }
            | Job::ReadSwitch(_)
            | Job::ReadMeter(_)
            | Job::ReadRegister(_)
            | Job::Feedback { .. } => 2,
            Job::Lamp { .. } => 3,
        }
    }
}

/// A request by hand.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) unit: u8,
    pub(super) request: Request,
    pub(super) asked: Instant,
    pub(super) reply: oneshot::Sender<Result<Answer, BusError>>,
}

/// The orders of one bus.
#[derive(Debug, Default)]
pub(super) struct Orders {
    lanes: [VecDeque<Job>; LANES],
    /// Jobs that are not due yet.
    later: Vec<(Instant, Job)>,
    visits: VecDeque<Visit>,
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
        self.remove_like(&job);
        self.lanes[job.lane()].push_back(job);
    }

    /// A job that could not be finished goes on at `at`, unless a newer one took its place.
    pub(super) fn resume(&mut self, job: Job, at: Instant) {
        let mut waiting = self.lanes.iter().flatten().chain(self.later.iter().map(|(_, job)| job));
        let replaced =
            waiting.any(|other| other.kind() == job.kind() && other.station() == job.station());
        if !replaced {
            self.later.push((at, job));
        }
    }

    fn remove_like(&mut self, job: &Job) {
        let other = |old: &Job| old.kind() != job.kind() || old.station() != job.station();
        self.lanes.iter_mut().for_each(|lane| lane.retain(other));
        self.later.retain(|(_, old)| other(old));
    }

    /// Whether a switch order for this station waits.
    pub(super) fn switches(&self, station: &StationId) -> bool {
        let mut jobs = self.lanes.iter().flatten().chain(self.later.iter().map(|(_, job)| job));
        jobs.any(|job| job.kind() == Kind::Switch && job.station() == station)
    }

    /// Whether anything waits in the most urgent `lanes`.
    pub(super) fn waits(&self, lanes: usize, now: Instant) -> bool {
        let due = |(due, job): &(Instant, Job)| *due <= now && job.lane() < lanes;
        self.lanes.iter().take(lanes).any(|lane| !lane.is_empty()) || self.later.iter().any(due)
    }

    /// The most urgent job.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Job> {
        for (_, job) in self.later.extract_if(.., |(due, _)| *due <= now) {
            self.lanes[job.lane()].push_back(job);
        }
        self.lanes.iter_mut().find_map(VecDeque::pop_front)
    }

    /// When the next job that is not due yet will be.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.iter().map(|(due, _)| *due).min()
    }

    /// Whether the visit was taken in.
    pub(super) fn visit(&mut self, visit: Visit) -> bool {
        let room = self.visits.len() < VISITS_MAX;
        if room {
            self.visits.push_back(visit);
        }
        room
    }

    /// Who waits at the door.
    pub(super) fn visitor(&self) -> Option<&Visit> {
        self.visits.front()
    }

    /// A visit that something more urgent came before keeps its turn.
    pub(super) fn let_wait(&mut self, visit: Visit) {
        self.visits.push_front(visit);
    }

    pub(super) fn next_visit(&mut self) -> Option<Visit> {
        self.visits.pop_front()
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
    use std::time::Duration;

    use super::*;

    fn popped(orders: &mut Orders) -> Vec<Job> {
        std::iter::from_fn(|| orders.pop(Instant::now())).collect()
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
    fn what_was_not_finished_goes_on_unless_a_newer_order_came() {
        let (one, now) = (StationId::from("one"), Instant::now());
        let confirm =
            Job::Confirm { station: one.clone(), closed: true, written: true, attempts: 1 };
        let mut orders = Orders::default();
        orders.resume(confirm.clone(), now + Duration::from_millis(30));
        assert!(orders.switches(&one));
        assert_eq!(orders.pop(now), None);
        assert_eq!(orders.next_due(), Some(now + Duration::from_millis(30)));
        assert_eq!(orders.pop(now + Duration::from_millis(30)), Some(confirm.clone()));

        orders.push(Job::Open(one.clone()));
        orders.resume(confirm.clone(), now);
        assert_eq!(popped(&mut orders), [Job::Open(one.clone())]);

        orders.resume(confirm, now + Duration::from_secs(1));
        orders.push(Job::Open(one.clone()));
        assert_eq!(popped(&mut orders), [Job::Open(one)]);
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
