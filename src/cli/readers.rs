//! `tapgate readers`: which readers there are, and what they read.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::Format;
use crate::cli::badge;
use crate::cli::client::{self, ask};
use crate::daemon::EXIT_FAILURE;
use crate::protocol::badges::{BoundReader, PresentReader, ReadersReport, TapSeen, Taps};
use crate::protocol::control::{Reply, Request};

#[derive(Subcommand)]
pub(super) enum ReadersCommand {
    /// Present badges and see technology, number in all forms, and what the allowlist says
    #[command(after_help = "Examples:\n  tapgate readers watch\n  tapgate readers watch --once \
        --json\n\nThe taps count: a badge that is granted something starts it. Ends with Ctrl-C.")]
    Watch {
        /// End after the first badge
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        format: Format,
    },
}

/// Shows the readers; exit 1 where one of the config cannot be tapped.
pub(super) fn list(config: &Path, json: bool) -> ExitCode {
    let report = ask(config, &Request::Readers {}, |reply| {
        if let Reply::Readers(report) = reply { Some(report) } else { None }
    });
    let shown = report.and_then(|report| {
        let shown =
            if json { client::print_json(&report) } else { client::print(&render(&report)) };
        shown.map(|()| report)
    });
    match shown {
        Ok(report) if report.readers.iter().all(|reader| reader.state == "ready") => {
            ExitCode::SUCCESS
        }
        Ok(_) => ExitCode::from(EXIT_FAILURE),
        Err(code) => code,
    }
}

fn render(report: &ReadersReport) -> String {
    let mut text = String::new();
    for BoundReader { reader, state, detail, binding, selection, stations } in &report.readers {
        let stations: Vec<&str> = stations.iter().map(|station| station.as_str()).collect();
        let stations = stations.join(", ");
        text += &format!("{reader:<16} {state:<10} {detail}\n");
        text += &format!("{:<16} {binding}; {selection}: {stations}\n", "");
    }
    text += "\npcscd lists:\n";
    for PresentReader { name, serial, usb_port, reader } in &report.present {
        let reader = reader.as_ref().map_or("not bound", |reader| reader.as_str());
        let serial = serial.as_ref().map(|serial| format!("  serial = \"{serial}\""));
        let port = usb_port.as_ref().map(|port| format!("  usb_port = \"{port}\""));
        text += &format!("  {name:<40} {reader}{}{}\n", said(port), said(serial));
    }
    if report.present.is_empty() {
        text += "  no reader; check cables and power, then: pcsc_scan\n";
    }
    for problem in &report.problems {
        text += &format!("! {problem}\n");
    }
    text
}

fn said(part: Option<String>) -> String {
    part.unwrap_or_default()
}

/// Shows each card that is presented until Ctrl-C.
pub(super) fn watch(config: &Path, once: bool, json: bool) -> ExitCode {
    match follow(config, once, json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

fn follow(config: &Path, once: bool, json: bool) -> Result<(), ExitCode> {
    let mut after = None;
    loop {
        let Taps { upto, taps } = ask(config, &Request::NextTap { after }, |reply| {
            if let Reply::Taps(taps) = reply { Some(taps) } else { None }
        })?;
        if after.is_none() && !json {
            eprintln!("present a badge; Ctrl-C ends");
        }
        after = Some(upto);
        for tap in &taps {
            let line = serde_json::json!(tap);
            client::print(&if json { format!("{line}\n") } else { render_tap(tap) })?;
            if once {
                return Ok(());
            }
        }
    }
}

fn render_tap(tap: &TapSeen) -> String {
    let reader = match (&tap.reader, &tap.name) {
        (Some(reader), _) => format!("reader {reader}"),
        (None, Some(name)) => format!("{name:?}, which is bound to no reader of the config"),
        (None, None) => "unknown reader".into(),
    };
    let head = format!("{}  {reader}: {}\n", tap.at, tap.technology.as_str());
    match &tap.badge {
        Some(badge) => format!("{head}{}\n", badge::render(badge)),
        None if tap.reader.is_some() => {
            head + "no whole number: hold the card flat and longer, or it is no badge\n\n"
        }
        None => head + "the number is not read on such a reader\n\n",
    }
}
