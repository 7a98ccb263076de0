//! What a unit may be that the config does not know: asked for what profiles name as identifying,
//! then for a voltage that a grid has, then how many relays and inputs it holds.
//!
//! Only reads, none of them twice. A unit that falls silent or hangs up is left alone.

use crate::cli::console::Console;
use crate::config::profile::{Point, Profile, Table};
use crate::core::ids::BusId;
use crate::io::modbus;
use crate::protocol::control::{BusAnswer, BusOrder, FailureKind};

/// The point that tells a meter in the right word order.
const VOLTAGE: &str = "voltage";

/// A silent answer to what a unit does not know is no answer; after so many it is left alone.
const SILENCES: u32 = 3;

/// Whether a unit is what a profile describes.
type Fits<'c> = fn(&mut Interview<'c>, &Profile) -> bool;

/// The names of the profiles that fit a unit, which may have registers or coils only.
pub(super) fn proposals(
    console: &mut Console,
    bus: &BusId,
    (unit, has_registers): (u8, bool),
    profiles: &[&Profile],
) -> Vec<String> {
    let mut interview =
        Interview { console, bus, unit, told: Vec::new(), silences: 0, left_alone: false };
    let of_registers: [Fits<'_>; 2] = [Interview::is_model, Interview::shows_grid];
    let of_registers = of_registers.into_iter().filter(|_| has_registers);
    for fits in of_registers.chain([Interview::is_board as Fits<'_>]) {
        let fitting = profiles.iter().filter(|profile| fits(&mut interview, profile));
        let names: Vec<String> = fitting.map(|profile| profile.name.clone()).collect();
        if !names.is_empty() {
            return names;
        }
    }
    Vec::new()
}

/// A unit under questions.
struct Interview<'c> {
    console: &'c mut Console,
    bus: &'c BusId,
    unit: u8,
    /// `None` for what it refused or did not answer.
    told: Vec<(BusOrder, Option<BusAnswer>)>,
    silences: u32,
    left_alone: bool,
}

impl Interview<'_> {
    /// Its identifying register shows this model.
    fn is_model(&mut self, profile: &Profile) -> bool {
        let identify = profile.identify.as_ref();
        let Some(point) = identify.and_then(|identify| profile.points.get(&identify.point)) else {
            return false;
        };
        self.words(point).is_some_and(|words| modbus::is_model(profile, &words))
    }

    /// As this meter it shows a voltage of the grid.
    fn shows_grid(&mut self, profile: &Profile) -> bool {
        let point = profile.points.get(VOLTAGE).filter(|point| point.exponent.is_none());
        let Some(point) = point else { return false };
        let words = self.words(point);
        words.is_some_and(|words| modbus::check_voltage(point, &words, None).is_ok())
    }

    /// It holds as many relays as this board, where it has them, and as many inputs.
    fn is_board(&mut self, profile: &Profile) -> bool {
        let Some(relays) = row(profile, "relay-").filter(|row| row.table == Table::Coil) else {
            return false;
        };
        self.ends(&relays)
            && match row(profile, "input-") {
                Some(inputs) => self.ends(&inputs),
                None => {
                    let first = Row { table: Table::Discrete, first: 0, count: 1 };
                    self.ask(first.order()).is_none()
                }
            }
    }

    /// It has all of these bits and none after them.
    fn ends(&mut self, row: &Row) -> bool {
        let beyond = Row { first: row.first + row.count, count: 1, ..*row };
        self.ask(row.order()).is_some() && self.ask(beyond.order()).is_none()
    }

    fn words(&mut self, point: &Point) -> Option<Vec<u16>> {
        match self.ask(modbus::span(point))? {
            BusAnswer::Words(words) => Some(words),
            BusAnswer::Bits(_) | BusAnswer::Written => None,
        }
    }

    fn ask(&mut self, order: BusOrder) -> Option<BusAnswer> {
        if let Some((_, answer)) = self.told.iter().find(|(asked, _)| *asked == order) {
            return answer.clone();
        }
        if self.left_alone {
            return None;
        }
        let answer = match self.console.ask(self.bus, self.unit, order.clone()) {
            Ok(answer) => Some(answer),
            Err(failure) => {
                match failure.kind {
                    FailureKind::Exception | FailureKind::Refused => {}
                    FailureKind::Silent => self.silences += 1,
                    // Some devices close the connection on what they do not know.
                    FailureKind::Broken | FailureKind::Unreachable => self.left_alone = true,
                }
                self.left_alone |= self.silences >= SILENCES;
                None
            }
        };
        self.told.push((order, answer.clone()));
        answer
    }
}

/// Bits one after the other.
struct Row {
    table: Table,
    first: u16,
    count: u16,
}

impl Row {
    fn order(&self) -> BusOrder {
        let (address, count) = (self.first, self.count);
        match self.table {
            Table::Coil => BusOrder::ReadCoils { address, count },
            Table::Discrete => BusOrder::ReadDiscreteInputs { address, count },
            Table::Input => BusOrder::ReadInputRegisters { address, count },
            Table::Holding => BusOrder::ReadHoldingRegisters { address, count },
        }
    }
}

/// The points of a profile whose names begin so, where they are bits one after the other.
fn row(profile: &Profile, prefix: &str) -> Option<Row> {
    let named = profile.points.iter().filter(|(name, _)| name.starts_with(prefix));
    let mut points: Vec<&Point> = named.map(|(_, point)| point).collect();
    points.sort_by_key(|point| point.address);
    let first = points.first()?;
    let (table, address) = (first.table, first.address);
    let bits = matches!(table, Table::Coil | Table::Discrete);
    let follow = points
        .iter()
        .zip(address..)
        .all(|(point, at)| point.table == table && point.address == at && point.readable);
    let count = u16::try_from(points.len()).ok()?;
    (bits && follow).then_some(Row { table, first: address, count })
}
