//! Meters, chargers' vehicle states and buttons of one bus.

use tokio::time::Instant;

use super::FieldEvent;
use super::bus::Line;
use super::codec::{self, Number, Part};
use super::error::BusError;
use super::plan::{Spot, SwitchPlan};
use super::points::Values;
use super::schedule::Duty;
use crate::config::profile::{Point, Profile};
use crate::core::event::{Pace, Reading, Vehicle};
use crate::core::ids::StationId;

const ENERGY: &str = "energy_import";
const POWER: &str = "power";
const VEHICLE_STATE: &str = "vehicle_state";
/// Where another register than [`VEHICLE_STATE`] tells that the car charges.
const CHARGING_STATE: &str = "charging_state";
const SERIAL_NUMBER: &str = "serial_number";

impl Line {
    /// Reads the meter and the vehicle state of a station and reports what was answered.
    pub(super) async fn read_meter(&mut self, station: usize, urgent: bool) {
        let (meter, vehicle) =
            (self.plan.stations[station].meter, self.plan.stations[station].vehicle);
        let mut reading = Reading::default();
        if let Some(unit) = meter {
            let names: &[&str] = match vehicle == Some(unit) {
                true => &[ENERGY, POWER, VEHICLE_STATE],
                false => &[ENERGY, POWER],
            };
            // Why there is no reading is in the unit's health; here it is a silent meter.
            drop(self.read_values(unit, names, urgent, &mut reading).await);
        }
        if let Some(unit) = vehicle.filter(|unit| meter != Some(*unit)) {
            drop(self.read_vehicle(unit, urgent, &mut reading).await);
        }
        let metered = reading.energy_wh.is_some() || reading.power_mw.is_some();
        // A charger's meter on another bus reports for itself.
        let expected = meter.is_some() || vehicle.is_none();
        if !metered && expected {
            self.tell_silent(station).await;
        }
        if metered || reading.vehicle.is_some() {
            self.tell_reading(station, reading).await;
        }
    }

    /// Reads a station's register alone, since a start waits for it: power is live a request and a
    /// gap sooner. The next poll tells the rest.
    pub(super) async fn read_register(&mut self, station: usize) {
        let planned = &self.plan.stations[station];
        let Some(unit) = planned.meter else {
            // A charger's meter on another bus reports for itself.
            if planned.vehicle.is_none() {
                self.tell_silent(station).await;
            }
            return;
        };
        let mut reading = Reading::default();
        // Why there is no reading is in the unit's health; here it is a silent meter.
        drop(self.read_values(unit, &[ENERGY], true, &mut reading).await);
        match reading.energy_wh {
            Some(_) => self.tell_reading(station, reading).await,
            None => self.tell_silent(station).await,
        }
    }

    async fn read_values(
        &mut self,
        unit: usize,
        names: &[&str],
        urgent: bool,
        reading: &mut Reading,
    ) -> Result<(), BusError> {
        if !self.may_ask(unit, urgent) {
            return Ok(());
        }
        self.prepare(unit, urgent).await?;
        self.read_serial(unit, urgent).await?;
        let profile = self.plan.units[unit].profile.clone();
        let names: Vec<&str> = names.iter().flat_map(|name| with_parts(&profile, name)).collect();
        let (values, outcome) = self.read(unit, &names, urgent).await;
        reading.energy_wh = value(&values, &profile, ENERGY, codec::energy_wh);
        reading.power_mw = value(&values, &profile, POWER, codec::power_mw);
        reading.vehicle = vehicle_in(&values, &profile);
        if reading.energy_wh.is_some() || reading.power_mw.is_some() {
            reading.serial = self.units[unit].serial.take();
        }
        outcome
    }

    async fn read_vehicle(
        &mut self,
        unit: usize,
        urgent: bool,
        reading: &mut Reading,
    ) -> Result<(), BusError> {
        if !self.may_ask(unit, urgent) {
            return Ok(());
        }
        self.prepare(unit, urgent).await?;
        let profile = self.plan.units[unit].profile.clone();
        let (values, outcome) = self.read(unit, &[VEHICLE_STATE, CHARGING_STATE], urgent).await;
        reading.vehicle = vehicle_in(&values, &profile);
        outcome
    }

    /// Reads the serial number where that is due. A meter that refuses has none.
    async fn read_serial(&mut self, unit: usize, urgent: bool) -> Result<(), BusError> {
        if !self.units[unit].serial_due {
            return Ok(());
        }
        let profile = self.plan.units[unit].profile.clone();
        let (values, outcome) = self.read_if_any(unit, &[SERIAL_NUMBER], urgent).await;
        match outcome {
            Err(error) if error.is_silence() || error.is_of_bus() => return Err(error),
            Err(error) => tracing::debug!("no serial number: {error}"),
            Ok(()) => {}
        }
        let shown = values.of(&profile, SERIAL_NUMBER);
        self.units[unit].serial = shown.and_then(|(point, raw)| codec::text(point, raw));
        self.units[unit].serial_due = false;
        Ok(())
    }

