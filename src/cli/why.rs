//! `tapgate why`: what a tap would come to, and what led to it.

use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::cli::badge::{Named, known_lines, list_line};
use crate::cli::client::{self, ask};
use crate::cli::{EXIT_USAGE, Format};
use crate::config;
use crate::core::badge::Technology;
use crate::core::ids::StationId;
use crate::core::time::Wall;
use crate::daemon::EXIT_CONFIG;
use crate::protocol::badges::{BadgeReply, BadgeRequest, WhyReport};
use crate::protocol::control::{Reply, Request};

#[derive(clap::Args)]
pub(super) struct Question {
    /// The badge: its UID, with or without separators, or the operator's id of it
    #[arg(value_name = "UID")]
    badge: String,
    /// The station
    #[arg(value_name = "STATION", required = true)]
    station: Vec<String>,
    /// When: RFC 3339, or the site's local time such as "2026-11-22 21:30" (default: now)
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// What kind of card it is; a number alone does not tell
    #[arg(long, value_name = "NAME", value_parser = technology,
        default_value = "mifare-classic-1k")]
    technology: Technology,
    #[command(flatten)]
    format: Format,
}

/// Asks the daemon, which decides as it would for a tap.
pub(super) fn run(config: &Path, question: Question) -> ExitCode {
    answer(config, question).map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

fn answer(config_file: &Path, question: Question) -> Result<(), ExitCode> {
    // A UID that was typed with spaces comes in several words; the station is the last.
    let mut words = vec![question.badge];
    words.extend(question.station);
    let station = words.pop().unwrap_or_default();
    let badge = Named::text(&words)?;
    let at = question.at.map(|at| time(config_file, &at)).transpose()?;
    let station = StationId::from(station.as_str());
    let technology = question.technology;
    let request = Request::Badge { ask: BadgeRequest::Why { badge, station, at, technology } };
    let report = ask(config_file, &request, |reply| {
        if let Reply::Badge(BadgeReply::Why(report)) = reply { Some(report) } else { None }
    })?;
    if question.format.json { client::print_json(&report) } else { client::print(&render(&report)) }
}

fn render(report: &WhyReport) -> String {
    let reason = report.reason.map_or(String::new(), |reason| format!(": {reason}"));
    let row =
        report.rule.map_or(String::new(), |row| format!(" (row {row} of the decision table)"));
    let mut lines = vec![
        format!("{}{reason}{row}", report.decision),
        format!("  {}", report.explanation),
        format!("{:<10} {}, {}", "station", report.station, report.technology.as_str()),
    ];
    lines.extend(known_lines(&report.known));
    lines.extend(report.read_as.iter().map(|form| format!("{:<10} {form}", "read as")));
    lines.extend(report.hints.iter().map(|hint| format!("{:<10} {hint}", "or")));
    lines.push(list_line(report.allowlist.as_ref()));
    lines.push(format!("{:<10} {}, clock {}", "at", report.at, report.clock));
    lines.join("\n") + "\n"
}

/// RFC 3339, or a local time of the site.
fn time(config_file: &Path, text: &str) -> Result<Wall, ExitCode> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(Wall(timestamp.as_millisecond()));
    }
    let config = config::load(config_file).map_err(|errors| {
        eprintln!("{errors}");
        ExitCode::from(EXIT_CONFIG)
    })?;
    local_time(text, &config.site.policy.timezone).ok_or_else(|| {
        eprintln!(
            "tapgate: {text:?} is no time; write 2026-11-22T21:30:00Z or \"2026-11-22 21:30\""
        );
        ExitCode::from(EXIT_USAGE)
    })
}

fn local_time(text: &str, zone: &TimeZone) -> Option<Wall> {
    let civil: DateTime = text.parse().ok()?;
    Some(Wall(zone.to_timestamp(civil).ok()?.as_millisecond()))
}

fn technology(name: &str) -> Result<Technology, String> {
    let known = Technology::ALL.into_iter().find(|technology| technology.as_str() == name);
    known.ok_or_else(|| {
        let names: Vec<&str> = Technology::ALL.iter().map(|known| known.as_str()).collect();
        format!("one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_local_time_in_the_sites_zone() {
        let zurich = TimeZone::get("Europe/Zurich").expect("tzdata is installed");
        let wall = |text: &str| {
            Some(Wall(text.parse::<Timestamp>().expect("a timestamp").as_millisecond()))
        };
        for (text, expected) in [
            ("2026-11-22 21:30", wall("2026-11-22T20:30:00Z")),
            ("2026-07-01T06:00:05", wall("2026-07-01T04:00:05Z")),
            ("tomorrow", None),
            ("21:30", None),
        ] {
            assert_eq!(local_time(text, &zurich), expected, "{text}");
        }
    }
}
