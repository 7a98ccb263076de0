//! The task of one bus: the most urgent order, else what is due, one request at a time.
//!
//! Before every request it is looked whether something more urgent waits. If so, what is being done
//! is left (`Line::deferred`) and done anew later: an order to a switch never waits for more than
//! the one request in flight. What is left tells nobody anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::error::{At, BusError};
use super::health::{BusHealth, Change, Pulse, Silence, UnitHealth, UnitState};
use super::link::{Answer, Link, Question, Request};
use super::plan::{BusPlan, SwitchPlan};
use super::points::Parked;
use super::queue::{Inbox, Job, LANES, SWITCHING, Visit};
use super::schedule::{Duty, Schedule};
use super::stats::{Tally, Utilisation};
use super::{FieldEvent, TAP_HOLD};
use crate::core::event::{Pace, Reading, SwitchReport};
use crate::core::ids::{BusId, StationId};

/// The task wakes at least this often, so that its progress can be seen.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// On a line that is never idle a technician's request goes between polls after this.
const VISIT_PATIENCE: Duration = Duration::from_millis(500);

/// The point of a request that names none.
const BY_HAND: &str = "by hand";

/// What others see of a bus.
#[derive(Debug)]
pub(super) struct Status {
    /// Counts turns and requests: a bus whose counter stands still hangs.
    pub(super) progress: AtomicU64,
    pub(super) units: Mutex<Vec<UnitHealth>>,
    figures: Mutex<Figures>,
}

/// What a bus as a whole has done.
#[derive(Debug)]
struct Figures {
    tally: Tally,
    utilisation: Utilisation,
    error: Option<String>,
}

impl Status {
    pub(super) fn new() -> Status {
        let utilisation = Utilisation::new(Instant::now());
        Status {
            progress: AtomicU64::default(),
            units: Mutex::default(),
            figures: Mutex::new(Figures { tally: Tally::default(), utilisation, error: None }),
        }
    }

    pub(super) fn health(&self, bus: &BusId) -> BusHealth {
        let mut figures = self.figures();
        BusHealth {
            bus: bus.clone(),
            error: figures.error.clone(),
            requests: figures.tally.requests,
            errors: figures.tally.errors,
            latency_p50_ms: figures.tally.percentile_ms(50),
            latency_p99_ms: figures.tally.percentile_ms(99),
            utilisation_percent: figures.utilisation.percent(Instant::now()),
        }
    }

