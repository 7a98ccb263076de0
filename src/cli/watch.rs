//! `tapgate watch`: what happens, as lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::cli::client;
use crate::daemon::EXIT_FAILURE;
use crate::protocol::control::{Reply, Request};
use crate::protocol::figures::Figures;
use crate::protocol::watch::Seen;

/// Between two looks for a daemon that went away.
const LOOK: Duration = Duration::from_secs(1);
/// The daemon says at once that it takes a watcher.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest line: an event with all its figures takes less than 2 KiB.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// Why following ended.
enum End {
    /// The daemon stopped, restarts or took over another config.
    DaemonGone,
    /// Nobody reads what is printed.
    OutputClosed,
}

/// Follows until Ctrl-C, across restarts of the daemon.
pub(super) fn run(config: &Path, json: bool) -> ExitCode {
    let socket = match client::socket_of(config) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    let mut stream = match client::send(&socket, &Request::Watch {}) {
        Ok(stream) => stream,
        Err(error) => return client::explain(&socket, &error),
    };
    loop {
        match follow(stream, json) {
            Ok(End::DaemonGone) => {}
            Ok(End::OutputClosed) => return ExitCode::SUCCESS,
            Err(code) => return code,
        }
        eprintln!("tapgate: the daemon is gone; waiting for it, Ctrl-C ends");
        stream = loop {
            std::thread::sleep(LOOK);
            if let Ok(stream) = client::send(&socket, &Request::Watch {}) {
                break stream;
            }
        };
        eprintln!("tapgate: the daemon is back");
    }
}

fn follow(stream: UnixStream, json: bool) -> Result<End, ExitCode> {
    // Without it a daemon that hangs would never be noticed here.
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let mut lines = BufReader::new(stream);
    let Some(first) = next_line(&mut lines) else { return Ok(End::DaemonGone) };
    match serde_json::from_str(&first) {
        Ok(Reply::Watching {}) => {}
        Ok(Reply::Error(why)) => {
            eprintln!("tapgate: {why}");
            return Err(ExitCode::from(EXIT_FAILURE));
        }
        Ok(_) | Err(_) => return Err(client::out_of_step()),
    }
    let _ = lines.get_ref().set_read_timeout(None);
    let zone = TimeZone::system();
    while let Some(line) = next_line(&mut lines) {
        let shown = if json { line } else { rendered(&line, &zone) };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{}", shown.trim_end()).and_then(|()| out.flush()).is_err() {
            return Ok(End::OutputClosed);
        }
    }
    Ok(End::DaemonGone)
}

fn next_line(lines: &mut BufReader<UnixStream>) -> Option<String> {
    let mut line = String::new();
    let read = lines.take(LINE_MAX_BYTES).read_line(&mut line);
    read.ok().filter(|bytes| *bytes > 0 && line.ends_with('\n')).map(|_| line)
}

/// One event as a person reads it; what is no event is shown as it came.
fn rendered(line: &str, zone: &TimeZone) -> String {
    let Ok(event) = serde_json::from_str::<Seen>(line) else { return line.to_owned() };
    let time = event.at.wall.timestamp().to_zoned(zone.clone()).strftime("%b %d %H:%M:%S");
    format!("{time}  {:<20} {}", event.kind, described(&event.fields))
}

/// What a person reads first; the rest follows by name.
const FIRST: [&str; 10] =
    ["device", "bus", "unit", "reader", "decision", "reason", "station", "state", "user", "badge"];
/// What only scripts want.
const TECHNICAL: [&str; 5] = ["session", "tapped", "boot_id", "digest", "list"];

fn described(fields: &Map<String, Value>) -> String {
    let first = FIRST.iter().filter_map(|name| fields.get_key_value(*name));
    let rest = fields
        .iter()
        .filter(|(name, _)| !FIRST.contains(&name.as_str()) && !TECHNICAL.contains(&name.as_str()));
    let shown = first.chain(rest).filter(|(_, value)| !value.is_null());
    let words = shown.map(|(name, value)| match value {
        Value::String(text) if text.contains(' ') => format!("{name}: {text}"),
        Value::String(text) => format!("{name}={text}"),
        Value::Object(_) => match serde_json::from_value::<Figures>(value.clone()) {
            Ok(figures) => format!("{}: {figures}", name.trim_end_matches("_figures")),
            Err(_) => format!("{name}={value}"),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            format!("{name}={value}")
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_for_people() {
        let denied = r#"{"at":{"boot":3,"uptime_ms":5,"wall":"2026-11-22T10:01:02.345Z",
            "synced":true},"kind":"denied","reader":"laundry","station":null,
            "reason":"unknown_badge","technology":"ntag","badge":null}"#;
        assert_eq!(
            rendered(denied, &TimeZone::UTC),
            "Nov 22 10:01:02  denied               \
             reader=laundry reason=unknown_badge technology=ntag"
        );

        let down = r#"{"at":{"boot":3,"uptime_ms":5,"wall":"2026-11-22T10:01:02.345Z",
            "synced":true},"kind":"unit_down","device":"meter-1","bus":"rtu","unit":11,
            "error":"no answer; check the wiring","unit_figures":{"requests":9,"errors":2,
            "error_rate_permille":222,"latency_p50_ms":8,"latency_p99_ms":23,
            "utilisation_percent":4}}"#;
        assert_eq!(
            rendered(down, &TimeZone::UTC),
            "Nov 22 10:01:02  unit_down            device=meter-1 bus=rtu unit=11 \
             error: no answer; check the wiring unit: 4 % busy, 8/23 ms, 22.2 % errors, 2 of 9"
        );
    }

    #[test]
    fn what_is_no_event_is_shown_as_it_came() {
        assert_eq!(rendered("what?", &TimeZone::UTC), "what?");
    }
}
