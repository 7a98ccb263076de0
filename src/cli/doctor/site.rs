//! What doctor looks at of the site: config, gateway, devices, and what happens on silence.

use super::Finding;
use crate::cli::console::Console;
use crate::config::Config;
use crate::config::profile::{Class, OnSilence};
use crate::config::wiring::{Control, Device, Wiring};
use crate::core::site::Station;
use crate::core::view::StationView;
use crate::io::modbus;
use crate::protocol::control::{BusAnswer, Status};

/// What machines with electronics of their own draw at rest, at most.
const ELECTRONICS_W: i64 = 50;
const VOLTAGE: &str = "voltage";
const ENERGY: &str = "energy_import";
/// What is asked of a device to see whether it answers, the first that it has.
const PROOFS: [&str; 5] = [ENERGY, "power", "vehicle_state", "relay-1", "input-1"];

/// What is valid in the config but not wise.
pub(super) fn config(config: &Config) -> Vec<Finding> {
    let warnings = config.warnings.iter().map(|problem| {
        let place = format!("config line {}", problem.line);
        Finding::warning(place, format!("{}: {}", problem.key, problem.message), &problem.help)
    });
    let findings: Vec<Finding> = warnings.collect();
    match findings.is_empty() {
        true => vec![Finding::ok("config", "valid")],
        false => findings,
    }
}

/// What the daemon says of itself.
pub(super) fn gateway(config: &Config, status: Option<&Status>) -> Vec<Finding> {
    let Some(status) = status else {
        return vec![Finding::failure(
            "daemon",
            "does not run: no badge is served",
            "systemctl start tapgate; journalctl -u tapgate -n 50 says why it ended",
        )];
    };
    let mut findings = vec![Finding::ok("daemon", format!("runs, version {}", status.version))];
    let ready = status.readers.iter().filter(|reader| reader.state == "ready");
    findings.extend(
        ready.map(|reader| Finding::ok(format!("reader {}", reader.reader), &reader.detail)),
    );
    let buses = status.buses.iter().filter(|bus| bus.error.is_none());
    findings.extend(buses.map(|bus| {
        let says = bus.figures.to_string();
        Finding::ok(format!("bus {}", bus.bus), says)
    }));
    // Devices are looked at one by one.
    let others = status.alarms.iter().filter(|alarm| !alarm.starts_with("device "));
    findings.extend(others.map(|alarm| alarming(alarm)));
    findings.extend(cloud(status));
    findings.extend(status.allowlist.as_ref().map(|list| {
        Finding::ok("allowlist", format!("version {}, {} badges", list.version, list.count))
    }));
    let stations = status.stations.iter().zip(&config.site.stations);
    findings.extend(stations.filter_map(|(view, station)| resting(view, station)));
    findings
}

/// Alarms end with what to do, behind a colon.
fn alarming(alarm: &str) -> Finding {
    match alarm.rsplit_once(": ") {
        Some((says, next)) => Finding::failure("alarm", says, next),
        None => Finding::failure("alarm", alarm, "journalctl -u tapgate -n 50 tells its story"),
    }
}

fn cloud(status: &Status) -> Option<Finding> {
    let cloud = status.cloud.as_ref()?;
    let waiting = status.ledger.unacknowledged;
    let waits = format!("{waiting} records wait for the cloud's acknowledgement");
    Some(match (cloud.connected, &cloud.last_error) {
        (true, _) => Finding::ok("cloud", format!("connected to {}; {waits}", cloud.broker)),
        (false, why) => Finding::failure(
            "cloud",
            format!(
                "not connected to {}: {}; {waits}",
                cloud.broker,
                why.as_deref().unwrap_or("not tried yet")
            ),
            "tapgate cloud test goes step by step; nothing is lost meanwhile",
        ),
    })
}

/// A machine at rest that draws more than its idle power never ends by itself.
fn resting(view: &StationView, station: &Station) -> Option<Finding> {
    let rules = &station.rules;
    let watts = view.power_mw? / 1_000;
    let idle = i64::from(rules.idle_power_w);
    let unclear = view.session.is_some() && (idle..=ELECTRONICS_W).contains(&watts);
    (unclear && rules.idle_after.is_some()).then(|| {
        Finding::warning(
            format!("station {}", view.station),
            format!("draws {watts} W, no less than its idle_power of {idle} W"),
            format!(
                "if it is at rest now, set idle_power = \"{}W\", else its sessions end late",
                watts + 10
            ),
        )
    })
}