    fn figures(&self) -> std::sync::MutexGuard<'_, Figures> {
        self.figures.lock().expect("nobody panics while holding it")
    }
}

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
    /// A read that goes on once the device had its pause.
    pub(super) parked: Option<Parked>,
    /// The device's own pause between requests, and the time that it may still answer an old one.
    pub(super) free_at: Instant,
    tally: Tally,
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
    /// Orders in so many lanes go before what is being done.
    pub(super) yields_to: usize,
    /// What is being done was left for something more urgent, and must be done anew.
    pub(super) deferred: bool,
    link: Link,
    status: Arc<Status>,
    events: mpsc::Sender<FieldEvent>,
    unreachable: bool,
    losses: u64,
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
            parked: None,
            free_at: now,
            tally: Tally::default(),
            writable_at: now,
        };
        let unknown = plan.units.iter().map(|unit| UnitHealth {
            bus: plan.bus.id.clone(),
            unit: unit.unit,
            device: unit.device.clone(),
            state: UnitState::Unknown,
            last_error: None,
            requests: 0,
            errors: 0,
            latency_ms: None,
            latency_p50_ms: None,
            latency_p99_ms: None,
        });
        *status.units.lock().expect("nobody panics while holding it") = unknown.collect();
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
            yields_to: LANES,
            deferred: false,
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
            self.yields_to = LANES;
            self.deferred = false;
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
        let silent = |unit: &&usize| self.units[**unit].pulse.state == UnitState::Down;
        let askable = |unit: &usize| self.units[*unit].pulse.askable_at(self.silence);
        let probes: Vec<usize> = (0..self.units.len()).collect();
        let probe = probes.iter().filter(silent).min_by_key(|unit| askable(unit)).copied();
        let probe = probe.filter(|_| !self.unreachable);
        if let Some(unit) = probe.filter(|unit| askable(unit) <= now) {
            return Turn::Probe(unit);
        }
        let mut orders = self.inbox.orders();
        let visitor = orders.visitor().map(|visit| {
            let patient = if duty.is_some() { VISIT_PATIENCE } else { Duration::ZERO };
            let in_doubt = self.link.doubtful_until(visit.unit);
            in_doubt.map_or(visit.asked, |until| until.max(visit.asked)) + patient
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
            probe.as_ref().map(askable),
            self.link.retry_at(),
            orders.next_due(),
            visitor,
        ];
        let next = wakes.into_iter().flatten().min();
        Turn::Rest(next.map_or(now + MAX_SLEEP, |next| next.min(now + MAX_SLEEP)))
    }

    /// From when on the device of a duty may be asked.
    fn ready(&self, duty: Duty) -> Option<Instant> {
        let station = |index: usize| &self.plan.stations[index];
        let unit = match duty {
            Duty::Heartbeat(unit) | Duty::Switches(unit) => Some(unit),
            Duty::Refresh(index) => station(index).switch.as_ref().map(SwitchPlan::unit),
            Duty::Meter(index) => station(index).meter.or(station(index).vehicle),
            Duty::Buttons => None,
        };
        unit.map(|unit| self.units[unit].free_at)
    }

    async fn work(&mut self, job: Job) {
        self.yields_to = SWITCHING;
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

    /// A technician's own request.
    async fn receive(&mut self, visit: Visit) {
        let (unit, request) = (visit.unit, visit.request.clone());
        let known = self.plan.units.iter().position(|planned| planned.unit == unit);
        let outcome = match known {
            Some(index) => self.ask(index, BY_HAND, request, true).await,
            None => {
                let timeout = self.plan.bus.timeout;
                let question = Question { unit, point: BY_HAND.into(), request, timeout };
                let begun = Instant::now();
                let outcome = self.link.ask(&question, false).await;
                self.note_request(&outcome, begun).await;
                outcome
            }
        };
        if self.deferred {
            return self.inbox.orders().let_wait(visit);
        }
        // A command that gave up waiting is gone.
        let _ = visit.reply.send(outcome);
    }

    /// The index of a station of this bus.
    pub(super) fn station(&self, id: &StationId) -> Option<usize> {
        self.plan.stations.iter().position(|station| station.station == *id)
    }

    /// Asks one unit, and takes note of how it fares.
    pub(super) async fn ask(
        &mut self,
        unit: usize,
        point: &str,
        request: Request,
        urgent: bool,
    ) -> Result<Answer, BusError> {
        if !self.comes_through(unit).await {
            self.deferred = true;
            return Err(BusError::Deferred { at: self.at(unit, point) });
        }
        let planned = &self.plan.units[unit];
        let question = Question {
            unit: planned.unit,
            point: point.to_owned(),
            request,
            timeout: planned.timeout,
        };
        let min_gap = planned.profile.min_gap;
        let begun = Instant::now();
        let outcome = self.link.ask(&question, urgent).await;
        let doubtful = self.link.doubtful_until(question.unit).unwrap_or(begun);
        self.units[unit].free_at = doubtful.max(Instant::now() + min_gap);
        self.note_request(&outcome, begun).await;
        self.note_unit(unit, &outcome, begun).await;
        outcome
    }

    /// Waits until the unit may be asked; false where something more urgent comes first.
    async fn comes_through(&mut self, unit: usize) -> bool {
        self.idle_until(self.units[unit].free_at).await
    }

    /// Waits until this moment; false as soon as something more urgent is ordered.
    pub(super) async fn idle_until(&mut self, until: Instant) -> bool {
        loop {
            if self.inbox.orders().waits(self.yields_to) {
                return false;
            }
            if until <= Instant::now() {
                return true;
            }
            self.pause(until).await;
        }
    }

    /// Until this moment, or until something is ordered.
    async fn pause(&mut self, until: Instant) {
        tokio::select! {
            () = self.inbox.changed() => {}
            () = sleep_until(until) => {}
        }
    }

    pub(super) fn at(&self, unit: usize, point: &str) -> At {
        let bus = self.plan.bus.id.clone();
        At { bus, unit: self.plan.units[unit].unit, point: point.to_owned() }
    }

    /// The bus's own account of a request.
    async fn note_request(&mut self, outcome: &Result<Answer, BusError>, begun: Instant) {
        self.status.progress.fetch_add(1, Ordering::Relaxed);
        let error = outcome.as_ref().err();
        let of_bus = error.filter(|error| error.is_of_bus());
        if of_bus.is_none() {
            let now = Instant::now();
            let answered = !error.is_some_and(BusError::is_silence);
            let mut figures = self.status.figures();
            figures.tally.count(error.is_some(), answered.then(|| now - begun));
            figures.utilisation.add(begun, now);
        }
        self.note_bus(of_bus).await;
    }

    async fn note_unit(&mut self, unit: usize, outcome: &Result<Answer, BusError>, begun: Instant) {
        let now = Instant::now();
        let error = outcome.as_ref().err();
        if error.is_some_and(BusError::is_of_bus) {
            return;
        }
        let pulse = &mut self.units[unit].pulse;
        let change = match error {
            Some(error) if error.is_silence() => pulse.failed(now, &mut self.silence),
            Some(_) | None => pulse.answered(now),
        };
        let silent = error.is_some_and(BusError::is_silence);
        if silent {
            self.units[unit].forget();
        }
        self.record_health(unit, error, (!silent).then(|| now - begun));
        self.tell_change(unit, change, error.map(ToString::to_string)).await;
    }

    fn record_health(&mut self, unit: usize, error: Option<&BusError>, latency: Option<Duration>) {
        let mut units = self.status.units.lock().expect("nobody panics while holding it");
        let shown = &mut units[unit];
        shown.state = self.units[unit].pulse.state;
        let tally = &mut self.units[unit].tally;
        tally.count(error.is_some(), latency);
        (shown.requests, shown.errors) = (tally.requests, tally.errors);
        shown.latency_p50_ms = tally.percentile_ms(50);
        shown.latency_p99_ms = tally.percentile_ms(99);
        if let Some(error) = error {
            let text = error.to_string();
            if shown.last_error.as_ref() != Some(&text) {
                tracing::warn!("{text}");
            }
            shown.last_error = Some(text);
        } else if let Some(latency) = latency {
            shown.latency_ms = u32::try_from(latency.as_millis()).ok();
        }
    }

    /// Reports a unit that went down or came back.
    pub(super) async fn tell_change(
        &mut self,
        unit: usize,
        change: Option<Change>,
        error: Option<String>,
    ) {
        let planned = &self.plan.units[unit];
        let (bus, device) = (self.plan.bus.id.clone(), planned.device.clone());
        let number = planned.unit;
        match change {
            None => {}
            Some(Change::Down) => {
                let error = error.unwrap_or_else(|| "does not answer".into());
                self.tell(FieldEvent::UnitDown { bus, unit: number, device, error }).await;
            }
            Some(Change::Back) => {
                self.tell(FieldEvent::UnitBack { bus, unit: number, device }).await;
                self.schedule.hurry(|duty| !matches!(duty, Duty::Buttons), Instant::now());
            }
        }
    }

    /// Whether the bus can be reached, and whether its far side was lost meanwhile.
    async fn note_bus(&mut self, error: Option<impl std::borrow::Borrow<BusError>>) {
        let bus = self.plan.bus.id.clone();
        if self.link.losses() != self.losses {
            self.losses = self.link.losses();
            self.units.iter_mut().for_each(Unit::forget);
        }
        match error {
            Some(error) => {
                let error = error.borrow().to_string();
                // The reason may change: unplugged, then held by another process.
                let known = self.status.figures().error.replace(error.clone());
                if self.unreachable && known.as_ref() == Some(&error) {
                    return;
                }
                self.unreachable = true;
                self.tell(FieldEvent::BusDown { bus, error }).await;
            }
            None if self.unreachable => {
                self.unreachable = false;
                self.status.figures().error = None;
                self.schedule.hurry(|_| true, Instant::now());
                self.tell(FieldEvent::BusBack { bus }).await;
            }
            None => {}
        }
    }

    /// Tells the daemon. It is the only listener: where it is slow, this bus waits and polls less,
    /// no fact is dropped.
    pub(super) async fn tell(&mut self, event: FieldEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("nobody listens to bus {} any more", self.plan.bus.id);
        }
    }

    pub(super) async fn tell_switch(&mut self, station: usize, report: SwitchReport) {
        if self.deferred {
            return;
        }
        let station = self.plan.stations[station].station.clone();
        self.tell(FieldEvent::Switch { station, report }).await;
    }

    pub(super) async fn tell_reading(&mut self, station: usize, reading: Reading) {
        if self.deferred {
            return;
        }
        let station = self.plan.stations[station].station.clone();
        self.tell(FieldEvent::Meter { station, reading }).await;
    }

    pub(super) async fn tell_silent(&mut self, station: usize) {
        if self.deferred {
            return;
        }
        let station = self.plan.stations[station].station.clone();
        self.tell(FieldEvent::MeterSilent { station }).await;
    }
}

impl Unit {
    /// It was lost: what it was told it may have forgotten, and it may be another device now.
    fn forget(&mut self) {
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
