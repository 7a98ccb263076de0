//! The field bus: one task per Modbus bus switches, reads and watches what hangs on it.
//!
//! - [`Field::send`] never waits and never fails: orders of one kind for one station replace each
//!   other, so what waits is bounded by the number of stations.
//! - Every outcome comes back as a [`FieldEvent`]. The tasks wait for the daemon to take it.
//! - Urgency: open a switch, close one, read for a tap, heartbeats and buttons, polls of running
//!   stations, idle polls, a technician's requests. After a read for a tap no poll begins before
//!   its switch was written.
//! - One request in flight per bus. An answer is used only if it is surely the answer to its
//!   question, see `link`. Silent units back off and cost the bus little, see `health`.

mod bus;
mod client;
mod codec;
mod console;
mod error;
mod frame;
mod health;
mod link;
mod meters;
#[cfg(feature = "demo")]
pub mod outside;
mod pdu;
mod plan;
mod points;
mod queue;
mod requests;
mod sanity;
mod schedule;
mod stats;
mod status;
mod switches;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::wiring::Wiring;
use crate::core::event::{Pace, Reading, SwitchReport};
use crate::core::ids::{BusId, DeviceId, StationId};
use bus::Line;
pub use console::{Direct, Visitor, bus_of, encoded, gap_of_strangers, protected, shown, span};
pub use error::{At, BusError, OpenError};
pub use health::{BusHealth, UnitAndBus, UnitHealth, UnitState};
use plan::BusPlan;
use queue::{Inbox, Job};
pub use sanity::{WrongVoltage, check_voltage, is_model};
use status::Status;

/// How long no poll begins after a read for a tap, waiting for the switch order that follows it:
/// a commit on a slow SD card takes up to 200 ms.
const TAP_HOLD: Duration = Duration::from_millis(250);

/// What a bus is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldCommand {
    /// Give power or permission; answered by [`FieldEvent::Switch`]. Cancels an `OpenSwitch` that
    /// has not begun.
    CloseSwitch(StationId),
    /// Take it away; answered by [`FieldEvent::Switch`]. Cancels a `CloseSwitch` that has not
    /// begun.
    OpenSwitch(StationId),
    /// Answered by [`FieldEvent::Switch`].
    ReadSwitch(StationId),
    /// Answered by [`FieldEvent::Meter`] or [`FieldEvent::MeterSilent`].
    ReadMeter(StationId),
    /// The same for the register alone, as fast as it can be had: a start waits for it.
    ReadRegister(StationId),
    /// From now on the meter is read at this pace, and the switch at least every 10 s or, while the
    /// pace is not idle, every second.
    Pace(StationId, Pace),
    /// From now on the buttons of these stations, and no others, are watched.
    WatchButtons(Vec<StationId>),
    /// Set the station's lamp.
    SetLamp(StationId, bool),
}

/// What a bus found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say it")]
pub enum FieldEvent {
    /// A switch was written or read.
    Switch { station: StationId, report: SwitchReport },
    /// A meter answered; what it did not answer is `None`. A charger whose meter is another device
    /// may report its vehicle state alone.
    Meter { station: StationId, reading: Reading },
    /// A meter did not answer, or answered no value.
    MeterSilent { station: StationId },
    /// A watched button went down.
    Button { station: StationId },
    /// A unit does not answer any more.
    UnitDown { bus: BusId, unit: u8, device: DeviceId, error: String, figures: UnitAndBus },
    /// A unit that was down answers.
    UnitBack { bus: BusId, unit: u8, device: DeviceId, figures: UnitAndBus },
    /// A bus cannot be opened.
    BusDown { bus: BusId, error: String },
    /// It can again.
    BusBack { bus: BusId },
}

/// The buses of a site at work, until this is dropped.
#[derive(Debug)]
pub struct Field {
    lines: Vec<Access>,
    routes: BTreeMap<StationId, Route>,
}

/// The way to one bus task.
#[derive(Debug)]
struct Access {
    bus: BusId,
    inbox: Arc<Inbox>,
    status: Arc<Status>,
}

/// Which buses serve a station, as indices of [`Field::lines`].
#[derive(Debug, Default)]
struct Route {
    switch: Option<usize>,
    meters: Vec<usize>,
    lamp: Option<usize>,
    all: Vec<usize>,
}