    /// Takes over another pace for a station's meter and the switches next to it.
    pub(super) fn set_pace(&mut self, id: &StationId, pace: Pace, now: Instant) {
        let Some(station) = self.station(id) else { return };
        self.stations[station].pace = pace;
        self.schedule.pace(Duty::Meter(station), pace, now);
        let Some(unit) = self.plan.stations[station].switch.as_ref().map(SwitchPlan::unit) else {
            return;
        };
        let on_unit = |index: &usize| {
            self.plan.stations[*index].switch.as_ref().is_some_and(|switch| switch.unit() == unit)
        };
        let mut neighbours = (0..self.stations.len()).filter(on_unit);
        let any = neighbours.any(|index| self.stations[index].pace != Pace::Idle);
        let pace = if any { Pace::Running } else { Pace::Idle };
        self.schedule.pace(Duty::Switches(unit), pace, now);
    }

    /// Watches these buttons and no others. A button that is already down counts once it was up.
    pub(super) fn watch_buttons(&mut self, stations: &[StationId], now: Instant) {
        let mut any = false;
        for (planned, state) in self.plan.stations.iter().zip(&mut self.stations) {
            let watched = planned.button.is_some() && stations.contains(&planned.station);
            if !(watched && state.watched) {
                state.pressed = None;
            }
            state.watched = watched;
            any |= watched;
        }
        self.schedule.watch_buttons(any, now);
    }

    /// Reads all watched buttons and reports those that went down.
    pub(super) async fn read_buttons(&mut self) {
        let watched: Vec<(usize, Spot)> = self
            .plan
            .stations
            .iter()
            .enumerate()
            .filter(|(index, _)| self.stations[*index].watched)
            .filter_map(|(index, planned)| Some((index, planned.button.clone()?)))
            .collect();
        let mut units: Vec<usize> = watched.iter().map(|(_, spot)| spot.unit).collect();
        units.sort_unstable();
        units.dedup();
        for unit in units {
            if !self.may_ask(unit, false) {
                continue;
            }
            let here: Vec<&(usize, Spot)> =
                watched.iter().filter(|(_, spot)| spot.unit == unit).collect();
            let names: Vec<&str> = here.iter().map(|(_, spot)| spot.point.as_str()).collect();
            let (values, _) = self.read(unit, &names, false).await;
            let profile = self.plan.units[unit].profile.clone();
            for (station, spot) in here {
                let shown = values.of(&profile, &spot.point);
                let down = shown.and_then(|(point, raw)| codec::is_on(point, raw));
                self.note_button(*station, down).await;
            }
        }
    }

    async fn note_button(&mut self, station: usize, down: Option<bool>) {
        let before = self.stations[station].pressed;
        if down.is_some() {
            self.stations[station].pressed = down;
        }
        if before == Some(false) && down == Some(true) {
            let station = self.plan.stations[station].station.clone();
            self.tell(FieldEvent::Button { station }).await;
        }
    }

    /// Writes the heartbeat of a unit that answers.
    pub(super) async fn write_heartbeat(&mut self, unit: usize) {
        let Some(heartbeat) = self.plan.units[unit].profile.heartbeat.clone() else { return };
        if self.may_ask(unit, false) && self.prepare(unit, false).await.is_ok() {
            let value = Number::from(heartbeat.value);
            // A refused or unanswered heartbeat is in the unit's health; the next one is soon.
            drop(self.write_patiently(unit, &heartbeat.point, value, false).await);
        }
    }
}

/// A point's name with all that its value is made of.
fn with_parts<'p>(profile: &'p Profile, name: &'p str) -> Vec<&'p str> {
    let Some(point) = profile.points.get(name) else { return Vec::new() };
    let mut names: Vec<&str> = vec![name];
    names.extend((name == VEHICLE_STATE).then_some(CHARGING_STATE));
    names.extend(point.plus.iter().map(String::as_str));
    let exponents: Vec<&str> =
        names.iter().filter_map(|name| profile.points.get(*name)?.exponent.as_deref()).collect();
    names.extend(exponents);
    names
}

/// The value of a point, with those that are added to it; `None` where one was not answered.
fn value(
    values: &Values,
    profile: &Profile,
    name: &str,
    decode: fn(&[Part<'_>]) -> Option<i64>,
) -> Option<i64> {
    let plus = profile.points.get(name)?.plus.iter().map(String::as_str);
    let part = |name: &str| {
        let (point, raw) = values.of(profile, name)?;
        Some(Part { point, raw, exponent: exponent_of(values, profile, point) })
    };
    let parts: Option<Vec<Part<'_>>> = std::iter::once(name).chain(plus).map(part).collect();
    decode(&parts?)
}

fn exponent_of(values: &Values, profile: &Profile, point: &Point) -> Option<i64> {
    let (point, raw) = values.of(profile, point.exponent.as_deref()?)?;
    codec::whole(point, raw)
}

fn vehicle_in(values: &Values, profile: &Profile) -> Option<Vehicle> {
    let of = |name| values.of(profile, name).and_then(|(point, raw)| codec::vehicle(point, raw));
    let vehicle = of(VEHICLE_STATE)?;
    let finer = of(CHARGING_STATE).filter(|_| vehicle == Vehicle::Connected);
    Some(finer.unwrap_or(vehicle))
}
