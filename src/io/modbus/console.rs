//! The bus for a technician: raw requests, through the daemon's bus tasks or over a line of one's
//! own, and points as people read and write them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::codec::{self, Number, Raw, Write};
use super::error::BusError;
use super::link::{Answer, Link, Question, Request};
use super::points::{BUSY_MAX, BUSY_PAUSE};
use super::queue::{Inbox, Visit};
use crate::config::profile::{Class, Point, Table};
use crate::config::wiring::{Bus, Control, Device, Transport, Wiring};
use crate::core::ids::BusId;
use crate::protocol::field::{BusAnswer, BusFailure, BusOrder, FailureKind};

/// Limits of the specification (Modbus application protocol 1.1b3, sections 6.1 to 6.12).
const MAX_BITS: u16 = 2_000;
const MAX_WORDS: u16 = 125;
const MAX_WRITTEN: usize = 123;

/// Takes requests to the bus tasks, where they go last.
#[derive(Clone, Debug)]
pub struct Visitor {
    inboxes: BTreeMap<BusId, Arc<Inbox>>,
}

impl Visitor {
    pub(super) fn new(inboxes: BTreeMap<BusId, Arc<Inbox>>) -> Visitor {
        Visitor { inboxes }
    }

    /// Asks one unit, after all that the gateway itself has to do on that bus.
    pub async fn visit(
        &self,
        bus: &BusId,
        unit: u8,
        order: &BusOrder,
    ) -> Result<BusAnswer, BusFailure> {
        let request = request_of(order)?;
        let Some(inbox) = self.inboxes.get(bus) else {
            return Err(refused(format!(
                "the daemon has no bus {bus}; restart it after a change of the config"
            )));
        };
        let mut attempts = 1;
        loop {
            let (reply, answer) = oneshot::channel();
            let visit = Visit { unit, request: request.clone(), asked: Instant::now(), reply };
            let mut taken = false;
            inbox.order(|orders| taken = orders.visit(visit));
            if !taken {
                return Err(refused(format!("bus {bus} has too many requests by hand; try again")));
            }
            match answer.await {
                Ok(Err(BusError::Busy { .. })) if attempts < BUSY_MAX => attempts += 1,
                Ok(outcome) => return outcome.map(BusAnswer::from).map_err(BusFailure::from),
                Err(_) => return Err(refused("the daemon is stopping; try again".into())),
            }
            sleep(BUSY_PAUSE).await;
        }
    }
}

/// A bus that this process opens itself, while no daemon runs.
pub struct Direct {
    link: Link,
    /// The pause that the device asked last wants.
    free_at: Instant,
}

impl Direct {
    /// A line that is opened with the first request. `slowest` is how long any of its devices may
    /// take to answer.
    pub fn new(bus: &Bus, slowest: Duration) -> Direct {
        Direct { link: Link::new(bus, slowest), free_at: Instant::now() }
    }

    /// Asks one unit that answers within `timeout` and wants a pause of `gap` afterwards.
    pub async fn ask(
        &mut self,
        unit: u8,
        order: &BusOrder,
        (timeout, gap): (Duration, Duration),
    ) -> Result<BusAnswer, BusFailure> {
        let request = request_of(order)?;
        let question = Question { unit, point: request.label(), request, timeout };
        let mut attempts = 1;
        loop {
            sleep_until(self.free_at).await;
            let outcome = self.link.ask(&question, true).await;
            if !outcome.as_ref().is_err_and(BusError::is_silence) {
                self.free_at = Instant::now() + gap;
            }
            match outcome {
                Err(BusError::Busy { .. }) if attempts < BUSY_MAX => attempts += 1,
                outcome => return Ok(outcome?.into()),
            }
            sleep(BUSY_PAUSE).await;
        }
    }
}

/// The pause between two requests to units that no profile tells of: some meters pass over what
/// follows faster than 100 ms, some chargers hang their socket up below half a second.
pub fn gap_of_strangers(bus: &Bus) -> Duration {
    match bus.transport {
        Transport::Rtu(_) | Transport::RtuOverTcp(_) => Duration::from_millis(100),
        Transport::Tcp(_) => Duration::from_millis(500),
    }
}