/// Starts one task per bus. Must be called within a tokio runtime with time and I/O.
pub fn spawn(wiring: &Wiring, events: mpsc::Sender<FieldEvent>) -> Field {
    let mut field = Field { lines: Vec::new(), routes: BTreeMap::new() };
    let plans: Vec<BusPlan> = wiring.buses.iter().map(|bus| BusPlan::new(wiring, bus)).collect();
    for (line, plan) in plans.iter().enumerate() {
        let (inbox, status) = (Arc::default(), Arc::new(Status::new()));
        field.lines.push(Access { bus: plan.bus.id.clone(), inbox, status });
        for station in &plan.stations {
            let route = field.routes.entry(station.station.clone()).or_default();
            route.all.push(line);
            if station.switch.is_some() {
                route.switch = Some(line);
            }
            if station.meter.is_some() || station.vehicle.is_some() {
                route.meters.push(line);
            }
            if station.lamp.is_some() {
                route.lamp = Some(line);
            }
        }
    }
    let inboxes = field.lines.iter().map(|line| (line.bus.clone(), Arc::clone(&line.inbox)));
    let peers: BTreeMap<BusId, Arc<Inbox>> = inboxes.collect();
    for (plan, line) in plans.into_iter().zip(&field.lines) {
        let (inbox, status) = (Arc::clone(&line.inbox), Arc::clone(&line.status));
        let line = Line::new(plan, inbox, peers.clone(), status, events.clone());
        tokio::spawn(line.run());
    }
    field
}

impl Field {
    /// Hands an order to the buses concerned.
    pub fn send(&self, command: FieldCommand) {
        match command {
            FieldCommand::CloseSwitch(station) => self.switch(&station, Job::Close),
            FieldCommand::OpenSwitch(station) => self.switch(&station, Job::Open),
            FieldCommand::ReadSwitch(station) => self.switch(&station, Job::ReadSwitch),
            FieldCommand::ReadMeter(station) => self.read_meter(&station, Job::ReadMeter),
            FieldCommand::ReadRegister(station) => self.read_meter(&station, Job::ReadRegister),
            FieldCommand::Pace(station, pace) => {
                for line in self.route(&station).iter().flat_map(|route| &route.all) {
                    self.lines[*line].inbox.order(|orders| {
                        orders.paces.insert(station.clone(), pace);
                    });
                }
            }
            FieldCommand::WatchButtons(stations) => {
                for line in &self.lines {
                    line.inbox.order(|orders| orders.buttons = Some(stations.clone()));
                }
            }
            FieldCommand::SetLamp(station, on) => {
                if let Some(line) = self.route(&station).and_then(|route| route.lamp) {
                    let job = Job::Lamp { station, on };
                    self.lines[line].inbox.order(|orders| orders.push(job));
                }
            }
        }
    }

    /// How every unit of every bus is doing.
    pub fn health(&self) -> Vec<UnitHealth> {
        self.lines.iter().flat_map(|line| line.status.unit_health(&line.bus)).collect()
    }

    /// How every bus is doing.
    pub fn buses(&self) -> Vec<BusHealth> {
        self.lines.iter().map(|line| line.status.health(&line.bus)).collect()
    }

    /// For a technician's requests, which go last.
    pub fn visitor(&self) -> Visitor {
        let inboxes = self.lines.iter().map(|line| (line.bus.clone(), Arc::clone(&line.inbox)));
        Visitor::new(inboxes.collect())
    }

    /// A counter per bus that grows at least every few seconds, for the watchdog.
    pub fn progress(&self) -> Vec<(BusId, u64)> {
        let count = |line: &Access| line.status.progress.load(Ordering::Relaxed);
        self.lines.iter().map(|line| (line.bus.clone(), count(line))).collect()
    }

    fn switch(&self, station: &StationId, job: fn(StationId) -> Job) {
        if let Some(line) = self.route(station).and_then(|route| route.switch) {
            self.lines[line].inbox.order(|orders| orders.push(job(station.clone())));
        }
    }

    /// Reads a meter; the bus of the station's switch holds its polls until that is written.
    fn read_meter(&self, station: &StationId, job: fn(StationId) -> Job) {
        let Some(route) = self.route(station) else { return };
        let switch = route.switch;
        if let Some(line) = switch.filter(|line| !route.meters.contains(line)) {
            let until = Instant::now() + TAP_HOLD;
            self.lines[line].inbox.order(|orders| orders.hold_until = Some(until));
        }
        // A station without a meter is answered by the bus of its switch: silent.
        let unmetered = switch.filter(|_| route.meters.is_empty());
        for line in route.meters.iter().copied().chain(unmetered) {
            self.lines[line].inbox.order(|orders| orders.push(job(station.clone())));
        }
    }

    fn route(&self, station: &StationId) -> Option<&Route> {
        let route = self.routes.get(station);
        if route.is_none() {
            tracing::error!("station {station} is on no bus; check its wiring");
        }
        route
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        for line in &self.lines {
            line.inbox.order(|orders| orders.closed = true);
        }
    }
}
