//! `tapgate status`: the gateway on one screen.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::client;
use crate::core::view::StationView;
use crate::daemon::EXIT_FAILURE;
use crate::protocol::control::{Reply, Request, Status};

/// Prints the status; 1 where something needs a technician.
pub(super) fn run(config: &Path, json: bool) -> ExitCode {
    let status = client::ask(config, &Request::Status {}, |reply| {
        if let Reply::Status(status) = reply { Some(status) } else { None }
    });
    let status = match status {
        Ok(status) => status,
        Err(code) => return code,
    };
    if json {
        match serde_json::to_string_pretty(&status) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("tapgate: {error}"),
        }
    } else {
        print!("{}", render(&status));
    }
    if status.alarms.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}

fn render(status: &Status) -> String {
    let mut text = String::new();
    let hours = status.running_s / 3600;
    let minutes = status.running_s % 3600 / 60;
    let Status { gateway, version, boot, clock, .. } = status;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{gateway}  tapgate {version}  up {hours}h{minutes:02}m  boot {boot}  clock {clock}\n"
    );
    let _ = writeln!(text, "{}", stations_table(&status.stations));
    for reader in &status.readers {
        let _ =
            writeln!(text, "reader  {:<14} {:<8} {}", reader.reader, reader.state, reader.detail);
    }
    for bus in &status.buses {
        let _ = writeln!(
            text,
            "bus     {:<14} {:<8} {} {}",
            bus.bus,
            if bus.error.is_some() { "down" } else { "ok" },
            bus.figures,
            bus.error.as_deref().unwrap_or("")
        );
    }
    for device in &status.devices {
        let error = device.complaint().unwrap_or("");
        let _ = writeln!(
            text,
            "device  {:<14} {:<8} {} unit {}, {} {error}",
            device.device, device.state, device.bus, device.unit, device.figures
        );
    }
    let _ = writeln!(text, "cloud   {}", cloud_line(status));
    let allowlist = status.allowlist.as_ref().map_or("none yet".into(), |list| {
        format!("version {}, {} badges", list.version, list.count)
    });
    let _ = writeln!(text, "list    {allowlist}");
    let ledger = &status.ledger;
    let _ = writeln!(
        text,
        "ledger  head {}, {} not acknowledged, {} not saved",
        ledger.head, ledger.unacknowledged, ledger.unsaved
    );
    for alarm in &status.alarms {
        let _ = writeln!(text, "  ! {alarm}");
    }
    text
}

/// A line for each station, under a heading.
pub(super) fn stations_table(stations: &[StationView]) -> String {
    let (station, state, power, meter) = ("STATION", "STATE", "POWER", "METER");
    let mut text = format!("{station:<16} {state:<14} {power:>9} {meter:>13}  SESSION\n");
    for station in stations {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", station_line(station));
    }
    text
}

fn station_line(station: &StationView) -> String {
    let power = station.power_mw.map_or("-".into(), |mw| format!("{} W", mw / 1_000));
    let meter = station.register_wh.map_or("-".into(), |wh| format!("{wh} Wh"));
    let session = station.session.as_ref().map_or(String::new(), |session| {
        let user = session.user.as_ref().map_or("-", |user| user.as_str());
        let energy = session.energy_wh.map_or("unmetered".into(), |wh| format!("{wh} Wh"));
        let (minutes, seconds) = (session.duration_s / 60, session.duration_s % 60);
        format!("{user}, {minutes}:{seconds:02}, {energy}")
    });
    let fault = station.fault.as_deref().or(station.note.as_deref()).unwrap_or("");
    let (id, state) = (&station.station, station.state.as_str());
    let apart = if session.is_empty() || fault.is_empty() { "" } else { "; " };
    format!("{id:<16} {state:<14} {power:>9} {meter:>13}  {session}{apart}{fault}")
}

fn cloud_line(status: &Status) -> String {
    match &status.cloud {
        None => "none: stand-alone site".into(),
        Some(cloud) if cloud.connected => format!("connected to {}", cloud.broker),
        Some(cloud) => {
            let why = cloud.last_error.as_deref().unwrap_or("connecting");
            format!("not connected to {}: {why}", cloud.broker)
        }
    }
}
