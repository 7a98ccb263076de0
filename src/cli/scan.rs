//! `tapgate bus scan`: who answers on a bus, and what it may be.
//!
//! Only reads. A unit is first asked for one register and one coil, which every device answers, be
//! it with an exception. Only who answered is asked on, see `interview`.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::console::{Console, listed, refuse, usage};
use crate::cli::interview;
use crate::config::library::Library;
use crate::config::profile::Profile;
use crate::config::wiring::{Bus, Transport};
use crate::core::ids::BusId;
use crate::daemon::EXIT_FAILURE;
use crate::protocol::control::{BusFailure, BusOrder, FailureKind};

/// Unit ids that technicians give.
const USUAL: std::ops::RangeInclusive<u8> = 1..=32;

/// Unit ids that hardly any device has: who answers to one of them too does not look at it.
const UNUSUAL: std::ops::RangeInclusive<u8> = 200..=247;

/// Unit ids to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Units(BTreeSet<u8>);

/// Reads `1-32` or `1,11-16`.
pub(super) fn units(text: &str) -> Result<Units, String> {
    let mut units = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |number: &str| number.trim().parse::<u8>().ok();
        match (parse(first), parse(last)) {
            (Some(first), Some(last)) if first <= last => units.extend(first..=last),
            (Some(_) | None, Some(_) | None) => {
                return Err(format!("`{part}` is no range of unit ids, such as 1-32 or 11"));
            }
        }
    }
    Ok(Units(units))
}

/// A unit that answered.
struct Unit {
    bus: BusId,
    unit: u8,
    /// The device in the config, where it is there.
    device: Option<String>,
    /// Names of profiles that fit.
    profiles: Vec<String>,
    /// Whatever the unit id, it answers.
    any_unit: bool,
}

/// Scans one bus, or all. Exit 1 where nobody answers or a bus is not there.
pub(super) fn run(
    console: &mut Console,
    bus: Option<&str>,
    units: Option<&Units>,
    json: bool,
) -> Result<ExitCode, ExitCode> {
    let wiring = &console.config.wiring;
    let chosen = wiring.buses.iter().filter(|it| bus.is_none_or(|name| it.id.as_str() == name));
    let buses: Vec<Bus> = chosen.cloned().collect();
    if buses.is_empty() {
        let known = listed(wiring.buses.iter().map(|bus| bus.id.as_str()));
        let asked = bus.unwrap_or("at all");
        return Err(usage(&format!("there is no bus `{asked}`; the config has: {known}")));
    }
    let folder = &console.config.storage.profiles;
    let library = Library::with_folder(folder, false).unwrap_or_else(|_| Library::built_in());
    let profiles: Vec<&Profile> = library.iter().map(|(_, shelved)| &**shelved.profile()).collect();
    let (mut found, mut unreachable) = (Vec::new(), None);
    for it in &buses {
        let units = to_ask(console, it, units, &profiles);
        if units.is_empty() && bus.is_some() {
            return Err(usage("unit ids of a serial line are 1 to 247 (0 is for all at once)"));
        }
        // The other buses are asked all the same.
        match scan_bus(console, it, &units, &profiles) {
            Ok(units) => found.extend(units),
            Err(failure) => unreachable = Some(refuse(&failure)),
        }
    }
    match json {
        true => println!("{}", Value::from(found.iter().map(as_json).collect::<Vec<_>>())),
        false => print!("{}", as_text(&found, unreachable.is_some())),
    }
    let nobody = found.is_empty().then(|| ExitCode::from(EXIT_FAILURE));
    Ok(unreachable.or(nobody).unwrap_or(ExitCode::SUCCESS))
}

/// Units that are usual, that devices are delivered with, and that the config has; or as named.
fn to_ask(
    console: &Console,
    bus: &Bus,
    units: Option<&Units>,
    profiles: &[&Profile],
) -> BTreeSet<u8> {
    // Modbus over serial line 1.02, section 2.2: 0 is broadcast, 248 to 255 are reserved.
    let valid = match bus.transport {
        Transport::Rtu(_) | Transport::RtuOverTcp(_) => 1..=247,
        Transport::Tcp(_) => 0..=255,
    };
    let devices = console.config.wiring.devices.iter().filter(|device| device.bus == bus.id);
    let delivered = profiles.iter().filter_map(|profile| profile.defaults.unit);
    let likely = || USUAL.chain(delivered).chain(devices.map(|device| device.unit)).collect();
    let named: BTreeSet<u8> = units.map_or_else(likely, |units| units.0.clone());
    named.into_iter().filter(|unit| valid.contains(unit)).collect()
}

