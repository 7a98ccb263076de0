//! `tapgate station`: shows stations, switches them in maintenance, takes them out of service.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::console::{listed, usage};
use crate::cli::status::stations_table;
use crate::cli::{Format, client};
use crate::core::ids::StationId;
use crate::core::view::StationView;
use crate::daemon::EXIT_FAILURE;
use crate::protocol::control::{Maintenance, Reply, Request, StationTest};

/// What is done to stations.
#[derive(Subcommand)]
pub(super) enum StationCommand {
    /// List all stations as they stand
    #[command(after_help = "Example:\n  tapgate station list")]
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Show one station with its session
    #[command(after_help = "Example:\n  tapgate station show washer-1")]
    Show {
        /// The station
        station: String,
        #[command(flatten)]
        format: Format,
    },
    /// Give a free station power for maintenance, in service or not, until `off`
    #[command(after_help = "Example:\n  tapgate station on washer-1\n\nA session of kind \
        technician, on record. It ends with `station off`, or at the station's max_duration.")]
    On {
        /// The station
        station: String,
    },
    /// End the maintenance, or open a switch that is closed without a session
    #[command(after_help = "Example:\n  tapgate station off washer-1\n\nA resident's session is \
        not touched: that is `tapgate session end`.")]
    Off {
        /// The station
        station: String,
    },
    /// Close the switch for 2 s and report relay, contactor feedback and meter
    #[command(after_help = "Example:\n  tapgate station test washer-1\n\nNeeds the daemon: the \
        test is a session of kind technician, on record. Refused while a session is open.")]
    Test {
        /// The station
        station: String,
        #[command(flatten)]
        format: Format,
    },
    /// Refuse new sessions there, across restarts; a running one goes on to its end
    #[command(after_help = "Example:\n  tapgate station out-of-service washer-1 --note \"pump\"")]
    OutOfService {
        /// The station
        station: String,
        /// Why, for residents and the next technician; at most 200 characters
        #[arg(long)]
        note: Option<String>,
    },
    /// Let residents use it again
    #[command(after_help = "Example:\n  tapgate station in-service washer-1")]
    InService {
        /// The station
        station: String,
    },
}

/// Runs one of them.
pub(super) fn run(config: &Path, command: StationCommand) -> ExitCode {
    let id = |station: String| StationId::from(station);
    match command {
        StationCommand::List { format } => list(config, format.json),
        StationCommand::Show { station, format } => show(config, &station, format.json),
        StationCommand::On { station } => {
            client::change(config, Maintenance::SwitchOn { station: id(station) })
        }
        StationCommand::Off { station } => {
            client::change(config, Maintenance::SwitchOff { station: id(station) })
        }
        StationCommand::Test { station, format } => test(config, &station, format.json),
        StationCommand::OutOfService { station, note } => {
            client::change(config, Maintenance::TakeOutOfService { station: id(station), note })
        }
        StationCommand::InService { station } => {
            client::change(config, Maintenance::ReturnToService { station: id(station) })
        }
    }
}

fn list(config: &Path, json: bool) -> ExitCode {
    match client::status(config) {
        Ok(status) if json => println!("{}", serde_json::json!(status.stations)),
        Ok(status) => print!("{}", stations_table(&status.stations)),
        Err(code) => return code,
    }
    ExitCode::SUCCESS
}

fn show(config: &Path, station: &str, json: bool) -> ExitCode {
    let status = match client::status(config) {
        Ok(status) => status,
        Err(code) => return code,
    };
    let Some(view) = status.stations.iter().find(|view| view.station.as_str() == station) else {
        let known = listed(status.stations.iter().map(|view| view.station.as_str()));
        return usage(&format!("there is no station {station}; the site has: {known}"));
    };
    if json {
        println!("{}", serde_json::json!(view));
    } else {
        print!("{}", details(view));
    }
    ExitCode::SUCCESS
}

fn details(view: &StationView) -> String {
    let or_none = |text: Option<String>| text.unwrap_or("-".into());
    let session = view.session.as_ref();
    let lines = [
        ("station", view.station.to_string()),
        ("label", view.label.clone()),
        ("kind", view.kind.as_str().into()),
        ("state", format!("{} since {}", view.state.as_str(), view.since)),
        ("fault", or_none(view.fault.clone())),
        ("note", or_none(view.note.clone())),
        ("power", or_none(view.power_mw.map(|mw| format!("{} W", mw / 1_000)))),
        ("register", or_none(view.register_wh.map(|wh| format!("{wh} Wh")))),
        ("session", or_none(session.map(|session| session.session.to_string()))),
        ("user", or_none(session.and_then(|s| s.user.as_ref()).map(ToString::to_string))),
        ("badge", or_none(session.and_then(|s| s.badge.as_ref()).map(ToString::to_string))),
        ("energy", or_none(session.and_then(|s| s.energy_wh).map(|wh| format!("{wh} Wh")))),
    ];
    lines.map(|(name, value)| format!("{name:<10} {value}\n")).concat()
}

/// Tests a station through the daemon: power without its record is not to be had.
fn test(config: &Path, station: &str, json: bool) -> ExitCode {
    if !json {
        eprintln!("closing the switch of {station} for 2 s, on record as a technician's session");
    }
    let request = Request::TestStation { station: StationId::from(station) };
    let test = client::ask(config, &request, |reply| {
        if let Reply::StationTest(test) = reply { Some(test) } else { None }
    });
    let test = match test {
        Ok(test) => test,
        Err(code) => return code,
    };
    match json {
        true => println!("{}", serde_json::json!(*test)),
        false => print!("{}", render(&test)),
    }
    if test.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}

fn render(test: &StationTest) -> String {
    let time = |ms: Option<u64>| ms.map_or("no".into(), |ms| format!("after {ms} ms"));
    let shows = |on: Option<bool>| match on {
        Some(true) => "shows power",
        Some(false) => "shows no power",
        None => "not wired",
    };
    let meter = match (test.metered, test.register_wh) {
        (false, _) => "none".into(),
        (true, None) => "silent".into(),
        (true, Some(wh)) => {
            let power = test.power_mw.map_or("-".into(), |mw| format!("{} W", mw / 1_000));
            format!("{wh} Wh, {power}")
        }
    };
    let problems: String = test.problems.iter().map(|problem| format!("  ! {problem}\n")).collect();
    let verdict = if test.problems.is_empty() { "all well\n" } else { "" };
    format!(
        "relay closed    {}\ncontactor       {}\nmeter           {meter}\nrelay open      {}\n\
         contactor       {}\nsession         {}\n{verdict}{problems}",
        time(test.closed_after_ms),
        shows(test.feedback_closed),
        time(test.opened_after_ms),
        shows(test.feedback_open),
        test.session,
    )
}
