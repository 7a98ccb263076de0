//! The task of one bus: the most urgent order, else what is due, one request at a time.
//!
//! Before every request it is looked whether something more urgent waits. If so, what is being done
//! is left (`Line::deferred`) and done anew later: an order to a switch never waits for more than
//! the one request in flight. What is left tells nobody anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::health::{self, Pulse, Silence};
use super::link::Link;
use super::plan::{BusPlan, SwitchPlan};
use super::points::Parked;
use super::queue::{Inbox, Job, LANES, SWITCHING, Visit};
use super::schedule::{Duty, Schedule};
use super::status::Status;
use super::{FieldEvent, TAP_HOLD};
use crate::core::event::Pace;
use crate::core::ids::{BusId, StationId};

/// The task wakes at least this often, so that its progress can be seen.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// On a line that is never idle a technician's request goes between polls after this.
const VISIT_PATIENCE: Duration = Duration::from_millis(500);

/// What the task knows of a unit beyond its pulse.
pub(super) struct Unit {
    pub(super) pulse: Pulse,
    /// Its start-up writes have not been sent since it was last lost.
    pub(super) fresh: bool,
    /// Its serial number has not been read since it was last lost.
    pub(super) serial_due: bool,
    /// Read, but not reported with a reading yet.
    pub(super) serial: Option<String>,
    /// It refused a merged read: its points are read one by one.
    pub(super) apart: bool,
    /// So many of its start-up writes have been sent since.
    pub(super) prepared: usize,
    /// It said so often in a row that it is busy.
    pub(super) busy: u32,
    /// A read that goes on once the device had its pause.
    pub(super) parked: Option<Parked>,
    /// The device's own pause between requests, and the time that it may still answer an old one.
    pub(super) free_at: Instant,
    /// The device's own pause between writes.
    pub(super) writable_at: Instant,
}

/// What the task knows of a station.
pub(super) struct StationState {
    pub(super) pace: Pace,
    /// The position that was last read or confirmed.
    pub(super) closed: Option<bool>,
    /// The position that was last ordered, confirmed or not.
    pub(super) ordered: Option<bool>,
    /// Whether its button was down when it was last looked at; `None` before the first look.
    pub(super) pressed: Option<bool>,
    /// Its button is watched.
    pub(super) watched: bool,
}

/// One bus at work.
pub(super) struct Line {
    pub(super) plan: BusPlan,
    pub(super) units: Vec<Unit>,
    pub(super) stations: Vec<StationState>,
    pub(super) schedule: Schedule,
    pub(super) inbox: Arc<Inbox>,
    pub(super) peers: BTreeMap<BusId, Arc<Inbox>>,
    pub(super) silence: Silence,
    /// Orders in so many lanes go before what is being done, even if that could go at once.
    pub(super) goes_after: usize,
    /// Orders in so many lanes use the time in which what is being done waits for its device.
    pub(super) yields_to: usize,
    /// What is being done was left for something more urgent, and must be done anew.
    pub(super) deferred: bool,
    /// When what was left last could have gone on.
    pub(super) again_at: Instant,
    /// The pause between two requests to units that no profile tells of.
    pub(super) strangers_free_at: Instant,
    pub(super) link: Link,
    pub(super) status: Arc<Status>,
    pub(super) events: mpsc::Sender<FieldEvent>,
    pub(super) unreachable: bool,
    pub(super) losses: u64,
}

/// What to do next.
enum Turn {
    Job(Job),
    Duty(Duty),
    Visit(Visit),
    Probe(usize),
    Reconnect,
    Rest(Instant),
    Stop,
}

