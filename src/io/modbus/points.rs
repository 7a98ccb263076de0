//! Reads and writes of named points on one bus: the layer between requests and stations.

use std::collections::VecDeque;

use std::time::Duration;

use tokio::time::Instant;

use super::bus::Line;
use super::codec::{self, Number, Raw, Write};
use super::error::BusError;
use super::health::UnitState;
use super::link::{Answer, Request};
use super::plan::{Block, blocks};
use crate::config::profile::{Point, Profile, Table};

/// What a unit is asked to see whether it answers.
const STANDARD: [&str; 5] = ["energy_import", "power", "vehicle_state", "enable", "current_limit"];

/// A device that says it is busy is asked again after this (Modbus practice: 0.2 to 1 s).
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(200);
/// So often in a row; then it counts as an answer that is none.
pub(super) const BUSY_MAX: u32 = 5;

/// A read that was left at a device's pauses goes on within this time and twice what they take,
/// else it begins anew: the values of one reading belong together.
const PARKED_FOR: Duration = Duration::from_secs(2);

/// A read of several blocks between two of them.
#[derive(Debug)]
pub(super) struct Parked {
    names: Vec<String>,
    values: Values,
    /// How it ended for what was refused so far.
    outcome: Result<(), BusError>,
    todo: VecDeque<Block>,
    until: Instant,
}

/// The answers of one unit, by point.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<(String, Raw)>);

impl Values {
    /// What was read for a point, with the point; `None` where it was not answered.
    pub(super) fn of<'a>(
        &'a self,
        profile: &'a Profile,
        name: &str,
    ) -> Option<(&'a Point, &'a Raw)> {
        let raw = self.0.iter().find(|(point, _)| point == name).map(|(_, raw)| raw)?;
        Some((profile.points.get(name)?, raw))
    }

    fn add(&mut self, profile: &Profile, block: &Block, answer: &Answer) {
        for name in &block.points {
            let Some(point) = profile.points.get(name) else { continue };
            let first = usize::from(point.address - block.address);
            let raw = match answer {
                Answer::Bits(bits) => bits.get(first).copied().map(Raw::Bit),
                Answer::Words(words) => words
                    .get(first..first + usize::from(point.value.registers()))
                    .map(|words| Raw::Words(words.to_vec())),
                Answer::Written => None,
            };
            self.0.extend(raw.map(|raw| (name.clone(), raw)));
        }
    }
}

impl Line {
    /// Whether a unit is asked now: a silent one only when that is affordable, or once more when
    /// somebody waits for it.
    pub(super) fn may_ask(&self, unit: usize, urgent: bool) -> bool {
        let pulse = &self.units[unit].pulse;
        pulse.may_be_asked(Instant::now(), self.silence) || urgent && pulse.state != UnitState::Down
    }

    /// Suspects that others' silence keeps from their second chance are down after a while.
    pub(super) async fn give_up_suspects(&mut self) {
        for unit in 0..self.units.len() {
            let change = self.units[unit].pulse.given_up(Instant::now());
            self.tell_change(unit, change, None).await;
        }
    }

    /// Reads points that stations live by: what a unit refuses of them is known until it does not.
    pub(super) async fn read(
        &mut self,
        unit: usize,
        names: &[&str],
        urgent: bool,
    ) -> (Values, Result<(), BusError>) {
        let (values, outcome) = self.read_if_any(unit, names, urgent).await;
        if !self.deferred {
            self.status.units()[unit].note_outcome(names, outcome.as_ref().err());
        }
        (values, outcome)
    }

    /// Reads points of one unit with as few requests as its profile allows. Stops at a silence;
    /// what was refused is left out. While the device needs a pause others are asked.
    pub(super) async fn read_if_any(
        &mut self,
        unit: usize,
        names: &[&str],
        urgent: bool,
    ) -> (Values, Result<(), BusError>) {
        let profile = self.plan.units[unit].profile.clone();
        let now = Instant::now();
        let fresh = |parked: &Parked| parked.names == names && now < parked.until;
        let parked = self.units[unit].parked.take().filter(|_| !urgent).filter(fresh);
        let (mut values, mut outcome, mut todo, until) = match parked {
            Some(parked) => (parked.values, parked.outcome, parked.todo, parked.until),
            None => {
                let todo = VecDeque::from(blocks(&profile, names, self.units[unit].apart));
                let pauses = profile.min_gap * 2 * todo.len() as u32;
                (Values::default(), Ok(()), todo, now + PARKED_FOR + pauses)
            }
        };
        while let Some(block) = todo.pop_front() {
            if !urgent && self.units[unit].free_at > Instant::now() {
                let at = self.at(unit, &block.points.join("+"));
                todo.push_front(block);
                let names = names.iter().map(|name| name.to_string()).collect();
                self.units[unit].parked = Some(Parked { names, values, outcome, todo, until });
                self.deferred = true;
                return (Values::default(), Err(BusError::Deferred { at }));
            }
            let request = read_request(&block);
            match self.ask(unit, &block.points.join("+"), request, urgent).await {
                Ok(answer) => values.add(&profile, &block, &answer),
                Err(BusError::Refused { .. }) if block.points.len() > 1 => {
                    self.units[unit].apart = true;
                    let each = block
                        .points
                        .iter()
                        .filter_map(|name| Some(Block::alone(name, profile.points.get(name)?)));
                    each.rev().for_each(|block| todo.push_front(block));
                }
                Err(BusError::Busy { .. }) if self.units[unit].busy < BUSY_MAX => {
                    self.units[unit].free_at = Instant::now() + BUSY_PAUSE;
                    todo.push_front(block);
                }
                Err(error @ BusError::Deferred { .. }) => return (Values::default(), Err(error)),
                Err(error) if error.is_silence() || error.is_of_bus() => {
                    return (values, Err(error));
                }
                Err(error) => outcome = Err(error),
            }
        }
        (values, outcome)
    }

