//! `tapgate meter read`: what the meters show now.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::client;
use crate::cli::console::{Console, listed, usage};
use crate::config::wiring::{Control, Device};
use crate::core::ids::StationId;
use crate::daemon::EXIT_FAILURE;
use crate::protocol::control::{BusFailure, Maintenance};

/// What is read of a meter, where it has it.
const POINTS: [&str; 3] = ["energy_import", "power", "serial_number"];

/// Reads the meter of one station, or of all. Exit 1 where one does not answer.
pub(super) fn read(config: &Path, station: Option<&str>, json: bool) -> ExitCode {
    let outcome = Console::open(config).and_then(|mut console| {
        let meters = chosen(&console, station)?;
        let mut shown = Vec::new();
        for (station, meter) in &meters {
            shown.push(read_one(&mut console, station, meter));
        }
        Ok(shown)
    });
    let shown = match outcome {
        Ok(shown) => shown,
        Err(code) => return code,
    };
    let silent = shown.iter().any(|meter| !meter["error"].is_null());
    if json {
        println!("{}", Value::from(shown));
    } else {
        shown.iter().for_each(|meter| println!("{}", line(meter)));
    }
    if silent { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS }
}

/// Tells the daemon that the meter was exchanged.
pub(super) fn replace(config: &Path, station: &str) -> ExitCode {
    let order = Maintenance::ReplaceMeter { station: StationId::from(station) };
    client::change(config, order)
}

fn chosen(console: &Console, station: Option<&str>) -> Result<Vec<(StationId, Device)>, ExitCode> {
    let wiring = &console.config.wiring;
    let metered: Vec<(StationId, Device)> = wiring
        .stations
        .iter()
        .filter(|wired| station.is_none_or(|name| wired.station.as_str() == name))
        .filter_map(|wired| {
            let meter = match (&wired.meter, &wired.control) {
                (Some(meter), _) => meter,
                (None, Control::Charger { device, .. }) => device,
                (None, Control::Switch(_)) => return None,
            };
            let device = wiring.devices.iter().find(|device| device.id == *meter)?;
            let has_register = device.profile.points.contains_key("energy_import");
            has_register.then(|| (wired.station.clone(), device.clone()))
        })
        .collect();
    if metered.is_empty() {
        let known = listed(wiring.stations.iter().map(|wired| wired.station.as_str()));
        let asked = station.unwrap_or("any station");
        return Err(usage(&format!("there is no meter of {asked}; the config has: {known}")));
    }
    Ok(metered)
}

fn read_one(console: &mut Console, station: &StationId, meter: &Device) -> Value {
    let mut shown = json!({ "station": station.as_str(), "meter": meter.id.as_str(),
        "error": null });
    for name in POINTS {
        let Some(point) = meter.profile.points.get(name).filter(|point| point.readable) else {
            continue;
        };
        match console.read(meter, point) {
            Ok(read) => shown[name] = json!({ "value": read.value, "unit": point.unit }),
            Err(BusFailure { message, .. }) => {
                shown["error"] = Value::from(message);
                break;
            }
        }
    }
    shown
}

fn line(meter: &Value) -> String {
    let name = format!("{} {}", text(&meter["station"]), text(&meter["meter"]));
    if let Some(error) = meter["error"].as_str() {
        return format!("{name}: {error}");
    }
    let value = |point: &str| {
        let unit = meter[point]["unit"].as_str().unwrap_or("");
        meter[point]["value"].as_str().map(|value| format!("{value} {unit}"))
    };
    let energy = value("energy_import").unwrap_or("no register".into());
    let power = value("power").unwrap_or("-".into());
    let serial = value("serial_number").map_or(String::new(), |serial| format!(", no. {serial}"));
    format!("{name}: {energy}, {power}{}", serial.trim_end())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}