impl Line {
    pub(super) fn new(
        plan: BusPlan,
        inbox: Arc<Inbox>,
        peers: BTreeMap<BusId, Arc<Inbox>>,
        status: Arc<Status>,
        events: mpsc::Sender<FieldEvent>,
    ) -> Line {
        let now = Instant::now();
        let unit = |_: &_| Unit {
            pulse: Pulse::new(now),
            fresh: true,
            serial_due: true,
            serial: None,
            apart: false,
            prepared: 0,
            busy: 0,
            parked: None,
            free_at: now,
            writable_at: now,
        };
        status.expect(&plan, now);
        Line {
            units: plan.units.iter().map(unit).collect(),
            stations: plan
                .stations
                .iter()
                .map(|_| StationState {
                    pace: Pace::Idle,
                    closed: None,
                    ordered: None,
                    pressed: None,
                    watched: false,
                })
                .collect(),
            schedule: duties(&plan, now),
            silence: Silence::new(now),
            goes_after: LANES,
            yields_to: LANES,
            deferred: false,
            again_at: now,
            strangers_free_at: now,
            link: Link::new(&plan.bus, plan.slowest()),
            plan,
            inbox,
            peers,
            status,
            events,
            unreachable: false,
            losses: 0,
        }
    }

    /// Works until the field is dropped.
    pub(super) async fn run(mut self) {
        loop {
            self.status.progress.fetch_add(1, Ordering::Relaxed);
            (self.goes_after, self.yields_to) = (LANES, LANES);
            self.deferred = false;
            self.give_up_suspects().await;
            match self.turn(Instant::now()) {
                Turn::Job(job) => {
                    self.work(job.clone()).await;
                    if self.deferred {
                        self.inbox.orders().resume(job, Instant::now());
                    }
                }
                Turn::Duty(duty) => {
                    let begun = Instant::now();
                    self.perform(duty).await;
                    if !self.deferred {
                        self.schedule.done(duty, begun, Instant::now());
                    }
                }
                Turn::Visit(visit) => self.receive(visit).await,
                Turn::Probe(unit) => self.probe(unit).await,
                Turn::Reconnect => {
                    let opened = self.link.open(false).await;
                    self.note_bus(opened.err()).await;
                }
                Turn::Rest(until) => self.pause(until).await,
                Turn::Stop => return,
            }
        }
    }

    fn turn(&mut self, now: Instant) -> Turn {
        let (job, hold) = {
            let inbox = Arc::clone(&self.inbox);
            let mut orders = inbox.orders();
            if orders.closed || self.events.is_closed() {
                return Turn::Stop;
            }
            for (station, pace) in std::mem::take(&mut orders.paces) {
                self.set_pace(&station, pace, now);
            }
            if let Some(buttons) = orders.buttons.take() {
                self.watch_buttons(&buttons, now);
            }
            (orders.pop(now), orders.hold_until.filter(|until| now < *until))
        };
        match (job, hold) {
            (Some(job), _) => Turn::Job(job),
            (None, Some(until)) => {
                let due = self.inbox.orders().next_due();
                Turn::Rest(due.map_or(until, |due| due.min(until)))
            }
            (None, None) => self.routine(now),
        }
    }

    fn routine(&self, now: Instant) -> Turn {
        if self.link.retry_at().is_some_and(|due| due <= now) {
            return Turn::Reconnect;
        }
        let ready = |duty| self.ready(duty);
        let duty = self.schedule.next(now, ready);
        if let Some((duty, true)) = duty {
            return Turn::Duty(duty);
        }
        let pulses = self.units.iter().map(|unit| &unit.pulse);
        let probe = health::next_probe(pulses, self.silence, now).filter(|_| !self.unreachable);
        if let Some((unit, _)) = probe.filter(|(_, at)| *at <= now) {
            return Turn::Probe(unit);
        }
        let mut orders = self.inbox.orders();
        let visitor = orders.visitor().map(|visit| {
            let patient = if duty.is_some() { VISIT_PATIENCE } else { Duration::ZERO };
            self.welcome_at(visit) + patient
        });
        if visitor.is_some_and(|due| due <= now)
            && let Some(visit) = orders.next_visit()
        {
            return Turn::Visit(visit);
        }
        if let Some((duty, _)) = duty {
            return Turn::Duty(duty);
        }
        let wakes = [
            self.schedule.next_due(ready),
            probe.map(|(_, at)| at),
            self.link.retry_at(),
            orders.next_due(),
            visitor,
        ];
        let next = wakes.into_iter().flatten().min();
        Turn::Rest(next.map_or(now + MAX_SLEEP, |next| next.min(now + MAX_SLEEP)))
    }

