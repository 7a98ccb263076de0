//! `tapgate session`: who uses what, and how a session is ended by hand.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::{Format, client};
use crate::core::view::{SessionView, StationView};
use crate::protocol::control::Maintenance;

/// What is done to sessions.
#[derive(Subcommand)]
pub(super) enum SessionCommand {
    /// List the open sessions
    #[command(after_help = "Example:\n  tapgate session list --json | jq '.[].station'")]
    List {
        #[command(flatten)]
        format: Format,
    },
    /// End a session: a charger's at once, a machine's when it is idle
    #[command(after_help = "Example:\n  tapgate session end washer-1\n\nNames a session or its \
        station. A wash is not cut under load unless --now is given.")]
    End {
        /// The session's id, or its station
        session: String,
        /// Also under load
        #[arg(long)]
        now: bool,
    },
}

/// Runs one of them.
pub(super) fn run(config: &Path, command: SessionCommand) -> ExitCode {
    match command {
        SessionCommand::List { format } => list(config, format.json),
        SessionCommand::End { session, now } => {
            client::change(config, Maintenance::EndSession { session, now })
        }
    }
}

fn list(config: &Path, json: bool) -> ExitCode {
    let status = match client::status(config) {
        Ok(status) => status,
        Err(code) => return code,
    };
    let open = |view: &'_ StationView| view.session.clone().map(|session| (view.clone(), session));
    let sessions: Vec<(StationView, SessionView)> =
        status.stations.iter().filter_map(open).collect();
    if json {
        let shown: Vec<serde_json::Value> = sessions.iter().map(as_json).collect();
        println!("{}", serde_json::Value::from(shown));
        return ExitCode::SUCCESS;
    }
    println!("{:<36}  {:<16} {:<12} {:>8} {:>10}", "SESSION", "STATION", "USER", "SINCE", "ENERGY");
    for (view, session) in &sessions {
        let user = session.user.as_ref().map_or("-", |user| user.as_str());
        let minutes = session.duration_s / 60;
        let energy = session.energy_wh.map_or("-".into(), |wh| format!("{wh} Wh"));
        println!(
            "{:<36}  {:<16} {user:<12} {minutes:>4} min {energy:>10}",
            session.session.to_string(),
            view.station.as_str()
        );
    }
    ExitCode::SUCCESS
}

/// The session with the station that it is on.
fn as_json((view, session): &(StationView, SessionView)) -> serde_json::Value {
    let mut shown = serde_json::json!(session);
    shown["station"] = view.station.as_str().into();
    shown["state"] = view.state.as_str().into();
    shown
}