    /// Writes a value, in the point's unit, to one point.
    pub(super) async fn write(
        &mut self,
        unit: usize,
        name: &str,
        value: Number,
        urgent: bool,
    ) -> Result<(), BusError> {
        let not_writable = |line: &Line, problem| BusError::NotWritable {
            device: line.plan.units[unit].device.clone(),
            point: name.to_owned(),
            problem,
        };
        let profile = self.plan.units[unit].profile.clone();
        let point = profile.points.get(name);
        let point = point.ok_or_else(|| not_writable(self, "the profile has no such point"))?;
        let write = codec::encode(point, value).map_err(|problem| not_writable(self, problem))?;
        let several = match &write {
            Write::Register(address, word) => {
                Some(Request::WriteMultipleRegisters(*address, vec![*word]))
            }
            Write::Coil(..) | Write::Registers(..) => None,
        };
        if !self.idle_until(self.units[unit].writable_at).await {
            self.deferred = true;
            return Err(BusError::Deferred { at: self.at(unit, name) });
        }
        let mut outcome = self.ask(unit, name, write_request(write), urgent).await;
        // Some devices know function 16 only.
        if let (Err(BusError::Refused { code: 1, .. }), Some(several)) = (&outcome, several) {
            outcome = self.ask(unit, name, several, urgent).await;
        }
        self.units[unit].writable_at = Instant::now() + profile.min_write_gap;
        outcome.map(drop)
    }

    /// The same, for as long as the device is busy but not for ever.
    pub(super) async fn write_patiently(
        &mut self,
        unit: usize,
        name: &str,
        value: Number,
        urgent: bool,
    ) -> Result<(), BusError> {
        loop {
            match self.write(unit, name, value, urgent).await {
                Err(BusError::Busy { .. }) if self.units[unit].busy < BUSY_MAX => {
                    self.units[unit].free_at = Instant::now() + BUSY_PAUSE;
                }
                outcome => return outcome,
            }
        }
    }

    /// Sends the start-up writes of a unit that was lost since they were last sent. A refused one
    /// does not keep the unit from its work.
    pub(super) async fn prepare(&mut self, unit: usize, urgent: bool) -> Result<(), BusError> {
        if !self.units[unit].fresh {
            return Ok(());
        }
        let profile = self.plan.units[unit].profile.clone();
        for write in profile.startup.iter().skip(self.units[unit].prepared) {
            match self.write_patiently(unit, &write.point, Number::from(write.value), urgent).await
            {
                Err(error) if error.is_silence() || error.is_of_bus() => return Err(error),
                Err(error) => tracing::warn!("start-up write: {error}"),
                Ok(()) => {}
            }
            self.units[unit].prepared += 1;
        }
        self.units[unit].fresh = false;
        self.hurry_refresh(unit);
        Ok(())
    }

    /// One cheap question to a silent unit.
    pub(super) async fn probe(&mut self, unit: usize) {
        let profile = self.plan.units[unit].profile.clone();
        let used = self.used_points(unit);
        let cheapest = used
            .iter()
            .filter_map(|name| Some((name, profile.points.get(*name)?)))
            .filter(|(_, point)| point.readable)
            .min_by_key(|(_, point)| point.value.registers())
            .map(|(name, point)| Block::alone(name, point));
        match cheapest {
            Some(block) => {
                let request = read_request(&block);
                // The outcome is in the unit's pulse.
                drop(self.ask(unit, "probe", request, false).await);
            }
            // Nothing to read: the next write will tell.
            None => drop(self.units[unit].pulse.answered(Instant::now())),
        }
    }

    /// The points of a unit that stations use.
    fn used_points(&self, unit: usize) -> Vec<&str> {
        let profile = &self.plan.units[unit].profile;
        let standard = STANDARD;
        let wired = self.plan.stations.iter().flat_map(|station| station.spots());
        let wired = wired.filter(|spot| spot.unit == unit).map(|spot| spot.point.as_str());
        let standard = standard.into_iter().filter(|name| profile.points.contains_key(*name));
        wired.chain(standard).collect()
    }
}

fn read_request(block: &Block) -> Request {
    let (address, count) = (block.address, block.count);
    match block.table {
        Table::Coil => Request::ReadCoils(address, count),
        Table::Discrete => Request::ReadDiscreteInputs(address, count),
        Table::Input => Request::ReadInputRegisters(address, count),
        Table::Holding => Request::ReadHoldingRegisters(address, count),
    }
}

fn write_request(write: Write) -> Request {
    match write {
        Write::Coil(address, on) => Request::WriteSingleCoil(address, on),
        Write::Register(address, word) => Request::WriteSingleRegister(address, word),
        Write::Registers(address, words) => Request::WriteMultipleRegisters(address, words),
    }
}