fn scan_bus(
    console: &mut Console,
    bus: &Bus,
    units: &BTreeSet<u8>,
    profiles: &[&Profile],
) -> Result<Vec<Unit>, BusFailure> {
    let progress = Progress { bus: &bus.id, live: std::io::stderr().is_terminal() };
    let (mut present, mut hang_up) = (Vec::new(), Vec::new());
    for (index, unit) in units.iter().enumerate() {
        progress.show(*unit, index + 1, units.len());
        match presence(console, &bus.id, *unit)? {
            Presence::Registers => present.push((*unit, true)),
            Presence::Coils => present.push((*unit, false)),
            Presence::HangsUp => hang_up.push(unit.to_string()),
            Presence::Silent => {}
        }
    }
    if !hang_up.is_empty() {
        progress.end();
        eprintln!(
            "{}: the connection was closed on unit {}: some chargers hang up on what they do not \
             know; name such a device in the config by its type plate",
            bus.id,
            hang_up.join(", ")
        );
    }
    let all = present.len() == units.len();
    let any_unit = all && present.len() > 1 && answers_to_any(console, bus, units)?;
    let mut found = Vec::new();
    for (index, (unit, has_registers)) in present.iter().copied().enumerate() {
        progress.show(unit, index + 1, present.len());
        let mut devices = console.config.wiring.devices.iter();
        let known = devices.find(|device| device.bus == bus.id && device.unit == unit);
        let (device, profiles) = match known {
            Some(device) => (Some(device.id.to_string()), vec![device.profile.name.clone()]),
            // All of them are the first one.
            None if any_unit && !found.is_empty() => continue,
            None => (None, interview::proposals(console, &bus.id, (unit, has_registers), profiles)),
        };
        found.push(Unit { bus: bus.id.clone(), unit, device, profiles, any_unit });
    }
    progress.end();
    Ok(found)
}

/// Whether one device answers whatever the unit id: where all answer, one that nobody has does too.
fn answers_to_any(
    console: &mut Console,
    bus: &Bus,
    units: &BTreeSet<u8>,
) -> Result<bool, BusFailure> {
    let devices = &console.config.wiring.devices;
    let taken = |unit: &u8| {
        units.contains(unit) || devices.iter().any(|it| it.bus == bus.id && it.unit == *unit)
    };
    let Some(nobody) = UNUSUAL.rev().find(|unit| !taken(unit)) else { return Ok(false) };
    let presence = presence(console, &bus.id, nobody)?;
    Ok(matches!(presence, Presence::Registers | Presence::Coils))
}

/// Whether somebody has a unit id.
enum Presence {
    Registers,
    /// Coils, and silence on registers: a cheap relay board.
    Coils,
    /// It closes the connection.
    HangsUp,
    Silent,
}

/// Whether a unit answers anything, be it a refusal. An error only where the bus is not there.
fn presence(console: &mut Console, bus: &BusId, unit: u8) -> Result<Presence, BusFailure> {
    let register = BusOrder::ReadHoldingRegisters { address: 0, count: 1 };
    // Cheap relay boards know coils only and are silent otherwise.
    let coil = BusOrder::ReadCoils { address: 0, count: 1 };
    let mut presence = Presence::Silent;
    for (order, answers) in [(register, Presence::Registers), (coil, Presence::Coils)] {
        match console.ask(bus, unit, order) {
            Ok(_) => return Ok(answers),
            Err(failure) => match failure.kind {
                FailureKind::Exception => return Ok(answers),
                FailureKind::Silent => {}
                FailureKind::Broken => presence = Presence::HangsUp,
                FailureKind::Unreachable | FailureKind::Refused => return Err(failure),
            },
        }
    }
    Ok(presence)
}

/// For people who wait; scripts are not told.
struct Progress<'b> {
    bus: &'b BusId,
    live: bool,
}

impl Progress<'_> {
    fn show(&self, unit: u8, number: usize, of: usize) {
        if self.live {
            eprint!("\r\x1b[K{}: unit {unit} ({number} of {of})", self.bus);
        }
    }

    fn end(&self) {
        if self.live {
            eprint!("\r\x1b[K");
        }
    }
}

fn as_json(found: &Unit) -> Value {
    json!({ "bus": found.bus.as_str(), "unit": found.unit, "device": found.device,
        "profiles": found.profiles, "any_unit": found.any_unit })
}

fn as_text(found: &[Unit], unreachable: bool) -> String {
    if found.is_empty() && !unreachable {
        return "nobody answers; check power, A/B wires, baud rate and parity, and wider --units\n"
            .into();
    }
    let line = |unit: &Unit| {
        let Unit { bus, unit: number, device, profiles, any_unit } = unit;
        let what = match (device, profiles.as_slice()) {
            (Some(device), _) => format!("{device} ({})", profiles.join(", ")),
            (None, []) => "not in the config; tapgate profiles list shows what is known".into(),
            (None, _) => format!("not in the config; may be {}", profiles.join(", ")),
        };
        let every = if *any_unit { "; it answers whatever the unit id" } else { "" };
        format!("{bus} unit {number:>3}: {what}{every}\n")
    };
    found.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_lists_of_ranges() {
        assert_eq!(units("1-3,11"), Ok(Units(BTreeSet::from([1, 2, 3, 11]))));
        for wrong in ["", "256", "5-1", "a"] {
            assert!(units(wrong).is_err(), "{wrong}");
        }
    }
}
