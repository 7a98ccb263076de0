//! `tapgate station test`: closes a station's switch for two seconds and says what was seen.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::client;
use crate::core::ids::StationId;
use crate::daemon::EXIT_FAILURE;
use crate::protocol::control::{Reply, Request, StationTest};

/// Tests a station through the daemon: power without its record is not to be had.
pub(super) fn test(config: &Path, station: &str, json: bool) -> ExitCode {
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
