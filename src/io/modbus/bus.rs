//! The task of one bus: the most urgent order, else what is due, one request at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_modbus::Request;

use super::error::BusError;
use super::health::{Change, Pulse, Silence, UnitHealth, UnitState};
use super::link::{Answer, Link, Question, wait_until};
use super::plan::{BusPlan, SwitchPlan};
use super::queue::{Inbox, Job};
use super::schedule::{Duty, Schedule};
use super::{FieldEvent, TAP_HOLD};
use crate::core::event::{Pace, Reading, SwitchReport};
use crate::core::ids::{BusId, StationId};

/// The task wakes at least this often, so that its progress can be seen.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// What others see of a bus.
#[derive(Debug, Default)]
pub(super) struct Status {
    /// Counts turns and requests: a bus whose counter stands still hangs.
    pub(super) progress: AtomicU64,
    pub(super) units: Mutex<Vec<UnitHealth>>,
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
    /// The device's own pause between requests.
    free_at: Instant,
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
            free_at: now,
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
            match self.turn(Instant::now()) {
                Turn::Job(job) => self.work(job).await,
                Turn::Duty(duty) => {
                    let begun = Instant::now();
                    self.perform(duty).await;
                    self.schedule.done(duty, begun, Instant::now());
                }
                Turn::Probe(unit) => self.probe(unit).await,
                Turn::Reconnect => {
                    let opened = self.link.open(false).await;
                    self.note_bus(opened.err()).await;
                }
                Turn::Rest(until) => {
                    let inbox = Arc::clone(&self.inbox);
                    tokio::select! {
                        () = inbox.changed() => {}
                        () = sleep_until(until) => {}
                    }
                }
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
            (orders.pop(), orders.hold_until.filter(|until| now < *until))
        };
        match (job, hold) {
            (Some(job), _) => Turn::Job(job),
            (None, Some(until)) => Turn::Rest(until),
            (None, None) => self.routine(now),
        }
    }

    fn routine(&self, now: Instant) -> Turn {
        if self.link.retry_at().is_some_and(|due| due <= now) {
            return Turn::Reconnect;
        }
        let silent = |unit: &&usize| self.units[**unit].pulse.state == UnitState::Down;
        let askable = |unit: &usize| self.units[*unit].pulse.askable_at(self.silence);
        let probes: Vec<usize> = (0..self.units.len()).collect();
        let probe = probes.iter().filter(silent).min_by_key(|unit| askable(unit)).copied();
        let probe = probe.filter(|_| !self.unreachable);
        if let Some(unit) = probe.filter(|unit| askable(unit) <= now) {
            return Turn::Probe(unit);
        }
        let free_at = |duty| self.free_at(duty);
        if let Some(duty) = self.schedule.next(now, free_at) {
            return Turn::Duty(duty);
        }
        let wakes =
            [self.schedule.next_due(free_at), probe.as_ref().map(askable), self.link.retry_at()];
        let next = wakes.into_iter().flatten().min();
        Turn::Rest(next.map_or(now + MAX_SLEEP, |next| next.min(now + MAX_SLEEP)))
    }

    /// Until when the unit of a duty wants its pause.
    fn free_at(&self, duty: Duty) -> Option<Instant> {
        let stations = &self.plan.stations;
        let unit = match duty {
            Duty::Heartbeat(unit) | Duty::Switches(unit) => Some(unit),
            Duty::Refresh(station) => stations[station].switch.as_ref().map(SwitchPlan::unit),
            Duty::Meter(station) => stations[station].meter.or(stations[station].vehicle),
            Duty::Buttons => None,
        };
        unit.map(|unit| self.units[unit].free_at)
    }

    async fn work(&mut self, job: Job) {
        let Some(station) = self.station(job.station()) else { return };
        match job {
            Job::Open(_) => self.set_switch(station, false).await,
            Job::Close(_) => self.set_switch(station, true).await,
            Job::ReadSwitch(_) => self.read_switch(station).await,
            Job::ReadMeter(_) => {
                self.read_meter(station, true).await;
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

    /// Asks one unit, and takes note of how it fares.
    pub(super) async fn ask(
        &mut self,
        unit: usize,
        point: &str,
        request: Request<'static>,
        urgent: bool,
    ) -> Result<Answer, BusError> {
        let planned = &self.plan.units[unit];
        let question = Question {
            unit: planned.unit,
            point: point.to_owned(),
            request,
            timeout: planned.timeout,
        };
        let min_gap = planned.profile.min_gap;
        wait_until(self.units[unit].free_at).await;
        let begun = Instant::now();
        let outcome = self.link.ask(&question, urgent).await;
        self.units[unit].free_at = Instant::now() + min_gap;
        self.note_bus(outcome.as_ref().err().filter(|error| error.is_of_bus())).await;
        self.note_unit(unit, &outcome, begun).await;
        outcome
    }

    async fn note_unit(&mut self, unit: usize, outcome: &Result<Answer, BusError>, begun: Instant) {
        self.status.progress.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let error = outcome.as_ref().err();
        let pulse = &mut self.units[unit].pulse;
        let change = match error {
            Some(error) if error.is_of_bus() => None,
            Some(error) if error.is_silence() => pulse.failed(now, &mut self.silence),
            Some(_) | None => pulse.answered(now),
        };
        let silent = error.is_some_and(BusError::is_silence);
        if silent {
            (self.units[unit].fresh, self.units[unit].serial_due) = (true, true);
        }
        self.record_health(unit, error, (!silent).then(|| now - begun));
        self.tell_change(unit, change, error.map(ToString::to_string)).await;
    }

    fn record_health(&self, unit: usize, error: Option<&BusError>, latency: Option<Duration>) {
        let mut units = self.status.units.lock().expect("nobody panics while holding it");
        let shown = &mut units[unit];
        shown.state = self.units[unit].pulse.state;
        shown.requests += 1;
        if let Some(error) = error {
            shown.errors += 1;
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
            for unit in &mut self.units {
                (unit.fresh, unit.serial_due) = (true, true);
            }
        }
        match error {
            Some(error) if !self.unreachable => {
                self.unreachable = true;
                let error = error.borrow().to_string();
                tracing::warn!("{error}");
                self.tell(FieldEvent::BusDown { bus, error }).await;
            }
            None if self.unreachable => {
                self.unreachable = false;
                self.schedule.hurry(|_| true, Instant::now());
                self.tell(FieldEvent::BusBack { bus }).await;
            }
            Some(_) | None => {}
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
        let station = self.plan.stations[station].station.clone();
        self.tell(FieldEvent::Switch { station, report }).await;
    }

    pub(super) async fn tell_reading(&mut self, station: usize, reading: Reading) {
        let station = self.plan.stations[station].station.clone();
        self.tell(FieldEvent::Meter { station, reading }).await;
    }

    pub(super) async fn tell_silent(&mut self, station: usize) {
        let station = self.plan.stations[station].station.clone();
        self.tell(FieldEvent::MeterSilent { station }).await;
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
