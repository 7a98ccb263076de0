//! What hangs on one bus and which stations it serves, resolved once from the wiring; and which
//! points are read together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::schedule::Duty;
use crate::config::profile::{Point, Profile, Table};
use crate::config::wiring::{Bus, Control, Device, PointRef, StationWiring, Wiring};
use crate::core::ids::{BusId, DeviceId, StationId};

/// Unused registers between two points that are read along rather than asked around: 16 registers
/// are 18 ms at 19200 baud, less than a second request.
const MAX_HOLE_REGISTERS: u16 = 16;

/// One more for each such part of the pause that a device wants between two requests: a register's
/// time on the line at 9600 baud.
const REGISTER_TIME: Duration = Duration::from_micros(2_300);

/// The same for coils and inputs, of which eight share a byte.
const MAX_HOLE_BITS: u16 = 64;

/// Coils read at once; cheap modules have small buffers.
const MAX_BITS_PER_READ: u16 = 256;

/// One bus with all that it serves.
pub(super) struct BusPlan {
    pub(super) bus: Bus,
    pub(super) units: Vec<UnitPlan>,
    pub(super) stations: Vec<StationPlan>,
    /// Devices that no station needs, with the time that each may take to answer.
    others: BTreeMap<u8, Duration>,
}

/// One slave that a station needs.
pub(super) struct UnitPlan {
    pub(super) device: DeviceId,
    pub(super) unit: u8,
    pub(super) profile: Arc<Profile>,
    pub(super) timeout: Duration,
}

/// A point of a unit of this bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) unit: usize,
    pub(super) point: String,
}

/// How a station is switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SwitchPlan {
    Relay(Spot),
    Charger { unit: usize, current_limit_ma: u32 },
}

impl SwitchPlan {
    pub(super) fn unit(&self) -> usize {
        match self {
            SwitchPlan::Relay(spot) => spot.unit,
            SwitchPlan::Charger { unit, .. } => *unit,
        }
    }
}

/// Where a station's contactor feedback is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FeedbackPlan {
    None,
    Here(Spot),
    Elsewhere(BusId),
}

/// The parts of a station that are on this bus.
pub(super) struct StationPlan {
    pub(super) station: StationId,
    pub(super) switch: Option<SwitchPlan>,
    pub(super) feedback: FeedbackPlan,
    pub(super) meter: Option<usize>,
    /// The charger that tells about the car.
    pub(super) vehicle: Option<usize>,
    pub(super) button: Option<Spot>,
    pub(super) lamp: Option<Spot>,
}

impl StationPlan {
    /// The wired points of this station on this bus.
    pub(super) fn spots(&self) -> impl Iterator<Item = &Spot> {
        let switch = match &self.switch {
            Some(SwitchPlan::Relay(spot)) => Some(spot),
            Some(SwitchPlan::Charger { .. }) | None => None,
        };
        let feedback = match &self.feedback {
            FeedbackPlan::Here(spot) => Some(spot),
            FeedbackPlan::None | FeedbackPlan::Elsewhere(_) => None,
        };
        [switch, feedback, self.button.as_ref(), self.lamp.as_ref()].into_iter().flatten()
    }

    fn is_here(&self) -> bool {
        let feedback = matches!(self.feedback, FeedbackPlan::Here(_));
        let reads = self.meter.is_some() || self.vehicle.is_some() || self.button.is_some();
        self.switch.is_some() || self.lamp.is_some() || feedback || reads
    }
}

impl BusPlan {
    /// The plan of one bus of a site.
    pub(super) fn new(wiring: &Wiring, bus: &Bus) -> BusPlan {
        let here = wiring.devices.iter().filter(|device| device.bus == bus.id);
        let others = here.filter_map(|device| Some((device.unit, device.profile.timeout?)));
        let (units, stations) = (Vec::new(), Vec::new());
        let mut plan = BusPlan { bus: bus.clone(), units, stations, others: others.collect() };
        for wired in &wiring.stations {
            let station = plan.station(wiring, wired);
            if station.is_here() {
                plan.stations.push(station);
            }
        }
        plan
    }

    /// The unit that a duty asks; buttons may be on several.
    pub(super) fn unit_of(&self, duty: Duty) -> Option<usize> {
        let station = |index: usize| &self.stations[index];
        match duty {
            Duty::Heartbeat(unit) | Duty::Switches(unit) => Some(unit),
            Duty::Refresh(index) => station(index).switch.as_ref().map(SwitchPlan::unit),
            Duty::Meter(index) => station(index).meter.or(station(index).vehicle),
            Duty::Buttons => None,
        }
    }

    /// How long a unit that no station needs may take to answer.
    pub(super) fn timeout_of_other(&self, unit: u8) -> Duration {
        self.others.get(&unit).copied().unwrap_or(self.bus.timeout)
    }

    /// The longest that a device of this bus may take to answer.
    pub(super) fn slowest(&self) -> Duration {
        self.units.iter().map(|unit| unit.timeout).max().unwrap_or(self.bus.timeout)
    }