/// The bus of that name, with the longest time that any of its devices may take to answer.
pub fn bus_of<'w>(wiring: &'w Wiring, id: &BusId) -> Option<(&'w Bus, Duration)> {
    let bus = wiring.buses.iter().find(|bus| bus.id == *id)?;
    let devices = wiring.devices.iter().filter(|device| device.bus == *id);
    let slowest = devices.filter_map(|device| device.profile.timeout).max();
    Some((bus, slowest.unwrap_or(bus.timeout).max(bus.timeout)))
}

/// The request that reads a point.
pub fn span(point: &Point) -> BusOrder {
    let (address, count) = (point.address, point.value.registers());
    match point.table {
        Table::Coil => BusOrder::ReadCoils { address, count },
        Table::Discrete => BusOrder::ReadDiscreteInputs { address, count },
        Table::Input => BusOrder::ReadInputRegisters { address, count },
        Table::Holding => BusOrder::ReadHoldingRegisters { address, count },
    }
}

/// What an answer to [`span`] says, in the point's unit; `None` where the device has no value.
/// `exponent` is what [`Point::exponent`] names.
pub fn shown(point: &Point, answer: &BusAnswer, exponent: Option<i64>) -> Option<String> {
    let raw = match answer {
        BusAnswer::Bits(bits) => Raw::Bit(*bits.first()?),
        BusAnswer::Words(words) => Raw::Words(words.clone()),
        BusAnswer::Written => return None,
    };
    codec::decimal(point, &raw, exponent).or_else(|| codec::text(point, &raw))
}

/// The request that writes `value`, in the point's unit.
pub fn encoded(point: &Point, value: &str) -> Result<BusOrder, String> {
    if !point.writable {
        return Err("it is read-only in its profile".into());
    }
    let number = match value {
        "on" | "true" => Some(Number::from(1_i64)),
        "off" | "false" => Some(Number::from(0_i64)),
        digits => digits.parse::<f64>().ok().and_then(Number::from_shortest),
    };
    let number = number.ok_or(format!("`{value}` is no number, and neither on nor off"))?;
    Ok(match codec::encode(point, number)? {
        Write::Coil(address, on) => BusOrder::WriteCoil { address, on },
        Write::Register(address, word) => BusOrder::WriteRegister { address, word },
        Write::Registers(address, words) => BusOrder::WriteRegisters { address, words },
    })
}

/// Why this may not be written by hand: it would give or take power past the ledger.
pub fn protected(wiring: &Wiring, bus: &BusId, unit: u8, order: &BusOrder) -> Option<String> {
    let written = written(order)?;
    let devices = wiring.devices.iter().filter(|device| device.bus == *bus && device.unit == unit);
    let mut points =
        devices.flat_map(|device| device.profile.points.iter().map(move |point| (device, point)));
    points.find_map(|(device, (name, point))| {
        let overlaps = written.overlaps(point);
        let reason = overlaps.then(|| power_over(wiring, device, name)).flatten()?;
        let device = &device.id;
        Some(format!("{device}/{name} {reason}"))
    })
}

/// What a point has to do with the power of a station, if anything.
fn power_over(wiring: &Wiring, device: &Device, name: &str) -> Option<String> {
    let station = wiring.stations.iter().find(|station| match &station.control {
        Control::Switch(switch) => switch.device == device.id && switch.point == name,
        Control::Charger { device: charger, .. } => {
            *charger == device.id && gives_power(device, name)
        }
    });
    if let Some(station) = station {
        let id = &station.station;
        return Some(format!("switches station {id}; use: tapgate station on {id}"));
    }
    let charger = device.profile.class == Class::Charger && gives_power(device, name);
    charger.then(|| "gives power to a charger that is no station; make it one first".into())
}

fn gives_power(device: &Device, name: &str) -> bool {
    let profile = &device.profile;
    let mut actions = profile.start.iter().chain(&profile.stop);
    matches!(name, "enable" | "current_limit") || actions.any(|write| write.point == name)
}