    /// From when on a technician's request may go.
    fn welcome_at(&self, visit: &Visit) -> Instant {
        let known = self.plan.units.iter().position(|planned| planned.unit == visit.unit);
        let paused = known.map_or(self.strangers_free_at, |unit| self.units[unit].free_at);
        let in_doubt = self.link.doubtful_until(visit.unit);
        in_doubt.into_iter().chain([visit.asked]).fold(paused, Instant::max)
    }

    /// From when on the device of a duty may be asked.
    fn ready(&self, duty: Duty) -> Option<Instant> {
        self.plan.unit_of(duty).map(|unit| self.units[unit].free_at)
    }

    async fn work(&mut self, job: Job) {
        (self.goes_after, self.yields_to) = (job.lane().min(SWITCHING), SWITCHING);
        let Some(station) = self.station(job.station()) else { return };
        match job {
            Job::Open(_) => self.set_switch(station, false).await,
            Job::Close(_) => self.set_switch(station, true).await,
            Job::Confirm { closed, written, attempts, .. } => {
                self.confirm_switch(station, closed, written, attempts).await;
            }
            Job::ReadSwitch(_) => self.read_switch(station).await,
            Job::ReadMeter(_) => {
                self.read_meter(station, true).await;
                // The order that follows waits for the start's record.
                self.inbox.orders().hold_until = Some(Instant::now() + TAP_HOLD);
            }
            Job::ReadRegister(_) => {
                self.read_register(station).await;
                self.inbox.orders().hold_until = Some(Instant::now() + TAP_HOLD);
            }
            Job::Feedback { closed, .. } => self.report_switch(station, Some(closed), true).await,
            Job::Lamp { on, .. } => self.set_lamp(station, on).await,
        }
    }

    async fn perform(&mut self, duty: Duty) {
        match duty {
            Duty::Heartbeat(unit) => self.write_heartbeat(unit).await,
            Duty::Refresh(station) => self.refresh_set_point(station).await,
            Duty::Buttons => self.read_buttons().await,
            Duty::Meter(station) => self.read_meter(station, false).await,
            Duty::Switches(unit) => self.read_switches(unit).await,
        }
    }

    /// The index of a station of this bus.
    pub(super) fn station(&self, id: &StationId) -> Option<usize> {
        self.plan.stations.iter().position(|station| station.station == *id)
    }
}

impl Unit {
    /// It was lost: what it was told it may have forgotten, and it may be another device now.
    pub(super) fn forget(&mut self) {
        (self.fresh, self.serial_due) = (true, true);
        (self.prepared, self.parked) = (0, None);
    }
}

/// Everything that a bus does by itself.
fn duties(plan: &BusPlan, now: Instant) -> Schedule {
    let mut schedule = Schedule::default();
    for (index, unit) in plan.units.iter().enumerate() {
        if let Some(heartbeat) = &unit.profile.heartbeat {
            schedule.every(Duty::Heartbeat(index), heartbeat.interval, now);
        }
        let switches = |switch: &SwitchPlan| switch.unit() == index;
        if plan.stations.iter().any(|station| station.switch.as_ref().is_some_and(switches)) {
            schedule.poll(Duty::Switches(index), now);
        }
    }
    for (index, station) in plan.stations.iter().enumerate() {
        if station.meter.is_some() || station.vehicle.is_some() {
            schedule.poll(Duty::Meter(index), now);
        }
        if let Some(SwitchPlan::Charger { unit, .. }) = &station.switch
            && let Some(refresh) = plan.units[*unit].profile.refresh
        {
            schedule.every(Duty::Refresh(index), refresh, now);
        }
    }
    schedule
}