    fn station(&mut self, wiring: &Wiring, wired: &StationWiring) -> StationPlan {
        let (switch, charger) = match &wired.control {
            Control::Switch(point) => (self.spot(wiring, point).map(SwitchPlan::Relay), None),
            Control::Charger { device, current_limit_ma } => {
                let unit = self.unit(wiring, device);
                let current_limit_ma = *current_limit_ma;
                (unit.map(|unit| SwitchPlan::Charger { unit, current_limit_ma }), unit)
            }
        };
        let has = |plan: &BusPlan, unit: usize, point| {
            plan.units[unit].profile.points.contains_key(point)
        };
        let meter = match &wired.meter {
            Some(meter) => self.unit(wiring, meter),
            None => charger.filter(|unit| has(self, *unit, "energy_import")),
        };
        let vehicle = charger.filter(|unit| has(self, *unit, "vehicle_state"));
        StationPlan {
            station: wired.station.clone(),
            feedback: self.feedback(wiring, wired.feedback.as_ref()),
            button: wired.button.as_ref().and_then(|point| self.spot(wiring, point)),
            lamp: wired.lamp.as_ref().and_then(|point| self.spot(wiring, point)),
            switch,
            meter,
            vehicle,
        }
    }

    fn feedback(&mut self, wiring: &Wiring, point: Option<&PointRef>) -> FeedbackPlan {
        let Some(point) = point else { return FeedbackPlan::None };
        match (self.spot(wiring, point), device_of(wiring, &point.device)) {
            (Some(spot), _) => FeedbackPlan::Here(spot),
            (None, Some(device)) => FeedbackPlan::Elsewhere(device.bus.clone()),
            (None, None) => FeedbackPlan::None,
        }
    }

    fn spot(&mut self, wiring: &Wiring, point: &PointRef) -> Option<Spot> {
        let unit = self.unit(wiring, &point.device)?;
        Some(Spot { unit, point: point.point.clone() })
    }

    /// The index of a device on this bus; `None` where it hangs on another one.
    fn unit(&mut self, wiring: &Wiring, id: &DeviceId) -> Option<usize> {
        let known = self.units.iter().position(|unit| unit.device == *id);
        known.or_else(|| {
            let device = device_of(wiring, id).filter(|device| device.bus == self.bus.id)?;
            self.units.push(UnitPlan {
                device: id.clone(),
                unit: device.unit,
                profile: device.profile.clone(),
                timeout: device.profile.timeout.unwrap_or(self.bus.timeout),
            });
            Some(self.units.len() - 1)
        })
    }
}

fn device_of<'a>(wiring: &'a Wiring, id: &DeviceId) -> Option<&'a Device> {
    wiring.devices.iter().find(|device| device.id == *id)
}

/// Points that one request reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) table: Table,
    pub(super) address: u16,
    pub(super) count: u16,
    /// Names of the points, by address.
    pub(super) points: Vec<String>,
}

impl Block {
    /// One point alone.
    pub(super) fn alone(name: &str, point: &Point) -> Block {
        let count = point.value.registers();
        Block { table: point.table, address: point.address, count, points: vec![name.into()] }
    }

    /// Whether `point` may be read along without asking for too much or too much unused.
    fn takes(&self, point: &Point, profile: &Profile) -> bool {
        let (hole, limit) = match point.table {
            Table::Coil | Table::Discrete => (MAX_HOLE_BITS, MAX_BITS_PER_READ),
            Table::Input | Table::Holding => (max_hole(profile), profile.max_registers_per_read),
        };
        let hole = profile.max_hole.unwrap_or(hole);
        let end = u32::from(self.address) + u32::from(self.count);
        let point_end = u32::from(point.address) + u32::from(point.value.registers());
        point.table == self.table
            && u32::from(point.address) <= end + u32::from(hole)
            && point_end.max(end) - u32::from(self.address) <= u32::from(limit)
    }

    fn add(&mut self, name: &str, point: &Point) {
        let end = point.address.saturating_add(point.value.registers());
        self.count = self.count.max(end - self.address);
        self.points.push(name.into());
    }
}

fn max_hole(profile: &Profile) -> u16 {
    let spared = profile.min_gap.as_micros() / REGISTER_TIME.as_micros();
    MAX_HOLE_REGISTERS.saturating_add(u16::try_from(spared).unwrap_or(u16::MAX))
}

/// The fewest requests that read these points of a profile; each alone where `apart`.
/// Names that the profile does not have are left out.
pub(super) fn blocks(profile: &Profile, names: &[&str], apart: bool) -> Vec<Block> {
    let mut points: Vec<(&str, &Point)> = names
        .iter()
        .filter_map(|name| Some((*name, profile.points.get(*name)?)))
        .filter(|(_, point)| point.readable)
        .collect();
    points.sort_by_key(|(name, point)| (point.table, point.address, *name));
    points.dedup_by_key(|(name, _)| *name);
    let mut blocks: Vec<Block> = Vec::new();
    for (name, point) in points {
        match blocks.last_mut() {
            Some(block) if !apart && block.takes(point, profile) => {
                block.add(name, point);
            }
            Some(_) | None => blocks.push(Block::alone(name, point)),
        }
    }
    blocks
}