/// Whether each unit answers, and whether its values can be true.
pub(super) fn devices(console: &mut Console, status: Option<&Status>) -> Vec<Finding> {
    let devices = console.config.wiring.devices.clone();
    let mut findings = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        progress(index + 1, devices.len(), device);
        let known = status.and_then(|status| {
            status.devices.iter().find(|known| known.device == device.id.as_str())
        });
        findings.push(match known.filter(|known| known.state == "down") {
            // Asking it again would cost a time-out.
            Some(down) => unanswering(device, down.last_error.as_deref().unwrap_or("no answer")),
            None => examine(console, device),
        });
    }
    findings
}

fn progress(number: usize, of: usize, device: &Device) {
    use std::io::IsTerminal;
    if std::io::stderr().is_terminal() {
        let end = if number == of { "\n" } else { "" };
        eprint!("\r\x1b[Kasking device {} ({number} of {of}){end}", device.id);
    }
}

fn examine(console: &mut Console, device: &Device) -> Finding {
    let subject = format!("device {}", device.id);
    let points = &device.profile.points;
    let readable = |name: &&str| points.get(*name).is_some_and(|point| point.readable);
    let Some(name) = PROOFS.into_iter().find(readable) else {
        return Finding::note(subject, "has no point that can be read");
    };
    let shown = match console.read(device, &points[name]) {
        Ok(shown) => shown,
        Err(failure) => return unanswering(device, &failure.message),
    };
    let value = shown.value;
    if let Some(wrong) = wrong_voltage(console, device) {
        let next = format!("{}; or another model: tapgate bus scan {}", wrong.help, device.bus);
        let says = format!("voltage reads {}: its values cannot be trusted", wrong.shown);
        return Finding::failure(subject, says, next);
    }
    match value {
        Some(value) => Finding::ok(subject, format!("answers, {name} {value}")),
        None => Finding::warning(
            subject,
            format!("answers, but has no value for {name}"),
            format!("tapgate bus read {} {name}; check model and profile", device.id),
        ),
    }
}

/// Errors of a bus end with what to do, behind a semicolon.
fn unanswering(device: &Device, why: &str) -> Finding {
    let scan = format!("tapgate bus scan {}", device.bus);
    let (says, next) = match why.rsplit_once("; ") {
        Some((says, next)) => (says, format!("{next}; or another unit id: {scan}")),
        None => (why, format!("check its power, wires, unit id and line settings; {scan}")),
    };
    Finding::failure(format!("device {}", device.id), says, next)
}

/// The voltage that a device shows, where the grid cannot have it: usually the word order.
fn wrong_voltage(console: &mut Console, device: &Device) -> Option<modbus::WrongVoltage> {
    let point = device.profile.points.get(VOLTAGE)?;
    let shown = console.read(device, point).ok()?;
    let BusAnswer::Words(words) = shown.raw else { return None };
    // Chargers measure none while nothing charges.
    let none = shown.value.is_none_or(|value| value == "0");
    if device.profile.class == Class::Charger && none {
        return None;
    }
    modbus::check_voltage(point, &words, shown.exponent).err()
}

/// What each station's switch does when the gateway dies.
pub(super) fn on_silence(wiring: &Wiring) -> Vec<Finding> {
    let device = |id| wiring.devices.iter().find(|device| device.id == id);
    let stations = wiring.stations.iter().filter_map(|wired| {
        let id = match &wired.control {
            Control::Switch(spot) => &spot.device,
            Control::Charger { device, .. } => device,
        };
        let device = device(id.clone())?;
        Some((&wired.station, device))
    });
    stations.map(|(station, device)| silent(station.as_str(), device)).collect()
}

fn silent(station: &str, device: &Device) -> Finding {
    let subject = format!("station {station}");
    let profile = &device.profile;
    let name = &profile.name;
    match (profile.on_silence, profile.class) {
        (Some(OnSilence::Open), _) => {
            Finding::ok(subject, format!("if the gateway dies, its switch opens ({name})"))
        }
        (Some(OnSilence::Limit), _) => Finding::note(
            subject,
            format!("if the gateway dies, it goes on at its fail-safe current ({name})"),
        ),
        (Some(OnSilence::Keep), Class::Charger) => Finding::warning(
            subject,
            format!("if the gateway dies, it goes on charging ({name} has no watchdog)"),
            "a relay with a watchdog before it, if unpaid charging matters",
        ),
        (Some(OnSilence::Keep), Class::Relay | Class::Io | Class::Meter) => Finding::note(
            subject,
            format!("if the gateway dies, its switch stays as it is ({name} has no watchdog)"),
        ),
        (None, _) => Finding::warning(
            subject,
            format!("nobody knows what {name} does when the gateway dies"),
            "try it, then set on_silence in the profile: keep, open or limit",
        ),
    }
}