/// Addresses that an order writes.
struct Written {
    coil: bool,
    from: u32,
    count: u32,
}

fn written(order: &BusOrder) -> Option<Written> {
    let (coil, from, count) = match order {
        BusOrder::WriteCoil { address, .. } => (true, *address, 1),
        BusOrder::WriteRegister { address, .. } => (false, *address, 1),
        BusOrder::WriteRegisters { address, words } => (false, *address, words.len()),
        BusOrder::ReadCoils { .. }
        | BusOrder::ReadDiscreteInputs { .. }
        | BusOrder::ReadHoldingRegisters { .. }
        | BusOrder::ReadInputRegisters { .. } => return None,
    };
    Some(Written { coil, from: u32::from(from), count: u32::try_from(count).unwrap_or(u32::MAX) })
}

impl Written {
    fn overlaps(&self, point: &Point) -> bool {
        let coil = matches!(point.table, Table::Coil | Table::Discrete);
        let elsewhere = point.write.as_ref().and_then(|write| write.address);
        let from = u32::from(elsewhere.unwrap_or(point.address));
        let count = u32::from(point.value.registers());
        point.writable
            && coil == self.coil
            && from < self.from.saturating_add(self.count)
            && self.from < from + count
    }
}

pub(super) fn request_of(order: &BusOrder) -> Result<Request, BusFailure> {
    let within = |address: u16, count: usize, limit: usize| {
        let end = usize::from(address) + count;
        if count == 0 || count > limit || end > 0x1_0000 {
            let message = format!("{count} from address {address} on: 1 to {limit} at once");
            return Err(refused(message));
        }
        Ok(())
    };
    let bits = |address, count| within(address, usize::from(count), usize::from(MAX_BITS));
    let words = |address, count| within(address, usize::from(count), usize::from(MAX_WORDS));
    Ok(match order.clone() {
        BusOrder::ReadCoils { address, count } => {
            bits(address, count)?;
            Request::ReadCoils(address, count)
        }
        BusOrder::ReadDiscreteInputs { address, count } => {
            bits(address, count)?;
            Request::ReadDiscreteInputs(address, count)
        }
        BusOrder::ReadHoldingRegisters { address, count } => {
            words(address, count)?;
            Request::ReadHoldingRegisters(address, count)
        }
        BusOrder::ReadInputRegisters { address, count } => {
            words(address, count)?;
            Request::ReadInputRegisters(address, count)
        }
        BusOrder::WriteCoil { address, on } => Request::WriteSingleCoil(address, on),
        BusOrder::WriteRegister { address, word } => Request::WriteSingleRegister(address, word),
        BusOrder::WriteRegisters { address, words } => {
            within(address, words.len(), MAX_WRITTEN)?;
            Request::WriteMultipleRegisters(address, words)
        }
    })
}

fn refused(message: String) -> BusFailure {
    BusFailure { kind: FailureKind::Refused, message }
}

impl From<Answer> for BusAnswer {
    fn from(answer: Answer) -> BusAnswer {
        match answer {
            Answer::Bits(bits) => BusAnswer::Bits(bits),
            Answer::Words(words) => BusAnswer::Words(words),
            Answer::Written => BusAnswer::Written,
        }
    }
}

impl From<BusError> for BusFailure {
    fn from(error: BusError) -> BusFailure {
        let kind = match &error {
            BusError::Silent { .. } | BusError::Mismatch { .. } | BusError::TargetFailed { .. } => {
                FailureKind::Silent
            }
            BusError::Broken { .. } => FailureKind::Broken,
            BusError::Refused { .. } | BusError::Busy { .. } | BusError::DeviceFailed { .. } => {
                FailureKind::Exception
            }
            BusError::Unreachable { .. } => FailureKind::Unreachable,
            BusError::Deferred { .. } | BusError::NotWritable { .. } => FailureKind::Refused,
        };
        BusFailure { kind, message: error.to_string() }
    }
}
