//! `tapgate bus scan`: who answers on a bus, and what it may be.
//!
//! Only reads. A unit is first asked for one register and one coil, which every device answers, be
//! it with an exception. Only who answered is asked on, for what profiles name as identifying; a
//! unit that falls silent or hangs up is left alone.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::console::{Console, listed, refuse, usage};
use crate::config::library::Library;
use crate::config::profile::{Point, Profile};
use crate::core::ids::BusId;
use crate::daemon::EXIT_FAILURE;
use crate::io::modbus;
use crate::protocol::control::{BusAnswer, BusFailure, BusOrder, FailureKind};

/// Unit ids that a serial line may have (Modbus over serial line 1.02, section 2.2).
const UNITS: std::ops::RangeInclusive<u8> = 1..=247;

/// The point that tells a meter in the right word order.
const VOLTAGE: &str = "voltage";

/// Unit ids to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Units(Vec<u8>);

/// Reads `1-32` or `1,11-16`.
pub(super) fn units(text: &str) -> Result<Units, String> {
    let mut units = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |number: &str| number.trim().parse().ok().filter(|unit| UNITS.contains(unit));
        match (parse(first), parse(last)) {
            (Some(first), Some(last)) if first <= last => units.extend(first..=last),
            (Some(_) | None, Some(_) | None) => {
                return Err(format!("`{part}` is no range of unit ids 1 to 247, such as 1-32"));
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
}

/// Scans one bus, or all. Exit 1 where nobody answers.
pub(super) fn run(
    console: &mut Console,
    bus: Option<&str>,
    units: &Units,
    json: bool,
) -> Result<ExitCode, ExitCode> {
    let wiring = &console.config.wiring;
    let all = wiring.buses.iter().map(|bus| bus.id.clone());
    let buses: Vec<BusId> = all.filter(|id| bus.is_none_or(|name| id.as_str() == name)).collect();
    if buses.is_empty() {
        let known = listed(wiring.buses.iter().map(|bus| bus.id.as_str()));
        let asked = bus.unwrap_or("at all");
        return Err(usage(&format!("there is no bus `{asked}`; the config has: {known}")));
    }
    let folder = &console.config.storage.profiles;
    let library = Library::with_folder(folder, false).unwrap_or_else(|_| Library::built_in());
    let profiles: Vec<&Profile> = library.iter().map(|(_, shelved)| &**shelved.profile()).collect();
    let mut found = Vec::new();
    for bus in &buses {
        scan_bus(console, bus, units, &profiles, &mut found)?;
    }
    match json {
        true => println!("{}", Value::from(found.iter().map(as_json).collect::<Vec<_>>())),
        false => print!("{}", as_text(&found)),
    }
    Ok(if found.is_empty() { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS })
}

fn scan_bus(
    console: &mut Console,
    bus: &BusId,
    units: &Units,
    profiles: &[&Profile],
    found: &mut Vec<Unit>,
) -> Result<(), ExitCode> {
    for (index, unit) in units.0.iter().enumerate() {
        eprint!("\r{bus}: unit {unit} ({} of {}) ", index + 1, units.0.len());
        match answers(console, bus, *unit) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(failure) => {
                eprintln!();
                return Err(refuse(&failure));
            }
        }
        let mut devices = console.config.wiring.devices.iter();
        let known = devices.find(|device| device.bus == *bus && device.unit == *unit);
        let (device, profiles) = match known {
            Some(device) => (Some(device.id.to_string()), vec![device.profile.name.clone()]),
            None => (None, proposals(console, bus, *unit, profiles)),
        };
        found.push(Unit { bus: bus.clone(), unit: *unit, device, profiles });
    }
    eprintln!();
    Ok(())
}

/// Whether a unit answers anything, be it a refusal. An error only where the bus is not there.
fn answers(console: &mut Console, bus: &BusId, unit: u8) -> Result<bool, BusFailure> {
    let register = BusOrder::ReadHoldingRegisters { address: 0, count: 1 };
    // Cheap relay boards know coils only and are silent otherwise.
    let coil = BusOrder::ReadCoils { address: 0, count: 1 };
    for order in [register, coil] {
        match console.ask(bus, unit, order) {
            Ok(_) => return Ok(true),
            Err(failure) => match failure.kind {
                FailureKind::Exception => return Ok(true),
                FailureKind::Silent | FailureKind::Broken => {}
                FailureKind::Unreachable | FailureKind::Refused => return Err(failure),
            },
        }
    }
    Ok(false)
}

/// A silent answer to what a unit does not know is no answer; after so many it is left alone.
const SILENCES: u32 = 3;

/// What tells a model: a point, and whether the words that it shows fit.
type Mark<'p> = (&'p Point, fn(&Profile, &[u16]) -> bool);

/// Profiles that fit a unit: by their identifying register; where none does, meters whose voltage
/// reads as one of the grid.
fn proposals(console: &mut Console, bus: &BusId, unit: u8, profiles: &[&Profile]) -> Vec<String> {
    let mut silences = 0;
    for mark in [identifying, grid_voltage] {
        let mut fitting = Vec::new();
        for profile in profiles {
            let Some((point, fits)) = mark(profile) else { continue };
            match console.ask(bus, unit, modbus::span(point)) {
                Ok(BusAnswer::Words(words)) if fits(profile, &words) => {
                    fitting.push(profile.name.clone());
                }
                Ok(BusAnswer::Words(_) | BusAnswer::Bits(_) | BusAnswer::Written) => {}
                Err(failure) => match failure.kind {
                    FailureKind::Exception | FailureKind::Refused => {}
                    FailureKind::Silent if silences < SILENCES => silences += 1,
                    // Some devices close the connection on what they do not know.
                    FailureKind::Silent | FailureKind::Broken | FailureKind::Unreachable => {
                        return fitting;
                    }
                },
            }
        }
        if !fitting.is_empty() {
            return fitting;
        }
    }
    Vec::new()
}

fn identifying(profile: &Profile) -> Option<Mark<'_>> {
    let point = profile.points.get(&profile.identify.as_ref()?.point)?;
    Some((point, modbus::is_model))
}

fn grid_voltage(profile: &Profile) -> Option<Mark<'_>> {
    let point = profile.points.get(VOLTAGE).filter(|point| point.exponent.is_none())?;
    Some((point, shows_grid))
}

fn shows_grid(profile: &Profile, words: &[u16]) -> bool {
    let point = profile.points.get(VOLTAGE);
    point.is_some_and(|point| modbus::check_voltage(point, words, None).is_ok())
}

fn as_json(found: &Unit) -> Value {
    json!({ "bus": found.bus.as_str(), "unit": found.unit, "device": found.device,
        "profiles": found.profiles })
}

fn as_text(found: &[Unit]) -> String {
    if found.is_empty() {
        return "nobody answers; check power, A/B wires, baud rate and parity, and wider --units\n"
            .into();
    }
    let line = |unit: &Unit| {
        let Unit { bus, unit: number, device, profiles } = unit;
        let what = match (device, profiles.as_slice()) {
            (Some(device), _) => format!("{device} ({})", profiles.join(", ")),
            (None, []) => "not in the config; tapgate profiles list shows what is known".into(),
            (None, _) => format!("not in the config; may be {}", profiles.join(", ")),
        };
        format!("{bus} unit {number:>3}: {what}\n")
    };
    found.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_lists_of_ranges() {
        assert_eq!(units("1-3,11"), Ok(Units(vec![1, 2, 3, 11])));
        for wrong in ["", "0", "248", "5-1", "a"] {
            assert!(units(wrong).is_err(), "{wrong}");
        }
    }
}
